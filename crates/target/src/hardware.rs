//! The machine that a target's kernel runs on.

use std::path::Path;

use preverify_vm::{Accelerator, MachineSpec};
use serde::{Deserialize, Serialize};

use crate::arch::Arch;
use crate::kernel::Kernel;

/// The most CPUs that machines of all kinds can have, as far as kernels number them in eight bits.
pub const MOST_CPUS: u32 = 255;

/// The machine that a target's kernel runs on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Hardware {
    /// QEMU's CPU model.
    pub cpu: String,
    /// arm64: the kernel starts at exception level 2, as on a board, and not in a guest.
    #[serde(default)]
    pub el2: bool,
    /// What the kernel's command line has beside what virtual machines need.
    pub command_line: String,
    /// Memory.
    pub memory_mib: u32,
    /// CPUs.
    pub cpus: u32,
    /// CPUs that the kernel is ready for: devices may have so many.
    pub max_cpus: u32,
}

/// What is asked of a machine. Where nothing is, it is as targets of the architecture have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HardwareRequest {
    /// QEMU's CPU model.
    pub cpu: Option<String>,
    /// arm64: the kernel starts at exception level 2, as on a board, and not in a guest.
    pub el2: Option<bool>,
    /// What the kernel's command line has beside what virtual machines need.
    pub command_line: Option<String>,
    /// Memory.
    pub memory_mib: Option<u32>,
    /// CPUs.
    pub cpus: Option<u32>,
    /// CPUs that the kernel is ready for: devices may have so many.
    pub max_cpus: Option<u32>,
}

impl Hardware {
    /// What targets of an architecture have if nothing else is said.
    pub(crate) fn usual(arch: Arch) -> Self {
        Self {
            cpu: arch.default_cpu().to_owned(),
            el2: false,
            command_line: String::new(),
            memory_mib: 1024,
            cpus: 1,
            max_cpus: 8,
        }
    }

    /// What a target has of which something is said.
    pub(crate) fn requested(arch: Arch, request: &HardwareRequest) -> Self {
        let mut hardware = request.of(Self::usual(arch));
        // With 52 bits, addresses would take longer code than images can have; and hardly a device has them.
        if arch == Arch::Arm64 && is_max(&hardware.cpu) {
            add_word(&mut hardware.command_line, NO_LARGE_ADDRESSES);
        }
        hardware
    }

    /// The options of `preverify target add` that ask for it.
    pub(crate) fn options(&self) -> String {
        let mut options = format!("--cpu {}", self.cpu);
        if self.el2 {
            options.push_str(" --el2");
        }
        options.push_str(&format!(" --max-cpus {}", self.max_cpus));
        if !self.command_line.is_empty() {
            options.push_str(&format!(" --cmdline '{}'", self.command_line));
        }
        options
    }

    pub(crate) fn spec(
        &self,
        kernel: &Kernel,
        initramfs: &Path,
        accelerator: Accelerator,
    ) -> MachineSpec {
        MachineSpec {
            kind: kernel.arch().machine(self.el2),
            kernel: kernel.image(),
            initramfs: initramfs.to_owned(),
            cpu: qemu_cpu(kernel.arch(), &self.cpu),
            command_line: self.command_line.clone(),
            memory_mib: self.memory_mib,
            cpus: self.cpus,
            max_cpus: self.max_cpus,
            accelerator,
            network: false,
        }
    }
}

impl HardwareRequest {
    /// Where nothing is asked, what another one asks.
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.or(other.cpu),
            el2: self.el2.or(other.el2),
            command_line: self.command_line.or(other.command_line),
            memory_mib: self.memory_mib.or(other.memory_mib),
            cpus: self.cpus.or(other.cpus),
            max_cpus: self.max_cpus.or(other.max_cpus),
        }
    }

    /// A machine like another one but for what is asked.
    pub(crate) fn of(&self, other: Hardware) -> Hardware {
        Hardware {
            cpu: self.cpu.clone().unwrap_or(other.cpu),
            el2: self.el2.unwrap_or(other.el2),
            command_line: self.command_line.clone().unwrap_or(other.command_line),
            memory_mib: self.memory_mib.unwrap_or(other.memory_mib),
            cpus: self.cpus.unwrap_or(other.cpus),
            max_cpus: self.max_cpus.unwrap_or(other.max_cpus),
        }
    }
}

/// Has an arm64 kernel do with addresses of 48 bits where the CPU has more.
pub(crate) const NO_LARGE_ADDRESSES: &str = "arm64.nolva";

/// Whether a CPU is everything that QEMU can do.
fn is_max(cpu: &str) -> bool {
    cpu.split(',').next() == Some("max")
}

/// What QEMU is told for a CPU.
fn qemu_cpu(arch: Arch, cpu: &str) -> String {
    // Pointer authentication as the architecture defines it takes most of an emulated machine's time. Any other
    // function will do: signatures are not seen outside of the machine.
    if arch == Arch::Arm64 && is_max(cpu) && !cpu.contains("pauth") {
        format!("{cpu},pauth-impdef=on")
    } else {
        cpu.to_owned()
    }
}

/// Adds a word to a text unless it is there.
pub(crate) fn add_word(text: &mut String, word: &str) {
    if text.split_whitespace().any(|there| there == word) {
        return;
    }
    if !text.is_empty() {
        text.push(' ');
    }
    text.push_str(word);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_asked_is_usual() {
        let request = HardwareRequest {
            max_cpus: Some(4),
            ..HardwareRequest::default()
        };
        let usual = Hardware::usual(Arch::Arm64);
        let hardware = Hardware::requested(Arch::Arm64, &request);
        assert_eq!(
            hardware,
            Hardware {
                max_cpus: 4,
                ..usual
            }
        );
    }

    #[test]
    fn everything_of_arm64_has_48_bits_and_fast_signatures() {
        let request = HardwareRequest {
            cpu: Some("max".to_owned()),
            command_line: Some("quiet arm64.nolva".to_owned()),
            ..HardwareRequest::default()
        };
        let hardware = Hardware::requested(Arch::Arm64, &request);
        assert_eq!(hardware.command_line, "quiet arm64.nolva");
        assert_eq!(qemu_cpu(Arch::Arm64, &hardware.cpu), "max,pauth-impdef=on");
        assert_eq!(qemu_cpu(Arch::Arm64, "max,pauth=off"), "max,pauth=off");
        assert_eq!(qemu_cpu(Arch::X86_64, "max"), "max");
        let request = HardwareRequest {
            command_line: None,
            ..request
        };
        let hardware = Hardware::requested(Arch::Arm64, &request);
        assert_eq!(hardware.command_line, "arm64.nolva");
        assert_eq!(Hardware::requested(Arch::X86_64, &request).command_line, "");
    }
}
