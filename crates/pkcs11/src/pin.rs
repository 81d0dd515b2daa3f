//! Where a token's PIN comes from.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use cryptoki::types::AuthPin;

use crate::uri::PinSource;

/// The environment variable with the PIN, if a key's URI says nothing of it.
pub const PIN_VARIABLE: &str = "PREVERIFY_PKCS11_PIN";

/// The PIN, if there is one.
pub fn read(source: Option<&PinSource>) -> Result<Option<AuthPin>, PinError> {
    match source {
        Some(PinSource::Value(pin)) => Ok(Some(pin.clone())),
        Some(PinSource::File(path)) => of_file(path).map(Some),
        None => match env::var(PIN_VARIABLE) {
            Ok(pin) => Ok(Some(pin.into())),
            Err(env::VarError::NotPresent) => Ok(None),
            Err(env::VarError::NotUnicode(_)) => Err(PinError::Variable),
        },
    }
}

/// All of a file but the line's end.
fn of_file(path: &Path) -> Result<AuthPin, PinError> {
    let mut text = fs::read_to_string(path).map_err(|source| PinError::Read {
        path: path.to_owned(),
        source,
    })?;
    text.truncate(text.trim_end_matches(['\n', '\r']).len());
    match text.is_empty() {
        true => Err(PinError::Empty(path.to_owned())),
        false => Ok(text.into()),
    }
}

/// Why a PIN cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PinError {
    /// The file cannot be read.
    #[error("cannot read the PIN in {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is nothing in it.
    #[error("expected a PIN in {}, found an empty file", .0.display())]
    Empty(PathBuf),
    /// Not text.
    #[error("expected a PIN in {PIN_VARIABLE}, found something that is not UTF-8")]
    Variable,
}
