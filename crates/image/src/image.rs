//! The image of one program: its code without addresses, and where they belong.

use std::fmt;

use preverify_abi::image as abi;
use preverify_abi::image::{Conclusions, Extable, Poke};
use preverify_abi::manifest::{ARCH_ARM64, ARCH_X86_64};

use crate::export::Insn;
pub use crate::sections::{ImageError, Sections, TooLarge};

/// A program made loadable on one kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// What the code is for.
    pub machine: Machine,
    /// What the verifier found out.
    pub conclusions: Conclusions,
    /// The functions; the first is the program's entry.
    pub functions: Vec<Function>,
    /// The direct tail calls.
    pub pokes: Vec<Poke>,
    /// The program as `bpftool prog dump xlated` shows it, addresses zeroed.
    pub xlated: Vec<Insn>,
    /// The symbols that the relocations refer to.
    pub symbols: Vec<Symbol>,
}

/// What an image's code is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// 64-bit x86.
    X86_64,
    /// 64-bit arm.
    Arm64,
    /// No CPU, but the JIT of the device's kernel: verified bytecode.
    Bpf,
}

impl Machine {
    /// The ELF machine number of native code; zero for bytecode.
    pub fn number(self) -> u32 {
        match self {
            Self::X86_64 => ARCH_X86_64,
            Self::Arm64 => ARCH_ARM64,
            Self::Bpf => 0,
        }
    }

    /// The machine whose native code has an ELF machine number, if there are native images for it.
    pub fn native(number: u32) -> Option<Self> {
        [Self::X86_64, Self::Arm64]
            .into_iter()
            .find(|machine| machine.number() == number)
    }

    /// `IMAGE_NATIVE` or `IMAGE_BYTECODE`.
    pub(crate) fn kind(self) -> u32 {
        match self {
            Self::X86_64 | Self::Arm64 => abi::IMAGE_NATIVE,
            Self::Bpf => abi::IMAGE_BYTECODE,
        }
    }

    /// The forms of addresses in such code.
    pub(crate) fn forms(self) -> &'static [Form] {
        match self {
            Self::X86_64 => &[Form::Rel32, Form::Abs32S, Form::Abs64],
            Self::Arm64 => &[Form::A64Call26, Form::A64Addr48, Form::A64Mov64],
            Self::Bpf => &[Form::BpfImm64, Form::BpfCall],
        }
    }

    /// What the offsets of relocated fields are multiples of.
    pub(crate) fn alignment(self) -> usize {
        match self {
            Self::X86_64 => 1,
            Self::Arm64 => 4,
            Self::Bpf => 8,
        }
    }
}

/// One function of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// The function's tag: part of its name in kallsyms.
    pub tag: [u8; 8],
    /// Its code, relocated fields zeroed.
    pub code: Vec<u8>,
    /// Its relocations, by rising offset.
    pub relocs: Vec<Reloc>,
    /// Its exception table.
    pub extable: Vec<Extable>,
    /// `aux->stack_depth`.
    pub stack_depth: u32,
    /// `FUNCTION_*` bits.
    pub flags: u32,
}

/// One address to write into a function's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reloc {
    /// Bytes from the start of the function to the field.
    pub offset: u32,
    /// How the address is written.
    pub form: Form,
    /// Whose address.
    pub target: Target,
    /// What is added to it.
    pub addend: i64,
}

/// How an address is written into code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// x86_64: four bytes, relative to the field.
    Rel32,
    /// x86_64: four bytes that the CPU sign-extends.
    Abs32S,
    /// x86_64: eight bytes.
    Abs64,
    /// Bytecode: the two immediates of a wide load.
    BpfImm64,
    /// Bytecode: the immediate of a call, relative to `__bpf_call_base`.
    BpfCall,
    /// arm64: a call (`bl`), relative to itself.
    A64Call26,
    /// arm64: three instructions that set a register to an address of the kernel.
    A64Addr48,
    /// arm64: three instructions that set a register to any value, chosen by the value.
    A64Mov64,
}

impl Form {
    /// Bytes of the field, with all instructions that an address is spread over.
    pub fn size(self) -> usize {
        match self {
            Self::Rel32 | Self::Abs32S | Self::A64Call26 => 4,
            Self::Abs64 | Self::BpfCall => 8,
            Self::A64Addr48 | Self::A64Mov64 => 12,
            Self::BpfImm64 => 16,
        }
    }

    /// Takes the address out of a field, and leaves what else is in it.
    pub(crate) fn vacate(self, field: &mut [u8]) {
        for (index, byte) in field.iter_mut().enumerate() {
            *byte &= match self {
                Self::Rel32 | Self::Abs32S | Self::Abs64 | Self::A64Call26 => 0,
                Self::BpfImm64 | Self::BpfCall if index % 8 < 4 => 0xff,
                // The register of each of the three instructions.
                Self::A64Addr48 | Self::A64Mov64 if index % 4 == 0 => 0x1f,
                Self::BpfImm64 | Self::BpfCall | Self::A64Addr48 | Self::A64Mov64 => 0,
            };
        }
    }

    pub(crate) fn number(self) -> u16 {
        match self {
            Self::Rel32 => abi::FORM_REL32,
            Self::Abs32S => abi::FORM_ABS32S,
            Self::Abs64 => abi::FORM_ABS64,
            Self::BpfImm64 => abi::FORM_BPF_IMM64,
            Self::BpfCall => abi::FORM_BPF_CALL,
            Self::A64Call26 => abi::FORM_A64_CALL26,
            Self::A64Addr48 => abi::FORM_A64_ADDR48,
            Self::A64Mov64 => abi::FORM_A64_MOV64,
        }
    }

    pub(crate) fn from_number(number: u16) -> Option<Self> {
        [
            Self::Rel32,
            Self::Abs32S,
            Self::Abs64,
            Self::BpfImm64,
            Self::BpfCall,
            Self::A64Call26,
            Self::A64Addr48,
            Self::A64Mov64,
        ]
        .into_iter()
        .find(|form| form.number() == number)
    }
}

/// Whose address a relocation writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// Nobody's: the addend is the address.
    Absolute,
    /// A symbol: an index into [`Image::symbols`].
    Symbol(u32),
    /// The `struct bpf_map` of one of the program's maps.
    Map(u32),
    /// The first byte of the values of one of the program's maps.
    MapValue(u32),
    /// The first byte of a function: an index into [`Image::functions`].
    Function(u32),
    /// The program's own `struct bpf_prog_aux`.
    ProgAux,
}

impl Target {
    pub(crate) fn number(self) -> (u16, u32) {
        match self {
            Self::Absolute => (abi::RELOC_ABSOLUTE, 0),
            Self::Symbol(index) => (abi::RELOC_SYMBOL, index),
            Self::Map(index) => (abi::RELOC_MAP, index),
            Self::MapValue(index) => (abi::RELOC_MAP_VALUE, index),
            Self::Function(index) => (abi::RELOC_FUNCTION, index),
            Self::ProgAux => (abi::RELOC_PROG_AUX, 0),
        }
    }

    pub(crate) fn from_number(kind: u16, index: u32) -> Option<Self> {
        Some(match (kind, index) {
            (abi::RELOC_ABSOLUTE, 0) => Self::Absolute,
            (abi::RELOC_SYMBOL, index) => Self::Symbol(index),
            (abi::RELOC_MAP, index) => Self::Map(index),
            (abi::RELOC_MAP_VALUE, index) => Self::MapValue(index),
            (abi::RELOC_FUNCTION, index) => Self::Function(index),
            (abi::RELOC_PROG_AUX, 0) => Self::ProgAux,
            _ => return None,
        })
    }
}

/// A place in a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Symbol {
    /// In the kernel image.
    Text {
        /// What people call it; nothing depends on it.
        name: String,
        /// Bytes from `_text`.
        offset: u64,
    },
    /// In a module.
    Module {
        /// `module:symbol`.
        name: String,
        /// Bytes from the symbol.
        offset: u64,
    },
}

impl Symbol {
    /// The symbol's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Text { name, .. } | Self::Module { name, .. } => name,
        }
    }
}

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text { name, .. } | Self::Module { name, offset: 0 } => f.write_str(name),
            Self::Module { name, offset } => write!(f, "{name}+{offset:#x}"),
        }
    }
}
