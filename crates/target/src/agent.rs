//! The agent that virtual machines run.

use std::env;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::error::TargetError;
use crate::files::at;

/// Says where the agent is, if not beside this program.
pub const AGENT_VARIABLE: &str = "PREVERIFY_AGENT";

/// Finds the agent, and makes sure that it runs without libraries.
pub(crate) fn find() -> Result<PathBuf, TargetError> {
    let path = match env::var_os(AGENT_VARIABLE) {
        Some(path) if !path.is_empty() => PathBuf::from(path),
        _ => env::current_exe()
            .map_err(at("find the path of", Path::new("this program")))?
            .with_file_name("preverify-agent"),
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
    match is_static(&head) {
        Some(true) => Ok(path),
        _ => Err(TargetError::Agent { path }),
    }
}

/// The program headers of every linker's output lie within this many bytes.
const HEAD: u64 = 4096;

/// Whether an x86_64 program names no dynamic loader. `None` if it is no such program.
fn is_static(head: &[u8]) -> Option<bool> {
    const EM_X86_64: u64 = 62;
    const PT_INTERP: u64 = 3;
    if !head.starts_with(b"\x7fELF\x02\x01") || field(head, 18, 2)? != EM_X86_64 {
        return None;
    }
    let (offset, size, count) = (
        field(head, 32, 8)?,
        field(head, 54, 2)?,
        field(head, 56, 2)?,
    );
    for index in 0..count {
        let at = usize::try_from(offset.checked_add(index * size)?).ok()?;
        if field(head, at, 4)? == PT_INTERP {
            return Some(false);
        }
    }
    Some(true)
}

fn field(bytes: &[u8], offset: usize, size: usize) -> Option<u64> {
    let mut field = [0; 8];
    field[..size].copy_from_slice(bytes.get(offset..offset.checked_add(size)?)?);
    Some(u64::from_le_bytes(field))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(path: impl AsRef<Path>) -> Vec<u8> {
        let mut head = Vec::new();
        let file = File::open(path).unwrap();
        file.take(HEAD).read_to_end(&mut head).unwrap();
        head
    }

    #[test]
    fn a_dynamic_program_is_seen() {
        let mut program = head("/bin/sh");
        assert_eq!(is_static(&program), Some(false));
        // Without the header that names the loader, it would be static.
        let table = usize::try_from(field(&program, 32, 8).unwrap()).unwrap();
        for index in 0..usize::try_from(field(&program, 56, 2).unwrap()).unwrap() {
            let at = table + index * 56;
            if field(&program, at, 4) == Some(3) {
                program[at] = 4;
            }
        }
        assert_eq!(is_static(&program), Some(true));
    }

    #[test]
    fn truncated_programs_and_other_files_are_none() {
        let program = head("/bin/sh");
        for size in 0..64 {
            assert_eq!(is_static(&program[..size]), None, "{size} bytes");
        }
        assert_eq!(is_static(b"#!/bin/sh\n"), None);
    }
}
