//! Checking a signature where no kernel part does it.

use super::certificate::{Certificate, KeyId};
use super::cms::{self, CmsError};
use crate::Bundle;

/// A signature that holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Signed<'a> {
    /// The certificates whose keys signed; at least one.
    pub by: Vec<&'a Certificate>,
    /// Signers whose certificates were not given: nothing is known of what they say.
    pub unknown: Vec<KeyId>,
}

impl Bundle {
    /// Checks that at least one of `trusted` signed the manifest, and that what trusted ones
    /// signed is this manifest.
    ///
    /// As in the kernel, all that counts of a certificate is its key: no validity, no issuer.
    pub fn verify<'a>(&self, trusted: &'a [Certificate]) -> Result<Signed<'a>, VerifyError> {
        let signature = self.signature().ok_or(VerifyError::Unsigned)?;
        verify(self.manifest_bytes(), signature, trusted)
    }

    /// The keys that the signature says it is by. Anyone can write that.
    pub fn claimed_signers(&self) -> Result<Vec<KeyId>, VerifyError> {
        let signature = self.signature().ok_or(VerifyError::Unsigned)?;
        let statements = cms::decode(signature)?;
        Ok(statements
            .into_iter()
            .map(|statement| statement.key_id)
            .collect())
    }
}

fn verify<'a>(
    message: &[u8],
    signature: &[u8],
    trusted: &'a [Certificate],
) -> Result<Signed<'a>, VerifyError> {
    let mut signed = Signed {
        by: Vec::new(),
        unknown: Vec::new(),
    };
    for statement in cms::decode(signature)? {
        let signer = trusted
            .iter()
            .find(|certificate| *certificate.key_id() == statement.key_id);
        let Some(signer) = signer else {
            signed.unknown.push(statement.key_id);
            continue;
        };
        let key = signer.key();
        if key.scheme() != statement.scheme || !key.accepts(message, &statement.signature) {
            return Err(VerifyError::Wrong {
                subject: signer.subject().to_owned(),
                key_id: statement.key_id,
            });
        }
        signed.by.push(signer);
    }
    if signed.by.is_empty() {
        return Err(VerifyError::Unknown {
            found: list(&signed.unknown),
            trusted: list(trusted.iter().map(Certificate::key_id)),
        });
    }
    Ok(signed)
}

fn list<'a>(ids: impl IntoIterator<Item = &'a KeyId>) -> String {
    let ids: Vec<_> = ids.into_iter().map(KeyId::to_string).collect();
    ids.join(", ")
}

/// Why a bundle is not to be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// There is no signature.
    #[error("the bundle is not signed: build it with --key")]
    Unsigned,
    /// The signature is no such thing.
    #[error("the signature is not of the form that kernels check")]
    Form(#[from] CmsError),
    /// Signed by others.
    #[error("expected a signature by key {trusted}, found one by {found}: nobody trusted signed")]
    Unknown {
        /// The signers' keys.
        found: String,
        /// The trusted keys.
        trusted: String,
    },
    /// The signature is about something else, or made with another key.
    #[error(
        "the signature by {subject} (key {key_id}) does not belong to this manifest: one of them was changed, or the key only carries another's name"
    )]
    Wrong {
        /// The trusted certificate's subject.
        subject: String,
        /// Its key.
        key_id: KeyId,
    },
}
