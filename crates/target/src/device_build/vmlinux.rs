//! The ELF file of a kernel, and its types.

use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use object::{Object, ObjectSection, ObjectSymbol, SymbolKind};

use super::symbols::{DeviceSymbols, Place};
use crate::arch::Arch;
use crate::error::TargetError;
use crate::files;

/// What is taken from a kernel's ELF file.
#[derive(Debug)]
pub(super) struct Vmlinux {
    pub release: String,
    pub build_id: Vec<u8>,
    pub symbols: DeviceSymbols,
    pub config: String,
}

impl Vmlinux {
    pub(super) fn read(path: &Path, arch: Arch) -> Result<Self, TargetError> {
        let bytes = files::read(path)?;
        let wrong = |found: &str| TargetError::NotVmlinux {
            path: path.to_owned(),
            found: found.to_owned(),
        };
        let file = object::File::parse(&*bytes).map_err(|_| wrong("no ELF file"))?;
        let expected = match arch {
            Arch::X86_64 => object::Architecture::X86_64,
            Arch::Arm64 => object::Architecture::Aarch64,
            Arch::Arm => object::Architecture::Arm,
        };
        if file.architecture() != expected {
            let found = format!("one for {:?}", file.architecture());
            return Err(wrong(&found));
        }
        let symbol = |name| file.symbol_by_name(name);
        let text = symbol("_text").ok_or_else(|| wrong("one without `_text` (stripped?)"))?;
        let end = symbol("_end").ok_or_else(|| wrong("one without `_end` (stripped?)"))?;
        let build_id = file.build_id().ok().flatten();
        let release = symbol("linux_banner").and_then(|symbol| release(&file, symbol.address()));
        let built_in = symbol("kernel_config_data");
        let built_in = built_in.and_then(|symbol| built_in_config(&file, symbol.address()));
        Ok(Self {
            release: release
                .ok_or_else(|| wrong("one without `Linux version` at `linux_banner`"))?,
            build_id: build_id
                .ok_or_else(|| wrong("one without a build id"))?
                .to_vec(),
            symbols: symbols(&file, text.address(), end.address()),
            config: match built_in {
                Some(text) => text,
                None => files::read_text(&config_beside(path))?,
            },
        })
    }
}

/// Where a kernel's configuration lies that it does not have in it.
pub(super) fn config_beside(kernel: &Path) -> PathBuf {
    kernel.with_file_name(".config")
}

/// The bytes from an address to its section's end.
fn bytes_at<'a>(file: &object::File<'a>, address: u64) -> Option<&'a [u8]> {
    let mut sections = file.sections();
    let section = sections.find(|section| {
        let offset = address.checked_sub(section.address());
        section.address() != 0 && offset.is_some_and(|offset| offset < section.size())
    })?;
    let offset = usize::try_from(address - section.address()).ok()?;
    section.data().ok()?.get(offset..)
}

fn release(file: &object::File<'_>, address: u64) -> Option<String> {
    let banner = bytes_at(file, address)?.strip_prefix(b"Linux version ")?;
    let word = banner.split(|byte| *byte == b' ').next()?;
    let word = std::str::from_utf8(word).ok()?;
    (word.len() < 65).then(|| word.to_owned())
}

fn built_in_config(file: &object::File<'_>, address: u64) -> Option<String> {
    let mut text = String::new();
    GzDecoder::new(bytes_at(file, address)?)
        .read_to_string(&mut text)
        .ok()?;
    Some(text)
}

fn symbols(file: &object::File<'_>, text: u64, end: u64) -> DeviceSymbols {
    let mut symbols = DeviceSymbols::default();
    for symbol in file.symbols() {
        let of_kernel = matches!(
            symbol.kind(),
            SymbolKind::Text | SymbolKind::Data | SymbolKind::Unknown | SymbolKind::Label
        );
        let name = symbol.name().unwrap_or_default();
        let inside = symbol.is_definition() || symbol.section_index().is_some();
        // What assemblers and compilers mark for themselves is no name.
        let marks = name.is_empty() || name.starts_with(['$', '.']);
        if of_kernel && inside && !marks && (text..end).contains(&symbol.address()) {
            symbols.add(
                name,
                Place {
                    offset: symbol.address() - text,
                    size: symbol.size(),
                },
            );
        }
    }
    symbols
}

/// Raw BTF from a file that is it, or an ELF file that has it.
pub(super) fn btf(path: &Path) -> Result<Vec<u8>, TargetError> {
    let bytes = files::read(path)?;
    let Ok(file) = object::File::parse(&*bytes) else {
        preverify_btf::Btf::parse(&bytes).map_err(super::at(path))?;
        return Ok(bytes);
    };
    let section = file.section_by_name(".BTF");
    let found = section.and_then(|section| section.data().ok());
    let found = found.ok_or_else(|| TargetError::NotBtf {
        path: path.to_owned(),
        found: "an ELF file without a section .BTF".to_owned(),
    })?;
    preverify_btf::Btf::parse(found).map_err(super::at(path))?;
    Ok(found.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vmlinux");
        let refused = |bytes: &[u8], expected: &str| {
            std::fs::write(&path, bytes).unwrap();
            let error = Vmlinux::read(&path, Arch::X86_64).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        refused(b"MZ and so on", "no ELF file");
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        refused(&program, "`_text`");
        let error = Vmlinux::read(&path, Arch::Arm64).unwrap_err().to_string();
        assert!(error.contains("one for X86_64"), "{error}");
        let error = btf(&path).unwrap_err().to_string();
        assert!(error.contains("without a section .BTF"), "{error}");
    }
}
