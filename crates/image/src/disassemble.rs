//! Images as people read them.

use crate::image::{Form, Image, Machine, Reloc, Target};
use crate::x86_64::listing;

/// One instruction of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The function, by index.
    pub function: usize,
    /// Bytes from the start of the function.
    pub offset: usize,
    /// The bytes; those of a relocated field are zero.
    pub bytes: Vec<u8>,
    /// The instruction. In the place of an address stands its [`Relocation::name`]; jumps within a
    /// function show the offset that they go to.
    pub text: String,
    /// The relocation that lies in it.
    pub relocation: Option<Relocation>,
}

/// A relocation, and what it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relocation {
    /// As it stands in the image.
    pub reloc: Reloc,
    /// Whose address, and how many bytes behind it: `map "counters"`, `values of "config"+0x8`,
    /// `function 2`, `jiffies`, `aux`, `per-CPU 0x2d4c8`.
    pub name: String,
}

/// Shows the native code of an image, all functions one behind the other.
///
/// `map_names` are the names of the program's maps; a map without a name is shown by its number.
pub fn disassemble(image: &Image, map_names: &[&str]) -> Vec<Line> {
    let Machine::X86_64 = image.machine;
    let mut lines = Vec::new();
    for (index, function) in image.functions.iter().enumerate() {
        let fields = function.relocs.iter();
        // On machines that cannot address it, there is no such code either.
        let fields: Vec<usize> = fields
            .map(|reloc| usize::try_from(reloc.offset).unwrap_or(usize::MAX))
            .collect();
        let name = |field: usize, end| name(image, map_names, &function.relocs[field], end);
        for decoded in listing::decode(&function.code, &fields, name) {
            let relocation = decoded.field.map(|field| Relocation {
                reloc: function.relocs[field],
                name: name(field, decoded.range.end),
            });
            lines.push(Line {
                function: index,
                offset: decoded.range.start,
                bytes: function.code[decoded.range].to_vec(),
                text: decoded.text,
                relocation,
            });
        }
    }
    lines
}

/// What a relocation means in an instruction that ends at `end`.
fn name(image: &Image, map_names: &[&str], reloc: &Reloc, end: usize) -> String {
    // A relative field counts from the end of its instruction.
    let behind = match reloc.form {
        Form::Rel32 => (end as u64).wrapping_sub(reloc.offset.into()),
        Form::Abs32S | Form::Abs64 => 0,
    };
    let addend = reloc.addend.wrapping_add_unsigned(behind);
    let map = |index: u32| match usize::try_from(index)
        .ok()
        .and_then(|map| map_names.get(map))
    {
        Some(name) => format!("\"{name}\""),
        None => format!("{index}"),
    };
    let base = match reloc.target {
        Target::Absolute => return format!("per-CPU {addend:#x}"),
        Target::Symbol(index) => {
            let symbol = usize::try_from(index)
                .ok()
                .and_then(|index| image.symbols.get(index));
            match symbol {
                Some(symbol) => symbol.to_string(),
                None => format!("symbol {index}"),
            }
        }
        Target::Map(index) => format!("map {}", map(index)),
        Target::MapValue(index) => format!("values of {}", map(index)),
        Target::Function(index) => format!("function {index}"),
        Target::ProgAux => "aux".to_owned(),
    };
    match addend {
        0 => base,
        1.. => format!("{base}+{addend:#x}"),
        _ => format!("{base}-{:#x}", addend.unsigned_abs()),
    }
}
