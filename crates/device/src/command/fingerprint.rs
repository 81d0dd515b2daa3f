//! `fingerprint`.

use std::io::Write;

use preverify_abi::ioctl::Info;
use preverify_abi::manifest::Fingerprint;
use preverify_abi::words::{self, Matters};
use preverify_device::{Device, hexadecimal, running_release};

use super::CommandError;
use crate::json;

/// Shows what the kernel part says of this machine.
pub fn fingerprint(json: bool, out: &mut dyn Write) -> Result<(), CommandError> {
    let device = Device::open()?;
    let text = if json {
        as_json(device.info(), &running_release())
    } else {
        as_text(device.info(), &running_release())
    };
    writeln!(out, "{text}")?;
    Ok(())
}

fn as_json(info: &Info, release: &str) -> String {
    let Fingerprint {
        arch,
        page_shift,
        va_bits,
        cpu_limit,
        jit_flags,
        policy,
        return_thunk,
        jit_harden,
        cfi_mode,
        reserved: _,
    } = info.fingerprint;
    let fingerprint = json::Object::default()
        .number("arch", arch.get())
        .number("page_shift", page_shift.get())
        .number("va_bits", va_bits.get())
        .number("cpu_limit", cpu_limit.get())
        .number("jit_flags", jit_flags.get())
        .number("policy", policy.get())
        .number("return_thunk", return_thunk.get())
        .number("jit_harden", jit_harden.get())
        .number("cfi_mode", cfi_mode.get());
    let words = words::facts(&info.fingerprint, None)
        .fold(json::Object::default(), |words, fact| {
            words.text(fact.name, &fact.to_string())
        });
    json::Object::default()
        .number("abi_version", info.abi_version)
        .text("release", release)
        .text("build_id", &hexadecimal(info.build_id()))
        .raw("fingerprint", &fingerprint.finish())
        .raw("words", &words.finish())
        .finish()
}

/// In the words that `preverify` has for a target, so that both can be laid side by side.
fn as_text(info: &Info, release: &str) -> String {
    let line = |name: &str, value: &str| format!("{name:13}  {value}");
    let facts = |matters| {
        words::facts(&info.fingerprint, None)
            .filter(move |fact| fact.matters == matters)
            .map(|fact| line(fact.name, &fact.to_string()))
    };
    let mut lines = vec![
        line("kernel part", &format!("version {}", info.abi_version)),
        line("release", release),
        line("build id", &hexadecimal(info.build_id())),
    ];
    lines.extend(facts(Matters::Always));
    lines.push("and for native images:".to_owned());
    lines.extend(facts(Matters::ForNativeCode));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use preverify_abi::manifest::{
        ARCH_ARM64, JIT_ARM64_LSE, JIT_ARM64_PAC, JIT_ARM64_VHE, JIT_X86_BMI2, JIT_X86_RETHUNK,
    };
    use zerocopy::FromZeros;

    use super::*;

    fn info() -> Info {
        let mut info = Info::new_zeroed();
        info.abi_version = 1;
        info.build_id_size = 3;
        info.build_id[..3].copy_from_slice(&[0xab, 0, 0xcd]);
        info.fingerprint.arch = 62.into();
        info.fingerprint.page_shift = 12.into();
        info.fingerprint.va_bits = 48.into();
        info.fingerprint.cpu_limit = 4.into();
        info.fingerprint.jit_flags = (JIT_X86_BMI2 | JIT_X86_RETHUNK).into();
        info.fingerprint.policy = (1 << 40).into();
        info.fingerprint.return_thunk = 0x1000.into();
        info
    }

    #[test]
    fn as_people_read_it() {
        let text = as_text(&info(), "6.12.1");
        for line in [
            "build id       ab00cd",
            "architecture   x86_64",
            "page size      4 KiB",
            "JIT            BMI2, return thunks",
            "verifier       unknown bits 0x10000000000",
            "returns        through _text+0x1000",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn arm64_has_words_of_its_own() {
        let mut info = info();
        info.fingerprint.arch = ARCH_ARM64.into();
        info.fingerprint.page_shift = 16.into();
        info.fingerprint.va_bits = 52.into();
        info.fingerprint.jit_flags = (JIT_ARM64_LSE | JIT_ARM64_VHE | JIT_ARM64_PAC).into();
        info.fingerprint.return_thunk = 0.into();
        let text = as_text(&info, "6.12.1-arm64");
        assert_eq!(
            text.split_once("and for native images:\n").unwrap().1,
            "address bits   52\n\
             JIT            LSE atomics, VHE, pointer authentication\n\
             JIT hardening  0"
        );
        assert!(text.contains("\npage size      64 KiB\n"), "{text}");
        assert!(text.contains("\narchitecture   arm64\n"), "{text}");
    }

    #[test]
    fn as_programs_read_it() {
        assert_eq!(
            as_json(&info(), "6.12.1"),
            concat!(
                r#"{"abi_version":1,"release":"6.12.1","build_id":"ab00cd","fingerprint":{"arch":62,"#,
                r#""page_shift":12,"va_bits":48,"cpu_limit":4,"jit_flags":33,"policy":1099511627776,"#,
                r#""return_thunk":4096,"jit_harden":0,"cfi_mode":0},"words":{"architecture":"x86_64","#,
                r#""page size":"4 KiB","CPUs at most":"4","verifier":"unknown bits 0x10000000000","#,
                r#""address bits":"48","JIT":"BMI2, return thunks","returns":"through _text+0x1000","#,
                r#""JIT hardening":"0","CFI":"none"}}"#
            )
        );
    }

    #[test]
    fn sizes_that_lie_are_survived() {
        let mut info = info();
        info.build_id_size = u32::MAX;
        assert_eq!(info.build_id().len(), 32);
    }
}
