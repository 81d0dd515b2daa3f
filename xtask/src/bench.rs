//! `cargo xtask bench`: measurements with all sides in one run, side by side.

mod boot;
mod limits;
mod load;
mod plot;
mod service;
mod shares;
mod size;
mod small;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use preverify_bench::median;

use crate::arch::Arch;
use crate::corpus::Extent;
use crate::paths::workspace;
use crate::{bpf, corpus};

pub use boot::boot;
pub use limits::limits;
pub use load::load;
pub use service::service;
pub use shares::shares;
pub use size::size;
pub use small::small;

/// Where what measures on a device lies there.
const BENCH: &str = "/bin/preverify-bench";

/// The object of one of the kernel's selftests.
fn selftest(arch: Arch, name: &str) -> Result<PathBuf, Box<dyn Error>> {
    let id = format!("selftests/{name}");
    corpus::path_of(&corpus::objects(arch, Extent::All)?, &id).ok_or_else(|| {
        format!("the corpus has no {id}: `cargo xtask corpus build --arch {arch}`").into()
    })
}

/// The program with two to the power of so many paths, compiled.
fn paths(arch: Arch, bits: u32) -> Result<PathBuf, Box<dyn Error>> {
    let folder = bpf::objects(arch);
    fs::create_dir_all(&folder)?;
    let object = folder.join(format!("paths{bits}.bpf.o"));
    let source = workspace().join("bench/programs/paths.bpf.c");
    let bits = format!("-DPATH_BITS={bits}");
    bpf::own_compiler(arch).compile(&source, &[&bits], &object)?;
    Ok(object)
}

/// Where results go.
fn results() -> Result<PathBuf, Box<dyn Error>> {
    let results = workspace().join("bench/results");
    fs::create_dir_all(&results)?;
    Ok(results)
}

fn write(path: &Path, text: &str) -> Result<(), Box<dyn Error>> {
    fs::write(path, text)?;
    println!("written: {}", path.display());
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "microseconds to show")]
fn micros(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1000.0
}

/// The median, in microseconds.
fn middle(nanoseconds: &[u64]) -> f64 {
    micros(median(nanoseconds))
}
