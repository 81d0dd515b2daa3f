//! What compiles static binaries for machines of another architecture than this host's.
//!
//! The standard library is compiled anew, as small as the rest of the binary and without what prints the call stack of
//! a panic: so its sources are needed, and the very compiler that they are written for. Where rustup can fetch the
//! sources of the compiler in use, that is it; elsewhere a compiler of Debian's, with its sources, is unpacked in the
//! cache. The C libraries below libbpf are Debian's, unpacked in the cache, too. Only linkers and C compilers for these
//! architectures are installed packages: they do not work from elsewhere.

use std::path::{Path, PathBuf};
use std::process::Command;

use preverify_abi::kinds::Architecture;
use preverify_target::debian::{Apt, DebianError};
use preverify_target::{TargetError, default_cache};

use crate::arch::Arch;
use crate::debs::unpacked;
use crate::paths::target_dir;
use crate::run::{RunError, output, run};

/// What rustup calls the sources of a compiler's standard library.
const SOURCES: &str = "rust-src";
/// Where it puts them, below the compiler's folder.
const SOURCES_FOLDER: &str = "lib/rustlib/src/rust/library";

/// A Rust compiler that is newer than Debian 12's first one: its browsers are compiled with it.
const COMPILER: [&str; 3] = ["rustc-web", "libstd-rust-web-dev", "rust-web-src"];
/// What the compiler's own libraries are named like; their names contain versions.
const COMPILER_LIBRARIES: [&str; 2] = ["libstd-rust-web-", "libllvm"];

/// What libbpf stands on.
const LIBRARIES: [&str; 2] = ["libelf-dev", "zlib1g-dev"];

/// The toolchain cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ToolchainError {
    /// A package cannot be had.
    #[error(transparent)]
    Package(#[from] DebianError),
    /// apt cannot be used.
    #[error(transparent)]
    Apt(#[from] TargetError),
    /// The compiler in use does not say where it is.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The compiler depends on something else than before.
    #[error(
        "expected {package} to depend on a package named {expected}..., found {found:?}: Debian packages \
         it in another way now, and xtask/src/toolchain.rs must follow"
    )]
    Dependencies {
        package: String,
        expected: &'static str,
        found: Vec<String>,
    },
}

/// Compiler and C libraries for an architecture.
pub struct Toolchain {
    arch: Arch,
    compiler: Compiler,
    libraries: PathBuf,
}

/// A Rust compiler that has the sources of its standard library.
enum Compiler {
    /// The one that compiles all else here.
    InUse,
    /// Debian's, in this folder.
    Debian(PathBuf),
}

impl Toolchain {
    /// The toolchain for an architecture, downloaded if it is not there. To get newer packages, remove the cache's
    /// folder `toolchain`.
    pub fn of(arch: Arch) -> Result<Self, ToolchainError> {
        let cache = default_cache()?;
        let folder = cache.join("toolchain");
        let architecture = arch.architecture();
        Ok(Self {
            arch,
            compiler: Compiler::find(&cache, &folder)?,
            libraries: unpacked(
                &folder.join(format!("libraries-{architecture}")),
                || Apt::open(&cache, architecture),
                |apt| Ok::<_, ToolchainError>(LIBRARIES.map(|name| apt.package(name)).to_vec()),
            )?,
        })
    }

    /// Where cargo puts what this compiler makes: in one folder with another compiler's, each would forget what the
    /// other one knew.
    pub fn target_dir(&self) -> PathBuf {
        target_dir().join("cross")
    }

    /// Prepares a build with cargo that ends with `--target TRIPLE`.
    pub fn prepare(&self, cargo: &mut Command) {
        let triple = self.arch.triple();
        let in_variables = triple.replace('-', "_");
        let [include, libraries] =
            ["include", "lib"].map(|name| self.libraries.join("usr").join(name));
        if let Compiler::Debian(folder) = &self.compiler {
            let usr = folder.join("usr");
            cargo
                .env("RUSTC", usr.join("bin/rustc"))
                // The compiler's own libraries; nobody else's have their names.
                .env("LD_LIBRARY_PATH", usr.join("lib/x86_64-linux-gnu"));
        }
        cargo
            .env("CARGO_TARGET_DIR", self.target_dir())
            // The standard library is written in what only its own compiler may be asked for.
            .env("RUSTC_BOOTSTRAP", "1")
            .args(["-Zbuild-std=std,panic_abort", "-Zbuild-std-features="])
            .env(
                format!("CARGO_TARGET_{}_LINKER", in_variables.to_uppercase()),
                format!("{}gcc", self.arch.tools()),
            )
            .env(
                format!("CFLAGS_{in_variables}"),
                format!("-I{}", include.display()),
            )
            .env(
                format!("LIBBPF_SYS_LIBRARY_PATH_{in_variables}"),
                libraries.join(self.arch.multiarch()),
            );
    }
}

impl Compiler {
    /// The compiler in use, or Debian's where rustup cannot get what that one lacks.
    fn find(cache: &Path, folder: &Path) -> Result<Self, ToolchainError> {
        if in_use_has_sources()? {
            return Ok(Self::InUse);
        }
        println!(
            "{SOURCES}, the standard library's sources, is missing, and binaries for other \
             architectures need it: trying rustup"
        );
        match run("rustup", &["component", "add", SOURCES]) {
            Ok(()) if in_use_has_sources()? => return Ok(Self::InUse),
            Ok(()) => println!("rustup added it to another compiler than the one in use"),
            Err(failure) => println!("{failure}"),
        }
        println!("using Debian's compiler for other architectures");
        let apt = || Apt::open(cache, Architecture::X86_64);
        unpacked(&folder.join("rust"), apt, debian_compiler).map(Self::Debian)
    }
}

/// Whether the compiler that cargo uses has the sources of its standard library.
fn in_use_has_sources() -> Result<bool, RunError> {
    let mut rustc = Command::new("rustc");
    let folder = output(rustc.args(["--print", "sysroot"]))?;
    Ok(Path::new(folder.trim()).join(SOURCES_FOLDER).exists())
}

/// The packages of Debian's compiler.
fn debian_compiler(apt: &Apt) -> Result<Vec<String>, ToolchainError> {
    let mut names = COMPILER.map(str::to_owned).to_vec();
    let mut package = COMPILER[1].to_owned();
    for expected in COMPILER_LIBRARIES {
        let found = apt.depends(&package)?;
        let Some(library) = found.iter().find(|name| name.starts_with(expected)) else {
            return Err(ToolchainError::Dependencies {
                package,
                expected,
                found,
            });
        };
        package.clone_from(library);
        names.push(package.clone());
    }
    Ok(names)
}
