//! A kernel's configuration: what must be in it, and what of it is worth knowing.

use std::collections::BTreeMap;

use crate::error::TargetError;

/// A kernel's configuration.
#[derive(Debug)]
pub(crate) struct Config<'a> {
    options: BTreeMap<&'a str, &'a str>,
}

/// Options without which a kernel cannot be a target, and what needs them.
const NEEDED: &[(&str, &str)] = &[
    ("X86_64", "only x86_64 is supported so far"),
    ("BPF_SYSCALL", "there is no BPF without it"),
    ("BPF_JIT", "there is no machine code without it"),
    ("MODULES", "the kernel part is a module"),
    ("KALLSYMS", "the kernel part looks symbols up by name"),
    (
        "KPROBES",
        "the kernel part finds the look-up of symbols by a probe",
    ),
    ("BLK_DEV_INITRD", "the agent lies in an initial file system"),
    ("DEVTMPFS", "the agent finds its devices there"),
    ("VIRTIO_PCI", "the agent talks through a virtio device"),
    ("VIRTIO_CONSOLE", "the agent talks through a virtio port"),
    (
        "RANDOMIZE_BASE",
        "addresses are told from constants by comparing boots with different layouts",
    ),
];

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
    "FINEIBT",
    "KALLSYMS_ALL",
    "LSM",
    "LWTUNNEL_BPF",
    "MODULE_DECOMPRESS",
    "MODULE_SIG",
    "NET_CLS_BPF",
    "NR_CPUS",
    "RANDOMIZE_MEMORY",
    "SECURITY_LOCKDOWN_LSM",
    "SYSTEM_DATA_VERIFICATION",
    "UPROBE_EVENTS",
    "X86_5LEVEL",
    "X86_KERNEL_IBT",
    "XDP_SOCKETS",
];

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
    pub(crate) fn check(&self, release: &str) -> Result<(), TargetError> {
        let unfit = |setting: String, reason: &'static str| TargetError::Unfit {
            release: release.to_owned(),
            setting,
            reason,
        };
        for (option, reason) in NEEDED {
            if !matches!(self.get(option), Some("y" | "m")) {
                return Err(unfit(format!("CONFIG_{option} is not set"), reason));
            }
        }
        match self.get("MODULE_SIG_FORCE") {
            Some("y") => Err(unfit(
                "CONFIG_MODULE_SIG_FORCE is set".to_owned(),
                "it refuses the kernel part, which is not signed with the kernel's own key",
            )),
            _ => Ok(()),
        }
    }

    /// The options that matter here with their values, `n` for those that are not set.
    pub(crate) fn telling(&self) -> BTreeMap<String, String> {
        TELLING
            .iter()
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
    pub(crate) fn fit() -> String {
        NEEDED
            .iter()
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
        let telling = config.telling();
        assert_eq!(telling["LSM"], "lockdown,yama");
        assert_eq!(telling["BPF_LSM"], "n");
    }

    #[test]
    fn each_missing_option_is_named() {
        let whole = fit();
        Config::parse(&whole).check("6.12").unwrap();
        for (option, _) in NEEDED {
            let text = whole.replace(&format!("CONFIG_{option}=y\n"), "");
            let error = Config::parse(&text).check("6.12").unwrap_err().to_string();
            assert!(
                error.contains(&format!("CONFIG_{option} is not set")),
                "{error}"
            );
        }
    }

    #[test]
    fn forced_module_signatures_are_refused() {
        let text = fit() + "CONFIG_MODULE_SIG_FORCE=y\n";
        let error = Config::parse(&text).check("6.12").unwrap_err().to_string();
        assert!(error.contains("CONFIG_MODULE_SIG_FORCE is set"), "{error}");
    }
}
