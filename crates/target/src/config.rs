//! A kernel's configuration: what must be in it, and what of it is worth knowing.

use std::collections::BTreeMap;

use crate::arch::Arch;
use crate::error::TargetError;

/// A kernel's configuration.
#[derive(Debug)]
pub(crate) struct Config<'a> {
    options: BTreeMap<&'a str, &'a str>,
}

/// Options without which a kernel cannot be a target, and what needs them.
const NEEDED: &[(&str, &str)] = &[
    ("BPF_SYSCALL", "there is no BPF without it"),
    ("BPF_JIT", "there is no machine code without it"),
    ("MODULES", "the kernel part is a module"),
    (
        "KALLSYMS",
        "the kernel part looks the kernel's functions up by name",
    ),
    (
        "KPROBES",
        "the kernel part finds the look-up of symbols by a probe",
    ),
    ("BLK_DEV_INITRD", "the agent lies in an initial file system"),
    ("DEVTMPFS", "the agent finds its devices there"),
    ("VIRTIO_PCI", "the agent talks through a virtio device"),
    ("VIRTIO_CONSOLE", "the agent talks through a virtio port"),
];

const KASLR: (&str, &str) = (
    "RANDOMIZE_BASE",
    "addresses are told from constants by comparing boots with different layouts",
);
const BUS: (&str, &str) = (
    "PCI_HOST_GENERIC",
    "QEMU's machine `virt` has its devices on such a bus",
);
const CONSOLE: (&str, &str) = (
    "SERIAL_AMBA_PL011_CONSOLE",
    "QEMU's machine `virt` has no other console: what goes wrong would not be told",
);

/// What an architecture needs beside that.
const fn needed_by(arch: Arch) -> &'static [(&'static str, &'static str)] {
    match arch {
        Arch::X86_64 => &[
            ("X86_64", "its file is one of x86_64"),
            KASLR,
            (
                "KALLSYMS_ALL",
                "the kernel part looks data up by name, which code depends on here",
            ),
        ],
        Arch::Arm64 => &[("ARM64", "its file is one of arm64"), KASLR, BUS, CONSOLE],
        Arch::Arm => &[
            ("ARM", "its file is one of arm"),
            ("ARCH_VIRT", "QEMU's machine `virt` is what runs it"),
            BUS,
            CONSOLE,
        ],
    }
}

/// Options that decide over verdicts, code or the kernel part, for people to read.
const TELLING: &[&str] = &[
    "BPF_EVENTS",
    "BPF_JIT_ALWAYS_ON",
    "BPF_JIT_DEFAULT_ON",
    "BPF_KPROBE_OVERRIDE",
    "BPF_LSM",
    "BPF_STREAM_PARSER",
    "BPF_UNPRIV_DEFAULT_OFF",
    "CFI_CLANG",
    "CGROUP_BPF",
    "DEBUG_INFO_BTF",
    "DEBUG_INFO_BTF_MODULES",
    "DYNAMIC_FTRACE_WITH_DIRECT_CALLS",
    "KALLSYMS_ALL",
    "LSM",
    "LWTUNNEL_BPF",
    "MODULE_DECOMPRESS",
    "MODULE_SIG",
    "NET_CLS_BPF",
    "NR_CPUS",
    "SECURITY_LOCKDOWN_LSM",
    "SYSTEM_DATA_VERIFICATION",
    "UPROBE_EVENTS",
    "XDP_SOCKETS",
];

/// What does so on an architecture alone.
const fn telling_of(arch: Arch) -> &'static [&'static str] {
    match arch {
        Arch::X86_64 => &[
            "FINEIBT",
            "RANDOMIZE_MEMORY",
            "X86_5LEVEL",
            "X86_KERNEL_IBT",
        ],
        Arch::Arm64 => &["ARM64_BTI_KERNEL", "ARM64_PTR_AUTH_KERNEL", "ARM64_VA_BITS"],
        Arch::Arm => &["ARM_LPAE"],
    }
}

impl<'a> Config<'a> {
    /// Reads a `.config`. Lines that set nothing are comments to it.
    pub(crate) fn parse(text: &'a str) -> Self {
        let options = text
            .lines()
            .filter_map(|line| line.strip_prefix("CONFIG_")?.split_once('='))
            .collect();
        Self { options }
    }

    /// The value of an option, without `CONFIG_`. `None` if it is not set.
    pub(crate) fn get(&self, option: &str) -> Option<&'a str> {
        self.options.get(option).copied()
    }

    /// Refuses a kernel that cannot be a target.
    pub(crate) fn check(&self, arch: Arch, release: &str) -> Result<(), TargetError> {
        let missing = needed_by(arch)
            .iter()
            .chain(NEEDED)
            .filter(|(option, _)| !matches!(self.get(option), Some("y" | "m")))
            .map(|&(option, reason)| (format!("CONFIG_{option} is not set"), reason));
        let forced = (self.get("MODULE_SIG_FORCE") == Some("y")).then(|| {
            (
                "CONFIG_MODULE_SIG_FORCE is set".to_owned(),
                "it refuses the kernel part, which is not signed with the kernel's own key",
            )
        });
        let obstacles: Vec<_> = missing.chain(forced).collect();
        if obstacles.is_empty() {
            return Ok(());
        }
        Err(TargetError::Unfit {
            release: release.to_owned(),
            obstacles,
        })
    }

    /// The options that matter here with their values, `n` for those that are not set.
    pub(crate) fn telling(&self, arch: Arch) -> BTreeMap<String, String> {
        TELLING
            .iter()
            .chain(telling_of(arch))
            .map(|option| {
                let value = self.get(option).unwrap_or("n").trim_matches('"');
                ((*option).to_owned(), value.to_owned())
            })
            .collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A configuration that passes.
    pub(crate) fn fit(arch: Arch) -> String {
        needed_by(arch)
            .iter()
            .chain(NEEDED)
            .map(|(option, _)| format!("CONFIG_{option}=y\n"))
            .collect()
    }

    #[test]
    fn values_are_found_and_comments_are_not() {
        let config = Config::parse(
            "# CONFIG_BPF_LSM is not set\nCONFIG_LSM=\"lockdown,yama\"\nCONFIG_VIRTIO_PCI=m\n\n#\nX=y\n",
        );
        assert_eq!(config.get("BPF_LSM"), None);
        assert_eq!(config.get("VIRTIO_PCI"), Some("m"));
        let telling = config.telling(Arch::Arm64);
        assert_eq!(telling["LSM"], "lockdown,yama");
        assert_eq!(telling["BPF_LSM"], "n");
        assert_eq!(telling["ARM64_VA_BITS"], "n");
        assert!(!telling.contains_key("X86_5LEVEL"));
    }

    #[test]
    fn each_missing_option_is_named() {
        for arch in [Arch::X86_64, Arch::Arm64, Arch::Arm] {
            let whole = fit(arch);
            let check = |text: &str| Config::parse(text).check(arch, "6.12");
            check(&whole).unwrap();
            for (option, _) in needed_by(arch).iter().chain(NEEDED) {
                let text = whole.replace(&format!("CONFIG_{option}=y\n"), "");
                let error = check(&text).unwrap_err().to_string();
                assert!(
                    error.contains(&format!("CONFIG_{option} is not set")),
                    "{error}"
                );
            }
        }
    }

    #[test]
    fn forced_module_signatures_are_refused() {
        let text = fit(Arch::Arm64) + "CONFIG_MODULE_SIG_FORCE=y\n";
        let error = Config::parse(&text).check(Arch::Arm64, "6.12").unwrap_err();
        let error = error.to_string();
        assert!(error.contains("CONFIG_MODULE_SIG_FORCE is set"), "{error}");
    }
}
