//! The bytes of a signature: CMS SignedData (RFC 5652) in the form that kernels check.

use cms::content_info::{CmsVersion, ContentInfo};
use cms::signed_data::{
    EncapsulatedContentInfo, SignedData, SignerIdentifier, SignerInfo, SignerInfos,
};
use der::asn1::{ObjectIdentifier, OctetString, SetOfVec};
use der::{Any, Decode, Encode};
use x509_cert::ext::pkix::SubjectKeyIdentifier;
use x509_cert::spki::AlgorithmIdentifierOwned;

use super::certificate::KeyId;
use super::key::Scheme;

const DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");

/// What one signer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) key_id: KeyId,
    pub(super) scheme: Scheme,
    pub(super) signature: Vec<u8>,
}

/// Writes the SignedData of one signer.
pub(super) fn encode(key_id: &KeyId, scheme: Scheme, signature: &[u8]) -> der::Result<Vec<u8>> {
    let key_id = OctetString::new(key_id.as_bytes())?;
    let signer = SignerInfo {
        version: CmsVersion::V3,
        sid: SignerIdentifier::SubjectKeyIdentifier(SubjectKeyIdentifier(key_id)),
        digest_alg: algorithm(SHA256, None),
        signed_attrs: None,
        signature_algorithm: match scheme {
            Scheme::Rsa => algorithm(RSA_ENCRYPTION, Some(Any::null())),
            Scheme::EcdsaP256 => algorithm(ECDSA_WITH_SHA256, None),
        },
        signature: OctetString::new(signature)?,
        unsigned_attrs: None,
    };
    let data = SignedData {
        version: CmsVersion::V3,
        digest_algorithms: SetOfVec::try_from(vec![algorithm(SHA256, None)])?,
        encap_content_info: EncapsulatedContentInfo {
            econtent_type: DATA,
            econtent: None,
        },
        certificates: None,
        crls: None,
        signer_infos: SignerInfos::try_from(vec![signer])?,
    };
    ContentInfo {
        content_type: SIGNED_DATA,
        content: Any::encode_from(&data)?,
    }
    .to_der()
}

fn algorithm(oid: ObjectIdentifier, parameters: Option<Any>) -> AlgorithmIdentifierOwned {
    AlgorithmIdentifierOwned { oid, parameters }
}

/// Reads what the signers say; at least one says something.
pub(super) fn decode(bytes: &[u8]) -> Result<Vec<Statement>, CmsError> {
    let info = ContentInfo::from_der(bytes)?;
    expect("content", "signed data", info.content_type == SIGNED_DATA)?;
    let data: SignedData = info.content.decode_as()?;
    expect("version", "3", data.version == CmsVersion::V3)?;
    expect(
        "digest algorithms",
        "SHA-256",
        data.digest_algorithms.iter().all(is_sha256) && !data.digest_algorithms.is_empty(),
    )?;
    let content = &data.encap_content_info;
    expect(
        "type of what is signed",
        "data",
        content.econtent_type == DATA,
    )?;
    expect(
        "signed content",
        "none: it is detached",
        content.econtent.is_none(),
    )?;
    expect(
        "certificates and revocation lists",
        "none (openssl: -nocerts)",
        data.certificates.is_none() && data.crls.is_none(),
    )?;
    let signers = data.signer_infos.0.as_slice();
    expect("number of signers", "one at least", !signers.is_empty())?;
    signers.iter().map(decode_signer).collect()
}

fn decode_signer(signer: &SignerInfo) -> Result<Statement, CmsError> {
    let SignerIdentifier::SubjectKeyIdentifier(SubjectKeyIdentifier(key_id)) = &signer.sid else {
        return Err(CmsError::Form {
            place: "signer's name",
            expected: "a key identifier (openssl: -keyid)",
        });
    };
    expect("signer's version", "3", signer.version == CmsVersion::V3)?;
    expect("signer's digest", "SHA-256", is_sha256(&signer.digest_alg))?;
    expect(
        "signer's attributes",
        "none (openssl: -noattr)",
        signer.signed_attrs.is_none() && signer.unsigned_attrs.is_none(),
    )?;
    let algorithm = &signer.signature_algorithm;
    let scheme = match algorithm.oid {
        RSA_ENCRYPTION if is_null_or_absent(algorithm) => Scheme::Rsa,
        ECDSA_WITH_SHA256 if algorithm.parameters.is_none() => Scheme::EcdsaP256,
        _ => {
            return Err(CmsError::Form {
                place: "signature algorithm",
                expected: "RSA (PKCS #1, version 1.5) or ECDSA, with SHA-256",
            });
        }
    };
    Ok(Statement {
        key_id: KeyId::from_octets(key_id.clone()),
        scheme,
        signature: signer.signature.as_bytes().to_vec(),
    })
}

fn is_sha256(algorithm: &AlgorithmIdentifierOwned) -> bool {
    algorithm.oid == SHA256 && is_null_or_absent(algorithm)
}

/// Both are written for algorithms without parameters.
fn is_null_or_absent(algorithm: &AlgorithmIdentifierOwned) -> bool {
    algorithm.parameters.as_ref().is_none_or(Any::is_null)
}

fn expect(place: &'static str, expected: &'static str, holds: bool) -> Result<(), CmsError> {
    if holds {
        return Ok(());
    }
    Err(CmsError::Form { place, expected })
}

/// Why bytes are no signature of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CmsError {
    /// No CMS at all.
    #[error("it is no CMS")]
    Malformed(#[from] der::Error),
    /// CMS of another form than kernels are given.
    #[error("{place}: expected {expected}, found something else")]
    Form {
        /// What was read.
        place: &'static str,
        /// What must stand there.
        expected: &'static str,
    },
}
