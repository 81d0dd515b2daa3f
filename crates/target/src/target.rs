//! One target: its facts, its snapshots, and machines of its kind.

use std::path::PathBuf;
use std::sync::OnceLock;

use preverify_abi::kinds::Architecture;
use preverify_protocol::Hello;
use preverify_vm::{Accelerator, Machine, qemu_version};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::accelerator::Accelerators;
use crate::device_build::DeviceBuild;
use crate::error::TargetError;
use crate::facts::Facts;
use crate::files::{self, Lock};
use crate::guest::{Guest, guest_path};
use crate::hardware::{Hardware, HardwareRequest};
use crate::kernel::Kernel;
use crate::layouts::{self, Boot, Layouts, Recipe};
use crate::part::{self, DEVICE_MODULE, EXPORT_MODULE};
use crate::store::Store;
use crate::{Progress, agent};

/// A device to boot. Where nothing is given, it is like the target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceOptions {
    /// QEMU's CPU model.
    pub cpu: Option<String>,
    /// arm64: the kernel starts at exception level 2.
    pub el2: Option<bool>,
    /// What the kernel's command line has beside what virtual machines need.
    pub command_line: Option<String>,
    /// Memory.
    pub memory_mib: Option<u32>,
    /// CPUs.
    pub cpus: Option<u32>,
    /// CPUs that the kernel is ready for.
    pub max_cpus: Option<u32>,
    /// Two network cards, connected to each other.
    pub network: bool,
    /// Modules of the kernel to insert at boot, by name.
    pub modules: Vec<String>,
    /// Files to find there.
    pub files: Vec<GuestFile>,
    /// Another kernel, as boot loaders take it, which has the kernel part built in.
    pub kernel: Option<PathBuf>,
}

impl DeviceOptions {
    fn hardware(&self) -> HardwareRequest {
        HardwareRequest {
            cpu: self.cpu.clone(),
            el2: self.el2,
            command_line: self.command_line.clone(),
            memory_mib: self.memory_mib,
            cpus: self.cpus,
            max_cpus: self.max_cpus,
        }
    }
}

/// A file for a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestFile {
    /// Its absolute path there.
    pub path: String,
    /// Its permissions.
    pub mode: u32,
    /// Its contents.
    pub contents: Contents,
}

/// The contents of a file for a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contents {
    /// These.
    Bytes(Vec<u8>),
    /// Those of a file of the host.
    HostFile(PathBuf),
}

/// Bytes that a target occupies on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Sizes {
    /// Its kernel, with modules and headers.
    pub kernel: u64,
    /// Its snapshots; zero while there are none.
    pub layouts: u64,
}

/// One kernel build on one kind of machine.
#[derive(Debug)]
pub struct Target {
    store: Store,
    record: Record,
    kernel: Kernel,
    device: Option<DeviceBuild>,
    ready: OnceLock<Ready>,
}

/// `targets/NAME.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub name: String,
    /// What the kernel is called in the store.
    pub kernel: String,
    pub hardware: Hardware,
    pub facts: Facts,
    /// What the kernel part last used with it is called in the store.
    pub part: String,
    /// What the snapshots last used with it are called in the store.
    pub layouts: String,
    /// What the kernel of devices is called in the store, if that is another build.
    #[serde(default)]
    pub device: Option<String>,
}

/// What a target's machines are made of, in the state that the versions at hand make of it.
#[derive(Debug)]
pub(crate) struct Ready {
    pub part_id: String,
    part: PathBuf,
    agent: PathBuf,
    accelerator: Accelerator,
    pub layouts: Layouts,
    _part_in_use: Lock,
}

impl Target {
    pub(crate) fn new(
        store: &Store,
        record: Record,
        kernel: Kernel,
        device: Option<DeviceBuild>,
    ) -> Self {
        Self {
            store: store.clone(),
            record,
            kernel,
            device,
            ready: OnceLock::new(),
        }
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.record.name
    }

    /// What a boot told.
    pub fn facts(&self) -> &Facts {
        &self.record.facts
    }

    /// The kernel that devices run, if that is another build than the one that verifies.
    pub fn device(&self) -> Option<&DeviceBuild> {
        self.device.as_ref()
    }

    /// The machine that it runs on.
    pub fn hardware(&self) -> &Hardware {
        &self.record.hardware
    }

    /// What processors it is for.
    pub fn architecture(&self) -> Architecture {
        self.kernel.arch().architecture()
    }

    /// The SHA-256, in hexadecimal, of all that verdicts and images of this target depend on: what has the same has the same
    /// bundles, whatever it is called and wherever it is.
    pub fn identity(&self) -> Result<String, TargetError> {
        let ready = self.ready(&mut |_| {})?;
        let nameless = Record {
            name: String::new(),
            part: ready.part_id.clone(),
            layouts: ready.layouts.id.clone(),
            ..self.record.clone()
        };
        let text = serde_json::to_vec(&nameless).expect("all its keys are strings");
        Ok(files::hex(&Sha256::digest(&text)))
    }

    /// Whether another one of this name is the same: as long as it is, what is made of it is, too.
    pub fn is_like(&self, other: &Self) -> bool {
        let essential = |record: &Record| Record {
            part: String::new(),
            layouts: String::new(),
            ..record.clone()
        };
        essential(&self.record) == essential(&other.record)
    }

    /// The kernel's file, as boot loaders take it.
    pub fn kernel(&self) -> PathBuf {
        self.kernel.image()
    }

    /// What kernel modules are built against.
    pub fn headers(&self) -> PathBuf {
        self.kernel.headers()
    }

    /// The number of snapshots, each with another layout of the kernel's addresses.
    pub fn layouts(&self) -> usize {
        layouts::COUNT
    }

    /// Makes snapshots and the kernel part anew if they were made with other versions of QEMU, the
    /// agent or the kernel part. Whatever needs them does that too, but silently.
    pub fn prepare(&self, progress: &mut Progress<'_>) -> Result<(), TargetError> {
        self.ready(progress).map(|_| ())
    }

    /// The device's kernel module.
    pub fn device_module(&self) -> Result<PathBuf, TargetError> {
        Ok(self.ready(&mut |_| {})?.part.join(DEVICE_MODULE))
    }

    /// The text of `/proc/kallsyms` in a layout.
    pub fn symbols(&self, layout: usize) -> Result<String, TargetError> {
        self.ready(&mut |_| {})?.layouts.symbols(layout)
    }

    /// The name of the kernel's symbol at an offset from `_text`.
    pub(crate) fn symbol_at(&self, offset: u64) -> Result<Option<String>, TargetError> {
        self.ready(&mut |_| {})?.layouts.symbol_at(offset)
    }

    /// Verifier VMs with more memory than those that go on from a snapshot: each with a layout of its own.
    pub fn boot_all(&self, memory_mib: u32) -> Result<[Boot; layouts::COUNT], TargetError> {
        let ready = self.ready(&mut |_| {})?;
        ready.layouts.boot_all(self.kernel.arch(), memory_mib)
    }

    /// A verifier VM that goes on from a snapshot.
    pub fn restore(&self, layout: usize) -> Result<Machine, TargetError> {
        self.ready(&mut |_| {})?.layouts.restore(layout)
    }

    /// The files of modules and of what they depend on: the paths in a guest where the agent looks
    /// for them, and those on this host. What is built into the kernel has none.
    pub fn module_files(&self, names: &[&str]) -> Result<Vec<(String, PathBuf)>, TargetError> {
        let folder = self.kernel.module_folder();
        let files = self.kernel.modules()?.files(names)?;
        Ok(files
            .iter()
            .map(|file| (guest_path(self.kernel.release(), file), folder.join(file)))
            .collect())
    }

    /// Boots a device: the same kernel, if no other is given, with the device's kernel part. What has it built in gets
    /// no module.
    pub fn boot_device(&self, options: &DeviceOptions) -> Result<(Machine, Hello), TargetError> {
        let ready = self.ready(&mut |_| {})?;
        let part = ready.part.join(DEVICE_MODULE);
        let built_in = options.kernel.is_some() || self.kernel.has_part_built_in()?;
        let archive = Guest {
            kernel: &self.kernel,
            agent: &ready.agent,
            part: (!built_in).then_some(&*part),
            network: options.network,
            modules: &options.modules,
            files: &options.files,
        }
        .archive()?;
        // QEMU has read it when the agent answers.
        let mut file = tempfile::NamedTempFile::new()
            .map_err(files::at("create a file in", &std::env::temp_dir()))?;
        std::io::Write::write_all(&mut file, &archive).map_err(files::at("write", file.path()))?;
        let hardware = options.hardware().of(self.record.hardware.clone());
        let mut spec = hardware.spec(&self.kernel, file.path(), ready.accelerator);
        spec.network = options.network;
        if let Some(kernel) = &options.kernel {
            spec.kernel.clone_from(kernel);
        }
        let (machine, hello) = Machine::boot(&spec, layouts::BOOT_LIMIT)?;
        layouts::check_protocol(&hello, &ready.agent)?;
        Ok((machine, hello))
    }

    /// What it occupies on disk.
    pub fn sizes(&self) -> Result<Sizes, TargetError> {
        Ok(Sizes {
            kernel: self.kernel.occupied()?,
            layouts: files::occupied(&self.store.layouts().join(&self.record.layouts))?,
        })
    }

    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    fn ready(&self, progress: &mut Progress<'_>) -> Result<&Ready, TargetError> {
        if let Some(ready) = self.ready.get() {
            return Ok(ready);
        }
        let (kernel, hardware) = (&self.kernel, &self.record.hardware);
        let found = Ready::find(&self.store, kernel, hardware)?;
        let ready = match found {
            Some(ready) if self.refers_to(&ready) => ready,
            _ => {
                let lock = self.store.lock(progress)?;
                let ready = Ready::make(&self.store, kernel, hardware, progress, &lock)?;
                let found = ready.layouts.facts()?;
                if let Some((what, recorded, found)) = self.record.facts.difference(&found) {
                    return Err(TargetError::Changed {
                        name: self.record.name.clone(),
                        what,
                        recorded,
                        found,
                    });
                }
                self.store.refer(&self.record.name, &ready, &lock)?;
                ready
            }
        };
        // Another thread may have been faster; what it made is the same.
        Ok(self.ready.get_or_init(|| ready))
    }

    fn refers_to(&self, ready: &Ready) -> bool {
        self.record.part == ready.part_id && self.record.layouts == ready.layouts.id
    }
}

impl Ready {
    /// What is there already, if it is all there.
    fn find(
        store: &Store,
        kernel: &Kernel,
        hardware: &Hardware,
    ) -> Result<Option<Self>, TargetError> {
        let machine = kernel.arch().machine(hardware.el2);
        let agent = agent::find(kernel.arch())?;
        let qemu = qemu_version(machine)?;
        let part_id = part::id(kernel);
        let part = store.parts().join(&part_id);
        let Some(part_in_use) = files::use_folder(&part)? else {
            return Ok(None);
        };
        let Some(accelerator) =
            Accelerators::open(store.cache(), &qemu)?.get(machine, &kernel.id)?
        else {
            return Ok(None);
        };
        let recipe = Recipe {
            kernel,
            hardware,
            agent: &agent,
            part: &part.join(EXPORT_MODULE),
            qemu: &qemu,
        };
        let layouts = Layouts::open(&store.layouts(), &recipe, accelerator)?;
        Ok(layouts.map(|layouts| Self {
            part_id,
            part,
            agent,
            accelerator,
            layouts,
            _part_in_use: part_in_use,
        }))
    }

    /// Makes what is not there.
    pub(crate) fn make(
        store: &Store,
        kernel: &Kernel,
        hardware: &Hardware,
        progress: &mut Progress<'_>,
        _lock: &Lock,
    ) -> Result<Self, TargetError> {
        let machine = kernel.arch().machine(hardware.el2);
        let agent = agent::find(kernel.arch())?;
        let qemu = qemu_version(machine)?;
        let part = part::build(&store.parts(), kernel, progress)?;
        let recipe = Recipe {
            kernel,
            hardware,
            agent: &agent,
            part: &part.join(EXPORT_MODULE),
            qemu: &qemu,
        };
        let mut accelerators = Accelerators::open(store.cache(), &qemu)?;
        let known = accelerators.get(machine, &kernel.id)?;
        let accelerator = match known {
            Some(accelerator) => accelerator,
            None => recipe.try_kvm(progress)?,
        };
        if Layouts::open(&store.layouts(), &recipe, accelerator)?.is_none() {
            Layouts::record(&store.layouts(), &recipe, accelerator, progress)?;
        }
        if known.is_none() {
            // Only now is it clear that it was not the kernel's fault.
            accelerators.learn(&kernel.id, accelerator)?;
        }
        Self::find(store, kernel, hardware)?.ok_or(TargetError::Answer {
            expected: "what was made a moment ago",
        })
    }
}
