//! The kernel part, built for one kernel from the sources that this program carries.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Progress;
use crate::arch::Cross;
use crate::error::TargetError;
use crate::files::{self, Digest};
use crate::kernel::Kernel;
use crate::run::{self, CommandError};

include!(concat!(env!("OUT_DIR"), "/sources.rs"));

/// The module of verifier VMs.
pub(crate) const EXPORT_MODULE: &str = "bpf_preverified_export.ko";
/// The module of devices.
pub(crate) const DEVICE_MODULE: &str = "bpf_preverified.ko";

/// Lines of the compiler's output in an error's text.
const LINES_SHOWN: usize = 40;

/// What the kernel part built from these sources for a kernel is called in the store.
pub(crate) fn id(kernel: &Kernel) -> String {
    let mut digest = Digest::default();
    digest.add(&kernel.id);
    for (name, contents) in SOURCES {
        digest.add(name).add(contents);
    }
    digest.id()
}

/// Builds both modules into `parts/ID`, unless they are there.
pub(crate) fn build(
    parts: &Path,
    kernel: &Kernel,
    progress: &mut Progress<'_>,
) -> Result<PathBuf, TargetError> {
    let id = id(kernel);
    let folder = parts.join(&id);
    if folder.exists() {
        return Ok(folder);
    }
    progress(&format!(
        "building the kernel part for {}",
        kernel.release()
    ));
    let headers = kernel.headers();
    if !headers.join("Makefile").exists() {
        return Err(TargetError::Headers {
            folder: headers,
            missing: "Makefile",
        });
    }
    let cross = kernel.arch().cross();
    if let Some(Cross {
        compiler, package, ..
    }) = cross
    {
        run::output(Command::new(compiler).arg("--version"), package)?;
    }
    let work = files::start(parts)?;
    for (name, contents) in SOURCES {
        files::write(&work.path().join(name), contents)?;
    }
    make(parts, &id, kernel, work.path())?;
    let partial = files::start(parts)?;
    for module in [EXPORT_MODULE, DEVICE_MODULE] {
        let built = partial.path().join(module);
        files::copy(&work.path().join(module), &built)?;
        // Debug information is most of the file, and nothing in a machine reads it.
        let strip = format!("{}strip", cross.map_or("", |cross| cross.prefix));
        run::output(
            Command::new(strip).arg("--strip-debug").arg(built),
            cross.map_or("binutils", |cross| cross.package),
        )?;
    }
    files::finish(partial, &folder)?;
    Ok(folder)
}

fn make(parts: &Path, id: &str, kernel: &Kernel, work: &Path) -> Result<(), TargetError> {
    let output = work.join("output");
    let file = fs::File::create(&output).map_err(files::at("create", &output))?;
    let errors = file.try_clone().map_err(files::at("open", &output))?;
    let mut kdir = std::ffi::OsString::from("KDIR=");
    kdir.push(kernel.headers());
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let mut command = Command::new("make");
    command
        .arg("-C")
        .arg(work)
        .arg(kdir)
        .arg(format!("-j{jobs}"));
    if let Some(Cross { arch, prefix, .. }) = kernel.arch().cross() {
        command.args([format!("ARCH={arch}"), format!("CROSS_COMPILE={prefix}")]);
    }
    let status = command
        // What a `make` or cargo around this one set is not meant for it.
        .env_remove("MAKEFLAGS")
        .env_remove("MFLAGS")
        .env("LC_ALL", "C")
        .stdin(std::process::Stdio::null())
        .stdout(file)
        .stderr(errors)
        .status()
        .map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => CommandError::Missing {
                program: "make".to_owned(),
                package: "make",
            },
            _ => CommandError::Start {
                command: "make".to_owned(),
                source,
            },
        })?;
    if status.success() {
        return Ok(());
    }
    let log = parts.join(format!("{id}.log"));
    let text = String::from_utf8_lossy(&files::read(&output)?).into_owned();
    files::write(&log, text.as_bytes())?;
    Err(TargetError::Build {
        release: kernel.release().to_owned(),
        log,
        printed: run::last_lines(&text, LINES_SHOWN),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sources_are_embedded_and_build_products_are_not() {
        let names: Vec<&str> = SOURCES.iter().map(|(name, _)| *name).collect();
        assert!(names.contains(&"include/preverified.h"), "{names:?}");
        let product = |name: &&str| name.ends_with(".mod.c") || name.ends_with(".o");
        assert!(!names.iter().any(product), "{names:?}");
    }
}
