//! Machines of QEMU's that are like a board.

use preverify_abi::kinds::Architecture;
use preverify_abi::manifest::{
    Fingerprint, JIT_ARM64_LSE, JIT_ARM64_VHE, JIT_X86_BMI2, JIT_X86_CALL_DEPTH,
    JIT_X86_INDIRECT_THUNK_ITS, JIT_X86_RETHUNK, JIT_X86_RETPOLINE, JIT_X86_RETPOLINE_LFENCE,
    POLICY_BYPASS_SPEC_V1, POLICY_READ_KERNEL, POLICY_WRITE_USER,
};

use crate::hardware::{HardwareRequest, MOST_CPUS};

const SHIFT_OF_16K: u32 = 14;
/// Bits of an address on x86_64 with five levels of page tables.
const FIVE_LEVELS: u32 = 57;
/// `net.core.bpf_jit_harden` for those who may do everything.
const BLINDED: u32 = 2;

/// What a board has that no verifier VM can have, and why.
pub(super) fn obstacle(board: &Fingerprint) -> Option<(String, &'static str)> {
    let (bits, cpus) = (board.va_bits.get(), board.cpu_limit.get());
    let locked_down = !board.policy.get() & (POLICY_READ_KERNEL | POLICY_WRITE_USER);
    if architecture(board) == Architecture::ARM64 && bits > 48 {
        Some((
            format!("addresses of {bits} bits"),
            "there they take longer code than images can have. Without --fingerprint, the target has 48, and the \
             board loads bytecode images; booted with `arm64.nolva`, it has 48, too",
        ))
    } else if locked_down != 0 {
        Some((
            "a kernel that is locked down".to_owned(),
            "one in a verifier VM is not, because the kernel part is not signed there; and bundles for the one are \
             not for the other",
        ))
    } else if board.jit_harden.get() >= BLINDED {
        Some((
            format!("net.core.bpf_jit_harden={}", board.jit_harden),
            "where constants are blinded, no image can be loaded. Set it to 1 or 0 there, and take the fingerprint \
             again",
        ))
    } else if !(1..=MOST_CPUS).contains(&cpus) {
        Some((
            format!("{cpus} possible CPUs"),
            "verifier VMs can have 1 to 255",
        ))
    } else {
        None
    }
}

/// The machine that is most like a board. x86_64: `return_thunk` is the name of the symbol that functions return
/// through there, as soon as that is known.
pub(super) fn like(board: &Fingerprint, return_thunk: Option<&str>) -> HardwareRequest {
    let mut words = Vec::new();
    let (cpu, el2) = match architecture(board) {
        Architecture::ARM64 => (Some(arm64_cpu(board).to_owned()), has(board, JIT_ARM64_VHE)),
        Architecture::X86_64 => {
            let (model, mitigation) = x86_model(board, return_thunk);
            words.extend(mitigation.map(str::to_owned));
            words.extend(x86_spectre(board).map(str::to_owned));
            (Some(x86_cpu(model, board)), false)
        }
        _ => (None, false),
    };
    if !is_mitigated(board) {
        words = vec!["mitigations=off".to_owned()];
    }
    if board.jit_harden != 0 {
        words.push(jit_harden(board));
    }
    HardwareRequest {
        cpu,
        el2: Some(el2),
        command_line: Some(words.join(" ")),
        max_cpus: Some(board.cpu_limit.get()),
        ..HardwareRequest::default()
    }
}

/// Code is the same for all CPUs with the same features. Those with atomic instructions may have VHE; no CPU has VHE
/// without them, but a kernel may be built so.
fn arm64_cpu(board: &Fingerprint) -> &'static str {
    if has(board, JIT_ARM64_LSE) || has(board, JIT_ARM64_VHE) {
        "neoverse-n1"
    } else if board.page_shift == SHIFT_OF_16K {
        // Of those without, one that has such pages.
        "cortex-a35"
    } else {
        "cortex-a72"
    }
}

/// Why functions return through a thunk depends on the CPU's model: that model, and what else it takes.
fn x86_model(
    board: &Fingerprint,
    return_thunk: Option<&str>,
) -> (&'static str, Option<&'static str>) {
    if has(board, JIT_X86_CALL_DEPTH) {
        return ("Skylake-Client", Some("retbleed=stuff"));
    }
    match return_thunk {
        Some("retbleed_return_thunk") => ("EPYC-Rome", Some("spec_rstack_overflow=off")),
        Some("srso_alias_return_thunk") => ("EPYC-Milan", None),
        Some("its_return_thunk") => ("Skylake-Client", None),
        _ if has(board, JIT_X86_INDIRECT_THUNK_ITS) => ("Skylake-Client", None),
        _ if has(board, JIT_X86_RETHUNK) => ("EPYC-Rome", None),
        _ => ("max", None),
    }
}

/// Emulated CPUs need retpolines. Those that do not have nothing in their place that would show in code.
fn x86_spectre(board: &Fingerprint) -> Option<&'static str> {
    if has(board, JIT_X86_RETPOLINE_LFENCE) {
        Some("spectre_v2=retpoline,lfence")
    } else if has(board, JIT_X86_RETPOLINE) {
        None
    } else {
        Some("spectre_v2=off")
    }
}

fn x86_cpu(model: &str, board: &Fingerprint) -> String {
    let switch = |on| if on { "on" } else { "off" };
    let bmi2 = switch(has(board, JIT_X86_BMI2));
    let la57 = switch(board.va_bits == FIVE_LEVELS);
    format!("{model},bmi2={bmi2},la57={la57}")
}

/// Sets it when the kernel boots.
fn jit_harden(board: &Fingerprint) -> String {
    format!("sysctl.net.core.bpf_jit_harden={}", board.jit_harden)
}

/// The options that may make a machine more like a board.
pub(super) fn remedies(
    here: &Fingerprint,
    board: &Fingerprint,
    return_thunk: Option<&str>,
) -> Vec<String> {
    let jit = here.jit_flags.get() ^ board.jit_flags.get();
    let mut remedies = Vec::new();
    let mut add = |differs: bool, remedy: &str| {
        if differs {
            remedies.push(remedy.to_owned());
        }
    };
    add(
        here.cpu_limit < board.cpu_limit,
        &format!("--max-cpus {}", board.cpu_limit),
    );
    add(
        here.policy != board.policy,
        "--cmdline: mitigations=off if the board's /proc/cmdline has it, and only then",
    );
    add(
        here.jit_harden != board.jit_harden,
        &format!("--cmdline {}", jit_harden(board)),
    );
    match architecture(board) {
        Architecture::ARM64 => {
            add(
                jit & JIT_ARM64_LSE != 0,
                "--cpu: neoverse-n1, cortex-a76 and max have LSE atomics, cortex-a53 and cortex-a72 do not",
            );
            add(
                jit & JIT_ARM64_VHE != 0,
                "--el2 with --cpu neoverse-n1, cortex-a76 or max has VHE; without --el2, no machine has it",
            );
        }
        Architecture::X86_64 => {
            let features = jit & JIT_X86_BMI2 != 0 || here.va_bits != board.va_bits;
            let thunk = here.return_thunk != board.return_thunk;
            let known = thunk && return_thunk.is_some();
            add(features || known, &options(&like(board, return_thunk)));
            add(
                jit & JIT_X86_INDIRECT_THUNK_ITS != 0,
                "KVM and --cpu host on a like processor: ITS-safe thunks stand in for retpolines where the CPU has \
                 (enhanced) IBRS, which QEMU does not emulate",
            );
            add(
                jit & !JIT_X86_BMI2 != 0 || thunk && !known,
                "--cpu and --cmdline (mitigations=, spectre_v2=, retbleed=, spec_rstack_overflow=, \
                 indirect_target_selection=): the board's /sys/devices/system/cpu/vulnerabilities and /proc/cmdline \
                 say what it has",
            );
            add(here.cfi_mode != board.cfi_mode, "--cmdline: cfi=");
        }
        _ => {}
    }
    remedies
}

fn options(request: &HardwareRequest) -> String {
    let HardwareRequest {
        cpu, command_line, ..
    } = request;
    let line = command_line.as_deref().unwrap_or_default();
    format!(
        "--cpu {} --cmdline '{line}'",
        cpu.as_deref().unwrap_or_default()
    )
}

fn architecture(fingerprint: &Fingerprint) -> Architecture {
    Architecture(fingerprint.arch.get())
}

fn is_mitigated(board: &Fingerprint) -> bool {
    board.policy.get() & POLICY_BYPASS_SPEC_V1 == 0
}

fn has(fingerprint: &Fingerprint, flag: u64) -> bool {
    fingerprint.jit_flags.get() & flag != 0
}

#[cfg(test)]
mod tests {
    use preverify_abi::manifest::{
        ARCH_ARM, ARCH_ARM64, ARCH_X86_64, JIT_ARM64_BTI, JIT_ARM64_PAC, JIT_X86_IBT,
        POLICY_BYPASS_SPEC_V4,
    };

    use super::*;

    type Change = fn(&mut Fingerprint);

    const UNLOCKED: u64 = POLICY_READ_KERNEL | POLICY_WRITE_USER;

    fn board(arch: u32, jit_flags: u64) -> Fingerprint {
        Fingerprint {
            arch: arch.into(),
            page_shift: 12.into(),
            va_bits: 48.into(),
            cpu_limit: 4.into(),
            jit_flags: jit_flags.into(),
            policy: UNLOCKED.into(),
            ..Fingerprint::default()
        }
    }

    /// CPU, exception level 2, command line.
    fn chosen(board: &Fingerprint, return_thunk: Option<&str>) -> (String, bool, String) {
        assert_eq!(obstacle(board), None);
        let like = like(board, return_thunk);
        assert_eq!(like.max_cpus, Some(4));
        (
            like.cpu.unwrap_or_default(),
            like.el2.unwrap(),
            like.command_line.unwrap(),
        )
    }

    #[test]
    fn arm64_by_its_atomics_and_exception_level() {
        const CONFIGURED: u64 = JIT_ARM64_PAC | JIT_ARM64_BTI;
        for (flags, page_shift, cpu, el2) in [
            (0, 12, "cortex-a72", false),
            (CONFIGURED, 16, "cortex-a72", false),
            (CONFIGURED, 14, "cortex-a35", false),
            (JIT_ARM64_LSE, 12, "neoverse-n1", false),
            (JIT_ARM64_LSE | CONFIGURED, 14, "neoverse-n1", false),
            (JIT_ARM64_LSE | JIT_ARM64_VHE, 12, "neoverse-n1", true),
            (JIT_ARM64_VHE, 12, "neoverse-n1", true),
        ] {
            let mut board = board(ARCH_ARM64, flags);
            board.page_shift = page_shift.into();
            let expected = (cpu.to_owned(), el2, String::new());
            assert_eq!(chosen(&board, None), expected, "{flags:#x}");
        }
    }

    #[test]
    fn x86_64_by_its_features_and_mitigations() {
        const USUAL: u64 = JIT_X86_BMI2 | JIT_X86_RETPOLINE | JIT_X86_IBT;
        const THUNK: u64 = USUAL | JIT_X86_RETHUNK;
        for (flags, thunk, model, line) in [
            (USUAL, None, "max", ""),
            (USUAL & !JIT_X86_RETPOLINE, None, "max", "spectre_v2=off"),
            (
                USUAL | JIT_X86_RETPOLINE_LFENCE,
                None,
                "max",
                "spectre_v2=retpoline,lfence",
            ),
            (THUNK, None, "EPYC-Rome", ""),
            (THUNK, Some("srso_return_thunk"), "EPYC-Rome", ""),
            (THUNK, Some("srso_alias_return_thunk"), "EPYC-Milan", ""),
            (
                THUNK,
                Some("retbleed_return_thunk"),
                "EPYC-Rome",
                "spec_rstack_overflow=off",
            ),
            (THUNK, Some("its_return_thunk"), "Skylake-Client", ""),
            (
                THUNK & !JIT_X86_RETPOLINE,
                Some("srso_alias_return_thunk"),
                "EPYC-Milan",
                "spectre_v2=off",
            ),
            (
                THUNK | JIT_X86_CALL_DEPTH,
                None,
                "Skylake-Client",
                "retbleed=stuff",
            ),
        ] {
            let found = chosen(&board(ARCH_X86_64, flags), thunk);
            let cpu = format!("{model},bmi2=on,la57=off");
            assert_eq!(found, (cpu, false, line.to_owned()), "{flags:#x} {thunk:?}");
        }
        let mut large = board(ARCH_X86_64, JIT_X86_RETPOLINE);
        large.va_bits = 57.into();
        assert_eq!(chosen(&large, None).0, "max,bmi2=off,la57=on");
    }

    #[test]
    fn the_command_line_says_what_the_kernel_was_told() {
        for (arch, cpu) in [
            (ARCH_X86_64, "max,bmi2=on,la57=off"),
            (ARCH_ARM64, "neoverse-n1"),
            (ARCH_ARM, ""),
        ] {
            let mut board = board(arch, 1);
            board.policy = (UNLOCKED | POLICY_BYPASS_SPEC_V1 | POLICY_BYPASS_SPEC_V4).into();
            board.jit_harden = 1.into();
            let line = "mitigations=off sysctl.net.core.bpf_jit_harden=1";
            let expected = (cpu.to_owned(), false, line.to_owned());
            assert_eq!(chosen(&board, None), expected);
        }
    }

    #[test]
    fn what_no_machine_can_be_is_named() {
        let changes: [(&str, Change); 6] = [
            ("addresses of 52 bits", |board| board.va_bits = 52.into()),
            ("locked down", |board| {
                board.policy = POLICY_WRITE_USER.into();
            }),
            ("locked down", |board| board.policy = 0.into()),
            ("bpf_jit_harden=2", |board| board.jit_harden = 2.into()),
            ("0 possible CPUs", |board| board.cpu_limit = 0.into()),
            ("256 possible CPUs", |board| board.cpu_limit = 256.into()),
        ];
        for (name, change) in changes {
            let mut board = board(ARCH_ARM64, 0);
            change(&mut board);
            let (what, why) = obstacle(&board).unwrap();
            assert!(what.contains(name), "{what}");
            assert!(!why.is_empty());
        }
        let mut large = board(ARCH_X86_64, 0);
        large.va_bits = 57.into();
        assert_eq!(obstacle(&large), None);
    }

    #[test]
    fn remedies_are_for_what_differs() {
        let here = board(ARCH_ARM64, 0);
        assert!(remedies(&here, &here, None).is_empty());
        let there = board(ARCH_ARM64, JIT_ARM64_VHE);
        let found = remedies(&here, &there, None);
        assert!(found.len() == 1 && found[0].contains("--el2"), "{found:?}");

        let mut there = board(ARCH_X86_64, JIT_X86_RETHUNK | JIT_X86_RETPOLINE);
        there.return_thunk = 0x10.into();
        let mut here = there;
        here.return_thunk = 0x20.into();
        let found = remedies(&here, &there, Some("srso_alias_return_thunk"));
        assert!(
            found[0].starts_with("--cpu EPYC-Milan,bmi2=off,la57=off"),
            "{found:?}"
        );
        here.jit_harden = 1.into();
        here.cpu_limit = 2.into();
        let found = remedies(&here, &there, None);
        for expected in ["--max-cpus 4", "bpf_jit_harden=0"] {
            assert!(
                found.iter().any(|found| found.contains(expected)),
                "{found:?}"
            );
        }
    }
}
