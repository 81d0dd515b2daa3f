//! Builds what runs outside this process: the command, and the static binaries that travel into machines.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use preverify_bundle::Signer;
use preverify_lab::{Lab, LabError};

use crate::arch::Arch;
use crate::paths::{target_dir, workspace};
use crate::run::{RunError, at, run_command};
use crate::toolchain::{Toolchain, ToolchainError};

/// Something was not built.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// A program failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// There is no compiler for an architecture.
    #[error(transparent)]
    Toolchain(#[from] ToolchainError),
}

/// The static binaries that travel into machines: `NAME-ARCH` in one folder.
pub struct Binaries {
    folder: PathBuf,
}

impl Binaries {
    /// Where they are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The device's loader.
    pub fn loader(&self, arch: Arch) -> PathBuf {
        self.folder.join(format!("{LOADER}-{arch}"))
    }

    /// A laboratory for a target with these binaries.
    pub fn lab(&self, target: &str, signer: Signer) -> Result<Lab, LabError> {
        Lab::with(target, signer, &self.folder, &mut |stage| {
            println!("{stage}");
        })
    }

    /// Whoever restores verifier VMs looks for the agents beside itself.
    fn put_agents_beside(&self, program: &Path) -> Result<(), RunError> {
        for arch in Arch::ALL {
            let name = format!("{AGENT}-{arch}");
            let (agent, beside) = (self.folder.join(&name), program.with_file_name(&name));
            if agent.exists() {
                fs::copy(agent, &beside).map_err(at(&beside))?;
            }
        }
        Ok(())
    }
}

const AGENT: &str = "preverify-agent";
const LOADER: &str = "preverify-load";

/// Builds the agent and the device's loader for some architectures.
pub fn binaries(archs: &[Arch]) -> Result<Binaries, ArtifactError> {
    for &arch in archs {
        build_static(arch, "preverify-guest", AGENT)?;
        build_static(arch, "preverify-device", LOADER)?;
    }
    let binaries = Binaries { folder: folder() };
    // This process restores verifier VMs, too.
    let this = env::current_exe().map_err(at(Path::new("xtask")))?;
    binaries.put_agents_beside(&this)?;
    Ok(binaries)
}

/// Builds the command `preverify` as people use it, and puts the agents beside it.
pub fn command(binaries: &Binaries) -> Result<PathBuf, ArtifactError> {
    build_command(
        &["--release", "--package", "preverify"],
        "release",
        binaries,
    )
}

/// The same to try it: with what tests were built of, since to build all of it once more takes minutes.
pub fn command_to_try(binaries: &Binaries) -> Result<PathBuf, ArtifactError> {
    build_command(&["--workspace", "--bin", "preverify"], "debug", binaries)
}

fn build_command(
    how: &[&str],
    folder: &str,
    binaries: &Binaries,
) -> Result<PathBuf, ArtifactError> {
    run_command(cargo().arg("build").args(how))?;
    let preverify = target_dir().join(folder).join("preverify");
    binaries.put_agents_beside(&preverify)?;
    Ok(preverify)
}

/// Builds what measures on devices of an architecture.
pub fn bench(arch: Arch) -> Result<PathBuf, ArtifactError> {
    build_static(arch, "preverify-bench", "preverify-bench")
}

/// Builds what asks the kernel part what no loader would ask.
pub fn probe(arch: Arch) -> Result<PathBuf, ArtifactError> {
    build_static(arch, "preverify-probe", "preverify-probe")
}

fn folder() -> PathBuf {
    target_dir().join("guests")
}

/// Builds a static binary for a machine without libraries. The linker leaves out what unwinding
/// would need, and packs the list of addresses that are relocated at the start (which takes a glibc
/// of 2.36 or newer, Debian 12's): together an eighth of the size.
///
/// Naming the triple keeps the flags for static linking away from build scripts and procedural macros.
fn build_static(arch: Arch, package: &str, binary: &str) -> Result<PathBuf, ArtifactError> {
    let (triple, script) = (arch.triple(), workspace().join("xtask/no-unwinding.ld"));
    let flags = format!(
        "CARGO_TARGET_{}_RUSTFLAGS",
        triple.replace('-', "_").to_uppercase()
    );
    let mut cargo = cargo();
    cargo
        .env(flags, "-C target-feature=+crt-static")
        .args(["rustc", "--profile", "small", "--target", triple])
        .args(["--package", package, "--bin", binary]);
    let target_dir = match arch {
        Arch::X86_64 => target_dir(),
        other => {
            let toolchain = Toolchain::of(other)?;
            toolchain.prepare(&mut cargo);
            toolchain.target_dir()
        }
    };
    cargo
        .arg("--")
        .arg("-Clink-arg=-Wl,--no-eh-frame-hdr,-z,pack-relative-relocs")
        .arg(format!("-Clink-arg=-T{}", script.display()));
    run_command(&mut cargo)?;
    let built = target_dir.join(triple).join("small").join(binary);
    let folder = folder();
    fs::create_dir_all(&folder).map_err(at(&folder))?;
    let path = folder.join(format!("{binary}-{arch}"));
    // Moved into place, because another process may be reading it.
    let partial = path.with_extension("partial");
    fs::copy(&built, &partial).map_err(at(&built))?;
    fs::rename(&partial, &path).map_err(at(&path))?;
    Ok(path)
}

fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.arg("--quiet");
    cargo
}
