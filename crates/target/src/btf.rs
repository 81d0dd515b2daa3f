//! A file with a kernel's BTF, for kernels that were built without.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::TargetError;
use crate::files::at;

/// Refuses what is no raw BTF, as `/sys/kernel/btf/vmlinux` and `pahole --btf_encode_detached` have it.
pub(crate) fn check(path: &Path) -> Result<(), TargetError> {
    let wrong = |found: String| TargetError::NotBtf {
        path: path.to_owned(),
        found,
    };
    let mut file = File::open(path).map_err(at("read", path))?;
    let size = file.metadata().map_err(at("read", path))?.len();
    let mut header = Vec::new();
    file.by_ref()
        .take(HEADER)
        .read_to_end(&mut header)
        .map_err(at("read", path))?;
    check_header(&header, size).map_err(wrong)
}

/// `struct btf_header`.
const HEADER: u64 = 24;

fn check_header(header: &[u8], size: u64) -> Result<(), String> {
    const MAGIC: [u8; 3] = [0x9f, 0xeb, 1];
    if header.starts_with(b"\x7fELF") {
        return Err("an ELF file: take its section .BTF alone (objcopy --dump-section)".to_owned());
    }
    if !header.starts_with(&MAGIC) || (header.len() as u64) < HEADER {
        return Err(format!("{size} bytes of something else"));
    }
    let field = |at: usize| {
        let bytes = [header[at], header[at + 1], header[at + 2], header[at + 3]];
        u64::from(u32::from_le_bytes(bytes))
    };
    let [head, type_offset, type_size, string_offset, string_size] = [4, 8, 12, 16, 20].map(field);
    let end = (type_offset + type_size).max(string_offset + string_size) + head;
    if size < end {
        return Err(format!("{size} of {end} bytes: it is truncated"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut bytes = vec![0x9f, 0xeb, 1, 0];
        for field in [24_u32, 0, 8, 8, 4] {
            bytes.extend(field.to_le_bytes());
        }
        bytes.extend([0; 12]);
        bytes
    }

    fn check(bytes: &[u8]) -> Result<(), String> {
        check_header(&bytes[..bytes.len().min(24)], bytes.len() as u64)
    }

    #[test]
    fn raw_btf_passes_and_nothing_shorter() {
        let whole = sample();
        check(&whole).unwrap();
        for size in 0..whole.len() {
            assert!(check(&whole[..size]).is_err(), "{size} bytes");
        }
    }

    #[test]
    fn programs_are_told_from_it() {
        let error = check(b"\x7fELF\x02\x01\x01 and so on, for long").unwrap_err();
        assert!(error.contains("section .BTF"), "{error}");
    }
}
