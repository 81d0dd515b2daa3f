//! What can be wrong with keys in tokens.

use std::path::PathBuf;

use cryptoki::error::Error;
use preverify_bundle::{CertificateError, SignerError};

use crate::pin::{PIN_VARIABLE, PinError};
use crate::uri::UriError;

/// Why a key in a token does not sign.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The key's name is none.
    #[error("the key's URI cannot be read: {0}")]
    Uri(#[from] UriError),
    /// Nothing says what speaks to the token.
    #[error(
        "{0} does not say which PKCS #11 module to use: add ?module-path=FILE, the shared library that came with the token"
    )]
    NoModule(String),
    /// The module cannot be used.
    #[error("cannot use {} as PKCS #11 module: {source}", path.display())]
    Module {
        /// The shared library.
        path: PathBuf,
        /// Why not.
        source: Error,
    },
    /// The PIN cannot be read.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// There is no PIN.
    #[error(
        "the token {0} wants a PIN: name its file with &pin-source=file:FILE behind ?module-path, or set {PIN_VARIABLE}"
    )]
    NoPin(String),
    /// The PIN is another.
    #[error(
        "the token of {key} refuses the PIN. It counts the tries. {left}: try again with the right one only"
    )]
    WrongPin {
        /// Which one.
        key: String,
        /// What it says of the tries that are left.
        left: &'static str,
    },
    /// There were too many wrong PINs.
    #[error(
        "the token of {0} is locked after wrong PINs: its security officer can set a new one (C_InitPIN)"
    )]
    Locked(String),
    /// It was wrong, and stays so.
    #[error(
        "the token refused the PIN for {0} before, and counts: it is not tried again. Start anew with the right one"
    )]
    RefusedBefore(String),
    /// No token has the name.
    #[error("expected a token for {key}, found none; the module has: {found}")]
    NoToken {
        /// What was looked for.
        key: String,
        /// What there is.
        found: String,
    },
    /// The name is of several.
    #[error("expected one token for {key}, found several: {found}. Add what tells them apart")]
    SeveralTokens {
        /// What was looked for.
        key: String,
        /// What fits.
        found: String,
    },
    /// No key has the name.
    #[error("expected a private key {key}, found none; the token has: {found}")]
    NoKey {
        /// What was looked for.
        key: String,
        /// What there is.
        found: String,
    },
    /// The name is of several.
    #[error("expected one private key {key}, found several: {found}. Add what tells them apart")]
    SeveralKeys {
        /// What was looked for.
        key: String,
        /// What fits.
        found: String,
    },
    /// A kind of key that kernels do not check.
    #[error("expected an RSA key or an ECDSA key on the curve P-256 as {key}, found {found}")]
    Kind {
        /// Which one.
        key: String,
        /// What it is.
        found: String,
    },
    /// The token has none.
    #[error(
        "the token holds no certificate of the key {0}, that is, none with its CKA_ID: write it there, or name its file with --certificate"
    )]
    NoCertificate(String),
    /// The certificate cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// It is about other keys.
    #[error(
        "no certificate in {place} belongs to {key}: it does not accept what the key has signed"
    )]
    OtherCertificate {
        /// Which one.
        key: String,
        /// Where the certificates are.
        place: String,
    },
    /// The module or the token refuses.
    #[error("the token of {key} refuses: {source}")]
    Failed {
        /// Which one.
        key: String,
        /// What it says.
        source: Error,
    },
    /// Not two numbers of the right size.
    #[error("expected an ECDSA signature of 64 bytes by {0}, found something else")]
    Malformed(String),
    /// It cannot sign.
    #[error(transparent)]
    Signer(SignerError),
}

impl TokenError {
    /// Whether the PIN is what was refused.
    pub(crate) fn is_about_pin(&self) -> bool {
        matches!(self, Self::WrongPin { .. } | Self::Locked(_))
    }
}
