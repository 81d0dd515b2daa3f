//! Images as people read them.

use crate::bpf::listing;
use crate::image::{Form, Image, Reloc, Target};
use crate::native::native;

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
    /// function show the offset that they go to. Bytecode is as `bpftool prog dump xlated` shows it.
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

/// Shows the code of an image, native or bytecode, all functions one behind the other.
///
/// `map_names` are the names of the program's maps; a map without a name is shown by its number.
pub fn disassemble(image: &Image, map_names: &[&str]) -> Vec<Line> {
    let native = native(image.machine);
    let tail_call = |poke: usize| {
        let poke = image.pokes.get(poke)?;
        Some(format!(
            "map {}[{}]",
            map_name(map_names, poke.map.get()),
            poke.key
        ))
    };
    let mut lines = Vec::new();
    for (index, function) in image.functions.iter().enumerate() {
        let name = |reloc: usize, end| name(image, map_names, &function.relocs[reloc], end);
        let decoded = match native {
            Some(native) => native.list(&function.code, &function.relocs, &name),
            None => listing::list(&function.code, &function.relocs, &name, &tail_call),
        };
        for decoded in decoded {
            let relocation = decoded.reloc.map(|reloc| Relocation {
                reloc: function.relocs[reloc],
                name: name(reloc, decoded.range.end),
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
        _ => 0,
    };
    let addend = reloc.addend.wrapping_add_unsigned(behind);
    let map = |index| map_name(map_names, index);
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

fn map_name(map_names: &[&str], index: u32) -> String {
    let known = usize::try_from(index).ok();
    match known.and_then(|index| map_names.get(index)) {
        Some(name) => format!("\"{name}\""),
        None => format!("{index}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::image::Machine;
    use crate::testing::{HELPER, JIFFIES, Piece, two_boots};
    use crate::{discover, discover_bytecode};

    fn image(functions: &[Vec<Piece>]) -> Image {
        let [a, b] = two_boots(functions);
        discover(a.capture(), b.capture()).unwrap()
    }

    #[test]
    fn names_stand_in_the_place_of_addresses() {
        let main = vec![
            Piece::Map(0),
            Piece::Value(1, 8),
            Piece::Value(2, 0),
            Piece::Symbol(JIFFIES),
            Piece::Symbol(JIFFIES + 4),
            Piece::Callback(1),
            Piece::Aux,
            Piece::CallDepth(0x2_d4c8),
            Piece::Helper(HELPER),
            Piece::Call(1),
            Piece::ModuleCall,
            Piece::Constant(0x1234),
            // Back to `push rbp`.
            Piece::Plain(&[0xeb, 0xa0], vec![]),
        ];
        let lines = disassemble(&image(&[main, vec![]]), &["counters", "config"]);
        let texts: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(
            texts,
            [
                "nop dword [rax+rax]",
                "push rbp",
                "mov rbp, rsp",
                "mov rdi, map \"counters\"",
                "mov rdi, values of \"config\"+0x8",
                "mov rdi, values of 2",
                "mov rdi, jiffies",
                "mov rdi, jiffies+0x4",
                "mov rdi, function 1",
                "mov rdi, aux",
                "sar qword [rel gs:per-CPU 0x2d4c8], 0x5",
                "call bpf_helper",
                "call function 1",
                "call testmod:function",
                "mov edi, 0x1234",
                "jmp short 0x5",
                "leave",
                "ret",
                "int3",
                "nop dword [rax+rax]",
                "push rbp",
                "mov rbp, rsp",
                "leave",
                "ret",
                "int3",
            ]
        );
        let value = &lines[4];
        assert_eq!((value.function, value.offset), (0, 19));
        assert_eq!(value.bytes, [0x48, 0xbf, 0, 0, 0, 0, 0, 0, 0, 0]);
        let relocation = value.relocation.as_ref().unwrap();
        assert_eq!(relocation.name, "values of \"config\"+0x8");
        assert_eq!(relocation.reloc.target, Target::MapValue(1));
        assert_eq!(lines.last().unwrap().function, 1);
        assert_eq!(lines[0].relocation, None);
    }

    #[test]
    fn bytecode_reads_as_in_bpftool() {
        let main = vec![
            Piece::Map(0),
            Piece::Value(1, 8),
            Piece::Symbol(JIFFIES),
            Piece::Callback(1),
            Piece::Aux,
            Piece::Constant(0x1234),
            Piece::Move(-3),
            Piece::Helper(HELPER),
            Piece::Call(1),
            Piece::TailCall(0),
        ];
        let [a, b] = two_boots(&[main, vec![]]);
        let image = discover_bytecode(a.capture(), b.capture()).unwrap();
        let lines = disassemble(&image, &["jumps", "config"]);
        let texts: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(
            texts,
            [
                "r1 = map \"jumps\"",
                "r1 = values of \"config\"+0x8",
                "r1 = jiffies",
                "r1 = function 1",
                "r1 = aux",
                "r1 = 0x1234",
                "r1 = -3",
                "call bpf_helper",
                "call function 1",
                "call bpf_tail_call, map \"jumps\"[2]",
                "exit",
                "exit",
            ]
        );
        assert_eq!((lines[1].offset, lines[1].bytes.len()), (16, 16));
        let relocation = lines[1].relocation.as_ref().unwrap();
        assert_eq!(relocation.reloc.target, Target::MapValue(1));
        assert_eq!(lines[3].relocation, None);
        assert_eq!((lines[11].function, lines[11].offset), (1, 0));
    }

    proptest! {
        /// Code and relocations that make no sense are shown, too, and no byte is lost.
        #[test]
        fn every_byte_is_shown_once(
            code in prop::collection::vec(any::<u8>(), 0..200),
            offsets in prop::collection::btree_set(0..220_u32, 0..8),
            kind in 0..6_u32,
            addend in any::<i64>(),
            machine in prop::sample::select(vec![Machine::X86_64, Machine::Arm64, Machine::Bpf]),
        ) {
            let mut image = image(&[vec![Piece::Helper(HELPER)]]);
            image.machine = machine;
            let target = [
                Target::Absolute,
                Target::Symbol(9),
                Target::Map(9),
                Target::MapValue(0),
                Target::Function(9),
                Target::ProgAux,
            ][kind as usize];
            image.functions[0].code.clone_from(&code);
            image.functions[0].relocs = offsets
                .into_iter()
                .map(|offset| Reloc { offset, form: Form::Rel32, target, addend })
                .collect();
            let lines = disassemble(&image, &[]);
            let shown: Vec<u8> = lines.iter().flat_map(|line| line.bytes.clone()).collect();
            prop_assert_eq!(shown, code);
        }
    }
}
