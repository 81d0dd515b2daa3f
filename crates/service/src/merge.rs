//! One bundle of several.

use std::collections::BTreeSet;

use preverify_bundle::{
    Builder, Bundle, Certificate, FormatError, Signer, SignerError, VerifyError,
};
use serde::Deserialize;

/// Bundles do not become one.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// The bytes are no bundle.
    #[error("a part of the bundle cannot be read: {0}")]
    Part(FormatError),
    /// A verifier has not signed it.
    #[error("a part of the bundle is not signed by {signer}: {source}")]
    Signature {
        /// Who should have.
        signer: String,
        /// What is wrong.
        source: VerifyError,
    },
    /// They are of several objects, or do not say of which.
    #[error(
        "the parts of the bundle were verified for {}, and not all for one object",
        objects.iter().cloned().collect::<Vec<_>>().join(", ")
    )]
    Objects {
        /// The objects' SHA-256.
        objects: BTreeSet<String>,
    },
    /// Together they are more than a bundle holds.
    #[error(transparent)]
    Format(FormatError),
    /// It cannot be signed.
    #[error(transparent)]
    Sign(#[from] SignerError),
}

/// Makes one signed bundle of parts that the same signer has signed: so whatever goes in was verified by who holds that key.
/// All must be of one object.
pub fn merge(parts: &[Vec<u8>], signer: &Signer) -> Result<Bundle, MergeError> {
    let trusted: &[Certificate] = std::slice::from_ref(signer.certificate());
    let mut builder = Builder::new();
    let mut objects = BTreeSet::new();
    for bytes in parts {
        let part = Bundle::read(bytes).map_err(MergeError::Part)?;
        part.verify(trusted)
            .map_err(|source| MergeError::Signature {
                signer: signer.to_string(),
                source,
            })?;
        objects.extend(objects_of(&part));
        builder.targets_of(&part).map_err(MergeError::Format)?;
    }
    if objects.len() != 1 {
        return Err(MergeError::Objects { objects });
    }
    let mut bundle = builder.finish().map_err(MergeError::Format)?;
    bundle.sign(signer)?;
    Ok(bundle)
}

/// What of a target's evidence matters here.
#[derive(Deserialize)]
struct Evidence {
    object_sha256: String,
}

/// The objects that a bundle's targets were verified of, by their evidence.
fn objects_of(part: &Bundle) -> impl Iterator<Item = String> {
    part.manifest().targets.iter().map(|target| {
        let section = target.evidence.and_then(|id| part.section(id));
        let evidence = section.and_then(|json| serde_json::from_slice::<Evidence>(json).ok());
        evidence.map_or_else(|| "nobody knows what".into(), |found| found.object_sha256)
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use preverify_bundle::{Algorithm, Fingerprint, SectionKind, Target};

    use super::*;

    fn signer() -> Signer {
        Signer::generate(Algorithm::EcdsaP256, "test", Duration::from_secs(3600)).unwrap()
    }

    /// A bundle for one target, of an object with this digest.
    fn part(release: &str, object: &str) -> Bundle {
        let evidence = format!(r#"{{"object": "x", "object_sha256": "{object}"}}"#).into_bytes();
        let mut builder = Builder::new();
        let evidence = builder.section(SectionKind::Evidence, evidence).unwrap();
        builder.target(Target {
            build_id: vec![1],
            fingerprint: Fingerprint::default(),
            release: release.into(),
            programs: Vec::new(),
            maps: Vec::new(),
            slots: Vec::new(),
            btf: None,
            evidence: Some(evidence),
        });
        builder.finish().unwrap()
    }

    #[test]
    fn what_others_have_signed_is_not_taken() {
        let signer = signer();
        let mut part = part("a", "0");
        let unsigned = merge(&[part.to_bytes()], &signer).unwrap_err().to_string();
        assert!(unsigned.contains("is not signed by CN=test"), "{unsigned}");
        part.sign(&self::signer()).unwrap();
        let foreign = merge(&[part.to_bytes()], &signer).unwrap_err().to_string();
        assert!(foreign.contains("is not signed by CN=test"), "{foreign}");
        let damaged = merge(&[b"PVB".into()], &signer).unwrap_err().to_string();
        assert!(damaged.contains("cannot be read"), "{damaged}");
        part.sign(&signer).unwrap();
        assert_eq!(merge(&[part.to_bytes()], &signer).unwrap(), part);
    }

    #[test]
    fn parts_of_other_objects_are_not_taken() {
        let signer = signer();
        let merged = |parts: [Bundle; 2]| {
            let parts = parts.map(|mut part| {
                part.sign(&signer).unwrap();
                part.to_bytes()
            });
            merge(&parts, &signer)
        };
        let both = merged([part("a", "0"), part("b", "0")]).unwrap();
        assert_eq!(both.manifest().targets.len(), 2);
        let error = merged([part("a", "0"), part("b", "1")]).unwrap_err();
        assert!(error.to_string().contains("for 0, 1"), "{error}");
        let unknown = Builder::new().finish().unwrap();
        assert!(merged([unknown.clone(), unknown]).is_err());
    }
}
