//! What is different from one architecture to another.

use preverify_abi::kinds::Architecture;
use preverify_vm::MachineKind;
use serde::{Deserialize, Serialize};

/// An architecture that targets can have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Arch {
    #[default]
    #[serde(rename = "x86_64")]
    X86_64,
    Arm64,
    Arm,
}

/// How programs and kernel modules are made for an architecture on a host of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cross {
    /// What the kernel's build calls the architecture.
    pub arch: &'static str,
    /// What the names of the tools start with.
    pub prefix: &'static str,
    /// The compiler.
    pub compiler: &'static str,
    /// Debian's package of it, which brings the other tools.
    pub package: &'static str,
}

impl Arch {
    /// The same in the words of bundles.
    pub(crate) const fn architecture(self) -> Architecture {
        match self {
            Self::X86_64 => Architecture::X86_64,
            Self::Arm64 => Architecture::ARM64,
            Self::Arm => Architecture::ARM,
        }
    }

    /// The machine that QEMU makes for it.
    pub(crate) const fn machine(self, el2: bool) -> MachineKind {
        match self {
            Self::X86_64 => MachineKind::Pc,
            Self::Arm64 => MachineKind::Virt { el2 },
            Self::Arm => MachineKind::Virt32,
        }
    }

    /// The CPU that devices have if nothing else is said, by QEMU's name.
    pub(crate) const fn default_cpu(self) -> &'static str {
        match self {
            Self::X86_64 => "max",
            // To code, a Cortex-A53, A57 or A73 is the same: what boards without atomic instructions have. Others
            // take bytecode, or name their CPU. They are all equally fast to emulate.
            Self::Arm64 => "cortex-a72",
            Self::Arm => "cortex-a15",
        }
    }

    /// What builds for it, where the host's own tools do not.
    pub(crate) const fn cross(self) -> Option<Cross> {
        match self {
            Self::Arm64 if cfg!(not(target_arch = "aarch64")) => Some(Cross {
                arch: "arm64",
                prefix: "aarch64-linux-gnu-",
                compiler: "aarch64-linux-gnu-gcc",
                package: "gcc-aarch64-linux-gnu",
            }),
            Self::Arm => Some(Cross {
                arch: "arm",
                prefix: "arm-linux-gnueabihf-",
                compiler: "arm-linux-gnueabihf-gcc",
                package: "gcc-arm-linux-gnueabihf",
            }),
            Self::X86_64 | Self::Arm64 => None,
        }
    }

    /// Whether its kernels choose their addresses at boot.
    pub(crate) const fn has_kaslr(self) -> bool {
        match self {
            Self::X86_64 | Self::Arm64 => true,
            Self::Arm => false,
        }
    }

    /// What may be the reason if all boots have the same addresses.
    pub(crate) const fn layout_hint(self) -> &'static str {
        match self {
            Self::X86_64 => "leave `nokaslr` away, and give the machine a CPU with rdrand",
            Self::Arm64 => "leave `nokaslr` away",
            // Its boots are told apart without.
            Self::Arm => "this architecture's kernels have one layout",
        }
    }
}
