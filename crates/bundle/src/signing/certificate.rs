//! Certificates: what says whose signatures are trusted.

use std::path::Path;
use std::{fmt, fs, io};

use der::asn1::OctetString;
use der::pem::LineEnding;
use der::{Decode, DecodePem, Encode, EncodePem};
use x509_cert::ext::pkix::SubjectKeyIdentifier;
use x509_cert::time::Time;

use super::key::{KeyError, PublicKey};
use super::pem;

/// The label of a certificate in PEM.
const CERTIFICATE: &str = "CERTIFICATE";

/// An X.509 certificate whose key can check signatures.
#[derive(Clone, Debug, PartialEq)]
pub struct Certificate {
    /// Encoded once, so that it can be written without failing.
    der: Vec<u8>,
    pem: String,
    subject: String,
    not_before: Time,
    not_after: Time,
    key: PublicKey,
    key_id: KeyId,
}

impl Certificate {
    /// Reads a file with one certificate (DER) or several (PEM).
    pub fn open(path: &Path) -> Result<Vec<Self>, CertificateError> {
        let bytes = fs::read(path).map_err(|source| CertificateError::Read {
            path: path.display().to_string(),
            source,
        })?;
        let certificates = match str::from_utf8(&bytes) {
            Ok(text) => Self::from_pem(text),
            Err(_) => Self::from_der(&bytes).map(|certificate| vec![certificate]),
        };
        certificates.map_err(|source| CertificateError::File {
            path: path.display().to_string(),
            source: Box::new(source),
        })
    }

    /// All certificates in a PEM text, of which there must be one.
    pub fn from_pem(text: &str) -> Result<Vec<Self>, CertificateError> {
        let certificates = pem::blocks(text)
            .filter(|block| block.label == CERTIFICATE)
            .map(|block| {
                x509_cert::Certificate::from_pem(block.text)
                    .map_err(CertificateError::Malformed)
                    .and_then(Self::try_from)
            })
            .collect::<Result<Vec<_>, _>>()?;
        if certificates.is_empty() {
            return Err(CertificateError::Missing);
        }
        Ok(certificates)
    }

    /// Reads a certificate's bytes.
    pub fn from_der(bytes: &[u8]) -> Result<Self, CertificateError> {
        x509_cert::Certificate::from_der(bytes)
            .map_err(CertificateError::Malformed)
            .and_then(Self::try_from)
    }

    /// The certificate as kernels take it.
    pub fn to_der(&self) -> &[u8] {
        &self.der
    }

    /// The certificate as text.
    pub fn to_pem(&self) -> &str {
        &self.pem
    }

    /// Whom it is about.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// What its key is called in signatures.
    pub fn key_id(&self) -> &KeyId {
        &self.key_id
    }

    /// The kind of its key, for people.
    pub fn key_kind(&self) -> String {
        self.key.to_string()
    }

    /// The first and the last moment of its validity. Neither kernels nor [`crate::Bundle::verify`]
    /// look at them: a device's clock may be wrong.
    pub fn validity(&self) -> (impl fmt::Display + use<>, impl fmt::Display + use<>) {
        (self.not_before, self.not_after)
    }

    pub(super) fn key(&self) -> &PublicKey {
        &self.key
    }
}

/// Names it: the subject and the key.
impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, key {})", self.subject, self.key, self.key_id)
    }
}

impl TryFrom<x509_cert::Certificate> for Certificate {
    type Error = CertificateError;

    fn try_from(certificate: x509_cert::Certificate) -> Result<Self, CertificateError> {
        let content = certificate.tbs_certificate();
        let key_id = content
            .get_extension::<SubjectKeyIdentifier>()
            .map_err(CertificateError::Malformed)?
            .map(|(_, identifier)| KeyId(identifier.0.into_bytes().into()))
            .ok_or(CertificateError::NoKeyId)?;
        Ok(Self {
            subject: content.subject().to_string(),
            not_before: content.validity().not_before,
            not_after: content.validity().not_after,
            key: PublicKey::from_info(content.subject_public_key_info())?,
            key_id,
            der: certificate.to_der().map_err(CertificateError::Malformed)?,
            pem: certificate
                .to_pem(LineEnding::LF)
                .map_err(CertificateError::Malformed)?,
        })
    }
}

/// The key identifier of a certificate: what signatures call its key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(Vec<u8>);

impl KeyId {
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn from_octets(octets: OctetString) -> Self {
        Self(octets.into_bytes().into())
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Why a certificate is not usable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// A file is no usable certificate.
    #[error("{path} holds no certificate to trust")]
    File {
        /// The file.
        path: String,
        /// Why not.
        source: Box<CertificateError>,
    },
    /// There is none.
    #[error("expected a certificate (DER, or a PEM block `{CERTIFICATE}`), found none")]
    Missing,
    /// The bytes are damaged.
    #[error("the certificate is malformed")]
    Malformed(#[source] der::Error),
    /// Kernels find keys by that.
    #[error(
        "the certificate has no subject key identifier, by which signatures name their key: make one that has, as `openssl req -x509` and `preverify key generate` do"
    )]
    NoKeyId,
    /// A key that nothing can be checked with.
    #[error(transparent)]
    Key(#[from] KeyError),
}
