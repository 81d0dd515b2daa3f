//! `fingerprint`.

use std::io::Write;

use preverify_abi::ioctl::Info;
use preverify_abi::kinds::{Architecture, Bits};
use preverify_abi::manifest::Fingerprint;
use preverify_device::Device;

use super::{CommandError, hexadecimal};
use crate::json;

/// Shows what the kernel part says of this machine.
pub fn fingerprint(json: bool, out: &mut dyn Write) -> Result<(), CommandError> {
    let device = Device::open()?;
    let text = if json {
        as_json(device.info())
    } else {
        as_text(device.info())
    };
    writeln!(out, "{text}")?;
    Ok(())
}

fn build_id(info: &Info) -> String {
    let size = (info.build_id_size as usize).min(info.build_id.len());
    hexadecimal(&info.build_id[..size])
}

fn as_json(info: &Info) -> String {
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
    json::Object::default()
        .number("abi_version", info.abi_version)
        .text("build_id", &build_id(info))
        .raw("fingerprint", &fingerprint.finish())
        .finish()
}

/// In the words that `preverify` has for a target, so that both can be laid side by side.
fn as_text(info: &Info) -> String {
    let fingerprint = &info.fingerprint;
    let returns = match fingerprint.return_thunk.get() {
        0 => "plain".to_owned(),
        offset => format!("through _text+{offset:#x}"),
    };
    let cfi = match fingerprint.cfi_mode.get() {
        0 => "none".to_owned(),
        mode => format!("mode {mode}"),
    };
    [
        ("kernel part", format!("version {}", info.abi_version)),
        ("build id", build_id(info)),
        (
            "architecture",
            Architecture(fingerprint.arch.get()).to_string(),
        ),
        ("page size", format!("2^{}", fingerprint.page_shift)),
        ("address bits", fingerprint.va_bits.to_string()),
        ("CPUs at most", fingerprint.cpu_limit.to_string()),
        (
            "JIT",
            Bits::jit(
                Architecture(fingerprint.arch.get()),
                fingerprint.jit_flags.get(),
            )
            .to_string(),
        ),
        (
            "verifier",
            Bits::policy(fingerprint.policy.get()).to_string(),
        ),
        ("returns", returns),
        ("JIT hardening", fingerprint.jit_harden.to_string()),
        ("CFI", cfi),
    ]
    .map(|(name, value)| format!("{name:13}  {value}"))
    .join("\n")
}

#[cfg(test)]
mod tests {
    use preverify_abi::manifest::{JIT_X86_BMI2, JIT_X86_RETHUNK};
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
        let text = as_text(&info());
        for line in [
            "build id       ab00cd",
            "architecture   x86_64",
            "page size      2^12",
            "JIT            BMI2, return thunks",
            "verifier       unknown bits 0x10000000000",
            "returns        through _text+0x1000",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn as_programs_read_it() {
        assert_eq!(
            as_json(&info()),
            concat!(
                r#"{"abi_version":1,"build_id":"ab00cd","fingerprint":{"arch":62,"page_shift":12,"#,
                r#""va_bits":48,"cpu_limit":4,"jit_flags":33,"policy":1099511627776,"#,
                r#""return_thunk":4096,"jit_harden":0,"cfi_mode":0}}"#
            )
        );
    }

    #[test]
    fn sizes_that_lie_are_survived() {
        let mut info = info();
        info.build_id_size = u32::MAX;
        assert_eq!(build_id(&info).len(), 64);
    }
}
