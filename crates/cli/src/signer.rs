//! Who signs: a key in a file, or in a token.

use std::path::{Path, PathBuf};

use preverify_bundle::{Signer, SignerError};
use preverify_pkcs11::TokenError;

/// The signer that a command must have.
#[derive(clap::Args)]
pub struct SignerArgs {
    /// The signer: a file that `preverify key generate` made, or a key in a token (see `preverify key show --help`)
    #[arg(long, value_name = "FILE|URI")]
    key: PathBuf,
    /// The file with the key's certificate, if that is not where the key is
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
}

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenSignerError {
    /// One in a file.
    #[error(transparent)]
    File(#[from] SignerError),
    /// One in a token.
    #[error(transparent)]
    Token(#[from] TokenError),
}

impl SignerArgs {
    /// The signer that they name.
    pub fn open(&self) -> Result<Signer, OpenSignerError> {
        open(&self.key, self.certificate.as_deref())
    }
}

/// Opens a key, and its certificate if that lies elsewhere.
pub fn open(key: &Path, certificate: Option<&Path>) -> Result<Signer, OpenSignerError> {
    Ok(match (uri(key), certificate) {
        (Some(uri), certificate) => preverify_pkcs11::open(uri, certificate)?,
        (None, Some(certificate)) => Signer::open_apart(key, certificate)?,
        (None, None) => Signer::open(key)?,
    })
}

/// What is no file, but the URI of a key in a token.
pub fn uri(key: &Path) -> Option<&str> {
    key.to_str()
        .filter(|text| text.starts_with(preverify_pkcs11::SCHEME))
}
