//! A look at an object before a kernel is asked: is it an ELF file that libbpf would open?
//!
//! It costs microseconds where a verifier costs seconds. It goes by the rules of libbpf and its libelf, and by fewer than they
//! have: what passes may still be refused, and what is refused here would have been anyway. So fields that they do not read
//! may say what they like, and what is inside of programs, maps and BTF is left to them.

use object::elf::{
    EM_BPF, EM_NONE, ET_REL, FileHeader64, Rel64, SHF_EXECINSTR, SHN_XINDEX, SHT_NOBITS,
    SHT_PROGBITS, SHT_REL, SHT_STRTAB, SHT_SYMTAB, STB_LOCAL, STT_FUNC, SectionHeader64, Sym64,
};
use object::{LittleEndian as LE, Pod, ReadRef};

/// Bytes of an instruction.
const INSN_SIZE: u64 = 8;
/// The type of sections that list symbols whose addresses matter.
const SHT_LLVM_ADDRSIG: u32 = 0x6fff_4c03;
/// The most bytes of a name that are looked at: whoever has a long one many times has not to be waited for.
const NAME_LIMIT: usize = 80;
/// How much larger than its file an object's programs may be together: libbpf copies each, and only a few names for the same
/// program are honest.
const MOST_COPIES: u64 = 4;
/// Sections that are something else to libbpf by their names, also if they are executable.
const NO_PROGRAMS: [&[u8]; 6] = [
    b"license",
    b"version",
    b"maps",
    b".maps",
    b".BTF",
    b".BTF.ext",
];

type Section = SectionHeader64<LE>;
type Symbol = Sym64<LE>;
type Relocation = Rel64<LE>;

/// A file that is no BPF object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it is no BPF object that libbpf can open: {0}; compile it with `clang --target=bpf -g -O2 -c`"
)]
pub struct Malformed(#[from] Flaw);

/// What is wrong with it, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Flaw {
    #[error("its {bytes} bytes do not begin as ELF files do")]
    NoElf { bytes: usize },
    #[error("it ends after {bytes} bytes, within the ELF header of 64")]
    NoHeader { bytes: usize },
    #[error("the ELF header says `{field}` = {found} at byte {at}, expected {expected}")]
    Header {
        field: &'static str,
        at: usize,
        found: u16,
        expected: &'static str,
    },
    #[error("it has no section headers")]
    NoSections,
    #[error("{count} section headers at byte {offset} do not fit into its {bytes} bytes")]
    SectionHeaders {
        count: u64,
        offset: u64,
        bytes: usize,
    },
    #[error(
        "{of} has its names in section {index}, which is no string table (there are {count} sections)"
    )]
    Names {
        of: &'static str,
        index: u64,
        count: usize,
    },
    #[error("{what} has its name at byte {offset} of a string table of {bytes}, where none ends")]
    Name {
        what: String,
        offset: u32,
        bytes: usize,
    },
    #[error("{section}: {size} bytes at byte {offset} do not fit into the file's {bytes}")]
    Outside {
        section: String,
        size: u64,
        offset: u64,
        bytes: usize,
    },
    #[error("{section}: {size} bytes are no table with entries of {entry}")]
    Table {
        section: String,
        size: u64,
        entry: u64,
    },
    #[error("it has no symbol table: it was stripped")]
    NoSymbols,
    #[error("it has two symbol tables, sections {first} and {second}")]
    TwoSymbolTables { first: usize, second: usize },
    #[error(
        "{section}: the program {program} has {size} bytes at byte {offset}, and the section {bytes}"
    )]
    ProgramOutside {
        section: String,
        program: String,
        size: u64,
        offset: u64,
        bytes: u64,
    },
    #[error(
        "{section}: the program {program} has {size} bytes at byte {offset}, expected instructions of 8 bytes each"
    )]
    ProgramSize {
        section: String,
        program: String,
        size: u64,
        offset: u64,
    },
    #[error("{section}: the program {program} is static: only functions in `.text` may be")]
    Static { section: String, program: String },
    #[error(
        "{section}: its relocations are for section {target} in entries of {entry}, expected one of {count} sections and 16"
    )]
    Relocations {
        section: String,
        target: u32,
        entry: u64,
        count: usize,
    },
    #[error(
        "{section}: relocation {number} names symbol {symbol} of {symbols}, or one in no section"
    )]
    RelocationSymbol {
        section: String,
        number: usize,
        symbol: u32,
        symbols: usize,
    },
    #[error(
        "{section}: relocation {number} is at byte {offset}, expected an instruction in {target} of {bytes} bytes"
    )]
    RelocationPlace {
        section: String,
        number: usize,
        offset: u64,
        target: String,
        bytes: u64,
    },
    #[error(
        "its programs have together more than {MOST_COPIES} times the {bytes} bytes of the file: they overlap"
    )]
    Overlap { bytes: usize },
}

/// Refuses what libbpf would not open.
pub fn check(bytes: &[u8]) -> Result<(), Malformed> {
    let file = File::read(bytes)?;
    let symbols = file.symbols()?;
    let mut holds_programs = vec![false; file.sections.len()];
    for (index, section) in file.sections.iter().enumerate().skip(1) {
        let name = file.name(index)?;
        if is_ignored(section, name) {
            continue;
        }
        file.data(index)?;
        if section.sh_type.get(LE) == SHT_REL {
            file.check_relocations(index, symbols.table)?;
        }
        holds_programs[index] = section.sh_type.get(LE) == SHT_PROGBITS
            && is_executable(section)
            && !NO_PROGRAMS.contains(&name);
    }
    file.check_programs(&symbols, &holds_programs)?;
    Ok(())
}

struct File<'a> {
    bytes: &'a [u8],
    sections: &'a [Section],
    /// The names of sections.
    names: Strings<'a>,
}

struct Symbols<'a> {
    table: &'a [Symbol],
    names: Strings<'a>,
}

/// A string table up to the end of its last string.
#[derive(Clone, Copy)]
struct Strings<'a>(&'a [u8]);

impl<'a> File<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, Flaw> {
        let header = header(bytes)?;
        let sections = section_headers(bytes, header)?;
        let file = Self {
            bytes,
            sections,
            names: Strings(&[]),
        };
        let index = match header.e_shstrndx.get(LE) {
            SHN_XINDEX => sections[0].sh_link.get(LE).into(),
            index => index.into(),
        };
        let names = file.strings("the section table", index)?;
        Ok(Self { names, ..file })
    }

    fn symbols(&self) -> Result<Symbols<'a>, Flaw> {
        let tables = self.sections.iter().enumerate().skip(1);
        let mut tables = tables.filter(|(_, section)| section.sh_type.get(LE) == SHT_SYMTAB);
        let (first, section) = tables.next().ok_or(Flaw::NoSymbols)?;
        if let Some((second, _)) = tables.next() {
            return Err(Flaw::TwoSymbolTables { first, second });
        }
        Ok(Symbols {
            table: self.table(first)?,
            names: self.strings("the symbol table", section.sh_link.get(LE).into())?,
        })
    }

    fn check_programs(&self, symbols: &Symbols<'_>, holds_programs: &[bool]) -> Result<(), Flaw> {
        let mut together = 0;
        for (number, symbol) in symbols.table.iter().enumerate() {
            let index = usize::from(symbol.st_shndx.get(LE));
            if symbol.st_type() != STT_FUNC || holds_programs.get(index) != Some(&true) {
                continue;
            }
            let of_section = self.sections[index].sh_size.get(LE);
            if of_section == 0 {
                continue;
            }
            let name = symbols
                .names
                .at(symbol.st_name.get(LE), || format!("symbol {number}"))?;
            let (offset, size) = (symbol.st_value.get(LE), symbol.st_size.get(LE));
            let (section, program) = (|| self.called(index), || shown(name));
            if offset.checked_add(size).is_none_or(|end| end > of_section) {
                return Err(Flaw::ProgramOutside {
                    section: section(),
                    program: program(),
                    size,
                    offset,
                    bytes: of_section,
                });
            }
            if symbol.st_bind() == STB_LOCAL && self.name(index)? != b".text" {
                return Err(Flaw::Static {
                    section: section(),
                    program: program(),
                });
            }
            if size == 0 || size % INSN_SIZE != 0 || offset % INSN_SIZE != 0 {
                return Err(Flaw::ProgramSize {
                    section: section(),
                    program: program(),
                    size,
                    offset,
                });
            }
            // It is of what the file has, as often as it has symbols: that fits.
            together += size;
        }
        if together / MOST_COPIES > self.bytes.len() as u64 {
            return Err(Flaw::Overlap {
                bytes: self.bytes.len(),
            });
        }
        Ok(())
    }

    fn check_relocations(&self, index: usize, symbols: &[Symbol]) -> Result<(), Flaw> {
        let section = &self.sections[index];
        let target = section.sh_info.get(LE);
        let entry = section.sh_entsize.get(LE);
        let at = target as usize;
        if entry != size_of::<Relocation>() as u64 || at >= self.sections.len() {
            return Err(Flaw::Relocations {
                section: self.called(index),
                target,
                entry,
                count: self.sections.len(),
            });
        }
        // What other sections have of them is used otherwise, or not at all.
        if !is_executable(&self.sections[at]) || self.name(at)? == b".maps" {
            return Ok(());
        }
        let bytes = self.sections[at].sh_size.get(LE);
        for (number, relocation) in self.table::<Relocation>(index)?.iter().enumerate() {
            let symbol = relocation.r_sym(LE);
            let known = symbols.get(symbol as usize);
            if known.is_none_or(|known| usize::from(known.st_shndx.get(LE)) >= self.sections.len())
            {
                return Err(Flaw::RelocationSymbol {
                    section: self.called(index),
                    number,
                    symbol,
                    symbols: symbols.len(),
                });
            }
            let offset = relocation.r_offset.get(LE);
            if offset % INSN_SIZE != 0 || offset >= bytes {
                return Err(Flaw::RelocationPlace {
                    section: self.called(index),
                    number,
                    offset,
                    target: self.called(at),
                    bytes,
                });
            }
        }
        Ok(())
    }

    /// What a section has in the file.
    fn data(&self, index: usize) -> Result<&'a [u8], Flaw> {
        let section = &self.sections[index];
        let (offset, size) = (section.sh_offset.get(LE), section.sh_size.get(LE));
        if size == 0 || section.sh_type.get(LE) == SHT_NOBITS {
            return Ok(&[]);
        }
        self.bytes
            .read_bytes_at(offset, size)
            .map_err(|()| Flaw::Outside {
                section: self.called(index),
                size,
                offset,
                bytes: self.bytes.len(),
            })
    }

    fn table<T: Pod>(&self, index: usize) -> Result<&'a [T], Flaw> {
        let data = self.data(index)?;
        let no_table = || Flaw::Table {
            section: self.called(index),
            size: data.len() as u64,
            entry: size_of::<T>() as u64,
        };
        if data.len() % size_of::<T>() != 0 {
            return Err(no_table());
        }
        data.read_slice_at(0, data.len() / size_of::<T>())
            .map_err(|()| no_table())
    }

    fn strings(&self, of: &'static str, index: u64) -> Result<Strings<'a>, Flaw> {
        let found = usize::try_from(index).ok().filter(|&index| {
            let section = self.sections.get(index);
            section.is_some_and(|section| section.sh_type.get(LE) == SHT_STRTAB)
        });
        match found {
            Some(index) => {
                let data = self.data(index)?;
                let last = data.iter().rposition(|&byte| byte == 0);
                Ok(Strings(&data[..last.map_or(0, |last| last + 1)]))
            }
            None => Err(Flaw::Names {
                of,
                index,
                count: self.sections.len(),
            }),
        }
    }

    fn name(&self, index: usize) -> Result<&'a [u8], Flaw> {
        self.names.at(self.sections[index].sh_name.get(LE), || {
            format!("section {index}")
        })
    }

    /// A section in words.
    fn called(&self, index: usize) -> String {
        match self.name(index) {
            Ok(name) => format!("section {index} ({})", shown(name)),
            Err(_) => format!("section {index}"),
        }
    }
}

fn header(bytes: &[u8]) -> Result<&FileHeader64<LE>, Flaw> {
    let ident = |at: usize, field, expected: u8, words| match bytes.get(at) {
        Some(&found) if found != expected => Err(Flaw::Header {
            field,
            at,
            found: found.into(),
            expected: words,
        }),
        _ => Ok(()),
    };
    if !bytes.starts_with(b"\x7fELF") {
        return Err(Flaw::NoElf { bytes: bytes.len() });
    }
    ident(4, "EI_CLASS", 2, "2 (64 bits)")?;
    ident(5, "EI_DATA", 1, "1 (little-endian)")?;
    ident(6, "EI_VERSION", 1, "1")?;
    let header: &FileHeader64<LE> = bytes
        .read_at(0)
        .map_err(|()| Flaw::NoHeader { bytes: bytes.len() })?;
    let expect = |field, at, found, expected: &[u16], words| match expected.contains(&found) {
        true => Ok(()),
        false => Err(Flaw::Header {
            field,
            at,
            found,
            expected: words,
        }),
    };
    let (kind, machine) = (header.e_type.get(LE), header.e_machine.get(LE));
    expect("e_type", 16, kind, &[ET_REL], "1 (relocatable: not linked)")?;
    // Old compilers named none.
    expect("e_machine", 18, machine, &[EM_BPF, EM_NONE], "247 (BPF)")?;
    Ok(header)
}

/// All section headers, at least one.
fn section_headers<'a>(bytes: &'a [u8], header: &FileHeader64<LE>) -> Result<&'a [Section], Flaw> {
    let offset = header.e_shoff.get(LE);
    let read = |count: u64| {
        let fits = usize::try_from(count).map_err(|_| ());
        let headers = fits.and_then(|count| bytes.read_slice_at::<Section>(offset, count));
        headers.map_err(|()| Flaw::SectionHeaders {
            count,
            offset,
            bytes: bytes.len(),
        })
    };
    let count = match (header.e_shnum.get(LE), offset) {
        (0, 0) => 0,
        // There are more than the field can say.
        (0, _) => read(1)?[0].sh_size.get(LE),
        (count, _) => count.into(),
    };
    match count {
        0 => Err(Flaw::NoSections),
        count => read(count),
    }
}

/// What libbpf passes over, whatever it is.
fn is_ignored(section: &Section, name: &[u8]) -> bool {
    let kind = section.sh_type.get(LE);
    let relocated = name.strip_prefix(b".rel");
    kind == SHT_STRTAB
        || kind == SHT_LLVM_ADDRSIG
        || (kind == SHT_PROGBITS && section.sh_size.get(LE) == 0 && name == b".text")
        || name.starts_with(b".debug_")
        || relocated.is_some_and(|name| {
            name.starts_with(b".debug_") || name == b".BTF" || name == b".BTF.ext"
        })
}

fn is_executable(section: &Section) -> bool {
    section.sh_flags.get(LE) & u64::from(SHF_EXECINSTR) != 0
}

impl<'a> Strings<'a> {
    /// The start of the string at an offset.
    fn at(&self, offset: u32, what: impl FnOnce() -> String) -> Result<&'a [u8], Flaw> {
        let rest = self
            .0
            .get(offset as usize..)
            .filter(|rest| !rest.is_empty());
        let rest = rest.ok_or_else(|| Flaw::Name {
            what: what(),
            offset,
            bytes: self.0.len(),
        })?;
        let start = &rest[..rest.len().min(NAME_LIMIT)];
        let end = start.iter().position(|&byte| byte == 0);
        Ok(&start[..end.unwrap_or(start.len())])
    }
}

/// A name as a message can have it.
fn shown(name: &[u8]) -> String {
    format!("`{}`", String::from_utf8_lossy(name).escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where things are in the object that tests change.
    const XDP: usize = 64;
    const SYMBOLS: usize = 80;
    const RELOCATIONS: usize = 152;
    const STRINGS: usize = 168;
    const HEADERS: usize = 216;
    const NAMES: &[u8; 48] = b"\0xdp\0prog\0.symtab\0.strtab\0.relxdp\0m\0\0\0\0\0\0\0\0\0\0\0\0\0";

    /// Two instructions, the symbols of a program and of a map, and a relocation: sections 1 to 4.
    fn object() -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
        bytes.resize(XDP, 0);
        put(&mut bytes, 16, &1u16.to_le_bytes());
        put(&mut bytes, 18, &247u16.to_le_bytes());
        put(&mut bytes, 40, &(HEADERS as u64).to_le_bytes());
        put(&mut bytes, 58, &64u16.to_le_bytes());
        put(&mut bytes, 60, &5u16.to_le_bytes());
        put(&mut bytes, 62, &3u16.to_le_bytes());
        bytes.resize(SYMBOLS, 0x95);
        bytes.resize(SYMBOLS + 24, 0);
        let symbol = |name: u32, info: u8, section: u16, size: u64| {
            let (name, section) = (name.to_le_bytes(), section.to_le_bytes());
            [
                &name[..],
                &[info, 0],
                &section,
                &[0; 8],
                &size.to_le_bytes(),
            ]
            .concat()
        };
        bytes.extend(symbol(5, 0x12, 1, 16));
        bytes.extend(symbol(34, 0x11, 2, 8));
        assert_eq!(bytes.len(), RELOCATIONS);
        bytes.extend([[8, 0, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 2, 0, 0, 0]].concat());
        bytes.extend(NAMES);
        assert_eq!(bytes.len(), HEADERS);
        let mut section = |name: u32,
                           kind: u32,
                           flags: u64,
                           at: usize,
                           end: usize,
                           link: [u32; 2],
                           entry: u64| {
            bytes.extend([name, kind].map(u32::to_le_bytes).concat());
            let words = [flags, 0, at as u64, (end - at) as u64];
            bytes.extend(words.map(u64::to_le_bytes).concat());
            bytes.extend(link.map(u32::to_le_bytes).concat());
            bytes.extend([1, entry].map(u64::to_le_bytes).concat());
        };
        section(0, 0, 0, 0, 0, [0, 0], 0);
        section(1, SHT_PROGBITS, 6, XDP, SYMBOLS, [0, 0], 0);
        section(10, SHT_SYMTAB, 0, SYMBOLS, RELOCATIONS, [3, 1], 24);
        section(18, SHT_STRTAB, 0, STRINGS, HEADERS, [0, 0], 0);
        section(26, SHT_REL, 0, RELOCATIONS, STRINGS, [2, 1], 16);
        bytes
    }

    fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
        bytes[at..at + value.len()].copy_from_slice(value);
    }

    /// A field of a section's header.
    fn field(section: usize, at: usize) -> usize {
        HEADERS + 64 * section + at
    }

    #[test]
    fn what_compilers_make_is_taken() {
        assert_eq!(check(&object()), Ok(()));
        let mut old = object();
        put(&mut old, 18, &[0, 0]);
        assert_eq!(check(&old), Ok(()), "old compilers named no machine");
        let mut maps_alone = object();
        put(&mut maps_alone, field(1, 8), &[2]);
        assert_eq!(check(&maps_alone), Ok(()), "an object may have maps alone");
        // libelf does not mind where headers are.
        let mut odd = object();
        odd.insert(HEADERS, 0);
        put(&mut odd, 40, &(HEADERS as u64 + 1).to_le_bytes());
        assert_eq!(check(&odd), Ok(()));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let huge = 1u64 << 63;
        let cases: [(usize, &[u8], &str); 22] = [
            (0, b"PVB", "do not begin as ELF files do"),
            (4, &[1], "`EI_CLASS` = 1 at byte 4, expected 2 (64 bits)"),
            (5, &[2], "`EI_DATA` = 2 at byte 5"),
            (6, &[9], "`EI_VERSION` = 9"),
            (16, &[2], "`e_type` = 2 at byte 16"),
            (18, &[62], "`e_machine` = 62 at byte 18, expected 247 (BPF)"),
            (
                40,
                &huge.to_le_bytes(),
                "5 section headers at byte 9223372036854775808 do not fit",
            ),
            (60, &[0xff, 0xff], "65535 section headers"),
            (62, &[9, 0], "the section table has its names in section 9"),
            (62, &[1, 0], "section 1, which is no string table"),
            (
                field(1, 0),
                &[0xff; 4],
                "section 1 has its name at byte 4294967295",
            ),
            (
                field(1, 24),
                &huge.to_le_bytes(),
                "section 1 (`xdp`): 16 bytes at byte 9223372036854775808",
            ),
            (
                field(1, 32),
                &huge.to_le_bytes(),
                "section 1 (`xdp`): 9223372036854775808 bytes at byte 64",
            ),
            (field(2, 4), &[1], "no symbol table"),
            (
                field(2, 32),
                &[71],
                "71 bytes are no table with entries of 24",
            ),
            (
                field(2, 40),
                &[1],
                "the symbol table has its names in section 1",
            ),
            (field(4, 4), &[2], "two symbol tables, sections 2 and 4"),
            (field(4, 44), &[77], "its relocations are for section 77"),
            (SYMBOLS + 24, &[0xff; 4], "symbol 1 has its name at byte"),
            (
                SYMBOLS + 40,
                &[17],
                "the program `prog` has 17 bytes at byte 0, and the section 16",
            ),
            (SYMBOLS + 40, &[0], "expected instructions of 8 bytes each"),
            (SYMBOLS + 28, &[2], "the program `prog` is static"),
        ];
        for (at, change, words) in cases {
            let mut bytes = object();
            put(&mut bytes, at, change);
            let message = check(&bytes).unwrap_err().to_string();
            assert!(message.contains(words), "{words}: {message}");
            assert!(message.contains("clang --target=bpf"), "{message}");
        }
        for (at, change, words) in [
            (RELOCATIONS, 4, "relocation 0 is at byte 4"),
            (RELOCATIONS, 16, "`xdp`) of 16 bytes"),
            (RELOCATIONS + 12, 3, "relocation 0 names symbol 3 of 3"),
        ] {
            let mut bytes = object();
            bytes[at] = change;
            let message = check(&bytes).unwrap_err().to_string();
            assert!(message.contains(words), "{words}: {message}");
        }
    }

    #[test]
    fn nothing_that_is_cut_off_or_changed_panics() {
        let whole = object();
        for end in 0..whole.len() {
            assert!(check(&whole[..end]).is_err(), "{end} bytes");
        }
        for at in 0..whole.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                let _ = check(&bytes);
            }
        }
    }

    /// What is small here would be large for libbpf, which copies each program, and for who looks for the end of each name.
    #[test]
    fn names_for_the_same_are_few() {
        let mut bytes = object();
        let symbols = bytes.len();
        let program = bytes[SYMBOLS + 24..SYMBOLS + 48].to_vec();
        put(&mut bytes, field(2, 24), &(symbols as u64).to_le_bytes());
        put(&mut bytes, field(2, 32), &(24u64 * 1000).to_le_bytes());
        put(&mut bytes, field(4, 32), &[0; 8]);
        let honest = bytes.clone();
        bytes.extend(program.repeat(1000));
        // 16 bytes a thousand times, where each name has 24: no more than there is.
        assert_eq!(check(&bytes), Ok(()));
        let mut long = honest;
        let code = long.len() as u64 + 24_000;
        put(&mut long, field(1, 24), &code.to_le_bytes());
        put(&mut long, field(1, 32), &8000u64.to_le_bytes());
        let mut program = program;
        put(&mut program, 16, &8000u64.to_le_bytes());
        long.extend(program.repeat(1000));
        long.resize(long.len() + 8000, 0x95);
        let message = check(&long).unwrap_err().to_string();
        assert!(message.contains("they overlap"), "{message}");
    }
}
