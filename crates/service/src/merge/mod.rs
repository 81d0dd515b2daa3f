//! One bundle of several.

mod share;

use std::collections::BTreeSet;

use preverify_bundle::{
    Builder, Bundle, Certificate, FormatError, SectionKind, Signer, SignerError, Target,
    VerifyError,
};
use preverify_pipeline::evidence::Evidence;

use share::Share;

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
    /// They have shares of an object's programs, and were not verified in the same way.
    #[error("the shares of the object's programs do not become one: they differ in {0}")]
    Differ(&'static str),
    /// Together they are more than a bundle holds.
    #[error(transparent)]
    Format(FormatError),
    /// It cannot be signed.
    #[error(transparent)]
    Sign(#[from] SignerError),
}

/// Makes one signed bundle of parts that have targets each.
pub fn merge(parts: &[Vec<u8>], signer: &Signer) -> Result<Bundle, MergeError> {
    let mut builder = Builder::new();
    for part in trusted(parts, signer)? {
        builder.targets_of(&part).map_err(MergeError::Format)?;
    }
    signed(builder, signer)
}

/// Makes one signed bundle of parts that have shares of an object's programs, for the same target: the bundle that comes
/// of a kernel which gets all of them at once.
pub fn join(parts: &[Vec<u8>], signer: &Signer) -> Result<Bundle, MergeError> {
    let mut builder = Builder::new();
    let mut whole: Option<Share> = None;
    for part in trusted(parts, signer)? {
        let targets = builder.sections_of(&part).map_err(MergeError::Format)?;
        for (target, evidence) in targets.into_iter().zip(evidence(&part)) {
            let share = Share {
                target,
                evidence: evidence.ok_or(MergeError::Differ("evidence"))?,
            };
            whole = Some(match whole {
                None => share,
                Some(before) => before.and(share)?,
            });
        }
    }
    if let Some(Share { target, evidence }) = whole {
        let evidence = serde_json::to_vec(&evidence).expect("only strings are keys");
        let evidence = builder.section(SectionKind::Evidence, evidence);
        builder.target(Target {
            evidence: Some(evidence.map_err(MergeError::Format)?),
            ..target
        });
    }
    signed(builder, signer)
}

/// The parts, if this signer has signed all of them: so whatever goes into a whole was verified by who holds that key. All
/// must be of one object.
fn trusted(parts: &[Vec<u8>], signer: &Signer) -> Result<Vec<Bundle>, MergeError> {
    let trusted: &[Certificate] = std::slice::from_ref(signer.certificate());
    let mut objects = BTreeSet::new();
    let mut bundles = Vec::with_capacity(parts.len());
    for bytes in parts {
        let part = Bundle::read(bytes).map_err(MergeError::Part)?;
        part.verify(trusted)
            .map_err(|source| MergeError::Signature {
                signer: signer.to_string(),
                source,
            })?;
        objects.extend(evidence(&part).map(|evidence| {
            evidence.map_or_else(|| "nobody knows what".into(), |found| found.object_sha256)
        }));
        bundles.push(part);
    }
    match objects.len() {
        1 => Ok(bundles),
        _ => Err(MergeError::Objects { objects }),
    }
}

fn signed(builder: Builder, signer: &Signer) -> Result<Bundle, MergeError> {
    let mut bundle = builder.finish().map_err(MergeError::Format)?;
    bundle.sign(signer)?;
    Ok(bundle)
}

/// What a bundle tells about how its targets came to be.
fn evidence(part: &Bundle) -> impl Iterator<Item = Option<Evidence>> {
    part.manifest().targets.iter().map(|target| {
        let section = target.evidence.and_then(|id| part.section(id));
        section.and_then(|json| serde_json::from_slice(json).ok())
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use preverify_bundle::{Algorithm, Fingerprint};
    use preverify_pipeline::evidence::{Kernel, ProgramEvidence};
    use preverify_protocol::{Inputs, Statistics};

    use super::*;

    /// What is told of one program of an object with this digest.
    pub(super) fn evidence(object: &str, program: &str) -> Evidence {
        Evidence {
            object: "object".into(),
            object_sha256: object.into(),
            inputs: Inputs::default(),
            kernel: Kernel {
                release: "6.12".into(),
                version: "#1".into(),
                command_line: String::new(),
                cpu: "qemu64".into(),
            },
            device_kernel: None,
            versions: BTreeMap::new(),
            limits: None,
            programs: vec![ProgramEvidence::new(
                program,
                &Statistics::default(),
                None,
                None,
            )],
        }
    }

    fn signer() -> Signer {
        Signer::generate(Algorithm::EcdsaP256, "test", Duration::from_secs(3600)).unwrap()
    }

    /// A bundle for one target, of an object with this digest.
    fn part(release: &str, object: &str) -> Bundle {
        let evidence = serde_json::to_vec(&evidence(object, "program")).unwrap();
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
