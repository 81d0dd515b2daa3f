//! The symbols of a running kernel: `/proc/kallsyms` of one boot.

use std::collections::HashMap;
use std::ops::Range;

use thiserror::Error;

/// The symbols of one boot, by address.
///
/// A place in the kernel image is identified by its offset from `_text`, which is the same in all
/// boots of one build; names are for people, because many are not unique. A place in a module is
/// identified by a name that is unique in the module.
///
/// Kernels without `CONFIG_KALLSYMS_ALL` name functions only, and neither `_text` nor `_end`. Of
/// those, the image is what lies from `_stext` to `_etext`.
#[derive(Debug)]
pub struct KernelSymbols {
    kallsyms: String,
    text: u64,
    end: u64,
    /// The kernel image's symbols, by address.
    image: Vec<Entry>,
    /// The modules' symbols, by address.
    modules: Vec<ModuleEntry>,
    /// The modules' symbols, by name: an index into `modules`, or none if the name is not unique.
    by_name: HashMap<String, Option<usize>>,
}

#[derive(Clone, Debug)]
struct Entry {
    address: u64,
    /// `A`, `T`, `D`: upper case is global.
    kind: u8,
    /// Where the name lies in the text.
    name: Range<usize>,
}

#[derive(Clone, Debug)]
struct ModuleEntry {
    address: u64,
    /// `module:symbol`.
    name: String,
}

/// A text that is no usable `/proc/kallsyms`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SymbolsError {
    /// A line is not `address type name`.
    #[error("line {line} of the kernel's symbols is not `address type name`: `{text}`")]
    Line {
        /// Counted from one.
        line: usize,
        /// The line.
        text: String,
    },
    /// A symbol is missing that bounds the kernel image.
    #[error("the kernel's symbols lack `{symbol}`")]
    Missing {
        /// The symbol.
        symbol: &'static str,
    },
    /// All addresses are zero.
    #[error(
        "the kernel hides the addresses of its symbols: read them as root with kernel.kptr_restrict=0"
    )]
    Hidden,
    /// The kernel image ends before it starts.
    #[error("the kernel's symbols say that `_end` ({end:#x}) is not behind `_text` ({text:#x})")]
    Bounds {
        /// `_text`.
        text: u64,
        /// `_end`.
        end: u64,
    },
}

impl KernelSymbols {
    /// Reads the text of `/proc/kallsyms`.
    pub fn parse(kallsyms: impl Into<String>) -> Result<Self, SymbolsError> {
        let kallsyms = kallsyms.into();
        let mut image = Vec::new();
        let mut modules = Vec::new();
        let mut bounds = [None; BOUNDS.len()];
        let mut start = 0;
        for (number, line) in kallsyms.split_inclusive('\n').enumerate() {
            let parsed = parse_line(line.trim_end()).ok_or_else(|| SymbolsError::Line {
                line: number + 1,
                text: line.trim_end().to_owned(),
            })?;
            match parsed.module {
                None => {
                    if let Some(bound) = BOUNDS.iter().position(|name| *name == parsed.name) {
                        bounds[bound] = Some(parsed.address);
                    }
                    let name = start + parsed.name_offset;
                    image.push(Entry {
                        address: parsed.address,
                        kind: parsed.kind,
                        name: name..name + parsed.name.len(),
                    });
                }
                Some(module) if is_loadable(module) => modules.push(ModuleEntry {
                    address: parsed.address,
                    name: format!("{module}:{}", parsed.name),
                }),
                Some(_) => {}
            }
            start += line.len();
        }
        let [all_text, all_end, code_text, code_end] = bounds;
        let missing = |symbol| SymbolsError::Missing { symbol };
        let (text, end) = match (all_text, all_end, code_text.zip(code_end)) {
            (None, None, Some(code)) => code,
            (text, end, _) => (text.ok_or(missing("_text"))?, end.ok_or(missing("_end"))?),
        };
        if text == 0 {
            return Err(SymbolsError::Hidden);
        }
        if end <= text {
            return Err(SymbolsError::Bounds { text, end });
        }
        image.retain(|entry| (text..end).contains(&entry.address));
        image.sort_by_key(|entry| entry.address);
        modules.sort_by(|a, b| (a.address, &a.name).cmp(&(b.address, &b.name)));
        let mut by_name = HashMap::new();
        for (index, entry) in modules.iter().enumerate() {
            by_name
                .entry(entry.name.clone())
                .and_modify(|found| *found = None)
                .or_insert(Some(index));
        }
        Ok(Self {
            kallsyms,
            text,
            end,
            image,
            modules,
            by_name,
        })
    }

    /// The address of `_text`, where the kernel image starts.
    pub fn text(&self) -> u64 {
        self.text
    }

    /// The address of `_end`, the first byte behind the kernel image.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// How far behind `_text` an address of the kernel image lies.
    pub fn image_offset(&self, address: u64) -> Option<u64> {
        (self.text..self.end)
            .contains(&address)
            .then(|| address - self.text)
    }

    /// The address of the kernel image's symbol of this name, if the name is unique.
    pub fn address_of(&self, name: &str) -> Option<u64> {
        let mut found = self.image.iter().filter(|entry| self.name(entry) == name);
        let address = found.next()?.address;
        found.next().is_none().then_some(address)
    }

    /// All names of exactly this place in the kernel image.
    pub fn names_at(&self, address: u64) -> impl Iterator<Item = &str> {
        let first = self.image.partition_point(|entry| entry.address < address);
        self.image[first..]
            .iter()
            .take_while(move |entry| entry.address == address)
            .map(|entry| self.name(entry))
    }

    /// What people call a place in the kernel image: a name, or a name and an offset.
    ///
    /// Of several names it takes a global one before a local one, then the shortest, then the
    /// first in alphabetical order, so that all boots of one build agree.
    pub fn describe(&self, address: u64) -> Option<String> {
        self.image_offset(address)?;
        let behind = self.image.partition_point(|entry| entry.address <= address);
        let nearest = self.image[..behind].last()?.address;
        let first = self.image.partition_point(|entry| entry.address < nearest);
        let name = self.image[first..behind]
            .iter()
            .map(|entry| {
                let name = self.name(entry);
                (!entry.kind.is_ascii_uppercase(), name.len(), name)
            })
            .min()?
            .2;
        Some(match address - nearest {
            0 => name.to_owned(),
            offset => format!("{name}+{offset:#x}"),
        })
    }

    /// All names of the nearest place in the kernel image that has a name and is not behind this one, and how far
    /// behind it this one lies.
    pub fn nearest(&self, address: u64) -> Option<(impl Iterator<Item = &str>, u64)> {
        self.image_offset(address)?;
        let behind = self.image.partition_point(|entry| entry.address <= address);
        let nearest = self.image[..behind].last()?.address;
        Some((self.names_at(nearest), address - nearest))
    }

    /// The symbol of a module at exactly this address, as `module:symbol`; only names that are
    /// unique in the module.
    pub fn module_symbol(&self, address: u64) -> Option<&str> {
        let first = self
            .modules
            .partition_point(|entry| entry.address < address);
        self.modules[first..]
            .iter()
            .take_while(|entry| entry.address == address)
            .map(|entry| entry.name.as_str())
            .find(|name| matches!(self.by_name.get(*name), Some(Some(_))))
    }

    /// The address of a module's symbol, named `module:symbol`, if the name is unique.
    pub fn module_address(&self, name: &str) -> Option<u64> {
        let index = (*self.by_name.get(name)?)?;
        Some(self.modules[index].address)
    }

    fn name(&self, entry: &Entry) -> &str {
        &self.kallsyms[entry.name.clone()]
    }
}

/// The symbols that bound a kernel image, and its code.
const BOUNDS: [&str; 4] = ["_text", "_end", "_stext", "_etext"];

struct Line<'a> {
    address: u64,
    kind: u8,
    name: &'a str,
    name_offset: usize,
    module: Option<&'a str>,
}

fn parse_line(line: &str) -> Option<Line<'_>> {
    let (address, rest) = line.split_once(' ')?;
    let (kind, rest) = rest.split_once(' ')?;
    let &[kind] = kind.as_bytes() else {
        return None;
    };
    let name_offset = line.len() - rest.len();
    let (name, module) = match rest.split_once('\t') {
        None => (rest, None),
        Some((name, module)) => (name, Some(module.strip_prefix('[')?.strip_suffix(']')?)),
    };
    if name.is_empty() {
        return None;
    }
    let address = u64::from_str_radix(address, 16).ok()?;
    Some(Line {
        address,
        kind,
        name,
        name_offset,
        module,
    })
}

/// Not the kernel's own pretended modules: loaded BPF programs, trampolines of ftrace and kprobes.
fn is_loadable(module: &str) -> bool {
    module != "bpf" && !module.starts_with("__builtin__")
}

#[cfg(test)]
mod tests {
    use super::*;

    const KALLSYMS: &str = "\
        0000000000000000 A __per_cpu_start\n\
        ffffffff81000000 T _text\n\
        ffffffff81000000 T _stext\n\
        ffffffff81000040 t helper_long_name\n\
        ffffffff81000040 T helper_zz\n\
        ffffffff81000040 T helper_aa\n\
        ffffffff81000080 t twice\n\
        ffffffff810000c0 t twice\n\
        ffffffff81002000 B _end\n\
        ffffffff81002000 B behind\n\
        ffffffffc0001000 t twice\t[mod]\n\
        ffffffffc0002000 t twice\t[mod]\n\
        ffffffffc0001000 t once\t[mod]\n\
        ffffffffc0001000 t once\t[other]\n\
        ffffffffc0003000 t bpf_prog_1234\t[bpf]\n\
        ffffffffc0004000 t ftrace_trampoline\t[__builtin__ftrace]\n";

    fn symbols() -> KernelSymbols {
        KernelSymbols::parse(KALLSYMS).unwrap()
    }

    #[test]
    fn places_in_the_image_are_offsets() {
        let symbols = symbols();
        assert_eq!(
            (symbols.text(), symbols.end()),
            (0xffff_ffff_8100_0000, 0xffff_ffff_8100_2000)
        );
        assert_eq!(symbols.image_offset(symbols.text()), Some(0));
        assert_eq!(symbols.image_offset(symbols.end() - 1), Some(0x1fff));
        assert_eq!(symbols.image_offset(symbols.end()), None);
        assert_eq!(symbols.image_offset(symbols.text() - 1), None);
    }

    #[test]
    fn kernels_that_name_functions_only_are_what_they_name() {
        let kallsyms = "\
            c0300000 T _stext\n\
            c0300040 T helper\n\
            c0e00000 D _etext\n\
            c12003c0 T _sinittext\n";
        let symbols = KernelSymbols::parse(kallsyms).unwrap();
        assert_eq!((symbols.text(), symbols.end()), (0xc030_0000, 0xc0e0_0000));
        assert_eq!(symbols.describe(0xc030_0040).unwrap(), "helper");
        assert_eq!(symbols.image_offset(0xc0e0_0000), None);
        // They are not mixed with the others.
        let both = format!("c0200000 T _text\n{kallsyms}");
        assert_eq!(
            KernelSymbols::parse(both).unwrap_err(),
            SymbolsError::Missing { symbol: "_end" }
        );
    }

    #[test]
    fn of_several_names_all_boots_take_the_same() {
        let symbols = symbols();
        let at = |offset| symbols.describe(symbols.text() + offset);
        assert_eq!(at(0x40).unwrap(), "helper_aa");
        assert_eq!(at(0x47).unwrap(), "helper_aa+0x7");
        assert_eq!(at(0).unwrap(), "_text");
        assert_eq!(at(0x2000), None);
        let names: Vec<&str> = symbols.names_at(symbols.text() + 0x40).collect();
        assert_eq!(names, ["helper_long_name", "helper_zz", "helper_aa"]);
        assert_eq!(symbols.names_at(symbols.text() + 1).count(), 0);
    }

    #[test]
    fn names_are_looked_up_if_they_are_unique() {
        let symbols = symbols();
        assert_eq!(symbols.address_of("helper_zz"), Some(symbols.text() + 0x40));
        assert_eq!(symbols.address_of("twice"), None);
        assert_eq!(symbols.address_of("nobody"), None);
        assert_eq!(
            symbols.module_address("mod:once"),
            Some(0xffff_ffff_c000_1000)
        );
        assert_eq!(symbols.module_address("mod:twice"), None);
        assert_eq!(
            symbols.module_symbol(0xffff_ffff_c000_1000),
            Some("mod:once")
        );
        assert_eq!(symbols.module_symbol(0xffff_ffff_c000_2000), None);
        assert_eq!(symbols.module_symbol(0xffff_ffff_c000_1001), None);
        // BPF programs and trampolines are no modules.
        assert_eq!(symbols.module_symbol(0xffff_ffff_c000_3000), None);
        assert_eq!(symbols.module_symbol(0xffff_ffff_c000_4000), None);
    }

    #[test]
    fn texts_that_are_no_symbols_are_refused() {
        let error = |text: &str| KernelSymbols::parse(text).unwrap_err();
        let line = |line: usize, text: &str| SymbolsError::Line {
            line,
            text: text.to_owned(),
        };
        for text in ["", "zz T x", "1 TT x", "1 T", "1 T x\tmod"] {
            assert_eq!(
                error(&format!("1 T _text\n{text}\n")),
                line(2, text),
                "{text:?}"
            );
        }
        assert_eq!(
            error("1 T _text\n"),
            SymbolsError::Missing { symbol: "_end" }
        );
        assert_eq!(
            error("1 T _end\n"),
            SymbolsError::Missing { symbol: "_text" }
        );
        assert_eq!(error("0 T _text\n0 T _end\n"), SymbolsError::Hidden);
        assert_eq!(
            error("9 T _text\n8 T _end\n"),
            SymbolsError::Bounds { text: 9, end: 8 }
        );
    }
}
