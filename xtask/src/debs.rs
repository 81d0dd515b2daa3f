//! Debian packages that are unpacked in the cache, and not installed.

use std::fs;
use std::path::{Path, PathBuf};

use preverify_target::TargetError;
use preverify_target::debian::{self, Apt, DebianError};

use crate::run::{RunError, at, remove_folder};

/// A folder with the contents of packages, made if it is not there.
pub fn unpacked<E>(
    folder: &Path,
    apt: impl FnOnce() -> Result<Apt, TargetError>,
    packages: impl FnOnce(&Apt) -> Result<Vec<String>, E>,
) -> Result<PathBuf, E>
where
    E: From<DebianError> + From<TargetError> + From<RunError>,
{
    if folder.exists() {
        return Ok(folder.to_owned());
    }
    // Only one process has it, and so only one makes the folder.
    let apt = apt()?;
    if folder.exists() {
        return Ok(folder.to_owned());
    }
    if let Some(failure) = apt.update()? {
        eprintln!("warning: the package lists may be old: {failure}");
    }
    let names = packages(&apt)?;
    println!("unpacking {} in {}", names.join(", "), folder.display());
    let partial = folder.with_extension("partial");
    let debs = folder.with_extension("debs");
    remove_folder(&partial)?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for deb in apt.download(&names, &debs)? {
        debian::extract(&deb, &partial)?;
    }
    remove_folder(&debs)?;
    fs::rename(&partial, folder).map_err(at(&partial))?;
    Ok(folder.to_owned())
}
