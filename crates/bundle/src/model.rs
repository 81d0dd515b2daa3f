//! A manifest as plain structures.

use core::fmt;

use preverify_abi::manifest::{
    self as abi, Field, Fingerprint, MAP_CONTENTS_VERIFIED, MAP_TEMPLATE,
};
use sha2::{Digest, Sha256};

/// What is signed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// The kernels that the programs were verified by.
    pub targets: Vec<Target>,
    /// What the manifest refers to by digest, in the order in which it does so first.
    pub sections: Vec<Section>,
}

impl Manifest {
    /// The section that `id` names.
    pub fn section(&self, id: SectionId) -> Option<&Section> {
        self.sections.get(id.index())
    }

    /// The number by which the kernel part knows program `program` of target `target`.
    pub fn program_number(&self, target: usize, program: usize) -> Option<u32> {
        let (before, rest) = self.targets.split_at_checked(target)?;
        rest.first()?.programs.get(program)?;
        let first: usize = before.iter().map(|target| target.programs.len()).sum();
        u32::try_from(first + program).ok()
    }
}

/// One kernel on one kind of machine, and all that was verified for it.
///
/// Indices inside a target count from the start of the target's own lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The GNU build id of the kernel.
    pub build_id: Vec<u8>,
    /// What verification and code generation depended on.
    pub fingerprint: Fingerprint,
    /// `uname -r`.
    pub release: String,
    /// The programs.
    pub programs: Vec<Program>,
    /// The maps.
    pub maps: Vec<Map>,
    /// The static contents of prog arrays and maps of maps.
    pub slots: Vec<Slot>,
    /// The object's BTF as the kernel took it.
    pub btf: Option<SectionId>,
    /// The evidence, as JSON.
    pub evidence: Option<SectionId>,
}

/// One program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// Its name in the kernel: at most 15 bytes.
    pub name: String,
    /// `enum bpf_prog_type`.
    pub prog_type: u32,
    /// `enum bpf_attach_type`.
    pub expected_attach_type: u32,
    /// What it attaches to, in the BTF of the device's kernel, or zero.
    pub attach_btf_id: u32,
    /// What it attaches to, for kernels that have no BTF to find it in.
    pub attach_target: Option<AttachTarget>,
    /// `BPF_F_*` flags that it was loaded with.
    pub prog_flags: u32,
    /// The full name of its function in the object.
    pub function: String,
    /// The ELF section that it came from.
    pub elf_section: String,
    /// Indices into [`Target::maps`]: its maps, in the verifier's order.
    pub maps: Vec<u32>,
    /// Machine code.
    pub native: Option<Image>,
    /// Verified bytecode.
    pub bytecode: Option<Image>,
    /// Instructions that the verifier processed.
    pub processed_insns: u32,
    /// States that the verifier kept at its peak.
    pub peak_states: u32,
    /// The verifier's limits were above those of stock kernels.
    pub raised_limits: bool,
}

/// What a program attaches to: all that a kernel would find in its BTF.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttachTarget {
    /// The function's name; a tracepoint's without `btf_trace_`.
    pub name: String,
    /// The function that a trampoline is put on, as an offset from `_text`; zero if it is none.
    pub address: u64,
    /// What the function returns, if anything.
    pub returns: Option<Value>,
    /// The function's arguments.
    pub arguments: Vec<Value>,
}

/// How a function's argument, or what it returns, lies in registers (`struct btf_func_model`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Value {
    /// Its bytes.
    pub size: u8,
    /// [`abi::VALUE_STRUCT`] and [`abi::VALUE_SIGNED`].
    pub flags: u8,
}

/// The sections of one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image {
    /// The image itself.
    pub image: SectionId,
    /// Its symbols, unless it has none.
    pub symbols: Option<SectionId>,
}

/// One map, with every attribute that the verifier relied on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Map {
    /// Its name in the kernel: at most 15 bytes.
    pub name: String,
    /// The full name in the object.
    pub full_name: String,
    /// `enum bpf_map_type`.
    pub map_type: u32,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// The most entries it can hold.
    pub max_entries: u32,
    /// `BPF_F_*` flags.
    pub map_flags: u32,
    /// The map type's extra attribute.
    pub map_extra: u64,
    /// BTF type id of the key in [`Target::btf`], or zero.
    pub btf_key_type_id: u32,
    /// BTF type id of the value in [`Target::btf`], or zero.
    pub btf_value_type_id: u32,
    /// The fields of a value that the kernel manages, by rising offset.
    pub fields: Vec<Field>,
    /// An index into [`Target::maps`]: the map that describes the inner maps of a map of maps.
    pub inner: Option<u32>,
    /// The initial contents, unless they are all zero.
    pub contents: Option<SectionId>,
    /// Where the object wants it pinned, or empty.
    pub pin_path: String,
    /// What the map is for.
    pub usage: MapUse,
}

/// What a map is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MapUse {
    /// An ordinary map.
    #[default]
    Ordinary,
    /// The verifier took its contents for constants: the device's map must be frozen, read-only
    /// to programs, and hold exactly [`Map::contents`].
    Constant,
    /// Only a template for the inner maps of a map of maps: no map of the object's own.
    Template,
}

impl MapUse {
    pub(crate) fn from_flags(flags: u32) -> Option<Self> {
        match flags {
            0 => Some(Self::Ordinary),
            MAP_CONTENTS_VERIFIED => Some(Self::Constant),
            MAP_TEMPLATE => Some(Self::Template),
            _ => None,
        }
    }

    pub(crate) fn flags(self) -> u32 {
        match self {
            Self::Ordinary => 0,
            Self::Constant => MAP_CONTENTS_VERIFIED,
            Self::Template => MAP_TEMPLATE,
        }
    }
}

/// One entry that a prog array or array of maps holds from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The array, an index into [`Target::maps`].
    pub map: u32,
    /// The key.
    pub key: u32,
    /// What it holds.
    pub content: SlotContent,
}

/// What a slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotContent {
    /// An index into [`Target::programs`].
    Program(u32),
    /// An index into [`Target::maps`].
    Map(u32),
}

/// Some bytes outside the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Section {
    /// SHA-256 of the bytes.
    pub digest: [u8; 32],
    /// Number of bytes.
    pub size: u32,
    /// What they are.
    pub kind: SectionKind,
}

impl Section {
    /// Whether `bytes` are this section's.
    pub fn matches(&self, bytes: &[u8]) -> bool {
        u32::try_from(bytes.len()) == Ok(self.size) && digest(bytes) == self.digest
    }
}

pub(crate) fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Names a section of one manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SectionId(pub(crate) u32);

impl SectionId {
    /// The section's index in [`Manifest::sections`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for SectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a section holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum SectionKind {
    /// A native or bytecode image.
    Image = abi::SECTION_IMAGE,
    /// An image's symbols.
    Symbols = abi::SECTION_SYMBOLS,
    /// A map's initial contents.
    Contents = abi::SECTION_CONTENTS,
    /// BTF.
    Btf = abi::SECTION_BTF,
    /// Evidence, as JSON.
    Evidence = abi::SECTION_EVIDENCE,
}

impl SectionKind {
    pub(crate) fn from_number(number: u32) -> Option<Self> {
        [
            Self::Image,
            Self::Symbols,
            Self::Contents,
            Self::Btf,
            Self::Evidence,
        ]
        .into_iter()
        .find(|kind| kind.number() == number)
    }

    pub(crate) fn number(self) -> u32 {
        self as u32
    }
}

impl fmt::Display for SectionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Image => "image",
            Self::Symbols => "symbols",
            Self::Contents => "contents",
            Self::Btf => "btf",
            Self::Evidence => "evidence",
        })
    }
}
