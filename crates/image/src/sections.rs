//! Images as bytes: the image section and the symbols section.
//!
//! There is one way to write an image: tables in the order of the header's fields, each padded
//! to eight bytes, nothing else. [`Image::parse`] refuses everything that is written differently.

use preverify_abi::image::{
    self as abi, IMAGE_BYTECODE, IMAGE_MAGIC, IMAGE_MAX_FUNCTIONS, IMAGE_MAX_SIZE, IMAGE_NATIVE,
    ImageHeader, SYMBOLS_MAGIC, SymbolsHeader,
};
use preverify_abi::{ABI_VERSION, Range, Table};
use thiserror::Error;
use zerocopy::{Immutable, IntoBytes};

use crate::bpf::{self, Instruction, instructions};
use crate::export::Insn;
use crate::image::{Form, Function, Image, Machine, Reloc, Symbol, Target};
use crate::records::{BoundsError, header, range, table};

/// All tables start at multiples of this.
const ALIGNMENT: usize = 8;

/// Bytes of an instruction of bytecode.
const INSN_SIZE: usize = 8;

/// Bytes that a patched jump takes.
const POKE_SIZE: usize = 5;

const KNOWN_PROG_FLAGS: u64 = (abi::PROG_EXCEPTIONS << 1) - 1;
const KNOWN_FUNCTION_FLAGS: u32 =
    abi::FUNCTION_TAIL_CALL_REACHABLE | abi::FUNCTION_CHANGES_PKT_DATA;

/// An image as a bundle holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sections {
    /// The image.
    pub image: Vec<u8>,
    /// What its symbols mean in one kernel.
    pub symbols: Vec<u8>,
}

/// An image that the kernel part would not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TooLarge {
    /// Too many bytes.
    #[error("the image has {size} bytes; the kernel part reads images of up to {IMAGE_MAX_SIZE}")]
    Size {
        /// Bytes of the section.
        size: usize,
    },
    /// Too many functions.
    #[error("the image has {count} functions; a program can have {IMAGE_MAX_FUNCTIONS}")]
    Functions {
        /// Number of functions.
        count: usize,
    },
}

/// Bytes that are no image.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ImageError {
    /// A table or range is out of bounds.
    #[error("the {section} section is malformed: {source}")]
    Bounds {
        /// Which section.
        section: &'static str,
        /// What is out of bounds.
        source: BoundsError,
    },
    /// Other magic bytes.
    #[error("the {section} section starts with {found:02x?}, not with {expected:02x?}")]
    Magic {
        /// Which section.
        section: &'static str,
        /// The right bytes.
        expected: [u8; 8],
        /// The first bytes.
        found: [u8; 8],
    },
    /// Another version of the ABI.
    #[error(
        "the {section} section has version {found} of the ABI; this program knows {ABI_VERSION}"
    )]
    Version {
        /// Which section.
        section: &'static str,
        /// The section's version.
        found: u32,
    },
    /// The size in the header is not the number of bytes.
    #[error("the {section} section says that it has {expected} bytes, but {found} are there")]
    Size {
        /// Which section.
        section: &'static str,
        /// The header's word.
        expected: u32,
        /// Bytes there are.
        found: usize,
    },
    /// Larger than the kernel part takes.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// Code for another machine.
    #[error("the image holds code for ELF machine {found}, which this program does not know")]
    Machine {
        /// The ELF machine number.
        found: u32,
    },
    /// Neither native code nor bytecode.
    #[error(
        "the image is of kind {found}; this program reads native images ({IMAGE_NATIVE}) and bytecode ({IMAGE_BYTECODE})"
    )]
    Kind {
        /// The kind.
        found: u32,
    },
    /// A program has at least its entry.
    #[error("the image has no function")]
    NoFunctions,
    /// Bits that nobody knows.
    #[error("{owner} has unknown flags {flags:#x}")]
    Flags {
        /// Whose flags.
        owner: String,
        /// The unknown ones.
        flags: u64,
    },
    /// More functions visible than there are.
    #[error("the image says that {visible} functions are visible, but it has {functions}")]
    VisibleFunctions {
        /// The image's word.
        visible: u32,
        /// Functions there are.
        functions: usize,
    },
    /// A relocation that cannot be.
    #[error("relocation {index} of function {function}: {problem}")]
    Reloc {
        /// The function.
        function: usize,
        /// The relocation, counted from the function's first.
        index: usize,
        /// What is wrong.
        problem: RelocProblem,
    },
    /// An exception table entry outside the function.
    #[error(
        "exception {index} of function {function} is at offset {offset} of {size} bytes of code"
    )]
    Extable {
        /// The function.
        function: usize,
        /// The entry, counted from the function's first.
        index: usize,
        /// Its offset.
        offset: u32,
        /// Bytes of the function.
        size: usize,
    },
    /// No bytecode.
    #[error("the bytecode of function {function} cannot be: {problem}")]
    Bytecode {
        /// The function.
        function: usize,
        /// What is wrong.
        problem: &'static str,
    },
    /// A tail call outside the program; one of bytecode has no place in machine code.
    #[error("tail call {index} does not lie within function {function}")]
    Poke {
        /// The tail call.
        index: usize,
        /// The function that it names.
        function: u32,
    },
    /// The image wants another number of symbols.
    #[error("the image refers to {expected} symbols, its symbols section has {found}")]
    SymbolCount {
        /// The image's word.
        expected: u32,
        /// Symbols there are.
        found: usize,
    },
    /// A symbol that cannot be.
    #[error("symbol {index}: {problem}")]
    Symbol {
        /// The symbol.
        index: usize,
        /// What is wrong.
        problem: &'static str,
    },
    /// Gaps, overlaps, padding or reserved fields that are not zero, unused names.
    #[error("the {section} section is not written in the one way that images are written")]
    NotCanonical {
        /// Which section.
        section: &'static str,
    },
}

/// What is wrong with a relocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RelocProblem {
    /// No such form in such code.
    #[error("form {0} is none of such code's")]
    Form(u16),
    /// No such kind, or an index where there is nothing to choose from.
    #[error("unknown kind {kind} with index {index}")]
    Kind {
        /// The kind.
        kind: u16,
        /// The index.
        index: u32,
    },
    /// The index is out of bounds.
    #[error("names entry {index} of {count}")]
    Index {
        /// The index.
        index: u32,
        /// Entries there are.
        count: usize,
    },
    /// Absolute addresses need no relocation unless they are written relative to the code.
    #[error("an absolute address is written in an absolute form")]
    Absolute,
    /// Nothing that an instruction of bytecode has an address of.
    #[error("bytecode has no such address there")]
    Target,
    /// Outside the code, not behind the one before, or not at the start of an instruction.
    #[error(
        "the field at offset {0} is outside the code, not behind the one before, or within an instruction"
    )]
    Place(u32),
    /// Another instruction.
    #[error("the instruction at offset {0} is not one whose address has this form")]
    Instruction(u32),
    /// The field must be zero.
    #[error("the field at offset {0} of the code is not zero")]
    NotZeroed(u32),
}

impl Image {
    /// Writes the image; the same image is always the same bytes.
    pub fn to_sections(&self) -> Result<Sections, TooLarge> {
        if self.functions.len() > IMAGE_MAX_FUNCTIONS as usize {
            return Err(TooLarge::Functions {
                count: self.functions.len(),
            });
        }
        Ok(Sections {
            image: self.image_section()?,
            symbols: self.symbols_section()?,
        })
    }

    fn image_section(&self) -> Result<Vec<u8>, TooLarge> {
        let mut functions = Vec::new();
        let mut code = Vec::new();
        let mut relocs = Vec::new();
        let mut extable = Vec::new();
        for function in &self.functions {
            functions.push(abi::Function {
                tag: function.tag,
                code: range_of(code.len(), function.code.len())?,
                relocs: range_of(relocs.len(), function.relocs.len())?,
                extable: range_of(extable.len(), function.extable.len())?,
                stack_depth: function.stack_depth.into(),
                flags: function.flags.into(),
            });
            code.extend_from_slice(&function.code);
            relocs.extend(function.relocs.iter().map(reloc_record));
            extable.extend_from_slice(&function.extable);
        }
        let xlated: Vec<[u8; 8]> = self.xlated.iter().map(|insn| insn.to_bytes()).collect();

        let mut writer = Writer::new::<ImageHeader>();
        let header = ImageHeader {
            magic: IMAGE_MAGIC,
            version: ABI_VERSION.into(),
            functions: writer.table(&functions)?,
            code: writer.table(&code)?,
            relocs: writer.table(&relocs)?,
            extable: writer.table(&extable)?,
            pokes: writer.table(&self.pokes)?,
            xlated: writer.table(&xlated)?,
            size: writer.size()?.into(),
            arch: self.machine.number().into(),
            kind: self.machine.kind().into(),
            conclusions: self.conclusions,
            symbol_count: word(self.symbols.len())?.into(),
            reserved: 0.into(),
        };
        Ok(writer.finish(&header))
    }

    fn symbols_section(&self) -> Result<Vec<u8>, TooLarge> {
        let mut symbols = Vec::new();
        let mut strings = Vec::new();
        for symbol in &self.symbols {
            let (kind, value) = match symbol {
                Symbol::Text { offset, .. } => (abi::SYMBOL_TEXT, *offset),
                Symbol::Module { offset, .. } => (abi::SYMBOL_MODULE, *offset),
            };
            symbols.push(abi::Symbol {
                kind: kind.into(),
                name: word(strings.len())?.into(),
                value: value.into(),
            });
            strings.extend_from_slice(symbol.name().as_bytes());
            strings.push(0);
        }
        let mut writer = Writer::new::<SymbolsHeader>();
        let header = SymbolsHeader {
            magic: SYMBOLS_MAGIC,
            version: ABI_VERSION.into(),
            symbols: writer.table(&symbols)?,
            strings: writer.table(&strings)?,
            size: writer.size()?.into(),
        };
        Ok(writer.finish(&header))
    }

    /// Reads an image and its symbols; checks everything but the indices of maps, which only a
    /// manifest knows.
    pub fn parse(image: &[u8], symbols: &[u8]) -> Result<Self, ImageError> {
        let parsed = parse_image(image, parse_symbols(symbols)?)?;
        let canonical = parsed.to_sections()?;
        if canonical.image != image {
            return Err(ImageError::NotCanonical { section: "image" });
        }
        if canonical.symbols != symbols {
            return Err(ImageError::NotCanonical { section: "symbols" });
        }
        Ok(parsed)
    }
}

fn reloc_record(reloc: &Reloc) -> abi::Reloc {
    let (kind, index) = reloc.target.number();
    abi::Reloc {
        offset: reloc.offset.into(),
        form: reloc.form.number().into(),
        kind: kind.into(),
        index: index.into(),
        reserved: 0.into(),
        addend: reloc.addend.into(),
    }
}

fn word(number: usize) -> Result<u32, TooLarge> {
    match u32::try_from(number) {
        Ok(word) if word <= IMAGE_MAX_SIZE => Ok(word),
        _ => Err(TooLarge::Size { size: number }),
    }
}

fn range_of(first: usize, count: usize) -> Result<Range, TooLarge> {
    Ok(Range {
        first: word(first)?.into(),
        count: word(count)?.into(),
    })
}

/// Puts tables one behind the other.
struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn new<Header>() -> Self {
        let mut writer = Self {
            bytes: vec![0; size_of::<Header>()],
        };
        writer.pad();
        writer
    }

    fn table<T: IntoBytes + Immutable>(&mut self, records: &[T]) -> Result<Table, TooLarge> {
        let offset = word(self.bytes.len())?.into();
        self.bytes.extend_from_slice(records.as_bytes());
        self.pad();
        Ok(Table {
            offset,
            count: word(records.len())?.into(),
        })
    }

    fn pad(&mut self) {
        self.bytes
            .resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
    }

    fn size(&self) -> Result<u32, TooLarge> {
        word(self.bytes.len())
    }

    fn finish<Header: IntoBytes + Immutable>(mut self, header: &Header) -> Vec<u8> {
        self.bytes[..size_of::<Header>()].copy_from_slice(header.as_bytes());
        self.bytes
    }
}

fn parse_image(bytes: &[u8], symbols: Vec<Symbol>) -> Result<Image, ImageError> {
    const SECTION: &str = "image";
    let bounds = |source| ImageError::Bounds {
        section: SECTION,
        source,
    };
    let head: &ImageHeader = header(bytes).map_err(bounds)?;
    check_head(
        SECTION,
        bytes,
        (head.magic, IMAGE_MAGIC),
        head.version.get(),
        head.size.get(),
    )?;
    let machine = match (head.kind.get(), head.arch.get()) {
        (IMAGE_BYTECODE, 0) => Machine::Bpf,
        (IMAGE_NATIVE, found) => Machine::native(found).ok_or(ImageError::Machine { found })?,
        (IMAGE_BYTECODE, found) => return Err(ImageError::Machine { found }),
        (found, _) => return Err(ImageError::Kind { found }),
    };
    if usize::try_from(head.symbol_count.get()) != Ok(symbols.len()) {
        return Err(ImageError::SymbolCount {
            expected: head.symbol_count.get(),
            found: symbols.len(),
        });
    }

    let records: &[abi::Function] = table(bytes, "functions", head.functions).map_err(bounds)?;
    let code: &[u8] = table(bytes, "code", head.code).map_err(bounds)?;
    let relocs: &[abi::Reloc] = table(bytes, "relocs", head.relocs).map_err(bounds)?;
    let extable: &[abi::Extable] = table(bytes, "extable", head.extable).map_err(bounds)?;
    let pokes: &[abi::Poke] = table(bytes, "pokes", head.pokes).map_err(bounds)?;
    let xlated: &[[u8; 8]] = table(bytes, "xlated", head.xlated).map_err(bounds)?;
    if records.is_empty() {
        return Err(ImageError::NoFunctions);
    }
    if records.len() > IMAGE_MAX_FUNCTIONS as usize {
        return Err(TooLarge::Functions {
            count: records.len(),
        }
        .into());
    }
    check_conclusions(&head.conclusions, records.len())?;

    let mut functions = Vec::with_capacity(records.len());
    for (index, record) in records.iter().enumerate() {
        let owner = || format!("function {index}");
        let unknown = record.flags.get() & !KNOWN_FUNCTION_FLAGS;
        if unknown != 0 {
            return Err(ImageError::Flags {
                owner: owner(),
                flags: unknown.into(),
            });
        }
        let code = range(code, "code", record.code, owner).map_err(bounds)?;
        let relocs = range(relocs, "relocs", record.relocs, owner).map_err(bounds)?;
        let extable = range(extable, "extable", record.extable, owner).map_err(bounds)?;
        check_extable(index, extable, code.len())?;
        if machine == Machine::Bpf {
            check_bytecode(index, code, extable, records.len())?;
        }
        functions.push(Function {
            tag: record.tag,
            relocs: parse_relocs(machine, index, relocs, code, records.len(), symbols.len())?,
            code: code.to_vec(),
            extable: extable.to_vec(),
            stack_depth: record.stack_depth.get(),
            flags: record.flags.get(),
        });
    }
    for (index, poke) in pokes.iter().enumerate() {
        if !is_within(machine, poke, &functions) {
            return Err(ImageError::Poke {
                index,
                function: poke.function.get(),
            });
        }
    }
    Ok(Image {
        machine,
        conclusions: head.conclusions,
        functions,
        pokes: pokes.to_vec(),
        xlated: xlated.iter().copied().map(Insn::from_bytes).collect(),
        symbols,
    })
}

fn check_head(
    section: &'static str,
    bytes: &[u8],
    (found, expected): ([u8; 8], [u8; 8]),
    version: u32,
    size: u32,
) -> Result<(), ImageError> {
    if found != expected {
        return Err(ImageError::Magic {
            section,
            expected,
            found,
        });
    }
    if version != ABI_VERSION {
        return Err(ImageError::Version {
            section,
            found: version,
        });
    }
    if usize::try_from(size) != Ok(bytes.len()) {
        return Err(ImageError::Size {
            section,
            expected: size,
            found: bytes.len(),
        });
    }
    Ok(word(bytes.len()).map(|_| ())?)
}

fn check_conclusions(conclusions: &abi::Conclusions, functions: usize) -> Result<(), ImageError> {
    let unknown = conclusions.flags.get() & !KNOWN_PROG_FLAGS;
    if unknown != 0 {
        return Err(ImageError::Flags {
            owner: "the program".to_owned(),
            flags: unknown,
        });
    }
    let visible = conclusions.visible_functions.get();
    if usize::try_from(visible).map_or(true, |visible| visible > functions) {
        return Err(ImageError::VisibleFunctions { visible, functions });
    }
    Ok(())
}

fn check_extable(function: usize, extable: &[abi::Extable], size: usize) -> Result<(), ImageError> {
    for (index, entry) in extable.iter().enumerate() {
        let offset = entry.offset.get();
        if usize::try_from(offset).map_or(true, |offset| offset >= size) {
            return Err(ImageError::Extable {
                function,
                index,
                offset,
                size,
            });
        }
    }
    Ok(())
}

/// Bytecode is whole instructions, and knows nothing of what the JIT makes of them.
fn check_bytecode(
    function: usize,
    code: &[u8],
    extable: &[abi::Extable],
    functions: usize,
) -> Result<(), ImageError> {
    let error = |problem| Err(ImageError::Bytecode { function, problem });
    if code.is_empty() || !code.len().is_multiple_of(INSN_SIZE) {
        return error("its bytes are not whole instructions");
    }
    if !extable.is_empty() {
        return error("it has an exception table, which is for the JIT to make");
    }
    for Instruction { insn, high, .. } in instructions(&bpf::parse(code)) {
        let is_wide = insn.code == Insn::LD_IMM64;
        if is_wide && high.map(|high| Insn { imm: 0, ..high }) != Some(Insn::default()) {
            return error("it has half a wide load");
        }
        if !insn.names_own_function() {
            continue;
        }
        if usize::try_from(insn.off).map_or(true, |index| index >= functions) {
            return error("it names a function that the program does not have");
        }
        if insn.imm != 0 || high.is_some_and(|high| high.imm != 0) {
            return error("it has an address of one of the program's functions");
        }
    }
    Ok(())
}

fn is_within(machine: Machine, poke: &abi::Poke, functions: &[Function]) -> bool {
    let within = || {
        let function = functions.get(usize::try_from(poke.function.get()).ok()?)?;
        if machine == Machine::Bpf {
            let places = [poke.target, poke.bypass, poke.bypass_target];
            return places
                .iter()
                .all(|place| place.get() == 0)
                .then_some(&[][..]);
        }
        let target = usize::try_from(poke.target.get()).ok()?;
        let bypass = usize::try_from(poke.bypass.get()).ok()?;
        let bypass_target = usize::try_from(poke.bypass_target.get()).ok()?;
        function.code.get(target..target.checked_add(POKE_SIZE)?)?;
        function.code.get(bypass..bypass.checked_add(POKE_SIZE)?)?;
        function.code.get(bypass_target..)
    };
    within().is_some()
}

fn parse_relocs(
    machine: Machine,
    function: usize,
    records: &[abi::Reloc],
    code: &[u8],
    functions: usize,
    symbols: usize,
) -> Result<Vec<Reloc>, ImageError> {
    let mut relocs = Vec::with_capacity(records.len());
    let mut end = 0;
    for (index, record) in records.iter().enumerate() {
        let error = |problem| ImageError::Reloc {
            function,
            index,
            problem,
        };
        let reloc = parse_reloc(machine, record, functions, symbols).map_err(error)?;
        let place = || {
            let offset = usize::try_from(reloc.offset).ok()?;
            let field = code.get(offset..offset.checked_add(reloc.form.size())?)?;
            let fits = offset >= end && offset.is_multiple_of(machine.alignment());
            fits.then_some((offset, field))
        };
        let (offset, field) = place().ok_or(error(RelocProblem::Place(reloc.offset)))?;
        let mut vacant = field.to_vec();
        reloc.form.vacate(&mut vacant);
        if vacant != field {
            return Err(error(RelocProblem::NotZeroed(reloc.offset)));
        }
        let takes_address = |opcode| {
            let insn = field.first_chunk().copied().map(Insn::from_bytes);
            insn.is_some_and(|insn| insn.code == opcode && !insn.names_own_function())
        };
        let fits = match reloc.form {
            Form::BpfImm64 => takes_address(Insn::LD_IMM64),
            Form::BpfCall => takes_address(Insn::CALL),
            _ => true,
        };
        if !fits {
            return Err(error(RelocProblem::Instruction(reloc.offset)));
        }
        end = offset + reloc.form.size();
        relocs.push(reloc);
    }
    Ok(relocs)
}

fn parse_reloc(
    machine: Machine,
    record: &abi::Reloc,
    functions: usize,
    symbols: usize,
) -> Result<Reloc, RelocProblem> {
    let form = record.form.get();
    let form = Form::from_number(form)
        .filter(|form| machine.forms().contains(form))
        .ok_or(RelocProblem::Form(form))?;
    let (kind, index) = (record.kind.get(), record.index.get());
    let target = Target::from_number(kind, index).ok_or(RelocProblem::Kind { kind, index })?;
    let check = |index: u32, count: usize| match usize::try_from(index) {
        Ok(found) if found < count => Ok(()),
        _ => Err(RelocProblem::Index { index, count }),
    };
    match target {
        Target::Absolute if form != Form::Rel32 => return Err(RelocProblem::Absolute),
        // Bytecode has the numbers of its own functions in its instructions, and calls nothing else
        // but functions of the kernel.
        Target::Function(_) if machine == Machine::Bpf => return Err(RelocProblem::Target),
        Target::Map(_) | Target::MapValue(_) | Target::ProgAux if form == Form::BpfCall => {
            return Err(RelocProblem::Target);
        }
        Target::Symbol(index) => check(index, symbols)?,
        Target::Function(index) => check(index, functions)?,
        Target::Absolute | Target::Map(_) | Target::MapValue(_) | Target::ProgAux => {}
    }
    Ok(Reloc {
        offset: record.offset.get(),
        form,
        target,
        addend: record.addend.get(),
    })
}

fn parse_symbols(bytes: &[u8]) -> Result<Vec<Symbol>, ImageError> {
    const SECTION: &str = "symbols";
    let bounds = |source| ImageError::Bounds {
        section: SECTION,
        source,
    };
    let head: &SymbolsHeader = header(bytes).map_err(bounds)?;
    check_head(
        SECTION,
        bytes,
        (head.magic, SYMBOLS_MAGIC),
        head.version.get(),
        head.size.get(),
    )?;
    let records: &[abi::Symbol] = table(bytes, "symbols", head.symbols).map_err(bounds)?;
    let strings: &[u8] = table(bytes, "strings", head.strings).map_err(bounds)?;
    let mut symbols = Vec::with_capacity(records.len());
    for (index, record) in records.iter().enumerate() {
        let error = |problem| ImageError::Symbol { index, problem };
        let name = name_at(strings, record.name.get())
            .ok_or(error("its name is no text within the strings"))?;
        let offset = record.value.get();
        symbols.push(match record.kind.get() {
            abi::SYMBOL_TEXT => Symbol::Text { name, offset },
            abi::SYMBOL_MODULE if name.contains(':') => Symbol::Module { name, offset },
            abi::SYMBOL_MODULE => return Err(error("its name is not `module:symbol`")),
            _ => return Err(error("its kind is unknown")),
        });
    }
    Ok(symbols)
}

fn name_at(strings: &[u8], offset: u32) -> Option<String> {
    let strings = strings.get(usize::try_from(offset).ok()?..)?;
    let end = strings.iter().position(|&byte| byte == 0)?;
    Some(str::from_utf8(&strings[..end]).ok()?.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{HELPER, Piece, two_boots};
    use crate::{discover, discover_bytecode};

    fn image() -> Image {
        let main = vec![
            Piece::Map(0),
            Piece::Helper(HELPER),
            Piece::ModuleCall,
            Piece::TailCall(1),
            Piece::Call(1),
        ];
        let [a, b] = two_boots(&[main, vec![Piece::CallDepth(8)]]);
        discover(a.capture(), b.capture()).unwrap()
    }

    fn bytecode() -> Image {
        let main = vec![
            Piece::Map(0),
            Piece::Helper(HELPER),
            Piece::TailCall(1),
            Piece::Call(1),
            Piece::Callback(1),
        ];
        let [a, b] = two_boots(&[main, vec![]]);
        discover_bytecode(a.capture(), b.capture()).unwrap()
    }

    fn parse(sections: &Sections) -> Result<Image, ImageError> {
        Image::parse(&sections.image, &sections.symbols)
    }

    #[test]
    fn an_image_survives_its_bytes() {
        let sections = image().to_sections().unwrap();
        assert_eq!(parse(&sections).unwrap(), image());
        assert_eq!(sections.image.len() % 8, 0);
        assert_eq!(sections.symbols.len() % 8, 0);
    }

    #[test]
    fn images_that_cannot_be_are_refused() {
        type Change = fn(&mut Image);
        let changes: [(&str, Change); 14] = [
            ("no function", |image| {
                image.functions.clear();
                image.pokes.clear();
                image.conclusions.visible_functions = 0.into();
            }),
            (
                "the program has unknown flags 0x8000000000000000",
                |image| {
                    image.conclusions.flags = (1 << 63).into();
                },
            ),
            ("function 1 has unknown flags 0x80", |image| {
                image.functions[1].flags = 0x80
            }),
            ("3 functions are visible", |image| {
                image.conclusions.visible_functions = 3.into()
            }),
            ("exception 0 of function 0", |image| {
                image.functions[0].extable[0].offset = 99.into()
            }),
            ("tail call 0 does not lie", |image| {
                image.pokes[0].function = 2.into()
            }),
            ("tail call 0 does not lie", |image| {
                image.pokes[0].target = u32::MAX.into()
            }),
            ("names entry 2 of 2", |image| {
                image.functions[0].relocs[1].target = Target::Symbol(2)
            }),
            ("names entry 2 of 2", |image| {
                image.functions[0].relocs[3].target = Target::Function(2)
            }),
            ("in an absolute form", |image| {
                image.functions[0].relocs[0].target = Target::Absolute
            }),
            ("not behind the one before", |image| {
                image.functions[0].relocs.swap(0, 1)
            }),
            ("outside the code", |image| {
                image.functions[1].relocs[0].offset = 100
            }),
            ("of the code is not zero", |image| {
                image.functions[0].code[11] = 1
            }),
            ("is not `module:symbol`", |image| {
                image.symbols[0] = Symbol::Module {
                    name: "helper".to_owned(),
                    offset: 0,
                };
            }),
        ];
        for (what, change) in changes {
            let mut image = image();
            change(&mut image);
            let error = parse(&image.to_sections().unwrap()).unwrap_err();
            assert!(error.to_string().contains(what), "{what}: {error}");
        }
    }

    #[test]
    fn bytecode_survives_its_bytes() {
        let sections = bytecode().to_sections().unwrap();
        assert_eq!(parse(&sections).unwrap(), bytecode());
        // It is for no machine, and of another kind.
        assert_eq!(sections.image[16..24], [0, 0, 0, 0, 2, 0, 0, 0]);
    }

    #[test]
    fn bytecode_that_cannot_be_is_refused() {
        type Change = fn(&mut Image);
        let changes: [(&str, Change); 16] = [
            ("are not whole instructions", |image| {
                image.functions[1].code.push(0)
            }),
            ("are not whole instructions", |image| {
                image.functions[1].code.clear()
            }),
            ("has an exception table", |image| {
                image.functions[0].extable = vec![abi::Extable::default()];
            }),
            ("half a wide load", |image| {
                image.functions[1]
                    .code
                    .copy_from_slice(&[0x18, 1, 0, 0, 0, 0, 0, 0]);
            }),
            ("half a wide load", |image| image.functions[0].code[9] = 1),
            // The call and the load of function 1.
            ("does not have", |image| image.functions[0].code[34] = 2),
            ("does not have", |image| image.functions[0].code[43] = 0x80),
            ("has an address of one", |image| {
                image.functions[0].code[36] = 1
            }),
            ("has an address of one", |image| {
                image.functions[0].code[52] = 1
            }),
            ("tail call 0 does not lie", |image| {
                image.pokes[0].bypass = 8.into()
            }),
            ("form 1 is none of such code's", |image| {
                image.functions[0].relocs[0].form = Form::Rel32
            }),
            ("is not one whose address has this form", |image| {
                image.functions[0].relocs[0].form = Form::BpfCall;
                image.functions[0].relocs[0].target = Target::Symbol(0);
            }),
            // A call of the program's own.
            ("is not one whose address has this form", |image| {
                image.functions[0].relocs[1].offset = 32
            }),
            ("within an instruction", |image| {
                image.functions[0].relocs[1].offset = 20
            }),
            ("bytecode has no such address", |image| {
                image.functions[0].relocs[0].target = Target::Function(1)
            }),
            ("bytecode has no such address", |image| {
                image.functions[0].relocs[1].target = Target::ProgAux
            }),
        ];
        for (what, change) in changes {
            let mut image = bytecode();
            change(&mut image);
            let error = parse(&image.to_sections().unwrap()).unwrap_err();
            assert!(error.to_string().contains(what), "{what}: {error}");
        }
    }

    #[test]
    fn heads_that_are_not_this_version_are_refused() {
        let whole = image().to_sections().unwrap();
        let changes: [(&str, usize, u8); 7] = [
            ("starts with", 0, b'X'),
            ("version 1", 8, 1),
            ("says that it has", 12, whole.image[12] ^ 8),
            ("ELF machine 40", 16, 40),
            // Bytecode is for no machine.
            ("ELF machine 62", 20, 2),
            ("is of kind 3", 20, 3),
            ("refers to 3 symbols", 128, 3),
        ];
        for (what, offset, byte) in changes {
            let mut sections = whole.clone();
            sections.image[offset] = byte;
            let error = parse(&sections).unwrap_err();
            assert!(error.to_string().contains(what), "{what}: {error}");
        }
        // A reserved word, and what follows the last table.
        let mut sections = whole.clone();
        sections.image[132] = 1;
        let error = parse(&sections).unwrap_err();
        assert_eq!(error, ImageError::NotCanonical { section: "image" });
        let mut sections = whole;
        let last = sections.symbols.len() - 1;
        sections.symbols[last] ^= 1;
        let error = parse(&sections).unwrap_err();
        assert_eq!(error, ImageError::NotCanonical { section: "symbols" });
    }

    #[test]
    fn what_the_kernel_part_does_not_read_is_not_written() {
        let mut image = image();
        let function = image.functions[1].clone();
        image.functions.resize(258, function);
        assert_eq!(image.to_sections(), Err(TooLarge::Functions { count: 258 }));
        image.functions.truncate(2);
        image.functions[0].code.resize(65 << 20, 0);
        assert!(matches!(image.to_sections(), Err(TooLarge::Size { .. })));
    }

    proptest! {
        /// Bytes are refused, or are exactly what the parsed image is written as.
        #[test]
        fn damaged_sections_are_refused_or_mean_what_they_say(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            of_symbols in any::<bool>(),
            of_bytecode in any::<bool>(),
        ) {
            let image = if of_bytecode { bytecode() } else { image() };
            let mut sections = image.to_sections().unwrap();
            let bytes = match of_symbols {
                true => &mut sections.symbols,
                false => &mut sections.image,
            };
            for (position, byte) in changes {
                let position = position.index(bytes.len());
                bytes[position] = byte;
            }
            if let Ok(parsed) = parse(&sections) {
                prop_assert_eq!(parsed.to_sections().unwrap(), sections);
            }
        }
    }
}
