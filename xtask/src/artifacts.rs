//! Builds what runs outside this process: the command, and the static binaries that travel into machines.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use preverify_bundle::Signer;
use preverify_lab::{Lab, LabError};

use crate::arch::Arch;
use crate::paths::{target_dir, workspace};
use crate::run::{RunError, run_command};

/// The triple that static binaries are built for. Naming it keeps the flags for static linking
/// away from build scripts and procedural macros.
const STATIC_TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// The static binaries that travel into machines.
pub struct Binaries {
    /// The agent of verifier VMs.
    pub agent: PathBuf,
    /// The device's loader.
    pub loader: PathBuf,
}

impl Binaries {
    /// A laboratory for a target with these binaries.
    pub fn lab(&self, target: &str, signer: Signer) -> Result<Lab, LabError> {
        let loader = self.loader.clone();
        Lab::with(target, signer, loader, &mut |stage| println!("{stage}"))
    }
}

/// Builds the agent and the device's loader.
pub fn binaries() -> Result<Binaries, RunError> {
    let binaries = Binaries {
        agent: build_static("preverify-guest", "preverify-agent")?,
        loader: build_static("preverify-device", "preverify-load")?,
    };
    // This process restores verifier VMs, too.
    let this = env::current_exe().map_err(file_error(Path::new("xtask")))?;
    put_beside(&this, &binaries.agent)?;
    Ok(binaries)
}

/// Builds the command `preverify`, and puts the agent beside it.
pub fn command(binaries: &Binaries) -> Result<PathBuf, RunError> {
    run_command(cargo().args(["build", "--release", "--package", "preverify"]))?;
    let preverify = target_dir().join("release/preverify");
    put_beside(&preverify, &binaries.agent)?;
    Ok(preverify)
}

/// Builds what measures on devices of an architecture.
pub fn bench(_arch: Arch) -> Result<PathBuf, RunError> {
    build_static("preverify-bench", "preverify-bench")
}

/// Builds what asks the kernel part what no loader would ask.
pub fn probe() -> Result<PathBuf, RunError> {
    build_static("preverify-probe", "preverify-probe")
}

/// Whoever restores verifier VMs looks for the agent beside itself.
fn put_beside(program: &Path, agent: &Path) -> Result<(), RunError> {
    let beside = program.with_file_name("preverify-agent-x86_64");
    fs::copy(agent, &beside)
        .map(drop)
        .map_err(file_error(&beside))
}

/// Builds a static binary for a machine without libraries. The linker leaves out what unwinding
/// would need, and packs the list of addresses that are relocated at the start (which takes a glibc
/// of 2.36 or newer, Debian 12's): together an eighth of the size.
fn build_static(package: &str, binary: &str) -> Result<PathBuf, RunError> {
    let script = workspace().join("xtask/no-unwinding.ld");
    run_command(
        cargo()
            .env(
                "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
                "-C target-feature=+crt-static",
            )
            .args(["rustc", "--profile", "small", "--target", STATIC_TRIPLE])
            .args(["--package", package, "--bin", binary, "--"])
            .arg("-Clink-arg=-Wl,--no-eh-frame-hdr,-z,pack-relative-relocs")
            .arg(format!("-Clink-arg=-T{}", script.display())),
    )?;
    Ok(target_dir().join(STATIC_TRIPLE).join("small").join(binary))
}

fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.arg("--quiet");
    cargo
}

fn file_error(path: &Path) -> impl FnOnce(io::Error) -> RunError {
    let path = path.to_owned();
    move |cause| RunError::File { path, cause }
}
