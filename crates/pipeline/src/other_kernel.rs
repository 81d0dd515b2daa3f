//! Programs for a kernel that another one verified for: of the same source, but built without what devices do not need.
//!
//! The code of images stays as it was proved. Symbols are looked up by name in the kernel of devices; and all that the
//! object relies on is compared between both kernels. What cannot be found there, or is not the same, is refused by name.

mod attach;
mod numbers;
mod reliance;
mod relocate;

use preverify_bundle::{AttachTarget, Fingerprint};
use preverify_image::image::Sections;
use preverify_image::symbols::KernelSymbols;
use preverify_protocol::Loaded;
use preverify_target::Target;

use crate::error::BuildError;
use crate::images::VerifiedProgram;
use crate::object::Object;
pub use attach::AttachError;
use relocate::Kernels;
pub use relocate::SymbolError;

/// What the kernel of devices needs of an object that another kernel verified.
#[derive(Debug)]
pub struct OnDevice {
    /// The symbol that functions return through, as an offset from `_text`; zero if they return plainly.
    return_thunk: u64,
    /// The object's programs, in order.
    programs: Vec<ProgramOnDevice>,
}

/// What it needs of one program.
#[derive(Debug, Default)]
pub(crate) struct ProgramOnDevice {
    /// The native image, with its symbols.
    pub native: Option<Sections>,
    /// The bytecode image, with its symbols.
    pub bytecode: Option<Sections>,
    /// What it attaches to, in the BTF of the kernel of devices.
    pub attach_btf_id: u32,
    /// What it attaches to, as that BTF has it.
    pub attach_target: Option<AttachTarget>,
}

impl OnDevice {
    /// A fingerprint of the kernel that verifies, as the one of devices has it.
    pub(crate) fn fingerprint(&self, verifier: Fingerprint) -> Fingerprint {
        Fingerprint {
            return_thunk: self.return_thunk.into(),
            ..verifier
        }
    }

    pub(crate) fn program(&self, index: usize) -> Option<&ProgramOnDevice> {
        self.programs.get(index)
    }
}

/// Why something cannot be carried to the kernel of devices.
#[derive(Debug)]
pub struct Mismatch {
    /// The program that relies on it; or all of the object.
    pub program: Option<String>,
    /// What it is.
    pub reason: MismatchReason,
}

/// Why something cannot be carried to the kernel of devices.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MismatchReason {
    /// A type, function or per-CPU variable is not the same.
    #[error(transparent)]
    Type(#[from] preverify_btf::Difference),
    /// It holds the number of a type, and that is not the same.
    #[error(
        "it holds the number of {kind} {name} among the kernel's types, which is {verifier} in the kernel that verifies and \
         {device} in the kernel of devices (0: there is none)"
    )]
    Number {
        /// What the type is.
        kind: preverify_btf::Kind,
        /// Its name.
        name: String,
        /// Its number in the kernel that verifies.
        verifier: u32,
        /// Its number in the kernel of devices.
        device: u32,
    },
    /// It holds the number of a type that cannot be looked up in the other kernel.
    #[error(
        "it holds the number that one of the kernel's types has in the kernel that verifies, and the type is none that \
         could be looked up by name in the kernel of devices"
    )]
    NamelessNumber,
    /// An option of the configuration is not the same.
    #[error(
        "{name}, which it reads, is {} in the kernel that verifies and {} in the kernel of devices",
        verifier.as_deref().unwrap_or("not set"), device.as_deref().unwrap_or("not set")
    )]
    Option {
        /// The option.
        name: String,
        /// Its value in the kernel that verifies.
        verifier: Option<String>,
        /// Its value in the kernel of devices.
        device: Option<String>,
    },
    /// A symbol is not there.
    #[error(transparent)]
    Symbol(#[from] SymbolError),
    /// What it attaches to cannot be had.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// A map whose values point to the kernel's types.
    #[error(
        "the values of its map with {value_size} bytes each have a pointer to one of the kernel's types at byte \
         {offset}; a kernel without BTF cannot create such a map"
    )]
    KernelPointer {
        /// Bytes of a value.
        value_size: u32,
        /// Where in the value.
        offset: u32,
    },
    /// The object's own types cannot be read.
    #[error("what it relies on cannot be told: {0}")]
    Object(String),
}

/// Carries an object over to the kernel of devices, if that is another one than the target's that verified it.
pub(crate) fn fit(
    target: &Target,
    object: &Object,
    loaded: &Loaded,
    programs: &[VerifiedProgram],
    symbols: &KernelSymbols,
) -> Result<Option<OnDevice>, BuildError> {
    let Some(device) = target.device() else {
        return Ok(None);
    };
    let builds = device.load()?;
    let comparison = builds.comparison();
    let mut mismatches = Vec::new();
    let places: Vec<_> = programs
        .iter()
        .zip(&loaded.programs)
        .filter_map(|(program, loaded)| attach::place(&program.export, loaded))
        .collect();
    let of_object = reliance::of_object(&object.elf, &places, &builds, &comparison);
    mismatches.extend(of_object.into_iter().map(|reason| Mismatch {
        program: None,
        reason,
    }));
    let kernels = Kernels {
        verifier: symbols,
        device: &builds.symbols,
        named: &reliance::named_symbols(&object.elf),
    };
    let mut fitted = Vec::new();
    for (program, loaded) in programs.iter().zip(&loaded.programs) {
        let mut reasons = reliance::of_maps(&program.export);
        let mut on_device = ProgramOnDevice::default();
        let images = [
            (&program.native, &mut on_device.native),
            (&program.bytecode, &mut on_device.bytecode),
        ];
        for (image, place) in images {
            let Some(image) = image else { continue };
            match relocate::sections(&image.sections, kernels) {
                Ok(sections) => *place = Some(sections),
                Err(errors) => reasons.extend(errors.into_iter().map(MismatchReason::from)),
            }
        }
        match attach::find(&program.export, loaded, &builds, &comparison) {
            Ok(Some((id, found))) => {
                on_device.attach_btf_id = id;
                on_device.attach_target = Some(found);
            }
            Ok(None) => {}
            Err(errors) => reasons.extend(errors),
        }
        // Both images have nearly the same symbols.
        let mut told = Vec::new();
        for reason in reasons {
            let words = reason.to_string();
            if !told.contains(&words) {
                told.push(words);
                mismatches.push(Mismatch {
                    program: Some(loaded.function.clone()),
                    reason,
                });
            }
        }
        fitted.push(on_device);
    }
    let return_thunk = match &target.facts().return_thunk {
        Some(name) => relocate::function(name, &builds.symbols),
        None => Ok(0),
    };
    match return_thunk {
        Ok(return_thunk) if mismatches.is_empty() => Ok(Some(OnDevice {
            return_thunk,
            programs: fitted,
        })),
        Ok(_) => Err(BuildError::OtherKernel(mismatches)),
        Err(reason) => {
            mismatches.push(Mismatch {
                program: None,
                reason: reason.into(),
            });
            Err(BuildError::OtherKernel(mismatches))
        }
    }
}
