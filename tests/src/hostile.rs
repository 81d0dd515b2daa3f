//! Objects as somebody sends them who means harm: real ones, damaged. The same seed gives the same damage.

use std::fmt;

use preverify_pipeline::elf;

/// Offsets in ELF headers, in headers of sections, in symbols and in relocations, with the sizes of fields.
const HEADER: [(usize, usize); 12] = [
    (0, 4),
    (4, 1),
    (5, 1),
    (6, 1),
    (16, 2),
    (18, 2),
    (40, 8),
    (52, 2),
    (58, 2),
    (60, 2),
    (62, 2),
    (20, 4),
];
const SECTION: [(usize, usize); 8] = [
    (0, 4),
    (4, 4),
    (8, 8),
    (24, 8),
    (32, 8),
    (40, 4),
    (44, 4),
    (56, 8),
];
const SYMBOL: [(usize, usize); 5] = [(0, 4), (4, 1), (6, 2), (8, 8), (16, 8)];
const RELOCATION: [(usize, usize); 2] = [(0, 8), (8, 8)];

const PROGBITS: u32 = 1;
const SYMTAB: u32 = 2;
const STRTAB: u32 = 3;
const REL: u32 = 9;
const EXECUTABLE: u64 = 4;

/// What is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Damage {
    /// The file ends early.
    Cut,
    /// Random bytes, most often with the right start.
    Noise,
    /// A field of the ELF header.
    Header,
    /// A field of a section's header.
    Section,
    /// A section begins in another one, or ends in it.
    Overlap,
    /// How many sections there are.
    Count,
    /// A symbol.
    Symbol,
    /// Names that do not end, or begin nowhere.
    Strings,
    /// Relocations.
    Relocation,
    /// Instructions.
    Code,
    /// Types.
    Btf,
    /// Definitions of maps, values of variables, licences.
    Data,
    /// Some bits anywhere.
    Bits,
}

impl Damage {
    const ALL: [Self; 13] = [
        Self::Cut,
        Self::Noise,
        Self::Header,
        Self::Section,
        Self::Overlap,
        Self::Count,
        Self::Symbol,
        Self::Strings,
        Self::Relocation,
        Self::Code,
        Self::Btf,
        Self::Data,
        Self::Bits,
    ];
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Cut => "cut off",
            Self::Noise => "noise",
            Self::Header => "ELF header",
            Self::Section => "section header",
            Self::Overlap => "overlapping sections",
            Self::Count => "number of sections",
            Self::Symbol => "symbols",
            Self::Strings => "names",
            Self::Relocation => "relocations",
            Self::Code => "instructions",
            Self::Btf => "BTF",
            Self::Data => "maps and data",
            Self::Bits => "bits anywhere",
        })
    }
}

/// A damaged object.
#[derive(Clone, Debug)]
pub struct Damaged {
    /// What is damaged.
    pub damage: Damage,
    /// The file.
    pub elf: Vec<u8>,
    /// Whether it has to get as far as libbpf, since [`elf::check`] finds nothing wrong with it.
    pub deep: bool,
}

/// Damages objects: never the same twice, and for the same seed the same.
#[derive(Clone, Debug)]
pub struct Vandal {
    objects: Vec<Vec<u8>>,
    random: Random,
    /// One of so many objects gets as far as libbpf.
    deep: usize,
    made: usize,
}

impl Vandal {
    /// Damages some of these. One of every `deep` gets as far as libbpf.
    pub fn new(objects: Vec<Vec<u8>>, seed: u64, deep: usize) -> Self {
        Self {
            objects,
            random: Random(seed),
            deep,
            made: 0,
        }
    }

    fn damaged(&mut self) -> Damaged {
        let elf = self.random.of(&self.objects).clone();
        let damage = *self.random.of(&Damage::ALL);
        let mut work = Work {
            sections: sections(&elf),
            elf,
            random: &mut self.random,
        };
        for _ in 0..=work.random.below(3) {
            work.damage(damage);
        }
        let elf = work.elf;
        Damaged {
            damage,
            deep: elf::check(&elf).is_ok(),
            elf,
        }
    }
}

impl Iterator for Vandal {
    type Item = Damaged;

    fn next(&mut self) -> Option<Damaged> {
        let deep = self.made.is_multiple_of(self.deep);
        self.made += 1;
        loop {
            let damaged = self.damaged();
            // What was not damaged after all is no use.
            if damaged.deep == deep && !self.objects.contains(&damaged.elf) {
                return Some(damaged);
            }
        }
    }
}

/// A section of an object that is not damaged yet.
#[derive(Clone, Copy, Debug)]
struct Section {
    header: usize,
    kind: u32,
    flags: u64,
    offset: usize,
    size: usize,
    is_btf: bool,
}

struct Work<'a> {
    elf: Vec<u8>,
    sections: Vec<Section>,
    random: &'a mut Random,
}

impl Work<'_> {
    fn damage(&mut self, damage: Damage) {
        match damage {
            Damage::Cut => {
                let end = self.random.below(self.elf.len());
                self.elf.truncate(end);
            }
            Damage::Noise => {
                let from = *self.random.of(&[0, 4, 20, 64]);
                let size = from + self.random.below(4096);
                self.elf.resize(size, 0);
                for at in from..size {
                    self.elf[at] = self.random.byte();
                }
            }
            Damage::Header => self.field(0, &HEADER),
            Damage::Section => {
                if let Some(section) = self.section(|_| true) {
                    self.field(section.header, &SECTION);
                }
            }
            Damage::Overlap => {
                let (Some(section), Some(other)) = (self.section(|_| true), self.section(|_| true))
                else {
                    return;
                };
                let offset = other.offset + self.random.below(other.size + 1);
                self.put(section.header + 24, &(offset as u64).to_le_bytes());
                let size = self.random.below(self.elf.len());
                self.put(section.header + 32, &(size as u64).to_le_bytes());
            }
            Damage::Count => {
                let count = self.random.extreme(self.elf.len() as u64);
                match self.sections.first() {
                    Some(first) if self.random.below(2) == 0 => {
                        let header = first.header;
                        self.put(60, &[0, 0]);
                        self.put(header + 32, &count.to_le_bytes());
                    }
                    _ => self.put(60, &count.to_le_bytes()[..2]),
                }
            }
            Damage::Symbol => self.entry(SYMTAB, 24, &SYMBOL),
            Damage::Relocation => self.entry(REL, 16, &RELOCATION),
            Damage::Strings => {
                if let Some(strings) = self.section(|section| section.kind == STRTAB) {
                    let from = self.random.below(strings.size + 1);
                    for at in strings.offset + from..strings.offset + strings.size {
                        self.put(at, b"a");
                    }
                }
            }
            Damage::Code => {
                self.flip(|section| section.kind == PROGBITS && section.flags & EXECUTABLE != 0)
            }
            Damage::Btf => self.flip(|section| section.is_btf),
            Damage::Data => self.flip(|section| {
                section.kind == PROGBITS && section.flags & EXECUTABLE == 0 && !section.is_btf
            }),
            Damage::Bits => {
                let (start, size) = (0, self.elf.len());
                self.flip_within(start, size);
            }
        }
    }

    /// Some section. Its place may be no longer in the file.
    fn section(&mut self, is: impl Fn(&Section) -> bool) -> Option<Section> {
        let fitting: Vec<_> = self.sections.iter().copied().filter(is).collect();
        match fitting.is_empty() {
            true => None,
            false => Some(*self.random.of(&fitting)),
        }
    }

    /// A field of an entry of a table.
    fn entry(&mut self, kind: u32, bytes: usize, fields: &[(usize, usize)]) {
        let table = self.section(|section| section.kind == kind && section.size >= bytes);
        if let Some(table) = table {
            let entry = table.offset + bytes * self.random.below(table.size / bytes);
            self.field(entry, fields);
        }
    }

    fn field(&mut self, start: usize, fields: &[(usize, usize)]) {
        let (at, size) = *self.random.of(fields);
        let value = self.random.extreme(self.elf.len() as u64);
        self.put(start + at, &value.to_le_bytes()[..size]);
    }

    fn flip(&mut self, is: impl Fn(&Section) -> bool) {
        if let Some(section) = self.section(|section| is(section) && section.size > 0) {
            self.flip_within(section.offset, section.size);
        }
    }

    fn flip_within(&mut self, start: usize, size: usize) {
        if size == 0 {
            return;
        }
        for _ in 0..=self.random.below(8) {
            let (at, bit) = (start + self.random.below(size), self.random.below(8));
            if let Some(byte) = self.elf.get_mut(at) {
                *byte ^= 1 << bit;
            }
        }
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        if let Some(place) = self.elf.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }
}

/// The sections of a real object.
fn sections(elf: &[u8]) -> Vec<Section> {
    let number = |at: usize, size: usize| {
        let mut bytes = [0; 8];
        bytes[..size].copy_from_slice(&elf[at..at + size]);
        u64::from_le_bytes(bytes)
    };
    let place = |at| usize::try_from(number(at, 8)).expect("places of real objects are in memory");
    let headers = place(40);
    let count = usize::from(u16::from_le_bytes([elf[60], elf[61]]));
    let names = place(headers + 64 * usize::from(u16::from_le_bytes([elf[62], elf[63]])) + 24);
    let section = |index| {
        let header = headers + 64 * index;
        let name = names + usize::try_from(number(header, 4)).expect("it is a place of 32 bits");
        Section {
            header,
            kind: u32::try_from(number(header + 4, 4)).expect("it has four bytes"),
            flags: number(header + 8, 8),
            offset: place(header + 24),
            size: place(header + 32),
            is_btf: elf[name..].starts_with(b".BTF"),
        }
    };
    (0..count).map(section).collect()
}

/// Numbers that look random: SplitMix64.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than a limit, which is not 0.
    fn below(&mut self, limit: usize) -> usize {
        let rest = self.next() % limit.max(1) as u64;
        usize::try_from(rest).expect("it is less than an usize")
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    /// A number at which something may overflow, in a file of a size.
    fn extreme(&mut self, size: u64) -> u64 {
        let any = self.next();
        *self.of(&[
            0,
            1,
            7,
            0xff,
            0xff00,
            0xffff,
            1 << 31,
            u64::from(u32::MAX),
            1 << 63,
            u64::MAX,
            u64::MAX - 63,
            size,
            size.wrapping_sub(1),
            size + 1,
            any,
            any % (size + 1),
        ])
    }
}
