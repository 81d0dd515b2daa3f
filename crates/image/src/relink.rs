//! From an image and the addresses of one boot to that boot's code.

use thiserror::Error;

use crate::Capture;
use crate::aarch64::encode;
use crate::export::Insn;
use crate::image::{Form, Function, Image, Machine, Reloc, Symbol, Target};
use crate::symbols::KernelSymbols;

/// The addresses of one boot, and of one load of the program there.
#[derive(Clone, Debug)]
pub struct Addresses<'a> {
    /// The first byte of each function.
    pub functions: Vec<u64>,
    /// The program's maps, in its order.
    pub maps: Vec<MapAddresses>,
    /// The program's `struct bpf_prog_aux`.
    pub prog_aux: u64,
    /// The kernel and its modules.
    pub symbols: &'a KernelSymbols,
}

/// Where one map lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapAddresses {
    /// The `struct bpf_map`.
    pub map: u64,
    /// The first byte of the values that programs reach directly, if there are such.
    pub values: Option<u64>,
}

impl<'a> From<Capture<'a>> for Addresses<'a> {
    fn from(Capture { export, symbols }: Capture<'a>) -> Self {
        let maps = export.maps.iter().map(|map| MapAddresses {
            map: map.address(),
            values: map.values().map(|(start, _)| start),
        });
        Self {
            functions: export.functions.iter().map(|found| found.address).collect(),
            maps: maps.collect(),
            prog_aux: export.aux_address,
            symbols,
        }
    }
}

/// The code of a program with the addresses of one boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relinked {
    /// The code of each function.
    pub functions: Vec<Vec<u8>>,
}

/// An image that cannot be linked with these addresses.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RelinkError {
    /// Other functions than the image's.
    #[error("the image has {expected} functions, but there are addresses of {found}")]
    Functions {
        /// Functions of the image.
        expected: usize,
        /// Addresses given.
        found: usize,
    },
    /// A relocation that cannot be carried out.
    #[error("function {function}, field at {offset:#x}: {problem}")]
    Reloc {
        /// The function.
        function: usize,
        /// Bytes from its start to the field.
        offset: u32,
        /// Why.
        problem: Problem,
    },
}

/// Why a relocation cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Problem {
    /// No such map.
    #[error("names map {index}, but there are addresses of {count}")]
    NoMap {
        /// The map.
        index: u32,
        /// Maps there are.
        count: usize,
    },
    /// The map has no values that programs reach directly.
    #[error("points into the values of map {0}, which has none that programs reach directly")]
    NoValues(u32),
    /// No such function.
    #[error("names function {0}, which does not exist")]
    NoFunction(u32),
    /// No such symbol in the image.
    #[error("names symbol {0}, which the image does not have")]
    NoSymbol(u32),
    /// The kernel image is too small.
    #[error("`{name}` is {offset:#x} bytes behind `_text`, outside of this kernel's image")]
    OutsideImage {
        /// The symbol.
        name: String,
        /// Its offset.
        offset: u64,
    },
    /// No such symbol in the kernel's modules.
    #[error(
        "needs `{0}`, and no loaded module has exactly one symbol of that name: load the module first"
    )]
    NoModuleSymbol(String),
    /// The value does not fit.
    #[error("the value {value:#x} does not fit into 4 bytes")]
    Overflow {
        /// The value.
        value: u64,
        /// The field.
        form: Form,
    },
    /// A call does not reach so far.
    #[error("calls {value:#x}, which is not within 128 MiB, or no multiple of four bytes")]
    Unreachable {
        /// What is called.
        value: u64,
    },
    /// Three instructions do not set a register to that.
    #[error(
        "sets a register to {value:#x}, for which the kernel's JIT does not take three instructions"
    )]
    NotThree {
        /// The value.
        value: u64,
    },
    /// Calls of bytecode are relative to a symbol that this kernel lacks.
    #[error(
        "is relative to `__bpf_call_base`, which the kernel's symbols do not have exactly once"
    )]
    NoCallBase,
    /// The field is not within the code.
    #[error("the field does not lie within the code")]
    Outside,
}

/// Writes the addresses of one boot into the image's code.
pub fn relink(image: &Image, addresses: &Addresses<'_>) -> Result<Relinked, RelinkError> {
    if image.functions.len() != addresses.functions.len() {
        return Err(RelinkError::Functions {
            expected: image.functions.len(),
            found: addresses.functions.len(),
        });
    }
    let linker = Linker {
        image,
        addresses,
        call_base: match image.machine {
            Machine::Bpf => addresses.symbols.address_of("__bpf_call_base"),
            _ => None,
        },
    };
    let functions = image.functions.iter().zip(&addresses.functions);
    let functions = functions
        .enumerate()
        .map(|(index, (function, &address))| {
            linker
                .function(function, address)
                .map_err(|(offset, problem)| RelinkError::Reloc {
                    function: index,
                    offset,
                    problem,
                })
        })
        .collect::<Result<_, _>>()?;
    Ok(Relinked { functions })
}

#[derive(Clone, Copy)]
struct Linker<'a> {
    image: &'a Image,
    addresses: &'a Addresses<'a>,
    /// What the immediates of bytecode's calls are relative to.
    call_base: Option<u64>,
}

impl Linker<'_> {
    fn function(self, function: &Function, address: u64) -> Result<Vec<u8>, (u32, Problem)> {
        let mut code = function.code.clone();
        for reloc in &function.relocs {
            self.write(reloc, address, &mut code)
                .map_err(|problem| (reloc.offset, problem))?;
        }
        if self.image.machine == Machine::Bpf {
            self.write_own_functions(&mut code)?;
        }
        Ok(code)
    }

    /// Bytecode names the program's own functions by their numbers, without relocations.
    fn write_own_functions(self, code: &mut [u8]) -> Result<(), (u32, Problem)> {
        let (insns, _) = code.as_chunks_mut::<8>();
        let mut rest = insns.iter_mut();
        let mut offset = 0;
        while let Some(low) = rest.next() {
            let insn = Insn::from_bytes(*low);
            let mut high = (insn.code == Insn::LD_IMM64).then(|| rest.next()).flatten();
            if insn.names_own_function() {
                let at = |problem| (offset, problem);
                let address = self.own_function(insn).map_err(at)?;
                // The kernel, too, takes four bytes of how far a function is, whether that fits or
                // not: its JIT goes by the number.
                let value = match insn.is_own_address() {
                    true => address,
                    false => address.wrapping_sub(self.call_base().map_err(at)?),
                };
                let [low_half, high_half] = halves(value);
                low[4..].copy_from_slice(&low_half);
                if let Some(high) = &mut high {
                    high[4..].copy_from_slice(&high_half);
                }
            }
            offset += if high.is_some() { 16 } else { 8 };
        }
        Ok(())
    }

    fn own_function(self, insn: Insn) -> Result<u64, Problem> {
        let index = insn.off.cast_unsigned().into();
        let address = entry(&self.addresses.functions, index).copied();
        address.ok_or(Problem::NoFunction(index))
    }

    fn call_base(self) -> Result<u64, Problem> {
        self.call_base.ok_or(Problem::NoCallBase)
    }

    fn write(self, reloc: &Reloc, function: u64, code: &mut [u8]) -> Result<(), Problem> {
        let target = address_of(reloc.target, self.image, self.addresses)?;
        let value = target.wrapping_add_signed(reloc.addend);
        let start = usize::try_from(reloc.offset).map_err(|_| Problem::Outside)?;
        let field = code
            .get_mut(start..)
            .and_then(|rest| rest.get_mut(..reloc.form.size()))
            .ok_or(Problem::Outside)?;
        match reloc.form {
            Form::Rel32 => {
                let position = function.wrapping_add(reloc.offset.into());
                field.copy_from_slice(&word(value.wrapping_sub(position), reloc.form)?);
            }
            Form::Abs32S => field.copy_from_slice(&word(value, reloc.form)?),
            Form::Abs64 => field.copy_from_slice(&value.to_le_bytes()),
            Form::BpfImm64 => {
                let [low, high] = halves(value);
                field[4..8].copy_from_slice(&low);
                field[12..].copy_from_slice(&high);
            }
            Form::BpfCall => {
                let distance = value.wrapping_sub(self.call_base()?);
                field[4..].copy_from_slice(&word(distance, reloc.form)?);
            }
            Form::A64Call26 => {
                let place = function.wrapping_add(reloc.offset.into());
                let call = encode::call(place, value).ok_or(Problem::Unreachable { value })?;
                field.copy_from_slice(&call.to_le_bytes());
            }
            Form::A64Addr48 | Form::A64Mov64 => {
                // What is left of each of the three instructions is its register.
                let register = u32::from(field[0] & 31);
                let instructions = match reloc.form {
                    Form::A64Addr48 => encode::address(register, value).map(Vec::from),
                    _ => Some(encode::value(register, value)).filter(|found| found.len() == 3),
                };
                let instructions = instructions.ok_or(Problem::NotThree { value })?;
                for (word, instruction) in field.chunks_exact_mut(4).zip(instructions) {
                    word.copy_from_slice(&instruction.to_le_bytes());
                }
            }
        }
        Ok(())
    }
}

/// The lower and the upper half of a value.
fn halves(value: u64) -> [[u8; 4]; 2] {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    [[a, b, c, d], [e, f, g, h]]
}

fn word(value: u64, form: Form) -> Result<[u8; 4], Problem> {
    match i32::try_from(value.cast_signed()) {
        Ok(word) => Ok(word.to_le_bytes()),
        Err(_) => Err(Problem::Overflow { value, form }),
    }
}

fn address_of(target: Target, image: &Image, addresses: &Addresses<'_>) -> Result<u64, Problem> {
    let map = |index| {
        let count = addresses.maps.len();
        entry(&addresses.maps, index).ok_or(Problem::NoMap { index, count })
    };
    match target {
        Target::Absolute => Ok(0),
        Target::Symbol(index) => {
            let symbol = entry(&image.symbols, index).ok_or(Problem::NoSymbol(index))?;
            symbol_address(symbol, addresses.symbols)
        }
        Target::Map(index) => Ok(map(index)?.map),
        Target::MapValue(index) => map(index)?.values.ok_or(Problem::NoValues(index)),
        Target::Function(index) => entry(&addresses.functions, index)
            .copied()
            .ok_or(Problem::NoFunction(index)),
        Target::ProgAux => Ok(addresses.prog_aux),
    }
}

fn symbol_address(symbol: &Symbol, symbols: &KernelSymbols) -> Result<u64, Problem> {
    match symbol {
        Symbol::Text { name, offset } => {
            let address = symbols.text().checked_add(*offset);
            address
                .filter(|&address| address < symbols.end())
                .ok_or_else(|| Problem::OutsideImage {
                    name: name.clone(),
                    offset: *offset,
                })
        }
        Symbol::Module { name, offset } => match symbols.module_address(name) {
            Some(address) => Ok(address.wrapping_add(*offset)),
            None => Err(Problem::NoModuleSymbol(name.clone())),
        },
    }
}

fn entry<T>(entries: &[T], index: u32) -> Option<&T> {
    entries.get(usize::try_from(index).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Boot, HELPER, Layout, Piece, two_boots};
    use crate::{discover, discover_bytecode};

    fn functions() -> [Vec<Piece>; 1] {
        [vec![
            Piece::Map(0),
            Piece::Value(1, 4),
            Piece::Helper(HELPER),
            Piece::ModuleCall,
        ]]
    }

    fn image() -> Image {
        let [a, b] = two_boots(&functions());
        discover(a.capture(), b.capture()).unwrap()
    }

    #[test]
    fn a_linked_image_is_what_the_jit_wrote() {
        let boot = Boot::new(&functions(), &Layout::new(200));
        let relinked = relink(&image(), &Addresses::from(boot.capture())).unwrap();
        assert_eq!(relinked.functions, [boot.export.functions[0].code.clone()]);
    }

    #[test]
    fn every_form_is_checked_for_what_it_can_hold() {
        let boot = Boot::new(&functions(), &Layout::new(200));
        let addresses = Addresses::from(boot.capture());
        let link = |form, addend: i64| {
            let mut image = image();
            image.functions[0].relocs = vec![Reloc {
                offset: 11,
                form,
                target: Target::Absolute,
                addend,
            }];
            relink(&image, &addresses).map(|relinked| relinked.functions[0][11..19].to_vec())
        };
        let position = addresses.functions[0].cast_signed() + 11;
        let (most, least) = (i64::from(i32::MAX), i64::from(i32::MIN));
        assert_eq!(
            link(Form::Rel32, position + most).unwrap()[..4],
            [255, 255, 255, 127]
        );
        assert_eq!(link(Form::Abs32S, least).unwrap()[..4], [0, 0, 0, 128]);
        assert_eq!(
            link(Form::Abs64, i64::MIN).unwrap(),
            [0, 0, 0, 0, 0, 0, 0, 128]
        );
        for (form, addend) in [
            (Form::Rel32, position + most + 1),
            (Form::Rel32, position + least - 1),
            (Form::Abs32S, most + 1),
            (Form::Abs32S, least - 1),
        ] {
            let error = link(form, addend).unwrap_err();
            assert!(
                error.to_string().contains("does not fit into 4 bytes"),
                "{error}"
            );
        }
    }

    #[test]
    fn linked_bytecode_is_what_the_jit_compiled() {
        let functions = [
            vec![
                Piece::Map(0),
                Piece::Call(1),
                Piece::Callback(2),
                Piece::Helper(HELPER),
                Piece::Constant(u64::MAX),
            ],
            vec![Piece::Aux, Piece::Value(1, 4)],
            vec![],
        ];
        let [a, b] = two_boots(&functions);
        let image = discover_bytecode(a.capture(), b.capture()).unwrap();
        let boot = Boot::new(&functions, &Layout::new(200));
        let relinked = relink(&image, &Addresses::from(boot.capture())).unwrap();
        for (relinked, kernel) in relinked.functions.iter().zip(&boot.export.functions) {
            assert_eq!(crate::bpf::parse(relinked), kernel.insns);
        }
    }

    #[test]
    fn bytecode_that_cannot_be_linked_is_refused() {
        let functions = [vec![Piece::Call(1), Piece::Helper(HELPER)], vec![]];
        let [a, b] = two_boots(&functions);
        let image = discover_bytecode(a.capture(), b.capture()).unwrap();
        let mut addresses = Addresses::from(a.capture());

        let mut far = image.clone();
        far.functions[0].relocs[0].addend = 1 << 32;
        let error = relink(&far, &addresses).unwrap_err().to_string();
        assert!(error.contains("does not fit into 4 bytes"), "{error}");
        let mut nowhere = image.clone();
        nowhere.functions[0].code[2] = 2;
        let error = relink(&nowhere, &addresses).unwrap_err().to_string();
        assert!(error.contains("field at 0x0: names function 2"), "{error}");

        let symbols = KernelSymbols::parse("1000 T _text\n9000000 B _end\n").unwrap();
        addresses.symbols = &symbols;
        let error = relink(&image, &addresses).unwrap_err().to_string();
        assert!(error.contains("`__bpf_call_base`"), "{error}");
    }

    #[test]
    fn what_cannot_be_linked_is_refused() {
        type Change = fn(&mut Image);
        let changes: [(&str, Change); 8] = [
            ("names map 8, but there are addresses of 8", |image| {
                retarget(image, Target::Map(8))
            }),
            ("names map 9", |image| retarget(image, Target::MapValue(9))),
            ("values of map 7", |image| {
                retarget(image, Target::MapValue(7))
            }),
            ("names function 1", |image| {
                retarget(image, Target::Function(1))
            }),
            ("names symbol 2", |image| retarget(image, Target::Symbol(2))),
            ("`bpf_helper` is 0x2800000 bytes behind `_text`", |image| {
                image.symbols[0] = Symbol::Text {
                    name: "bpf_helper".to_owned(),
                    offset: 0x280_0000,
                };
            }),
            ("needs `testmod:other`", |image| {
                image.symbols[1] = Symbol::Module {
                    name: "testmod:other".to_owned(),
                    offset: 0,
                };
            }),
            ("does not lie within the code", |image| {
                image.functions[0].relocs[0].offset = 1000
            }),
        ];
        let boot = Boot::new(&functions(), &Layout::new(200));
        let mut addresses = Addresses::from(boot.capture());
        addresses.maps[7].values = None;
        for (what, change) in changes {
            let mut image = image();
            change(&mut image);
            let error = relink(&image, &addresses).unwrap_err();
            assert!(error.to_string().contains(what), "{what}: {error}");
        }
        addresses.functions.push(0);
        let error = relink(&image(), &addresses).unwrap_err();
        assert_eq!(
            error,
            RelinkError::Functions {
                expected: 1,
                found: 2
            }
        );
    }

    fn retarget(image: &mut Image, target: Target) {
        image.functions[0].relocs[0].target = target;
    }
}
