//! Signatures over manifests, as the kernel checks them: CMS SignedData, detached, without signed
//! attributes and certificates, the signer named by the key identifier of its certificate.
//!
//! That is what `openssl cms -sign -binary -noattr -nosmimecap -nocerts -keyid -md sha256
//! -outform DER` makes, too. What is signed here is accepted there and the other way round.

mod certificate;
mod cms;
mod key;
mod pem;
mod signer;
mod verify;

pub use certificate::{Certificate, CertificateError, KeyId};
pub use cms::CmsError;
pub use key::{Algorithm, KeyError, RemoteKey};
pub use signer::{Signer, SignerError};
pub use verify::{Signed, VerifyError};
