//! What is different from one architecture to another, for the project's own commands.

use std::fmt;

use clap::ValueEnum;
use preverify_abi::kinds::Architecture;

/// An architecture that devices have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Arch {
    /// 64-bit x86.
    #[value(name = "x86_64")]
    X86_64,
    /// 64-bit arm.
    Arm64,
    /// 32-bit arm.
    Arm,
}

impl Arch {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::X86_64, Self::Arm64, Self::Arm];

    /// The same in the words of bundles.
    pub fn architecture(self) -> Architecture {
        match self {
            Self::X86_64 => Architecture::X86_64,
            Self::Arm64 => Architecture::ARM64,
            Self::Arm => Architecture::ARM,
        }
    }

    /// The target that is used where none is named.
    pub fn target(self) -> &'static str {
        match self {
            Self::X86_64 => preverify_lab::TARGET,
            Self::Arm64 => "debian:6.12-cloud-arm64",
            Self::Arm => "debian:6.1-armmp",
        }
    }

    /// The macro that libbpf's headers find registers by.
    pub fn define(self) -> &'static str {
        match self {
            Self::X86_64 => "-D__TARGET_ARCH_x86",
            Self::Arm64 => "-D__TARGET_ARCH_arm64",
            Self::Arm => "-D__TARGET_ARCH_arm",
        }
    }

    /// Where the C library's and the kernel's headers are on this host. The BPF target has no system headers of its
    /// own.
    pub fn system_includes(self) -> &'static [&'static str] {
        match self {
            Self::X86_64 => &["/usr/include/x86_64-linux-gnu", "/usr/include"],
            // The second one has what is the same everywhere, libbpf's headers among it.
            Self::Arm64 => &["/usr/aarch64-linux-gnu/include", "/usr/include"],
            Self::Arm => &["/usr/arm-linux-gnueabihf/include", "/usr/include"],
        }
    }

    /// What the names of binutils and gcc for it start with on this host.
    pub fn tools(self) -> &'static str {
        match self {
            Self::X86_64 => "",
            Self::Arm64 => "aarch64-linux-gnu-",
            Self::Arm => "arm-linux-gnueabihf-",
        }
    }

    /// What Rust calls it, with the C library of static binaries.
    pub fn triple(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
            Self::Arm => "armv7-unknown-linux-gnueabihf",
        }
    }

    /// Where Debian's packages have its libraries.
    pub fn multiarch(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-linux-gnu",
            Self::Arm64 => "aarch64-linux-gnu",
            Self::Arm => "arm-linux-gnueabihf",
        }
    }

    /// What the kernel's build calls it.
    pub fn in_kernel_builds(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "arm64",
            Self::Arm => "arm",
        }
    }

    /// The package of kernel headers with the BTF of the kernel that the selftests are compiled for. Debian's kernels
    /// for 32-bit arm have no BTF.
    pub fn headers_with_btf(self) -> Option<&'static str> {
        match self {
            Self::X86_64 => Some("linux-headers-6.12-cloud-amd64"),
            Self::Arm64 => Some("linux-headers-6.12-cloud-arm64"),
            Self::Arm => None,
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.architecture().fmt(f)
    }
}

impl From<Architecture> for Arch {
    /// Targets are of no other architecture.
    fn from(architecture: Architecture) -> Self {
        match architecture {
            Architecture::ARM64 => Self::Arm64,
            Architecture::ARM => Self::Arm,
            _ => Self::X86_64,
        }
    }
}
