//! The kinds of machines: what QEMU's emulators for different processors want to be told.

use std::fmt;

use crate::accelerator::Accelerator;

/// A kind of machine.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum MachineKind {
    /// A PC with an x86_64 processor.
    Pc,
    /// A machine that exists only virtually, with a 64-bit arm processor.
    Virt {
        /// Kernels start at exception level 2, where hypervisors run; else at level 1, as in a guest.
        el2: bool,
    },
    /// The same with a 32-bit arm processor.
    Virt32,
}

/// A program of QEMU's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    pub name: &'static str,
    /// Debian's package of it.
    pub package: &'static str,
}

impl MachineKind {
    pub(crate) const fn program(self) -> Program {
        match self {
            Self::Pc => Program {
                name: "qemu-system-x86_64",
                package: "qemu-system-x86",
            },
            Self::Virt { .. } => Program {
                name: "qemu-system-aarch64",
                package: "qemu-system-arm",
            },
            Self::Virt32 => Program {
                name: "qemu-system-arm",
                package: "qemu-system-arm",
            },
        }
    }

    /// QEMU's machine, without the devices that no guest here uses.
    pub(crate) const fn machine(self) -> &'static str {
        match self {
            Self::Pc => "q35,usb=off,sata=off,smbus=off,vmport=off",
            // The older interrupt controller would end at eight CPUs.
            Self::Virt { el2: false } => "virt,gic-version=3",
            Self::Virt { el2: true } => "virt,gic-version=3,virtualization=on",
            // Kernels without large physical addresses find nothing of PCI above 4 GiB.
            Self::Virt32 => "virt,gic-version=2,highmem=off",
        }
    }

    /// What the kernel's command line must have.
    pub(crate) const fn command_line(self) -> &'static str {
        match self {
            // An emulated timer that is late is no broken timer.
            Self::Pc => "console=ttyS0 no_timer_check",
            Self::Virt { .. } | Self::Virt32 => "console=ttyAMA0",
        }
    }

    /// What a kernel's command line must have for messages before there is a console.
    pub const fn early_console(self) -> &'static str {
        match self {
            Self::Pc => "earlyprintk=ttyS0,115200",
            // The machine's device tree says which.
            Self::Virt { .. } | Self::Virt32 => "earlycon",
        }
    }

    /// QEMU's argument for a guest with so many running CPUs.
    pub(crate) const fn accelerator(self, accelerator: Accelerator, cpus: u32) -> &'static str {
        match (accelerator, self) {
            (Accelerator::Kvm, _) => "kvm",
            // With a thread for each CPU, one may still run what another has just patched: seen as a panic in
            // a static branch that was switched while both were up. Kernels for arm patch so that it may run either;
            // and with one thread for all CPUs, 32-bit ones hang.
            (Accelerator::Tcg, Self::Pc) if cpus > 1 => "tcg,thread=single",
            (Accelerator::Tcg, _) => "tcg,thread=multi",
        }
    }

    /// Whether this host's processor could run such a machine's code itself.
    pub const fn is_native(self) -> bool {
        match self {
            Self::Pc => cfg!(target_arch = "x86_64"),
            // Arm's own hypervisor mode cannot be given to a guest by the kernels of today.
            Self::Virt { el2 } => cfg!(target_arch = "aarch64") && !el2,
            Self::Virt32 => false,
        }
    }
}

impl fmt::Display for MachineKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Pc => "x86_64",
            Self::Virt { el2: false } => "arm64",
            Self::Virt { el2: true } => "arm64 at EL2",
            Self::Virt32 => "arm",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARM64: MachineKind = MachineKind::Virt { el2: false };

    #[test]
    fn only_pcs_share_one_thread() {
        let threads = |kind: MachineKind, cpus| kind.accelerator(Accelerator::Tcg, cpus);
        assert_eq!(threads(MachineKind::Pc, 1), "tcg,thread=multi");
        assert_eq!(threads(MachineKind::Pc, 2), "tcg,thread=single");
        assert_eq!(threads(ARM64, 2), "tcg,thread=multi");
        assert_eq!(threads(MachineKind::Virt32, 2), "tcg,thread=multi");
    }

    #[test]
    fn no_host_runs_all_of_them_itself() {
        assert!(!(MachineKind::Pc.is_native() && ARM64.is_native()));
        assert!(!MachineKind::Virt { el2: true }.is_native());
    }
}
