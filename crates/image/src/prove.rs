//! The proof: the image as a bundle holds it, relinked with the addresses of a boot, is what that
//! boot's own kernel has.
//!
//! It starts from the serialised bytes, because they are what is signed, and shares nothing with
//! the discovery.

use std::fmt::Debug;

use preverify_abi::image::{Conclusions, Extable, Poke};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::Capture;
use crate::export::{self, Export, Insn};
use crate::hex::Hex;
use crate::image::{Image, ImageError, Machine, Sections};
use crate::relink::{Addresses, RelinkError, relink};

/// How much was compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// Bytes of code.
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
    /// Other bytecode.
    #[error(
        "program `{program}`, function {function}, instruction {index}: the image has `{image}`, the kernel's JIT compiled `{kernel}`"
    )]
    Instruction {
        /// The program.
        program: String,
        /// The function, by index.
        function: usize,
        /// The first instruction that differs, or half of one.
        index: usize,
        /// The image's, relinked.
        image: Hex,
        /// The kernel's.
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
            match self.image.machine {
                Machine::X86_64 | Machine::Arm64 => {
                    self.compare_native(index, image, &kernel.code)?;
                }
                Machine::Bpf => self.compare_instructions(index, image, &kernel.insns)?,
            }
        }
        Ok(())
    }

    fn compare_native(
        self,
        function: usize,
        image: &[u8],
        kernel: &[u8],
    ) -> Result<(), ProofError> {
        self.same(
            format!("the size of function {function}"),
            image.len(),
            kernel.len(),
        )?;
        let difference = image.iter().zip(kernel).position(|(a, b)| a != b);
        let Some(offset) = difference else {
            return Ok(());
        };
        let run = |code: &[u8]| Hex(code[offset..code.len().min(offset + RUN)].to_vec());
        Err(ProofError::Code {
            program: self.program(),
            function,
            offset,
            image: run(image),
            kernel: run(kernel),
        })
    }

    fn compare_instructions(
        self,
        function: usize,
        image: &[u8],
        kernel: &[Insn],
    ) -> Result<(), ProofError> {
        let (image, rest) = image.as_chunks::<8>();
        self.same(
            format!("the number of instructions of function {function}"),
            (image.len(), rest.len()),
            (kernel.len(), 0),
        )?;
        for (index, (image, kernel)) in image.iter().zip(kernel).enumerate() {
            let kernel = kernel.to_bytes();
            if *image != kernel {
                return Err(ProofError::Instruction {
                    program: self.program(),
                    function,
                    index,
                    image: Hex(image.to_vec()),
                    kernel: Hex(kernel.to_vec()),
                });
            }
        }
        Ok(())
    }

    fn compare_tables(self) -> Result<(), ProofError> {
        let (image, export) = (self.image, self.capture.export);
        let tag = |index: usize| image.functions.get(index).map(|function| function.tag);
        self.same(
            "what the verifier found out",
            image.conclusions,
            Conclusions {
                tag: image.conclusions.tag,
                ..export.conclusions
            },
        )?;
        self.compare_tag(0, image.conclusions.tag, export.conclusions.tag)?;
        self.same(
            "the first function's tag",
            tag(0),
            Some(image.conclusions.tag),
        )?;
        for (index, (image, kernel)) in image.functions.iter().zip(&export.functions).enumerate() {
            let what = |part: &str| format!("the {part} of function {index}");
            self.same(what("stack depth"), image.stack_depth, kernel.stack_depth)?;
            self.same(what("flags"), image.flags, kernel.flags)?;
            if index > 0 {
                self.compare_tag(index, image.tag, kernel.tag)?;
            }
            let extable: &[Extable] = match self.image.machine {
                // It says what the JIT made of the bytecode.
                Machine::Bpf => &[],
                Machine::X86_64 | Machine::Arm64 => &kernel.extable,
            };
            self.same::<&[Extable]>(what("exception table"), &image.extable, extable)?;
        }
        let kernel: &[export::Poke] = match image.machine {
            // Its JIT leaves the kernel's records of tail calls as they are: no code belongs to them.
            Machine::Arm64 => &[],
            Machine::X86_64 | Machine::Bpf => &export.pokes,
        };
        self.same("the number of tail calls", image.pokes.len(), kernel.len())?;
        for (index, (image, kernel)) in image.pokes.iter().zip(kernel).enumerate() {
            let kernel = export::Poke {
                // The main program's `aux` stands for its first function.
                function: kernel.function.or(Some(0)),
                ..*kernel
            };
            let kernel = match self.image.machine {
                // Where it lies in machine code is what the JIT made of it.
                Machine::Bpf => export::Poke {
                    target: 0,
                    bypass: 0,
                    bypass_target: 0,
                    ..kernel
                },
                Machine::X86_64 | Machine::Arm64 => kernel,
            };
            let what = format!("tail call {index}");
            self.same(
                what,
                absolute(self.image.machine, image, export),
                Some(kernel),
            )?;
        }
        Ok(())
    }

    /// A tag is the kernel's. If that one depends on addresses, it is the digest of the bytecode in
    /// the image, and of the function's number.
    fn compare_tag(self, index: usize, image: [u8; 8], kernel: [u8; 8]) -> Result<(), ProofError> {
        let mut digest = Sha256::new();
        for insn in &self.image.xlated {
            digest.update(insn.to_bytes());
        }
        digest.update((index as u64).to_le_bytes());
        if digest.finalize().starts_with(&image) {
            return Ok(());
        }
        self.same(format!("the tag of function {index}"), image, kernel)
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
fn absolute(machine: Machine, poke: &Poke, export: &Export) -> Option<export::Poke> {
    let index = usize::try_from(poke.function.get()).ok()?;
    let map = usize::try_from(poke.map.get()).ok()?;
    let function = export.functions.get(index)?;
    let start = match machine {
        Machine::X86_64 | Machine::Arm64 => function.address,
        Machine::Bpf => 0,
    };
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{Boot, HELPER, JIFFIES, Layout, Piece, two_boots};
    use crate::{discover, discover_bytecode};

    fn functions() -> [Vec<Piece>; 2] {
        let main = vec![
            Piece::Map(0),
            Piece::Value(1, 8),
            Piece::Helper(HELPER),
            Piece::Constant(77),
            Piece::TailCall(2),
            Piece::Call(1),
        ];
        [main, vec![Piece::Symbol(JIFFIES), Piece::CallDepth(64)]]
    }

    fn sections() -> Sections {
        let [a, b] = two_boots(&functions());
        let image = discover(a.capture(), b.capture()).unwrap();
        image.to_sections().unwrap()
    }

    fn third_boot() -> Boot {
        Boot::new(&functions(), &Layout::new(99))
    }

    #[test]
    fn an_image_is_right_in_a_boot_that_it_was_not_made_from() {
        let boot = third_boot();
        let proof = prove(&sections(), boot.capture()).unwrap();
        let code = boot.export.functions.iter().map(|found| found.code.len());
        assert_eq!(proof.code_bytes, code.sum::<usize>());
        assert_eq!(proof.relocations, 6);
    }

    #[test]
    fn another_byte_of_code_is_shown_with_what_follows() {
        let mut boot = third_boot();
        boot.export.functions[1].code[8] = 0xdd;
        let error = prove(&sections(), boot.capture()).unwrap_err();
        let message = error.to_string();
        let start = "program `program`, function 1, offset 0x8: the image has `e5 48 c7 c7 ";
        assert!(message.starts_with(start), "{message}");
        assert!(
            message.contains("the kernel's JIT wrote `dd 48 c7 c7 "),
            "{message}"
        );
    }

    #[test]
    fn every_other_difference_is_refused() {
        type Change = fn(&mut Export);
        let changes: [(&str, Change); 15] = [
            ("the number of functions", |export| {
                export.functions.truncate(1)
            }),
            ("the size of function 1", |export| {
                export.functions[1].code.push(0)
            }),
            ("what the verifier found out", |export| {
                export.conclusions.flags = 1.into()
            }),
            ("stack depth of function 1", |export| {
                export.functions[1].stack_depth = 8
            }),
            ("flags of function 0", |export| {
                export.functions[0].flags = 1
            }),
            ("exception table of function 0", |export| {
                export.functions[0].extable[0].fixup = 3.into();
            }),
            ("the number of tail calls", |export| export.pokes.clear()),
            ("tail call 0", |export| export.pokes[0].target += 1),
            ("tail call 0", |export| export.pokes[0].key += 1),
            ("tail call 0", |export| {
                export.pokes[0].map = export.maps[3].address()
            }),
            ("the length of the bytecode", |export| {
                export.xlated.truncate(3)
            }),
            ("instruction 0", |export| export.xlated[0].registers = 2),
            // A helper's number, and half of a constant.
            ("instruction 4", |export| export.xlated[4].imm += 1),
            ("instruction 5", |export| export.xlated[5].imm += 1),
            ("cannot be linked", |export| drop(export.maps.drain(1..))),
        ];
        for (what, change) in changes {
            let mut boot = third_boot();
            change(&mut boot.export);
            let message = prove(&sections(), boot.capture()).unwrap_err().to_string();
            assert!(message.contains(what), "{what}: {message}");
        }
    }

    #[test]
    fn an_image_that_says_otherwise_is_refused() {
        let [a, b] = two_boots(&functions());
        let image = discover(a.capture(), b.capture()).unwrap();
        type Change = fn(&mut Image);
        let changes: [Change; 6] = [
            |image| image.functions[0].tag[0] ^= 1,
            |image| image.functions[0].relocs[0].addend += 1,
            |image| image.functions[0].relocs.truncate(3),
            |image| image.functions[1].code[0] ^= 1,
            |image| image.pokes[0].adjust = 1.into(),
            |image| image.xlated[0].off = 1,
        ];
        for change in changes {
            let mut image = image.clone();
            change(&mut image);
            let sections = image.to_sections().unwrap();
            prove(&sections, a.capture()).unwrap_err();
        }
    }

    fn bytecode() -> Image {
        let [a, b] = two_boots(&functions());
        discover_bytecode(a.capture(), b.capture()).unwrap()
    }

    #[test]
    fn bytecode_is_right_in_a_boot_that_it_was_not_made_from() {
        let boot = third_boot();
        let sections = bytecode().to_sections().unwrap();
        let proof = prove(&sections, boot.capture()).unwrap();
        let insns = boot.export.functions.iter().map(|found| found.insns.len());
        assert_eq!(proof.code_bytes, 8 * insns.sum::<usize>());
        assert_eq!(proof.relocations, 4);
    }

    #[test]
    fn every_other_difference_of_bytecode_is_refused() {
        type Change = fn(&mut Export);
        let changes: [(&str, Change); 9] = [
            ("the number of instructions of function 1", |export| {
                export.functions[1].insns.truncate(1);
            }),
            (
                "function 0, instruction 5: the image has `18 01 00 00 4d 00 00 00`, the kernel's JIT compiled `18 01 00 00 4e 00 00 00`",
                |export| export.functions[0].insns[5].imm += 1,
            ),
            ("function 0, instruction 0", |export| {
                export.functions[0].insns[0].registers = 0x22
            }),
            ("function 0, instruction 8", |export| {
                export.functions[0].insns[8].imm += 1
            }),
            ("stack depth of function 1", |export| {
                export.functions[1].stack_depth = 8
            }),
            ("the number of tail calls", |export| export.pokes.clear()),
            ("tail call 0", |export| export.pokes[0].key += 1),
            ("tail call 0", |export| export.pokes[0].function = Some(1)),
            ("tail call 0", |export| {
                export.pokes[0].map = export.maps[3].address()
            }),
        ];
        let sections = bytecode().to_sections().unwrap();
        for (what, change) in changes {
            let mut boot = third_boot();
            change(&mut boot.export);
            let message = prove(&sections, boot.capture()).unwrap_err().to_string();
            assert!(message.contains(what), "{what}: {message}");
        }
        // What the JIT makes of it is nothing that bytecode says.
        let mut boot = third_boot();
        boot.export.functions[0].extable.clear();
        boot.export.functions[0].code.clear();
        boot.export.pokes[0].target = 0;
        prove(&sections, boot.capture()).unwrap();
    }

    proptest! {
        /// Whatever the bytes are, they are read, refused or proved wrong.
        #[test]
        fn damaged_sections_are_refused(
            position in any::<prop::sample::Index>(),
            change in 1..=255_u8,
            cut in any::<prop::sample::Index>(),
            of_bytecode in any::<bool>(),
        ) {
            let boot = third_boot();
            let whole = match of_bytecode {
                true => bytecode().to_sections().unwrap(),
                false => sections(),
            };
            let parts: [fn(&mut Sections) -> &mut Vec<u8>; 2] =
                [|sections| &mut sections.image, |sections| &mut sections.symbols];
            for part in parts {
                let mut flipped = whole.clone();
                let bytes = part(&mut flipped);
                let position = position.index(bytes.len());
                bytes[position] ^= change;
                // Symbols' names are for people, and nothing is proved of them.
                if prove(&flipped, boot.capture()).is_ok() {
                    let mut image = Image::parse(&flipped.image, &flipped.symbols).unwrap();
                    let original = Image::parse(&whole.image, &whole.symbols).unwrap();
                    image.symbols.clone_from(&original.symbols);
                    prop_assert_eq!(image, original);
                }
                let mut cut_off = whole.clone();
                let bytes = part(&mut cut_off);
                bytes.truncate(cut.index(bytes.len()));
                prop_assert!(prove(&cut_off, boot.capture()).is_err());
            }
        }
    }
}
