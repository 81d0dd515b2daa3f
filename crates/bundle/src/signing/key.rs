//! Private and public keys of the kinds that kernels check signatures with.

use std::error::Error;
use std::fmt;
use std::str::FromStr;

use der::pem::LineEnding;
use der::referenced::OwnedToRef;
use der::zeroize::Zeroizing;
use der::{Decode, Encode};
use getrandom::SysRng;
use p256::ecdsa;
use p256::ecdsa::DerSignature;
use p256::elliptic_curve::Generate;
use rsa::pkcs1v15;
use rsa::pkcs8::{self, DecodePrivateKey, DecodePublicKey, EncodePrivateKey, ObjectIdentifier};
use rsa::signature::{Keypair, SignatureEncoding, Signer as _, Verifier};
use rsa::traits::PublicKeyParts;
use sha2::Sha256;
use x509_cert::spki::{self, AlgorithmIdentifierRef, SubjectPublicKeyInfoOwned};

use super::pem;

/// The sizes of RSA keys that kernels take; smaller ones are not safe.
const RSA_BITS: [u32; 3] = [2048, 3072, 4096];

const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const CURVE_P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");

/// The label of a PKCS #8 key in PEM.
const PRIVATE_KEY: &str = "PRIVATE KEY";

/// Kinds of keys to make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// RSA with 2048 bits: every kernel that checks module signatures knows it, and it is the
    /// quickest to check.
    #[default]
    Rsa2048,
    /// ECDSA on the curve P-256: short keys and signatures; the kernel needs `CONFIG_CRYPTO_ECDSA`.
    EcdsaP256,
}

impl Algorithm {
    /// All kinds.
    pub const ALL: [Self; 2] = [Self::Rsa2048, Self::EcdsaP256];

    /// The name on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rsa2048 => "rsa-2048",
            Self::EcdsaP256 => "ecdsa-p256",
        }
    }
}

impl FromStr for Algorithm {
    type Err = KeyError;

    fn from_str(name: &str) -> Result<Self, KeyError> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
            .ok_or_else(|| KeyError::Algorithm(name.to_owned()))
    }
}

/// Why a key is not usable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// No such kind.
    #[error("expected the algorithm rsa-2048 or ecdsa-p256, found {0:?}")]
    Algorithm(String),
    /// There is none.
    #[error("expected a private key (a PEM block `{PRIVATE_KEY}`), found none")]
    Missing,
    /// More than one.
    #[error("expected one private key, found {0}: which of them is meant?")]
    Several(usize),
    /// Another container of private keys.
    #[error(
        "expected a private key in PKCS #8 without a passphrase (a PEM block `{PRIVATE_KEY}`), found `{0}`: convert it with `openssl pkcs8 -topk8 -nocrypt -in OLD -out NEW`"
    )]
    Container(String),
    /// The key's bytes are damaged.
    #[error("the private key is malformed")]
    Malformed(#[source] pkcs8::Error),
    /// A kind of key that is not known here.
    #[error("expected an RSA key or an ECDSA key on the curve P-256, found {0}")]
    Kind(String),
    /// A size that kernels do not take.
    #[error("expected an RSA key of 2048, 3072 or 4096 bits, found one of {0} bits")]
    Size(u32),
    /// The public key's bytes are damaged.
    #[error("the public key is malformed")]
    Public(#[source] spki::Error),
    /// No key could be made.
    #[error("no key can be made")]
    Generate(#[source] Box<dyn Error + Send + Sync>),
    /// Nothing could be signed.
    #[error("the private key does not sign")]
    Sign(#[source] rsa::signature::Error),
}

/// A private key that stays where it is, as in a token: it is asked for signatures.
pub trait RemoteKey: fmt::Debug + Send + Sync {
    /// Signs the SHA-256 of a message as X.509 has it: RSA by PKCS #1, version 1.5; ECDSA's two numbers in DER.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>>;
}

/// What signs here. All that it writes about itself in debug messages is its public half.
pub(super) enum PrivateKey {
    Rsa(pkcs1v15::SigningKey<Sha256>),
    EcdsaP256(ecdsa::SigningKey),
}

impl PrivateKey {
    pub(super) fn generate(algorithm: Algorithm) -> Result<Self, KeyError> {
        match algorithm {
            Algorithm::Rsa2048 => pkcs1v15::SigningKey::random(&mut SysRng, 2048)
                .map(Self::Rsa)
                .map_err(|error| KeyError::Generate(error.into())),
            Algorithm::EcdsaP256 => ecdsa::SigningKey::try_generate_from_rng(&mut SysRng)
                .map(Self::EcdsaP256)
                .map_err(|error| KeyError::Generate(error.into())),
        }
    }

    /// The only private key in a text.
    pub(super) fn from_pem(text: &str) -> Result<Self, KeyError> {
        let blocks: Vec<_> = pem::blocks(text)
            .filter(|block| block.label.ends_with(PRIVATE_KEY))
            .collect();
        let block = match &blocks[..] {
            [block] => block,
            [] => return Err(KeyError::Missing),
            several => return Err(KeyError::Several(several.len())),
        };
        if block.label != PRIVATE_KEY {
            return Err(KeyError::Container(block.label.to_owned()));
        }
        let (_, document) = der::SecretDocument::from_pem(block.text)
            .map_err(|error| KeyError::Malformed(error.into()))?;
        let info = pkcs8::PrivateKeyInfoRef::from_der(document.as_bytes())
            .map_err(|error| KeyError::Malformed(error.into()))?;
        let key = match Scheme::of_key(info.algorithm)? {
            Scheme::Rsa => {
                let key = rsa::PrivateKey::from_pkcs8_der(document.as_bytes())
                    .map_err(KeyError::Malformed)?;
                Self::Rsa(pkcs1v15::SigningKey::new(key))
            }
            Scheme::EcdsaP256 => Self::EcdsaP256(
                ecdsa::SigningKey::from_pkcs8_der(document.as_bytes())
                    .map_err(KeyError::Malformed)?,
            ),
        };
        key.public().check_size()?;
        Ok(key)
    }

    pub(super) fn to_pem(&self) -> Result<Zeroizing<String>, KeyError> {
        match self {
            Self::Rsa(key) => key.to_pkcs8_pem(LineEnding::LF),
            Self::EcdsaP256(key) => key.to_pkcs8_pem(LineEnding::LF),
        }
        .map_err(KeyError::Malformed)
    }

    pub(super) fn public(&self) -> PublicKey {
        match self {
            Self::Rsa(key) => PublicKey::Rsa(key.verifying_key()),
            Self::EcdsaP256(key) => PublicKey::EcdsaP256(*key.verifying_key()),
        }
    }

    /// The public half as certificates hold it.
    pub(super) fn public_info(&self) -> spki::Result<SubjectPublicKeyInfoOwned> {
        match self {
            Self::Rsa(key) => SubjectPublicKeyInfoOwned::from_key(&key.verifying_key()),
            Self::EcdsaP256(key) => SubjectPublicKeyInfoOwned::from_key(key.verifying_key()),
        }
    }

    /// Signs the SHA-256 of a message. RSA is blinded against those who watch the time; the
    /// signature does not depend on that. ECDSA takes its nonce from the message (RFC 6979).
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let signature = match self {
            Self::Rsa(key) => key.try_sign(message).map(|signature| signature.to_vec()),
            Self::EcdsaP256(key) => key
                .try_sign(message)
                .map(|signature: DerSignature| signature.to_vec()),
        };
        signature.map_err(KeyError::Sign)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PrivateKey").field(&self.public()).finish()
    }
}

/// What checks signatures.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum PublicKey {
    Rsa(pkcs1v15::VerifyingKey<Sha256>),
    EcdsaP256(ecdsa::VerifyingKey),
}

impl PublicKey {
    pub(super) fn from_info(info: &SubjectPublicKeyInfoOwned) -> Result<Self, KeyError> {
        let scheme = Scheme::of_key(info.algorithm.owned_to_ref())?;
        let bytes = info
            .to_der()
            .map_err(|error| KeyError::Public(error.into()))?;
        let key = match scheme {
            Scheme::Rsa => rsa::PublicKey::from_public_key_der(&bytes)
                .map(|key| Self::Rsa(pkcs1v15::VerifyingKey::new(key))),
            Scheme::EcdsaP256 => {
                ecdsa::VerifyingKey::from_public_key_der(&bytes).map(Self::EcdsaP256)
            }
        };
        let key = key.map_err(KeyError::Public)?;
        key.check_size()?;
        Ok(key)
    }

    pub(super) fn scheme(&self) -> Scheme {
        match self {
            Self::Rsa(_) => Scheme::Rsa,
            Self::EcdsaP256(_) => Scheme::EcdsaP256,
        }
    }

    /// Whether `signature` is this key's over the SHA-256 of `message`.
    pub(super) fn accepts(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Rsa(key) => pkcs1v15::Signature::try_from(signature)
                .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
            Self::EcdsaP256(key) => DerSignature::try_from(signature)
                .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
        }
    }

    fn check_size(&self) -> Result<(), KeyError> {
        match self {
            Self::Rsa(key) if !RSA_BITS.contains(&rsa_bits(key)) => {
                Err(KeyError::Size(rsa_bits(key)))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rsa(key) => write!(f, "RSA, {} bits", rsa_bits(key)),
            Self::EcdsaP256(_) => f.write_str("ECDSA, curve P-256"),
        }
    }
}

fn rsa_bits(key: &pkcs1v15::VerifyingKey<Sha256>) -> u32 {
    key.as_ref().n().bit_width()
}

/// Ways to sign; the hash is always SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    /// RSASSA-PKCS1-v1_5.
    Rsa,
    /// ECDSA on the curve P-256.
    EcdsaP256,
}

impl Scheme {
    /// How a key of this algorithm signs.
    fn of_key(algorithm: AlgorithmIdentifierRef<'_>) -> Result<Self, KeyError> {
        match algorithm.oid {
            RSA_ENCRYPTION => Ok(Self::Rsa),
            EC_PUBLIC_KEY if algorithm.parameters_oid() == Ok(CURVE_P256) => Ok(Self::EcdsaP256),
            EC_PUBLIC_KEY => Err(KeyError::Kind("an ECDSA key on another curve".to_owned())),
            other => Err(KeyError::Kind(format!("a key of algorithm {other}"))),
        }
    }
}
