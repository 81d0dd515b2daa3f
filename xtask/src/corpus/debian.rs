//! Objects that Debian ships: as files, and inside programs, where libbpf's skeletons put whole
//! ELF files among the read-only data.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use memchr::memmem;
use object::LittleEndian;
use object::elf::{EM_BPF, FileHeader64, SHT_NOBITS};
use object::read::elf::{FileHeader, SectionHeader};
use preverify_target::debian::{self, Apt, Deb};

use super::{Corpus, CorpusError, CorpusObject, Source, at, hex_digest, object_path, read, write};
use crate::arch::Arch;

/// The packages with objects inside.
pub(super) fn packages(arch: Arch) -> &'static [&'static str] {
    const EVERYWHERE: usize = 4;
    const ALL: [&str; 6] = [
        "xdp-tools",
        "libxdp1",
        "libknot13",
        "ir-keytable",
        "libbpf-tools",
        "qemu-system-x86",
    ];
    match arch {
        Arch::X86_64 | Arch::Arm64 => &ALL,
        // Debian does not build libbpf-tools there, and QEMU without its object.
        Arch::Arm => &ALL[..EVERYWHERE],
    }
}

/// The first bytes of every ELF file.
const ANY_ELF_MAGIC: &[u8] = b"\x7fELF";
/// The first bytes of a 64-bit little-endian ELF file of version 1, as BPF objects are.
const ELF_MAGIC: &[u8] = b"\x7fELF\x02\x01\x01";

/// Downloads packages and takes the objects out of them.
pub(super) fn collect(
    apt: &Apt,
    corpus: &Corpus,
    packages: &[&str],
) -> Result<Vec<CorpusObject>, CorpusError> {
    let mut objects = Vec::new();
    let packages: Vec<_> = packages.iter().map(|name| apt.package(name)).collect();
    let packages: Vec<_> = packages.iter().map(String::as_str).collect();
    for deb in apt.download(&packages, &corpus.debs())? {
        let contents = debian::unpack(&deb, &corpus.unpacked())?;
        objects.extend(collect_package(corpus, &deb, &contents)?);
    }
    Ok(objects)
}

fn collect_package(
    corpus: &Corpus,
    deb: &Deb,
    contents: &Path,
) -> Result<Vec<CorpusObject>, CorpusError> {
    let mut objects = Vec::new();
    let mut seen = BTreeSet::new();
    for file in files(contents)? {
        let bytes = read(&file)?;
        let embedded = bpf_objects(&bytes);
        for (index, object) in embedded.iter().enumerate() {
            let sha256 = hex_digest(object);
            // QEMU has the same object in its program for each machine.
            if !seen.insert(sha256.clone()) {
                continue;
            }
            let mut id = format!("{}/{}", deb.name, name(&file));
            if embedded.len() > 1 {
                id = format!("{id}.{}", index + 1);
            }
            let path = object_path(&id);
            write(&corpus.own.join(&path), object)?;
            objects.push(CorpusObject {
                id,
                source: Source::Debian,
                package: deb.stem.clone(),
                path,
                sha256,
                expectations: Vec::new(),
            });
        }
    }
    Ok(objects)
}

fn name(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    name.strip_suffix(".o").unwrap_or(&name).to_owned()
}

/// The regular files under a folder, in order; links are not followed.
fn files(folder: &Path) -> Result<Vec<PathBuf>, CorpusError> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(at(&folder))? {
            let entry = entry.map_err(at(&folder))?;
            let kind = entry.file_type().map_err(at(&folder))?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}

/// The BPF objects in an ELF file: itself, or those among its data.
fn bpf_objects(file: &[u8]) -> Vec<&[u8]> {
    if !file.starts_with(ANY_ELF_MAGIC) {
        return Vec::new();
    }
    let mut objects = Vec::new();
    let mut end = 0;
    for start in memmem::find_iter(file, ELF_MAGIC) {
        // An object's own data can hold the magic number too.
        if start < end {
            continue;
        }
        if let Some(size) = bpf_object_size(&file[start..]) {
            objects.push(&file[start..start + size]);
            end = start + size;
        }
    }
    objects
}

/// The size of the BPF object at the start of some bytes: up to the end of its last section or of
/// its table of sections.
fn bpf_object_size(bytes: &[u8]) -> Option<usize> {
    let header = FileHeader64::<LittleEndian>::parse(bytes).ok()?;
    if header.e_machine(LittleEndian) != EM_BPF {
        return None;
    }
    let sections = header.section_headers(LittleEndian, bytes).ok()?;
    let table = header.e_shoff(LittleEndian) + u64::try_from(size_of_val(sections)).ok()?;
    let end = sections
        .iter()
        .filter(|section| section.sh_type(LittleEndian) != SHT_NOBITS)
        .map(|section| {
            section
                .sh_offset(LittleEndian)
                .checked_add(section.sh_size(LittleEndian))
        })
        .try_fold(table, |end, section| Some(end.max(section?)))?;
    let size = usize::try_from(end).ok()?;
    (!sections.is_empty() && size <= bytes.len()).then_some(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF file with a header, some data and a table of two sections: the empty first and one
    /// over the data.
    fn elf(machine: u16, data: &[u8]) -> Vec<u8> {
        let mut file = Vec::new();
        file.extend(ELF_MAGIC);
        file.resize(16, 0);
        file.extend(1u16.to_le_bytes());
        file.extend(machine.to_le_bytes());
        file.extend(1u32.to_le_bytes());
        file.extend([0; 16]);
        let table = 64 + data.len() as u64;
        file.extend(table.to_le_bytes());
        file.extend([0; 4]);
        for field in [64u16, 0, 0, 64, 2, 0] {
            file.extend(field.to_le_bytes());
        }
        file.extend(data);
        file.extend([0; 64]);
        file.extend([0, 0, 0, 0, 1, 0, 0, 0]);
        file.extend([0; 16]);
        file.extend(64u64.to_le_bytes());
        file.extend((data.len() as u64).to_le_bytes());
        file.extend([0; 24]);
        file
    }

    #[test]
    fn an_object_is_itself() {
        let object = elf(EM_BPF, b"data");
        assert_eq!(bpf_objects(&object), [&object]);
    }

    #[test]
    fn objects_among_data_are_found_with_their_exact_bounds() {
        let (first, second) = (elf(EM_BPF, b"first"), elf(EM_BPF, b"the second"));
        let data = [&b"before"[..], &first, b"between", &second, b"after"].concat();
        let program = elf(object::elf::EM_X86_64, &data);
        assert_eq!(bpf_objects(&program), [&first, &second]);
        let for_32_bits = [b"\x7fELF\x01\x01\x01".as_slice(), &data].concat();
        assert_eq!(bpf_objects(&for_32_bits), [&first, &second]);
    }

    #[test]
    fn what_an_object_embeds_is_not_an_object_of_its_own() {
        let outer = elf(EM_BPF, &elf(EM_BPF, b"inner"));
        assert_eq!(bpf_objects(&outer), [&outer]);
    }

    #[test]
    fn truncated_objects_are_none() {
        let object = elf(EM_BPF, b"data");
        for size in 0..object.len() {
            assert!(bpf_objects(&object[..size]).is_empty(), "{size} bytes");
        }
    }

    #[test]
    fn programs_without_objects_have_none() {
        assert!(bpf_objects(&elf(object::elf::EM_X86_64, ELF_MAGIC)).is_empty());
        assert!(bpf_objects(b"#!/bin/sh").is_empty());
    }
}
