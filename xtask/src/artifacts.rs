//! Builds what runs outside this process: the command, and the static binaries that travel into machines.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use preverify_lab::{Lab, LabError, TARGET};

use crate::paths::target_dir;
use crate::run::{RunError, run_command};

/// The triple that static binaries are built for. Naming it keeps the flags for static linking
/// away from build scripts and procedural macros.
const STATIC_TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// What was built.
pub struct Artifacts {
    /// The command `preverify`; the agent lies beside it.
    pub preverify: PathBuf,
    /// The agent of verifier VMs, static.
    pub agent: PathBuf,
    /// The device's loader, static.
    pub loader: PathBuf,
}

impl Artifacts {
    /// A laboratory with these binaries.
    pub fn lab(&self) -> Result<Lab, LabError> {
        Lab::with(TARGET, self.loader.clone(), &mut |stage| {
            println!("{stage}");
        })
    }
}

/// Builds the command, the agent and the device's loader.
pub fn build() -> Result<Artifacts, RunError> {
    let agent = build_static("preverify-guest", "preverify-agent")?;
    let loader = build_static("preverify-device", "preverify-load")?;
    run_command(cargo().args(["build", "--release", "--package", "preverify"]))?;
    let preverify = target_dir().join("release/preverify");
    // Whoever restores verifier VMs looks for the agent beside itself: the command, and this program.
    let this = env::current_exe().map_err(file_error(Path::new("xtask")))?;
    for program in [&preverify, &this] {
        let beside = program.with_file_name("preverify-agent");
        fs::copy(&agent, &beside).map_err(file_error(&beside))?;
    }
    Ok(Artifacts {
        preverify,
        agent,
        loader,
    })
}

/// Builds a static binary for a machine without libraries.
pub fn build_static(package: &str, binary: &str) -> Result<PathBuf, RunError> {
    run_command(
        cargo()
            .env(
                "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
                "-C target-feature=+crt-static",
            )
            .args(["build", "--profile", "small", "--target", STATIC_TRIPLE])
            .args(["--package", package, "--bin", binary]),
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
