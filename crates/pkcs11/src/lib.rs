//! Signing keys in PKCS #11 tokens: hardware security modules, smart cards, SoftHSM.
//!
//! The key never leaves its token. [`open`] finds it by its URI (RFC 7512), finds its certificate, and makes a
//! [`Signer`] of both, which signs as one in a file does.
//!
//! A crate of its own, since it loads shared libraries: nothing that is for devices may depend on it.

#![forbid(unsafe_code)]

mod error;
mod key;
mod modules;
mod pin;
mod token;
mod uri;

use std::path::Path;

use preverify_bundle::{Certificate, Signer, SignerError};

pub use error::TokenError;
pub use pin::{PIN_VARIABLE, PinError};
pub use uri::{SCHEME, UriError};

use key::TokenKey;
use token::Token;
use uri::Uri;

/// Opens the key that `uri` names. Its certificate is in the token, with the key's CKA_ID, or in a file.
pub fn open(uri: &str, certificate: Option<&Path>) -> Result<Signer, TokenError> {
    let token = Token::load(Uri::parse(uri)?)?;
    let key = token.open_key()?;
    let certificates = match certificate {
        Some(file) => Certificate::open(file)?,
        None => token.certificates(&key)?,
    };
    let name = token.name().to_owned();
    Signer::remote(Box::new(TokenKey::new(token, key)), certificates).map_err(|error| match error {
        SignerError::OtherCertificate => TokenError::OtherCertificate {
            key: name,
            place: certificate.map_or("the token".into(), |file| file.display().to_string()),
        },
        // What the token says, without what is said around it.
        SignerError::Remote(error) => match error.downcast() {
            Ok(error) => *error,
            Err(error) => TokenError::Signer(SignerError::Remote(error)),
        },
        other => TokenError::Signer(other),
    })
}
