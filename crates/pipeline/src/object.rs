//! The object to verify.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use object::{Object as _, ObjectSection, ObjectSymbol, RelocationTarget, SectionKind, SymbolKind};
use preverify_protocol::{Inputs, Share};
use sha2::{Digest, Sha256};

use crate::elf;

/// A BPF object, and what is set between its opening and its loading.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Its name: the file's name without `.bpf.o`, as bpftool calls skeletons.
    pub name: String,
    /// The ELF file.
    pub elf: Vec<u8>,
    /// What its own user space would set.
    pub inputs: Inputs,
    /// The part of its programs to verify, if that is not all.
    pub share: Option<Share>,
}

impl Object {
    /// Reads an object from a file, with no inputs. A file that libbpf could not open is an error, too.
    pub fn read(path: &Path) -> io::Result<Self> {
        let elf = fs::read(path)?;
        elf::check(&elf).map_err(|flaw| io::Error::new(io::ErrorKind::InvalidData, flaw))?;
        Ok(Self {
            name: object_name(&path.file_name().unwrap_or_default().to_string_lossy()),
            elf,
            inputs: Inputs::default(),
            share: None,
        })
    }

    /// The ELF file's SHA-256 in hexadecimal.
    pub fn sha256(&self) -> String {
        hex::encode(Sha256::digest(&self.elf))
    }
}

/// How many programs of an object can be verified apart from each other: none, if its maps hold programs from the start,
/// since these are created with the programs in them.
pub fn separable_programs(elf: &[u8]) -> usize {
    let Ok(file) = object::File::parse(elf) else {
        return 0;
    };
    let maps_hold_programs = file.section_by_name(".maps").is_some_and(|maps| {
        maps.relocations().any(|(_, relocation)| {
            let RelocationTarget::Symbol(symbol) = relocation.target() else {
                return false;
            };
            let symbol = file.symbol_by_index(symbol);
            symbol.is_ok_and(|symbol| symbol.kind() == SymbolKind::Text)
        })
    });
    if maps_hold_programs {
        return 0;
    }
    let is_program = |symbol: &object::Symbol<'_, '_>| {
        let section = symbol.section_index();
        let section = section.and_then(|index| file.section_by_index(index).ok());
        // What is in `.text` is called by programs.
        symbol.kind() == SymbolKind::Text
            && section.is_some_and(|section| {
                section.kind() == SectionKind::Text && section.name() != Ok(".text")
            })
    };
    file.symbols().filter(is_program).count()
}

/// Where the inputs of an object are looked for: `xdp.bpf.toml` beside `xdp.bpf.o`.
pub fn inputs_beside(object: &Path) -> PathBuf {
    object.with_extension("toml")
}

/// The name of an object in a file that is called so: `xdp_count` of `xdp_count.bpf.o`.
pub fn object_name(file: &str) -> String {
    let stem = file.strip_suffix(".o").unwrap_or(file);
    stem.strip_suffix(".bpf").unwrap_or(stem).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_skeletons() {
        assert_eq!(object_name("xdp_count.bpf.o"), "xdp_count");
        assert_eq!(object_name("loop1.o"), "loop1");
        assert_eq!(object_name("plain"), "plain");
    }

    #[test]
    fn inputs_lie_beside() {
        assert_eq!(
            inputs_beside(Path::new("/a/xdp.bpf.o")),
            Path::new("/a/xdp.bpf.toml")
        );
    }
}
