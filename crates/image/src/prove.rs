//! The proof: the image as a bundle holds it, relinked with the addresses of a boot, is what that
//! boot's own kernel has.
//!
//! It starts from the serialised bytes, because they are what is signed, and shares nothing with
//! the discovery.

use std::fmt::Debug;

use preverify_abi::image::{Extable, Poke};
use thiserror::Error;

use crate::Capture;
use crate::export::{self, Export, Insn};
use crate::hex::Hex;
use crate::image::{Image, ImageError, Sections};
use crate::relink::{Addresses, RelinkError, relink};

/// How much was compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// Bytes of native code.
    pub code_bytes: usize,
    /// Relocations in them.
    pub relocations: usize,
}

/// An image that is not the program that the kernel has.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProofError {
    /// The sections cannot be read.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The image cannot be linked.
    #[error("the program `{program}` cannot be linked for its proof: {source}")]
    Relink {
        /// The program.
        program: String,
        /// Why.
        source: RelinkError,
    },
    /// Other code.
    #[error(
        "program `{program}`, function {function}, offset {offset:#x}: the image has `{image}`, the kernel's JIT wrote `{kernel}`"
    )]
    Code {
        /// The program.
        program: String,
        /// The function, by index.
        function: usize,
        /// The first byte that differs, from the function's start.
        offset: usize,
        /// The image's bytes there, relinked.
        image: Hex,
        /// The kernel's bytes there.
        kernel: Hex,
    },
    /// Something else differs.
    #[error("program `{program}`: {what} of the image is {image}, of the kernel {kernel}")]
    Differ {
        /// The program.
        program: String,
        /// What differs.
        what: String,
        /// The image's.
        image: String,
        /// The kernel's.
        kernel: String,
    },
}

/// The most bytes of a run.
const RUN: usize = 16;

/// Relinks an image with the addresses of a capture, and compares everything in it with what the
/// kernel of that capture has.
pub fn prove(sections: &Sections, capture: Capture<'_>) -> Result<Proof, ProofError> {
    let image = Image::parse(&sections.image, &sections.symbols)?;
    let case = Case {
        image: &image,
        capture,
    };
    case.compare_code()?;
    case.compare_tables()?;
    case.compare_bytecode()?;
    Ok(Proof {
        code_bytes: image.functions.iter().map(|found| found.code.len()).sum(),
        relocations: image.functions.iter().map(|found| found.relocs.len()).sum(),
    })
}

#[derive(Clone, Copy)]
struct Case<'a> {
    image: &'a Image,
    capture: Capture<'a>,
}

impl Case<'_> {
    fn compare_code(self) -> Result<(), ProofError> {
        let kernel = &self.capture.export.functions;
        self.same(
            "the number of functions",
            self.image.functions.len(),
            kernel.len(),
        )?;
        let relinked = relink(self.image, &Addresses::from(self.capture));
        let relinked = relinked.map_err(|source| ProofError::Relink {
            program: self.program(),
            source,
        })?;
        for (index, (image, kernel)) in relinked.functions.iter().zip(kernel).enumerate() {
            let kernel = &kernel.code;
            self.same(
                format!("the size of function {index}"),
                image.len(),
                kernel.len(),
            )?;
            let difference = image.iter().zip(kernel).position(|(a, b)| a != b);
            if let Some(offset) = difference {
                let run = |code: &[u8]| Hex(code[offset..code.len().min(offset + RUN)].to_vec());
                return Err(ProofError::Code {
                    program: self.program(),
                    function: index,
                    offset,
                    image: run(image),
                    kernel: run(kernel),
                });
            }
        }
        Ok(())
    }

    fn compare_tables(self) -> Result<(), ProofError> {
        let (image, export) = (self.image, self.capture.export);
        self.same(
            "what the verifier found out",
            image.conclusions,
            export.conclusions,
        )?;
        self.same(
            "the tag of the first function",
            image.functions.first().map(|function| function.tag),
            Some(export.conclusions.tag),
        )?;
        for (index, (image, kernel)) in image.functions.iter().zip(&export.functions).enumerate() {
            let what = |part: &str| format!("the {part} of function {index}");
            self.same(what("stack depth"), image.stack_depth, kernel.stack_depth)?;
            self.same(what("flags"), image.flags, kernel.flags)?;
            self.same::<&[Extable]>(what("exception table"), &image.extable, &kernel.extable)?;
        }
        self.same(
            "the number of tail calls",
            image.pokes.len(),
            export.pokes.len(),
        )?;
        for (index, (image, kernel)) in image.pokes.iter().zip(&export.pokes).enumerate() {
            let kernel = export::Poke {
                // The main program's `aux` stands for its first function.
                function: kernel.function.or(Some(0)),
                ..*kernel
            };
            let what = format!("tail call {index}");
            self.same(what, absolute(image, export), Some(kernel))?;
        }
        Ok(())
    }

    /// The bytecode is the kernel's, but for zeroes in the place of addresses.
    fn compare_bytecode(self) -> Result<(), ProofError> {
        let (image, kernel) = (&self.image.xlated, &self.capture.export.xlated);
        self.same("the length of the bytecode", image.len(), kernel.len())?;
        let mut is_second_half = false;
        for (index, (image, kernel)) in image.iter().zip(kernel).enumerate() {
            let is_load = !is_second_half && kernel.code == Insn::LD_IMM64;
            let may_be_address = is_load || is_second_half || kernel.is_kernel_call();
            if image.imm != 0 || !may_be_address {
                self.same(format!("instruction {index}"), image, kernel)?;
            }
            let kernel = Insn { imm: 0, ..*kernel };
            self.same(
                format!("instruction {index}"),
                Insn { imm: 0, ..*image },
                kernel,
            )?;
            is_second_half = is_load;
        }
        Ok(())
    }

    fn same<T: PartialEq + Debug>(
        self,
        what: impl Into<String>,
        image: T,
        kernel: T,
    ) -> Result<(), ProofError> {
        if image == kernel {
            return Ok(());
        }
        Err(ProofError::Differ {
            program: self.program(),
            what: what.into(),
            image: format!("{image:?}"),
            kernel: format!("{kernel:?}"),
        })
    }

    fn program(self) -> String {
        self.capture.export.name.clone()
    }
}

/// A tail call of the image with the addresses of a capture.
fn absolute(poke: &Poke, export: &Export) -> Option<export::Poke> {
    let index = usize::try_from(poke.function.get()).ok()?;
    let map = usize::try_from(poke.map.get()).ok()?;
    let start = export.functions.get(index)?.address;
    Some(export::Poke {
        target: start.wrapping_add(poke.target.get().into()),
        bypass: start.wrapping_add(poke.bypass.get().into()),
        bypass_target: start.wrapping_add(poke.bypass_target.get().into()),
        map: export.maps.get(map)?.address(),
        key: poke.key.get(),
        function: Some(index),
        insn_idx: poke.insn_idx.get(),
        adjust: poke.adjust.get(),
    })
}
