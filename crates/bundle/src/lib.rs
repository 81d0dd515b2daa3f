//! Write, read, sign and check preverify bundles.
//!
//! A bundle is built with a [`Builder`] and read with a [`Bundle`] (whole) or a [`Reader`] (only
//! the sections that are asked for). Both give its [`Manifest`] as plain structures; the bytes
//! are defined in `preverify-abi`.
//!
//! One manifest has one encoding: what [`Manifest::decode`] takes, [`Manifest::encode`] gives back
//! byte for byte. So two verifiers that agree about an object sign the same bytes.

#![forbid(unsafe_code)]

mod builder;
mod bundle;
mod decode;
mod encode;
mod error;
mod layout;
mod limits;
mod model;
mod rules;
#[cfg(feature = "sign")]
mod signing;

pub use builder::Builder;
#[cfg(feature = "write")]
pub use bundle::WriteError;
pub use bundle::{Bundle, Reader};
pub use error::{FormatError, ReadError};
pub use limits::RaisedLimits;
pub use model::{
    AttachTarget, Image, Manifest, Map, MapUse, Program, Section, SectionId, SectionKind, Slot,
    SlotContent, Target, Value,
};
pub use preverify_abi::manifest::{Field, Fingerprint};
#[cfg(feature = "sign")]
pub use signing::{
    Algorithm, Certificate, CertificateError, CmsError, KeyError, KeyId, RemoteKey, Signed, Signer,
    SignerError, VerifyError,
};
