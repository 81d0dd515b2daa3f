//! An object that was verified, and questions about it for the kernel part: honest ones, and such that no loader
//! would ask.

use preverify_abi::image::IMAGE_NATIVE;
use preverify_bundle::{Bundle, Image, Manifest, MapUse, Section, SectionId};
use preverify_pipeline::Verified;
use preverify_probe::{Answer, Case, Load, Map, Refusal};
use preverify_target::DeviceOptions;
use sha2::{Digest, Sha256};

use crate::device::Device;
use crate::lab::{Lab, LabError};

/// A verified object with its bundle. It must have what it is asked for: what does not is a mistake in the test.
pub struct Subject {
    /// Where it was verified.
    pub lab: Lab,
    /// The object.
    pub verified: Verified,
    /// Its bundle.
    pub bundle: Bundle,
    /// Which images the questions are about: `IMAGE_*`.
    pub kind: u32,
}

impl Subject {
    /// The compiled program `tests/programs/NAME.bpf.c`, for the target's architecture.
    pub fn new(lab: Lab, name: &str, kind: u32) -> Result<Self, LabError> {
        let verified = lab.verify(&lab.object(name)?)?;
        let bundle = lab.bundle(&verified)?;
        Ok(Self {
            lab,
            verified,
            bundle,
            kind,
        })
    }

    /// The same with machine code alone.
    pub fn without_bytecode(mut self) -> Result<Self, LabError> {
        for program in &mut self.verified.programs {
            program.bytecode = None;
        }
        self.bundle = self.lab.bundle(&self.verified)?;
        self.kind = IMAGE_NATIVE;
        Ok(self)
    }

    /// Boots a device that answers questions.
    pub fn boot(&self) -> Result<Device, LabError> {
        self.lab.boot_for_probes(DeviceOptions::default())
    }

    /// A program's number.
    pub fn program(&self, function: &str) -> usize {
        let mut programs = self.verified.loaded.programs.iter();
        programs
            .position(|program| program.function == function)
            .unwrap_or_else(|| panic!("no program {function}"))
    }

    /// Opens the bundle and loads a program with maps as they must be: it succeeds.
    pub fn honest(&self, function: &str) -> Case {
        let program = self.program(function);
        let image = self.image_of(function);
        let maps = &self.bundle.manifest().targets[0].programs[program].maps;
        Case {
            manifest: self.bundle.manifest_bytes().to_vec(),
            signature: self
                .bundle
                .signature()
                .expect("the bundle is signed")
                .to_vec(),
            load: Some(Load {
                program: u32::try_from(program).expect("programs are few"),
                kind: self.kind,
                image: self.section(image.image),
                symbols: self.section(image.symbols.expect("all images have symbols")),
                maps: maps.iter().map(|&map| self.map(map as usize)).collect(),
            }),
            without: Vec::new(),
            times: 1,
        }
    }

    /// A map as it must be.
    fn map(&self, index: usize) -> Map {
        let map = &self.bundle.manifest().targets[0].maps[index];
        Map {
            map_type: map.map_type,
            key_size: map.key_size,
            value_size: map.value_size,
            max_entries: map.max_entries,
            map_flags: map.map_flags,
            map_extra: map.map_extra,
            contents: map.contents.map(|id| self.section(id)),
            frozen: map.usage == MapUse::Constant,
            inner: None,
        }
    }

    /// The honest case with another manifest, which the trusted signer has signed.
    pub fn with_manifest(&self, function: &str, change: impl FnOnce(&mut Manifest)) -> Case {
        let mut manifest = self.bundle.manifest().clone();
        change(&mut manifest);
        let manifest = manifest.encode().expect("the manifest can be encoded");
        Case {
            signature: self.lab.signer.sign(&manifest).expect("the signer signs"),
            manifest,
            ..self.honest(function)
        }
    }

    /// The honest case with another image, whose digest is in a manifest that the trusted signer has signed.
    pub fn with_image(&self, function: &str, image: Vec<u8>) -> Case {
        let index = self.image_of(function).image.index();
        let mut case = self.with_manifest(function, |manifest| {
            let Section { kind, .. } = manifest.sections[index];
            manifest.sections[index] = Section {
                digest: Sha256::digest(&image).into(),
                size: u32::try_from(image.len()).expect("images are small"),
                kind,
            };
        });
        case.load.as_mut().expect("an honest case loads").image = image;
        case
    }

    fn image_of(&self, function: &str) -> Image {
        let program = &self.bundle.manifest().targets[0].programs[self.program(function)];
        let image = match self.kind {
            IMAGE_NATIVE => program.native,
            _ => program.bytecode,
        };
        image.unwrap_or_else(|| panic!("no image of kind {} of {function}", self.kind))
    }

    fn section(&self, id: SectionId) -> Vec<u8> {
        self.bundle
            .section(id)
            .expect("the bundle has its sections")
            .to_vec()
    }
}

/// The image that a case loads.
pub fn image(case: &Case) -> Vec<u8> {
    case.load.as_ref().expect("the case loads").image.clone()
}

/// The refusal that an answer is.
pub fn refusal(answer: &Answer) -> &Refusal {
    match answer {
        Answer::NotOpened(refusal) | Answer::NotLoaded(refusal) => refusal,
        other => panic!("expected a refusal, found {other:?}"),
    }
}

/// Whether an answer is a refusal.
pub fn is_refused(answer: &Answer) -> bool {
    matches!(answer, Answer::NotOpened(_) | Answer::NotLoaded(_))
}

/// Every refusal says why.
pub fn assert_refused(answer: &Answer, what: &str) {
    assert!(is_refused(answer), "{what}: {answer:?}");
    let Refusal { errno, reason } = refusal(answer);
    assert!(*errno != 0, "{what}: no errno");
    assert!(!reason.is_empty(), "{what}: no reason with errno {errno}");
    assert!(
        !reason.contains('\n') && reason.len() > 8,
        "{what}: {reason:?} is no sentence"
    );
}

/// A refusal for this reason.
pub fn assert_reason(answer: &Answer, errno: i32, words: &str) {
    let found = refusal(answer);
    assert!(
        found.errno == errno && found.reason.contains(words),
        "expected errno {errno} and \"{words}\", found {found:?}"
    );
}
