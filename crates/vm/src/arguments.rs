//! The machine's description, and QEMU's command line for it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::accelerator::Accelerator;
use crate::kind::MachineKind;

/// A machine to boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineSpec {
    /// What machine it is.
    pub kind: MachineKind,
    /// The kernel, in the form that boot loaders of such machines take.
    pub kernel: PathBuf,
    /// The initial file system; its `/init` is the agent.
    pub initramfs: PathBuf,
    /// QEMU's CPU model.
    pub cpu: String,
    /// The kernel's command line. What a machine needs of itself is added: its console, and that
    /// a panic ends it.
    pub command_line: String,
    /// Memory. Pages that the guest never touches cost nothing.
    pub memory_mib: u32,
    /// CPUs that run.
    pub cpus: u32,
    /// CPUs that the kernel must be ready for (its `nr_cpu_ids`), at least `cpus`.
    pub max_cpus: u32,
    /// What runs the guest's code.
    pub accelerator: Accelerator,
    /// Two network cards, connected to each other and to nothing else.
    pub network: bool,
}

/// Where the guest's memory lives.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Memory<'a> {
    /// In QEMU alone.
    Private,
    /// In a file that changes with it.
    Recorded(&'a Path),
    /// In a file that is only read: pages that the guest changes are its own.
    Restored(&'a Path),
}

/// QEMU's ends of its connections, as file descriptors that it inherits.
pub(crate) const PORT_FD: i32 = 3;
pub(crate) const MONITOR_FD: i32 = 4;
pub(crate) const CONSOLE_FD: i32 = 5;
/// The two ends of the cable between the network cards.
pub(crate) const NETWORK_FDS: [i32; 2] = [6, 7];

impl MachineSpec {
    /// One text for machines that are alike to a guest but for the contents of their files: a
    /// snapshot of the one can be restored as the other.
    pub fn likeness(&self) -> String {
        let mut alike = self.clone();
        alike.kernel = PathBuf::from("kernel");
        alike.initramfs = PathBuf::from("initramfs");
        format!("{:?}", alike.arguments(Memory::Private))
    }

    /// QEMU's arguments.
    pub(crate) fn arguments(&self, memory: Memory<'_>) -> Vec<OsString> {
        let mut arguments = Arguments::default();
        arguments
            .push("-no-user-config")
            .push("-nodefaults")
            .pair("-display", "none")
            .push("-no-reboot")
            .pair("-accel", self.kind.accelerator(self.accelerator, self.cpus))
            .pair("-cpu", &self.cpu)
            .pair("-m", format!("{}M", self.memory_mib))
            .pair("-smp", self.all_cpus().to_string());
        match memory {
            Memory::Private => arguments.pair("-machine", self.kind.machine()),
            Memory::Recorded(file) => self.memory_file(&mut arguments, file, true),
            Memory::Restored(file) => self
                .memory_file(&mut arguments, file, false)
                .pair("-incoming", "defer"),
        };
        arguments
            .pair("-kernel", &self.kernel)
            .pair("-initrd", &self.initramfs)
            .pair("-append", self.full_command_line())
            .pair("-chardev", format!("socket,id=monitor,fd={MONITOR_FD}"))
            .pair("-mon", "chardev=monitor,mode=control")
            .pair("-chardev", format!("socket,id=console,fd={CONSOLE_FD}"))
            .pair("-serial", "chardev:console")
            .pair("-device", "virtio-serial-pci,max_ports=2")
            .pair("-chardev", format!("socket,id=port,fd={PORT_FD}"))
            .pair("-device", "virtserialport,chardev=port,nr=1");
        if self.network {
            for (index, fd) in NETWORK_FDS.into_iter().enumerate() {
                arguments
                    .pair("-netdev", format!("socket,id=net{index},fd={fd}"))
                    .pair("-device", network_card(index));
            }
        }
        arguments.0
    }

    fn memory_file<'a>(
        &self,
        arguments: &'a mut Arguments,
        file: &Path,
        share: bool,
    ) -> &'a mut Arguments {
        let backend = json!({
            "qom-type": "memory-backend-file",
            "id": "memory",
            "mem-path": file,
            "size": u64::from(self.memory_mib) << 20,
            "share": share,
        });
        arguments.pair("-object", backend.to_string()).pair(
            "-machine",
            format!("{},memory-backend=memory", self.kind.machine()),
        )
    }

    fn all_cpus(&self) -> u32 {
        self.max_cpus.max(self.cpus)
    }

    fn full_command_line(&self) -> String {
        // `maxcpus`: the kernel finds all CPUs, and brings only so many up. CPUs to be plugged in
        // later would not do: a kernel that sees no hypervisor does not believe in them.
        let own = format!(
            "{} panic=-1 maxcpus={}",
            self.kind.command_line(),
            self.cpus
        );
        format!("{own} {}", self.command_line).trim_end().to_owned()
    }
}

/// A card that native XDP can attach to: none of the offloads that it forbids.
fn network_card(index: usize) -> String {
    format!(
        "virtio-net-pci,netdev=net{index},mac=52:54:00:00:00:{:02x},romfile=,guest_csum=off,\
         guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off",
        index + 1
    )
}

#[derive(Default)]
struct Arguments(Vec<OsString>);

impl Arguments {
    fn push(&mut self, argument: impl Into<OsString>) -> &mut Self {
        self.0.push(argument.into());
        self
    }

    fn pair(&mut self, option: &str, value: impl Into<OsString>) -> &mut Self {
        self.push(option).push(value)
    }
}
