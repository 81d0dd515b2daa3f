//! `cargo xtask kernel`: kernels built from Debian's source with the patches of `kernel/patches`, for devices without a
//! verifier and for verifiers without the limits.
//!
//! Objects stay, so that what a change of the source or of options does not touch is not compiled again. Kernels with and
//! without BTF have hardly any in common, since all of Linux includes headers that this option changes: each have a folder
//! of their own, and so has the one without patches. What comes out is kept by the digest of all that went in.

mod build;
mod config;
mod source;

use std::error::Error;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use preverify_lab::Lab;
use preverify_target::debian::Deb;
use preverify_target::{
    AddRequest, DeviceFiles, HardwareRequest, KernelFiles, Source, Store, Target, TargetError,
    default_cache,
};
use sha2::{Digest, Sha256};

pub use self::source::{PACKAGE, unpack};
use crate::arch::Arch;
use crate::artifacts::Binaries;
use crate::corpus;
use crate::paths::workspace;

/// What a kernel is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Devices: no verifier, no JIT compiler, no BTF; the kernel part is built in.
    Device,
    /// The same, but with the JIT compiler: it takes bytecode, too.
    Compiler,
    /// Verifier VMs: the verifier's limits are parameters.
    Verifier,
    /// What the others are measured against: the same options, and all of BPF as Linux has it.
    Stock,
    /// The same without any patch, which verifies for itself: what images of verifiers with raised limits are compared with.
    Unpatched,
    /// The stock kernel without the verifier, to be measured.
    NoVerifier,
    /// The stock kernel without verifier and JIT compiler, to be measured.
    NoCompiler,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Device => "device",
            Self::Compiler => "compiler",
            Self::Verifier => "verifier",
            Self::Stock => "stock",
            Self::Unpatched => "unpatched",
            Self::NoVerifier => "no-verifier",
            Self::NoCompiler => "no-compiler",
        })
    }
}

/// A kernel that was built.
pub struct Built {
    folder: PathBuf,
}

impl Built {
    /// The file that boots.
    pub fn image(&self) -> PathBuf {
        self.folder.join("image")
    }

    /// The ELF file with its symbols, without debug information.
    pub fn vmlinux(&self) -> PathBuf {
        self.folder.join("vmlinux")
    }

    /// Its BTF.
    pub fn btf(&self) -> PathBuf {
        self.folder.join("btf")
    }

    /// Its configuration.
    pub fn config(&self) -> PathBuf {
        self.folder.join(".config")
    }

    /// Its `/lib/modules/RELEASE`, if it has modules.
    pub fn modules(&self) -> PathBuf {
        self.folder.join("modules")
    }

    /// What modules are built against, if it has modules.
    pub fn headers(&self) -> PathBuf {
        self.folder.join("headers")
    }
}

/// Builds a kernel, unless it is there, and says where everything is.
pub fn kernel(role: Role, arch: Arch) -> Result<(), Box<dyn Error>> {
    let built = build(role, arch)?;
    println!("the {role} kernel for {arch}:");
    let things = [
        ("kernel", built.image()),
        ("with symbols", built.vmlinux()),
        ("BTF", built.btf()),
        ("configuration", built.config()),
        ("modules", built.modules()),
        ("headers", built.headers()),
    ];
    for (what, path) in things.iter().filter(|(_, path)| path.exists()) {
        println!("  {what:14} {}", path.display());
    }
    Ok(())
}

/// Builds a kernel, unless it is there.
pub fn build(role: Role, arch: Arch) -> Result<Built, Box<dyn Error>> {
    let cache = default_cache()?.join("linux");
    let source = corpus::linux_package()?;
    let fragments = config::fragments(role, arch)?;
    let id = id(&source, &fragments, role, arch)?;
    let folder = cache.join(format!("{role}-{arch}-{id}"));
    if !folder.exists() {
        let (tree, kind) = match role {
            Role::Unpatched => (source::unpatched(&cache, &source)?, "-unpatched"),
            _ if config::has_btf(role) => (source::patched(&cache, &source)?, ""),
            _ => (source::patched(&cache, &source)?, "-no-btf"),
        };
        let objects = cache.join(format!("objects-{arch}{kind}"));
        build::build(&tree, &objects, &fragments, arch, &folder)?;
    }
    Ok(Built { folder })
}

/// The target whose devices run a kernel of this role, and a laboratory for it. The kernels are built if they are not
/// there.
pub fn lab(role: Role, arch: Arch, binaries: &Binaries) -> Result<Lab, Box<dyn Error>> {
    let (target, device) = target(role, arch)?;
    let lab = Lab::on(target, preverify_lab::signer()?, binaries.folder());
    Ok(match role {
        Role::Verifier => lab,
        _ => lab.with_devices_of(device.image()),
    })
}

/// The target whose devices run a kernel of this role, and that kernel.
pub fn target(role: Role, arch: Arch) -> Result<(Target, Built), Box<dyn Error>> {
    let verifier = build(Role::Verifier, arch)?;
    let device = build(role, arch)?;
    let other = (role != Role::Verifier).then_some(&device);
    let target = add(format!("linux-{role}-{arch}"), &verifier, other)?;
    Ok((target, device))
}

/// The target whose devices run a kernel of this role, which verifies, too.
pub fn target_of_one(role: Role, arch: Arch) -> Result<Target, Box<dyn Error>> {
    let kernel = build(role, arch)?;
    add(format!("linux-{role}-alone-{arch}"), &kernel, None)
}

/// Adds a target, unless it is there. What was there under its name goes, if it is of other kernels.
fn add(name: String, kernel: &Built, device: Option<&Built>) -> Result<Target, Box<dyn Error>> {
    let store = Store::open(&default_cache()?)?;
    let request = AddRequest {
        source: Source::Files(KernelFiles {
            kernel: kernel.image(),
            modules: kernel.modules(),
            headers: kernel.headers(),
        }),
        name: Some(name.clone()),
        hardware: HardwareRequest::default(),
        btf: None,
        device: device.map(|device| DeviceFiles {
            kernel: device.vmlinux(),
            btf: device.btf(),
        }),
        fingerprint: None,
    };
    let mut say = |step: &str| println!("{step}");
    let added = match store.add(&request, &mut say) {
        Err(TargetError::Exists { .. }) => {
            store.remove(&name)?;
            store.add(&request, &mut say)?
        }
        added => added?,
    };
    Ok(added.target)
}

/// Writes the whole patch series, with the kernel part's sources as a patch of its own.
pub fn patches(out: &Path) -> Result<(), Box<dyn Error>> {
    let cache = default_cache()?.join("linux");
    source::series(&cache, &corpus::linux_package()?, out)
}

/// Tells builds apart: what they are made of, and by what.
fn id(
    source: &Deb,
    fragments: &[PathBuf],
    role: Role,
    arch: Arch,
) -> Result<String, Box<dyn Error>> {
    let mut digest = Sha256::new();
    digest.update(&source.stem);
    digest.update(format!("{role} {arch}"));
    digest.update(build::tool_versions(arch)?);
    let mut files = fragments.to_vec();
    if role != Role::Unpatched {
        files.extend(source::patch_files()?);
        files.extend(source::part_files()?);
    }
    for file in files {
        let name = file
            .strip_prefix(workspace())?
            .to_string_lossy()
            .into_owned();
        let contents = fs::read(&file)?;
        digest.update(name.len().to_le_bytes());
        digest.update(&name);
        digest.update(contents.len().to_le_bytes());
        digest.update(contents);
    }
    Ok(source::short(digest))
}
