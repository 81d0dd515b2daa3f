//! `trust`.

use std::io::Write;
use std::path::PathBuf;

use preverify_device::keyring::{self, Certificate};

use super::CommandError;

/// Reads all certificates before the first one is trusted.
pub fn trust(paths: &[PathBuf], out: &mut dyn Write) -> Result<(), CommandError> {
    let mut certificates = Vec::new();
    for path in paths {
        certificates.extend(Certificate::read(path)?);
    }
    for trusted in keyring::trust(&certificates)? {
        writeln!(out, "trusted: {trusted}")?;
    }
    writeln!(out, "the keyring is sealed")?;
    Ok(())
}
