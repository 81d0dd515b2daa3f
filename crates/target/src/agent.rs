//! The agent that virtual machines run.

use std::env;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use preverify_abi::kinds::Architecture;

use crate::arch::Arch;
use crate::error::TargetError;
use crate::files::{at, number};

/// Names the folder with the agents, if they are not beside this program.
pub const AGENT_VARIABLE: &str = "PREVERIFY_AGENT";

/// Finds the agent for an architecture, and makes sure that it runs without libraries.
pub(crate) fn find(arch: Arch) -> Result<PathBuf, TargetError> {
    let name = format!("preverify-agent-{}", arch.architecture());
    let path = match env::var_os(AGENT_VARIABLE) {
        Some(folder) if !folder.is_empty() => PathBuf::from(folder).join(name),
        _ => env::current_exe()
            .map_err(at("find the path of", Path::new("this program")))?
            .with_file_name(name),
    };
    let mut head = Vec::new();
    match File::open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(TargetError::NoAgent { path });
        }
        file => file
            .and_then(|file| file.take(HEAD).read_to_end(&mut head))
            .map_err(at("read", &path))?,
    };
    match is_static(&head, arch.architecture()) {
        Some(true) => Ok(path),
        _ => Err(TargetError::Agent {
            path,
            architecture: arch.architecture(),
        }),
    }
}

/// The program headers of every linker's output lie within this many bytes.
const HEAD: u64 = 4096;

/// Whether a program for an architecture names no dynamic loader. `None` if it is no such program.
fn is_static(head: &[u8], Architecture(machine): Architecture) -> Option<bool> {
    const PT_INTERP: u64 = 3;
    let (offset, size, count) = match head.get(..6)? {
        b"\x7fELF\x01\x01" => (
            number(head, 28, 4)?,
            number(head, 42, 2)?,
            number(head, 44, 2)?,
        ),
        b"\x7fELF\x02\x01" => (
            number(head, 32, 8)?,
            number(head, 54, 2)?,
            number(head, 56, 2)?,
        ),
        _ => return None,
    };
    if number(head, 18, 2)? != u64::from(machine) {
        return None;
    }
    for index in 0..count {
        let at = usize::try_from(offset.checked_add(index * size)?).ok()?;
        if number(head, at, 4)? == PT_INTERP {
            return Some(false);
        }
    }
    Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: Architecture = Architecture::X86_64;

    fn head(path: impl AsRef<Path>) -> Vec<u8> {
        let mut head = Vec::new();
        let file = File::open(path).unwrap();
        file.take(HEAD).read_to_end(&mut head).unwrap();
        head
    }

    #[test]
    fn a_dynamic_program_is_seen() {
        let mut program = head("/bin/sh");
        assert_eq!(is_static(&program, HOST), Some(false));
        // Without the header that names the loader, it would be static.
        let table = usize::try_from(number(&program, 32, 8).unwrap()).unwrap();
        for index in 0..usize::try_from(number(&program, 56, 2).unwrap()).unwrap() {
            let at = table + index * 56;
            if number(&program, at, 4) == Some(3) {
                program[at] = 4;
            }
        }
        assert_eq!(is_static(&program, HOST), Some(true));
    }

    #[test]
    fn truncated_programs_and_other_files_are_none() {
        let program = head("/bin/sh");
        assert_eq!(is_static(&program, Architecture::ARM64), None);
        for size in 0..64 {
            assert_eq!(is_static(&program[..size], HOST), None, "{size} bytes");
        }
        assert_eq!(is_static(b"#!/bin/sh\n", HOST), None);
    }

    #[test]
    fn programs_of_32_bits_have_shorter_headers() {
        let mut program = vec![0; 52 + 2 * 32];
        program[..6].copy_from_slice(b"\x7fELF\x01\x01");
        program[18] = 40;
        program[28] = 52;
        program[42] = 32;
        program[44] = 2;
        assert_eq!(is_static(&program, Architecture::ARM), Some(true));
        program[52 + 32] = 3;
        assert_eq!(is_static(&program, Architecture::ARM), Some(false));
    }
}
