//! Who signs: a private key and the certificate that tells others about it.

use std::error::Error;
use std::fmt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use der::asn1::{ObjectIdentifier, SetOfVec, Utf8StringRef};
use der::zeroize::Zeroizing;
use der::{Any, Decode, Encode};
use p256::ecdsa::DerSignature;
use rsa::pkcs1v15;
use sha2::{Digest, Sha256};
use x509_cert::TbsCertificate;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::builder::profile::BuilderProfile;
use x509_cert::builder::{self, Builder, CertificateBuilder};
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, KeyUsage, KeyUsages, SubjectKeyIdentifier,
};
use x509_cert::ext::{Extension, ToExtension};
use x509_cert::name::{Name, RdnSequence, RelativeDistinguishedName};
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::SubjectPublicKeyInfoRef;
use x509_cert::time::{Time, Validity};

use super::certificate::{Certificate, CertificateError};
use super::key::{Algorithm, KeyError, PrivateKey, RemoteKey};
use super::{cms, pem};
use crate::Bundle;

/// The longest common name that X.509 allows.
const SUBJECT_MAX_CHARACTERS: usize = 64;

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// What a remote key signs to show which certificate is its own. No manifest begins like that.
const QUESTION: &[u8] = b"preverify: which certificate is this key's?";

/// A private key and its certificate.
#[derive(Debug)]
pub struct Signer {
    key: Key,
    certificate: Certificate,
}

/// Where the private key is.
#[derive(Debug)]
enum Key {
    Here(Box<PrivateKey>),
    Remote(Box<dyn RemoteKey>),
}

impl Signer {
    /// Makes a key, and a certificate that the key signs itself.
    ///
    /// The certificate is good for nothing but signatures. Kernels do not look at its validity.
    pub fn generate(
        algorithm: Algorithm,
        subject: &str,
        validity: Duration,
    ) -> Result<Self, SignerError> {
        let name = common_name(subject)?;
        let validity = from_now(validity).ok_or(SignerError::Validity)?;
        let key = PrivateKey::generate(algorithm)?;
        let certificate = self_signed(&key, name, validity).map_err(SignerError::Issue)?;
        Ok(Self {
            key: Key::Here(key.into()),
            certificate: Certificate::try_from(certificate)?,
        })
    }

    /// Reads a file with a private key and its certificate (PEM), as [`Signer::to_pem`] makes it.
    pub fn open(path: &Path) -> Result<Self, SignerError> {
        Self::from_pem(&read(path)?).map_err(|error| error.of(path))
    }

    /// Reads a private key and its certificate from a file each (PEM).
    pub fn open_apart(key: &Path, certificate: &Path) -> Result<Self, SignerError> {
        let private = PrivateKey::from_pem(&read(key)?).map_err(SignerError::from);
        let private = private.map_err(|error| error.of(key))?;
        let certificates = Certificate::open(certificate)?;
        Self::new(private, certificates).map_err(|error| error.of(certificate))
    }

    /// Finds a private key (PKCS #8) and its certificate in a PEM text.
    pub fn from_pem(text: &str) -> Result<Self, SignerError> {
        Self::new(PrivateKey::from_pem(text)?, Certificate::from_pem(text)?)
    }

    fn new(key: PrivateKey, certificates: Vec<Certificate>) -> Result<Self, SignerError> {
        let public = key.public();
        let certificate = certificates
            .into_iter()
            .find(|certificate| *certificate.key() == public)
            .ok_or(SignerError::OtherCertificate)?;
        Ok(Self {
            key: Key::Here(key.into()),
            certificate,
        })
    }

    /// Takes a key that stays elsewhere. It signs something at once: whether it can, and which certificate is its own, is
    /// known before anything depends on it.
    pub fn remote(
        key: Box<dyn RemoteKey>,
        certificates: Vec<Certificate>,
    ) -> Result<Self, SignerError> {
        let answer = key.sign(QUESTION).map_err(SignerError::Remote)?;
        let certificate = certificates
            .into_iter()
            .find(|certificate| certificate.key().accepts(QUESTION, &answer))
            .ok_or(SignerError::OtherCertificate)?;
        Ok(Self {
            key: Key::Remote(key),
            certificate,
        })
    }

    /// The private key and the certificate. Whoever reads this can sign.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, SignerError> {
        let mut text = match &self.key {
            Key::Here(key) => key.to_pem()?,
            Key::Remote(_) => return Err(SignerError::Stays),
        };
        text.push_str(self.certificate.to_pem());
        Ok(text)
    }

    /// What devices are given to trust this signer.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// A detached CMS signature (DER) over `message`. The same message and signer always give the
    /// same signature, unless the key is a remote one for ECDSA.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignerError> {
        let public = self.certificate.key();
        let signature = match &self.key {
            Key::Here(key) => key.sign(message)?,
            Key::Remote(key) => {
                let signature = key.sign(message).map_err(SignerError::Remote)?;
                // What is done elsewhere is not believed.
                if !public.accepts(message, &signature) {
                    return Err(SignerError::Wrong(self.to_string()));
                }
                signature
            }
        };
        let scheme = public.scheme();
        cms::encode(self.certificate.key_id(), scheme, &signature).map_err(SignerError::Encode)
    }
}

/// Names it as its certificate does.
impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.certificate.fmt(f)
    }
}

impl Bundle {
    /// Signs the manifest, in place of any signature there is.
    pub fn sign(&mut self, signer: &Signer) -> Result<(), SignerError> {
        let signature = signer.sign(self.manifest_bytes())?;
        self.set_signature(Some(signature));
        Ok(())
    }
}

/// Why nobody can sign.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignerError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// A file holds no signer.
    #[error("{path} cannot sign")]
    File {
        /// The file.
        path: String,
        /// Why not.
        source: Box<SignerError>,
    },
    /// No usable private key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A remote key does not sign.
    #[error(transparent)]
    Remote(Box<dyn Error + Send + Sync>),
    /// A remote key has signed something else, or is another one now.
    #[error("what the key made is no signature by {0}: it is another key now, or its token fails")]
    Wrong(String),
    /// A remote key does not come here.
    #[error("the private key cannot be written to a file: it stays where it is")]
    Stays,
    /// No usable certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The certificates are about other keys.
    #[error(
        "no certificate belongs to the private key: put the key's own certificate beside it, or make both with `preverify key generate`"
    )]
    OtherCertificate,
    /// No name for a certificate.
    #[error("expected a name of 1 to {SUBJECT_MAX_CHARACTERS} printable characters, found {0:?}")]
    Subject(String),
    /// A time that certificates cannot tell.
    #[error("expected a time of validity that ends before the year 10000")]
    Validity,
    /// The certificate cannot be made.
    #[error("cannot make a certificate")]
    Issue(#[source] builder::Error),
    /// The signature cannot be written.
    #[error("cannot write the signature")]
    Encode(#[source] der::Error),
}

impl SignerError {
    fn of(self, path: &Path) -> Self {
        Self::File {
            path: path.display().to_string(),
            source: Box::new(self),
        }
    }
}

fn read(path: &Path) -> Result<Zeroizing<String>, SignerError> {
    pem::read(path).map_err(|source| SignerError::Read {
        path: path.display().to_string(),
        source,
    })
}

fn common_name(subject: &str) -> Result<Name, SignerError> {
    let refused = || SignerError::Subject(subject.to_owned());
    let characters = subject.chars().count();
    if !(1..=SUBJECT_MAX_CHARACTERS).contains(&characters) || subject.chars().any(char::is_control)
    {
        return Err(refused());
    }
    let encode = || {
        let attribute = AttributeTypeAndValue {
            oid: COMMON_NAME,
            value: Any::encode_from(&Utf8StringRef::new(subject)?)?,
        };
        let attributes = SetOfVec::try_from(vec![attribute])?;
        let names = vec![RelativeDistinguishedName::from(attributes)];
        Name::from_der(&RdnSequence::from(names).to_der()?)
    };
    encode().map_err(|_: der::Error| refused())
}

fn from_now(duration: Duration) -> Option<Validity> {
    let now = SystemTime::now();
    let end = now.checked_add(duration)?;
    Some(Validity::new(
        Time::try_from(now).ok()?,
        Time::try_from(end).ok()?,
    ))
}

fn self_signed(
    key: &PrivateKey,
    name: Name,
    validity: Validity,
) -> Result<x509_cert::Certificate, builder::Error> {
    let public = key.public_info()?;
    // As unique as the key: no second certificate is made for it.
    let serial = Sha256::digest(public.to_der()?);
    let serial = SerialNumber::new(&serial[..16])?;
    let builder = CertificateBuilder::new(SelfSigned(name), serial, validity, public)?;
    match key {
        PrivateKey::Rsa(key) => builder.build::<_, pkcs1v15::Signature>(key),
        PrivateKey::EcdsaP256(key) => builder.build::<_, DerSignature>(key),
    }
}

/// What the kernel wants of a certificate: key identifiers, and signing as the only use.
struct SelfSigned(Name);

impl BuilderProfile for SelfSigned {
    fn get_issuer(&self, subject: &Name) -> Name {
        subject.clone()
    }

    fn get_subject(&self) -> Name {
        self.0.clone()
    }

    fn build_extensions(
        &self,
        key: SubjectPublicKeyInfoRef<'_>,
        issuer_key: SubjectPublicKeyInfoRef<'_>,
        certificate: &TbsCertificate,
    ) -> builder::Result<Vec<Extension>> {
        let subject = certificate.subject();
        let no_authority = BasicConstraints {
            ca: false,
            path_len_constraint: None,
        };
        let extensions = Vec::new();
        Ok(vec![
            no_authority.to_extension(subject, &extensions)?,
            KeyUsage(KeyUsages::DigitalSignature.into()).to_extension(subject, &extensions)?,
            SubjectKeyIdentifier::try_from(key)?.to_extension(subject, &extensions)?,
            AuthorityKeyIdentifier::try_from(issuer_key)?.to_extension(subject, &extensions)?,
        ])
    }
}
