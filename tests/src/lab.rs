//! A target, a signer that devices trust, and machines of that target.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use preverify_abi::kinds::Architecture;
use preverify_bundle::{Algorithm, Bundle, Signer, SignerError};
use preverify_pipeline::{BuildError, Limits, Object, Verified, Verifier};
use preverify_target::debian::{self, Apt, DebianError};
use preverify_target::{
    AddRequest, Contents, DeviceOptions, GuestFile, HardwareRequest, Progress, Store, Target,
    TargetError, default_cache,
};

use crate::device::{BUSYBOX, Device, DeviceError, LOADER, PROBE};

/// The target that is used where nothing else is asked for.
pub const TARGET: &str = "debian:6.12-cloud-amd64";
/// Names the folder with the static binaries for devices: `preverify-load-ARCH` and `preverify-probe-ARCH`.
pub const BINARIES_VARIABLE: &str = "PREVERIFY_BINARIES";
/// Names the folder with the compiled programs of `tests/programs/`.
pub const OBJECTS_VARIABLE: &str = "PREVERIFY_TEST_OBJECTS";

/// Names the architecture of the kernels that `cargo xtask kernel` has built.
pub const KERNELS_ARCH_VARIABLE: &str = "PREVERIFY_KERNELS_ARCH";
/// Names the kernel that devices without verifier, JIT compiler and BTF boot.
pub const DEVICE_KERNEL_VARIABLE: &str = "PREVERIFY_DEVICE_KERNEL";
/// Names the kernel that devices without verifier and BTF boot.
pub const COMPILER_KERNEL_VARIABLE: &str = "PREVERIFY_COMPILER_KERNEL";

/// Where the signer's certificate lies on devices.
const CERTIFICATE: &str = "/etc/preverify.x509";
/// How long one object may take.
const TIME_LIMIT: Duration = Duration::from_secs(300);

/// A target, and who signs for it.
pub struct Lab {
    /// The target.
    pub target: Target,
    /// Whom devices trust.
    pub signer: Signer,
    binaries: PathBuf,
    /// What devices boot, if that is another kernel than the target verifies with.
    device_kernel: Option<PathBuf>,
}

/// What a laboratory lacks.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A binary or an object was not built.
    #[error("{0} names nothing: `cargo xtask test` builds what this needs, and runs it")]
    NotBuilt(&'static str),
    /// A test's object cannot be read.
    #[error("{}: {source}", path.display())]
    Object {
        /// The object.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A package cannot be had.
    #[error(transparent)]
    Package(#[from] DebianError),
    /// The target cannot be had.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// No key could be made.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// An object did not become a bundle.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A device did not do something.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

impl Lab {
    /// A laboratory for [`TARGET`], with the binaries in the folder that [`BINARIES_VARIABLE`] names.
    pub fn new() -> Result<Self, LabError> {
        Self::of(TARGET)
    }

    /// The same for another target.
    pub fn of(target: &str) -> Result<Self, LabError> {
        let binaries = built(BINARIES_VARIABLE)?;
        Self::with(target, signer()?, &binaries, &mut |_| {})
    }

    /// The same for [`target_on`] another processor.
    pub fn of_processor(source: &str, cpu: &str, el2: bool) -> Result<Self, LabError> {
        let binaries = built(BINARIES_VARIABLE)?;
        let target = target_on(source, cpu, el2, &mut |_| {})?;
        Ok(Self::on(target, signer()?, &binaries))
    }

    /// A laboratory for a target, which is added to the cache if it is not there.
    pub fn with(
        target: &str,
        signer: Signer,
        binaries: &Path,
        progress: &mut Progress<'_>,
    ) -> Result<Self, LabError> {
        let target = self::target(target, progress)?;
        Ok(Self::on(target, signer, binaries))
    }

    /// A laboratory for a target that is there.
    pub fn on(target: Target, signer: Signer, binaries: &Path) -> Self {
        Self {
            target,
            signer,
            binaries: binaries.to_owned(),
            device_kernel: None,
        }
    }

    /// The same, with devices that boot another kernel, as boot loaders take it.
    pub fn with_devices_of(self, kernel: PathBuf) -> Self {
        Self {
            device_kernel: Some(kernel),
            ..self
        }
    }

    /// A laboratory whose devices have no verifier, no JIT compiler and no BTF: `cargo xtask kernel` has built their
    /// kernel, and the one that verifies.
    pub fn of_device_kernel() -> Result<Self, LabError> {
        let lab = Self::of_built("device")?;
        Ok(lab.with_devices_of(built(DEVICE_KERNEL_VARIABLE)?))
    }

    /// The same, with devices that have a JIT compiler.
    pub fn of_compiler_kernel() -> Result<Self, LabError> {
        let lab = Self::of_built("compiler")?;
        Ok(lab.with_devices_of(built(COMPILER_KERNEL_VARIABLE)?))
    }

    /// A laboratory whose verifier has its limits as parameters.
    pub fn of_verifier_kernel() -> Result<Self, LabError> {
        Self::of_built("verifier")
    }

    fn of_built(role: &str) -> Result<Self, LabError> {
        let arch = built(KERNELS_ARCH_VARIABLE)?;
        let name = format!("linux-{role}-{}", arch.display());
        let target = Store::open(&default_cache()?)?.get(&name)?;
        Ok(Self::on(target, signer()?, &built(BINARIES_VARIABLE)?))
    }

    /// What devices boot, if that is another kernel than the target verifies with.
    pub fn device_kernel(&self) -> Option<&Path> {
        self.device_kernel.as_deref()
    }

    /// The compiled program `tests/programs/NAME.bpf.c`, for the target's architecture.
    pub fn object(&self, name: &str) -> Result<Object, LabError> {
        let folder = match self.architecture() {
            Architecture::X86_64 => PathBuf::new(),
            other => other.to_string().into(),
        };
        object_in(&folder, name)
    }

    /// The target's architecture.
    pub fn architecture(&self) -> Architecture {
        self.target.architecture()
    }

    /// Verifies an object; a verifier that serves several objects is faster.
    pub fn verify(&self, object: &Object) -> Result<Verified, LabError> {
        let limits = Limits::of_time(TIME_LIMIT);
        Ok(Verifier::start(&self.target, limits)?.verify(object, &mut |_| {})?)
    }

    /// The signed bundle of an object that was verified.
    pub fn bundle(&self, verified: &Verified) -> Result<Bundle, LabError> {
        let mut bundle = preverify_pipeline::bundle(&[(&self.target, verified)])?;
        bundle.sign(&self.signer)?;
        Ok(bundle)
    }

    /// Boots a device that trusts nobody yet.
    pub fn boot_untrusting(&self, options: DeviceOptions) -> Result<Device, LabError> {
        let mut options = options;
        let loader = self.binary("preverify-load");
        options.files.push(file(LOADER, 0o755, &loader));
        options.files.push(GuestFile {
            path: CERTIFICATE.into(),
            mode: 0o644,
            contents: Contents::Bytes(self.signer.certificate().to_der().to_vec()),
        });
        options.kernel = options.kernel.or_else(|| self.device_kernel.clone());
        let (machine, _) = self.target.boot_device(&options)?;
        Ok(Device::new(machine))
    }

    /// Boots a machine with the kernel that the target verifies with, for what is loaded as ever.
    pub fn boot_verifying(&self, options: DeviceOptions) -> Result<Device, LabError> {
        let (machine, _) = self.target.boot_device(&options)?;
        Ok(Device::new(machine))
    }

    /// Boots a device that trusts the signer, with the probe and busybox.
    pub fn boot_for_probes(&self, mut options: DeviceOptions) -> Result<Device, LabError> {
        let (probe, busybox) = (self.binary("preverify-probe"), self.busybox()?);
        options.files.push(file(PROBE, 0o755, &probe));
        options.files.push(file(BUSYBOX, 0o755, &busybox));
        self.boot(options)
    }

    /// busybox for the target's architecture.
    pub fn busybox(&self) -> Result<PathBuf, LabError> {
        busybox(self.architecture())
    }

    fn binary(&self, name: &str) -> PathBuf {
        self.binaries
            .join(format!("{name}-{}", self.architecture()))
    }

    /// Boots a device that trusts the signer, and nobody else for ever.
    pub fn boot(&self, options: DeviceOptions) -> Result<Device, LabError> {
        let mut device = self.boot_untrusting(options)?;
        device.run(&[LOADER, "trust", CERTIFICATE])?;
        Ok(device)
    }
}

/// The compiled program `tests/programs/NAME.bpf.c`, for x86_64.
pub fn object(name: &str) -> Result<Object, LabError> {
    object_in(Path::new(""), name)
}

fn object_in(folder: &Path, name: &str) -> Result<Object, LabError> {
    let objects = built(OBJECTS_VARIABLE)?;
    let path = objects.join(folder).join(format!("{name}.bpf.o"));
    Object::read(&path).map_err(|source| LabError::Object { path, source })
}

/// Debian's busybox in one static file, for devices; it is not installed here.
fn busybox(architecture: Architecture) -> Result<PathBuf, LabError> {
    let cache = default_cache()?;
    let folder = cache.join("busybox");
    let apt = Apt::open(&cache, architecture)?;
    if !apt.has_lists()? {
        apt.update()?;
    }
    let debs = apt.download(&[&apt.package("busybox-static")], &folder)?;
    let deb = debs.first().expect("one package was asked for");
    Ok(debian::unpack(deb, &folder)?.join("bin/busybox"))
}

fn built(variable: &'static str) -> Result<PathBuf, LabError> {
    env::var_os(variable)
        .map(PathBuf::from)
        .ok_or(LabError::NotBuilt(variable))
}

/// A target, which is added to the cache if it is not there. One that is there is taken as it is: apt is not asked
/// whether there is a newer kernel.
pub fn target(source: &str, progress: &mut Progress<'_>) -> Result<Target, TargetError> {
    let usual = HardwareRequest::default();
    find_or_add(source, target_name(source), usual, progress)
}

/// The same on another processor than targets have if nothing is said. arm64: `el2` says whether the kernel starts at
/// exception level 2.
pub fn target_on(
    source: &str,
    cpu: &str,
    el2: bool,
    progress: &mut Progress<'_>,
) -> Result<Target, TargetError> {
    let level = if el2 { "-el2" } else { "" };
    let name = format!("{}-{cpu}{level}", target_name(source));
    let hardware = HardwareRequest {
        cpu: Some(cpu.to_owned()),
        el2: Some(el2),
        ..HardwareRequest::default()
    };
    find_or_add(source, name, hardware, progress)
}

fn find_or_add(
    source: &str,
    name: String,
    hardware: HardwareRequest,
    progress: &mut Progress<'_>,
) -> Result<Target, TargetError> {
    let store = Store::open(&default_cache()?)?;
    match store.get(&name) {
        Err(TargetError::Unknown { .. }) => {}
        found => return found,
    }
    let mut request = AddRequest::debian(source.parse()?, Some(name));
    request.hardware = hardware;
    Ok(store.add(&request, progress)?.target)
}

fn target_name(source: &str) -> String {
    source.replace(':', "-")
}

/// A signer that only lives as long as a laboratory.
pub fn signer() -> Result<Signer, SignerError> {
    const VALIDITY: Duration = Duration::from_secs(24 * 3600);
    Signer::generate(Algorithm::default(), "preverify laboratory", VALIDITY)
}

/// A file of this host for a device.
pub fn file(path: &str, mode: u32, from: &Path) -> GuestFile {
    GuestFile {
        path: path.into(),
        mode,
        contents: Contents::HostFile(from.into()),
    }
}
