//! From an image and the addresses of one boot to that boot's code.

use thiserror::Error;

use crate::Capture;
use crate::image::{Form, Function, Image, Reloc, Symbol, Target};
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
    #[error("the value {value:#x} does not fit into {} bytes", .form.size())]
    Overflow {
        /// The value.
        value: u64,
        /// The field.
        form: Form,
    },
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
    let functions = image.functions.iter().zip(&addresses.functions);
    let functions = functions
        .enumerate()
        .map(|(index, (function, &address))| {
            relink_function(image, function, address, addresses).map_err(|(offset, problem)| {
                RelinkError::Reloc {
                    function: index,
                    offset,
                    problem,
                }
            })
        })
        .collect::<Result<_, _>>()?;
    Ok(Relinked { functions })
}

fn relink_function(
    image: &Image,
    function: &Function,
    address: u64,
    addresses: &Addresses<'_>,
) -> Result<Vec<u8>, (u32, Problem)> {
    let mut code = function.code.clone();
    for reloc in &function.relocs {
        write(reloc, image, address, addresses, &mut code)
            .map_err(|problem| (reloc.offset, problem))?;
    }
    Ok(code)
}

fn write(
    reloc: &Reloc,
    image: &Image,
    function: u64,
    addresses: &Addresses<'_>,
    code: &mut [u8],
) -> Result<(), Problem> {
    let target = address_of(reloc.target, image, addresses)?;
    let value = target.wrapping_add_signed(reloc.addend);
    let bytes = match reloc.form {
        Form::Rel32 => {
            let position = function.wrapping_add(reloc.offset.into());
            word(value.wrapping_sub(position), reloc.form)?.to_vec()
        }
        Form::Abs32S => word(value, reloc.form)?.to_vec(),
        Form::Abs64 => value.to_le_bytes().to_vec(),
    };
    let start = usize::try_from(reloc.offset).map_err(|_| Problem::Outside)?;
    let field = code
        .get_mut(start..)
        .and_then(|rest| rest.get_mut(..bytes.len()));
    field.ok_or(Problem::Outside)?.copy_from_slice(&bytes);
    Ok(())
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
