//! What the verifier VM's kernel part tells about a loaded program, checked and owned.

use preverify_abi::export::{EXPORT_MAGIC, ExportFunction, ExportHeader, ExportMap, ExportPoke};
use preverify_abi::image::{Conclusions, Extable};
use preverify_abi::manifest::Field;
use preverify_abi::{ABI_VERSION, NONE};
use thiserror::Error;

use crate::bpf::PSEUDO_FUNC;
pub use crate::records::BoundsError;
use crate::records::{header, range, table};

/// A loaded program, with the addresses of one boot.
#[derive(Clone, Debug, PartialEq)]
pub struct Export {
    /// `aux->name`.
    pub name: String,
    /// `prog->type`.
    pub prog_type: u32,
    /// `prog->expected_attach_type`.
    pub expected_attach_type: u32,
    /// `aux->attach_btf_id`.
    pub attach_btf_id: u32,
    /// `OBSTACLE_*` bits.
    pub obstacles: u32,
    /// ELF machine number of the kernel.
    pub arch: u32,
    /// Bits of a virtual address.
    pub va_bits: u32,
    /// What the verifier found out.
    pub conclusions: Conclusions,
    /// The program's `struct bpf_prog_aux`.
    pub aux_address: u64,
    /// The address of `_text`.
    pub text_address: u64,
    /// The functions; the first is the program's entry. There is at least one.
    pub functions: Vec<Function>,
    /// The direct tail calls.
    pub pokes: Vec<Poke>,
    /// `prog->insnsi`.
    pub xlated: Vec<Insn>,
    /// `aux->used_maps`.
    pub maps: Vec<Map>,
}

/// One function of a loaded program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// The address of its first byte.
    pub address: u64,
    /// `prog->tag`.
    pub tag: [u8; 8],
    /// Its native code.
    pub code: Vec<u8>,
    /// Its instructions as the JIT compiled them.
    pub insns: Vec<Insn>,
    /// Its exception table.
    pub extable: Vec<Extable>,
    /// `aux->stack_depth`.
    pub stack_depth: u32,
    /// `FUNCTION_*` bits.
    pub flags: u32,
}

/// One BPF instruction (`struct bpf_insn`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Insn {
    /// The opcode.
    pub code: u8,
    /// The destination register in the low four bits, the source register in the high ones.
    pub registers: u8,
    /// The signed offset.
    pub off: i16,
    /// The immediate.
    pub imm: i32,
}

impl Insn {
    /// `BPF_LD | BPF_IMM | BPF_DW`: the first half of the only instruction of two halves.
    pub const LD_IMM64: u8 = 0x18;

    /// `BPF_JMP | BPF_CALL`; the source register says whose function is called.
    pub const CALL: u8 = 0x85;

    /// `BPF_JMP | BPF_TAIL_CALL`; the immediate is the number of a direct tail call, counted from one.
    pub const TAIL_CALL: u8 = 0xf5;

    /// Reads one instruction.
    pub fn from_bytes(bytes: [u8; 8]) -> Self {
        let [code, registers, off0, off1, imm @ ..] = bytes;
        Self {
            code,
            registers,
            off: i16::from_le_bytes([off0, off1]),
            imm: i32::from_le_bytes(imm),
        }
    }

    /// The instruction's eight bytes.
    pub fn to_bytes(self) -> [u8; 8] {
        let [off0, off1] = self.off.to_le_bytes();
        let [imm0, imm1, imm2, imm3] = self.imm.to_le_bytes();
        [
            self.code,
            self.registers,
            off0,
            off1,
            imm0,
            imm1,
            imm2,
            imm3,
        ]
    }

    /// Whether it calls a kernel function by `BPF_PSEUDO_KFUNC_CALL`: not a helper, not one of the
    /// program's own.
    pub fn is_kernel_call(self) -> bool {
        self.code == Self::CALL && self.source() == 2
    }

    /// Whether it calls one of the program's own functions (`BPF_PSEUDO_CALL`).
    pub fn is_own_call(self) -> bool {
        self.code == Self::CALL && self.source() == 1
    }

    /// Whether it loads the address of one of the program's own functions (`BPF_PSEUDO_FUNC`).
    pub fn is_own_address(self) -> bool {
        self.code == Self::LD_IMM64 && self.source() == PSEUDO_FUNC
    }

    /// Whether its `off` is the number of one of the program's own functions.
    pub fn names_own_function(self) -> bool {
        self.is_own_call() || self.is_own_address()
    }

    /// The source register, which in [`Insn::LD_IMM64`] says what kind of value is loaded.
    pub fn source(self) -> u8 {
        self.registers >> 4
    }
}

/// One direct tail call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Poke {
    /// `tailcall_target`.
    pub target: u64,
    /// `tailcall_bypass`.
    pub bypass: u64,
    /// `bypass_addr`.
    pub bypass_target: u64,
    /// The prog array's `struct bpf_map`.
    pub map: u64,
    /// The key in the prog array.
    pub key: u32,
    /// The function whose `aux` the descriptor holds; none: the main program's.
    pub function: Option<usize>,
    /// `insn_idx`.
    pub insn_idx: u32,
    /// `adj_off`.
    pub adjust: u32,
}

/// One map that the program uses.
#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    /// The record, its ranges included.
    pub record: ExportMap,
    /// The fields of a value that the kernel manages.
    pub fields: Vec<Field>,
    /// The fields of a value of the inner maps.
    pub inner_fields: Vec<Field>,
}

impl Map {
    /// The address of the `struct bpf_map`.
    pub fn address(&self) -> u64 {
        self.record.address.get()
    }

    /// Where the values that programs reach directly start, and how many bytes there are.
    pub fn values(&self) -> Option<(u64, u64)> {
        let start = self.record.value_address.get();
        (start != 0).then_some((start, self.record.value_span.get()))
    }
}

/// Bytes that are no export.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ExportError {
    /// A table or range is out of bounds.
    #[error("the kernel part's export is malformed: {0}")]
    Bounds(#[from] BoundsError),
    /// Other magic bytes.
    #[error("the kernel part's export starts with {found:02x?}, not with {EXPORT_MAGIC:02x?}")]
    Magic {
        /// The first bytes.
        found: [u8; 8],
    },
    /// Another version of the ABI.
    #[error(
        "the kernel part speaks version {found} of the ABI, this program {ABI_VERSION}: build both from one source"
    )]
    Version {
        /// The export's version.
        found: u32,
    },
    /// The size in the header is not the number of bytes.
    #[error("the kernel part's export says that it has {expected} bytes, but {found} are there")]
    Size {
        /// The header's word.
        expected: u32,
        /// Bytes there are.
        found: usize,
    },
    /// The name is no text.
    #[error("the program's name {name:02x?} in the kernel part's export is no text")]
    Name {
        /// The bytes.
        name: [u8; 16],
    },
    /// There is no function.
    #[error("the kernel part exported no function of the program `{program}`")]
    NoFunctions {
        /// The program.
        program: String,
    },
    /// A tail call names a function that does not exist.
    #[error(
        "tail call {poke} of the program `{program}` names function {function}, but there are {functions}"
    )]
    PokeFunction {
        /// The program.
        program: String,
        /// Index of the tail call.
        poke: usize,
        /// The function named.
        function: u32,
        /// Functions there are.
        functions: usize,
    },
    /// A tail call's prog array is none of the program's maps.
    #[error(
        "tail call {poke} of the program `{program}` uses a map at {address:#x}, which is none of its {maps} maps"
    )]
    PokeMap {
        /// The program.
        program: String,
        /// Index of the tail call.
        poke: usize,
        /// The address.
        address: u64,
        /// Maps there are.
        maps: usize,
    },
}

impl Export {
    /// Reads an export; checks every bound.
    pub fn parse(bytes: &[u8]) -> Result<Self, ExportError> {
        let head: &ExportHeader = header(bytes)?;
        if head.magic != EXPORT_MAGIC {
            return Err(ExportError::Magic { found: head.magic });
        }
        if head.version.get() != ABI_VERSION {
            return Err(ExportError::Version {
                found: head.version.get(),
            });
        }
        if usize::try_from(head.size.get()) != Ok(bytes.len()) {
            return Err(ExportError::Size {
                expected: head.size.get(),
                found: bytes.len(),
            });
        }
        let name = text(&head.name).ok_or(ExportError::Name { name: head.name })?;

        let functions: Vec<Function> = parse_functions(bytes, head)?;
        if functions.is_empty() {
            return Err(ExportError::NoFunctions { program: name });
        }
        let maps = parse_maps(bytes, head)?;
        let pokes = parse_pokes(bytes, head, &name, functions.len(), &maps)?;
        let xlated: &[[u8; 8]] = table(bytes, "xlated", head.xlated)?;
        Ok(Self {
            name,
            prog_type: head.prog_type.get(),
            expected_attach_type: head.expected_attach_type.get(),
            attach_btf_id: head.attach_btf_id.get(),
            obstacles: head.obstacles.get(),
            arch: head.arch.get(),
            va_bits: head.va_bits.get(),
            conclusions: head.conclusions,
            aux_address: head.aux_address.get(),
            text_address: head.text_address.get(),
            functions,
            pokes,
            xlated: xlated.iter().copied().map(Insn::from_bytes).collect(),
            maps,
        })
    }
}

fn text(name: &[u8; 16]) -> Option<String> {
    let end = name
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(name.len());
    let (name, rest) = name.split_at(end);
    if rest.iter().any(|&byte| byte != 0) {
        return None;
    }
    Some(str::from_utf8(name).ok()?.to_owned())
}

fn parse_functions(bytes: &[u8], head: &ExportHeader) -> Result<Vec<Function>, ExportError> {
    let records: &[ExportFunction] = table(bytes, "functions", head.functions)?;
    let code: &[u8] = table(bytes, "code", head.code)?;
    let insns: &[[u8; 8]] = table(bytes, "insns", head.insns)?;
    let extable: &[Extable] = table(bytes, "extable", head.extable)?;
    let mut functions = Vec::with_capacity(records.len());
    for (index, record) in records.iter().enumerate() {
        let owner = || format!("function {index}");
        let insns = range(insns, "insns", record.insns, owner)?;
        functions.push(Function {
            address: record.address.get(),
            tag: record.tag,
            code: range(code, "code", record.code, owner)?.to_vec(),
            insns: insns.iter().copied().map(Insn::from_bytes).collect(),
            extable: range(extable, "extable", record.extable, owner)?.to_vec(),
            stack_depth: record.stack_depth.get(),
            flags: record.flags.get(),
        });
    }
    Ok(functions)
}

fn parse_maps(bytes: &[u8], head: &ExportHeader) -> Result<Vec<Map>, ExportError> {
    let records: &[ExportMap] = table(bytes, "maps", head.maps)?;
    let fields: &[Field] = table(bytes, "fields", head.fields)?;
    let mut maps = Vec::with_capacity(records.len());
    for (index, record) in records.iter().enumerate() {
        let owner = || format!("map {index}");
        maps.push(Map {
            record: *record,
            fields: range(fields, "fields", record.fields, owner)?.to_vec(),
            inner_fields: range(fields, "fields", record.inner_fields, owner)?.to_vec(),
        });
    }
    Ok(maps)
}

fn parse_pokes(
    bytes: &[u8],
    head: &ExportHeader,
    program: &str,
    functions: usize,
    maps: &[Map],
) -> Result<Vec<Poke>, ExportError> {
    let records: &[ExportPoke] = table(bytes, "pokes", head.pokes)?;
    let mut pokes = Vec::with_capacity(records.len());
    for (poke, record) in records.iter().enumerate() {
        let function = match record.function.get() {
            NONE => None,
            index => match usize::try_from(index) {
                Ok(function) if function < functions => Some(function),
                _ => {
                    return Err(ExportError::PokeFunction {
                        program: program.to_owned(),
                        poke,
                        function: index,
                        functions,
                    });
                }
            },
        };
        let map = record.map.get();
        if !maps.iter().any(|known| known.address() == map) {
            return Err(ExportError::PokeMap {
                program: program.to_owned(),
                poke,
                address: map,
                maps: maps.len(),
            });
        }
        pokes.push(Poke {
            target: record.target.get(),
            bypass: record.bypass.get(),
            bypass_target: record.bypass_target.get(),
            map,
            key: record.key.get(),
            function,
            insn_idx: record.insn_idx.get(),
            adjust: record.adjust.get(),
        });
    }
    Ok(pokes)
}

#[cfg(test)]
mod tests {
    use preverify_abi::Range;
    use proptest::prelude::*;
    use zerocopy::FromBytes;

    use super::*;
    use crate::testing::{HELPER, Piece, export_bytes, two_boots};

    fn export() -> Export {
        let functions = [
            vec![Piece::Helper(HELPER), Piece::Map(2)],
            vec![Piece::TailCall(1)],
        ];
        let [mut boot, _] = two_boots(&functions);
        let field = Field {
            kind: 2.into(),
            size: 16.into(),
            ..Field::default()
        };
        boot.export.maps[1].fields = vec![field];
        boot.export.maps[1].record.fields = Range {
            first: 0.into(),
            count: 1.into(),
        };
        boot.export
    }

    #[test]
    fn an_export_is_read_as_it_was_written() {
        assert_eq!(Export::parse(&export_bytes(&export())).unwrap(), export());
    }

    #[test]
    fn instructions_survive_their_bytes() {
        let bytes = [0x18, 0x21, 0xfe, 0xff, 1, 0, 0, 0x80];
        let insn = Insn::from_bytes(bytes);
        assert_eq!((insn.source(), insn.off, insn.imm), (2, -2, i32::MIN + 1));
        assert_eq!(insn.to_bytes(), bytes);
    }

    #[test]
    fn malformed_exports_are_refused() {
        type Change = fn(&mut ExportHeader);
        let changes: [(&str, Change); 7] = [
            ("starts with", |header| header.magic[0] = 0),
            ("speaks version 9", |header| header.version = 9.into()),
            ("says that it has 1 bytes", |header| header.size = 1.into()),
            ("is no text", |header| header.name = [0xff; 16]),
            ("is no text", |header| header.name[10] = b'x'),
            ("the table `maps`", |header| {
                header.maps.count = u32::MAX.into()
            }),
            ("exported no function", |header| {
                header.functions.count = 0.into()
            }),
        ];
        for (what, change) in changes {
            let mut bytes = export_bytes(&export());
            let (header, _) = ExportHeader::mut_from_prefix(&mut bytes).unwrap();
            change(header);
            let error = Export::parse(&bytes).unwrap_err();
            assert!(error.to_string().contains(what), "{what}: {error}");
        }
    }

    #[test]
    fn records_that_name_what_is_not_there_are_refused() {
        let refusal = |change: fn(&mut Export)| {
            let mut export = export();
            change(&mut export);
            Export::parse(&export_bytes(&export))
                .unwrap_err()
                .to_string()
        };
        let message = refusal(|export| export.maps[3].record.fields.count = 2.into());
        assert!(
            message.contains("map 3 names records 0 to 0 + 2 of the table `fields`"),
            "{message}"
        );
        let message = refusal(|export| export.pokes[0].function = Some(2));
        assert!(
            message.contains("names function 2, but there are 2"),
            "{message}"
        );
        let message = refusal(|export| export.pokes[0].map = 1);
        assert!(
            message.contains("a map at 0x1, which is none of its 8"),
            "{message}"
        );
    }

    proptest! {
        #[test]
        fn damaged_exports_never_panic(
            position in any::<prop::sample::Index>(),
            byte in any::<u8>(),
            cut in any::<prop::sample::Index>(),
        ) {
            let whole = export_bytes(&export());
            let mut bytes = whole.clone();
            let position = position.index(bytes.len());
            bytes[position] = byte;
            let _ = Export::parse(&bytes);
            let size = cut.index(whole.len());
            prop_assert!(Export::parse(&whole[..size]).is_err());
            // Even if the header agrees.
            let mut bytes = whole[..size].to_vec();
            if let Ok((header, _)) = ExportHeader::mut_from_prefix(&mut bytes) {
                header.size = u32::try_from(size).unwrap().into();
            }
            let _ = Export::parse(&bytes);
        }
    }
}
