//! The header of a 32-bit arm kernel file (arch/arm/boot/compressed/head.S in Linux).
//!
//! The kernel in it is packed, in one of several ways, and its version is nowhere else.

use super::{check_size, field};

const MAGIC: usize = 0x016f_2818;
/// How the loader in front of the kernel says its byte order.
const LITTLE_ENDIAN: usize = 0x0403_0201;

/// Whether a file is a zImage.
pub(super) fn is_one(file: &[u8]) -> bool {
    field(file, 0x24, 4) == Some(MAGIC)
}

pub(super) fn check(file: &[u8]) -> Result<(), String> {
    let size = field(file, 0x28, 4).zip(field(file, 0x2c, 4));
    check_size(file, size.and_then(|(start, end)| end.checked_sub(start)))?;
    if field(file, 0x30, 4) == Some(LITTLE_ENDIAN) {
        Ok(())
    } else {
        Err("a big-endian kernel, and only little-endian ones are supported".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use crate::arch::Arch;
    use crate::boot_file::BootFile;

    fn zimage() -> Vec<u8> {
        let mut file = vec![0; 0x100];
        file[0x24..0x28].copy_from_slice(&0x016f_2818_u32.to_le_bytes());
        file[0x2c..0x30].copy_from_slice(&0x100_u32.to_le_bytes());
        file[0x30..0x34].copy_from_slice(&[1, 2, 3, 4]);
        file
    }

    #[test]
    fn it_is_known_by_its_header_and_says_no_release() {
        let expected = BootFile {
            arch: Arch::Arm,
            release: None,
        };
        assert_eq!(BootFile::read(&zimage()).unwrap(), expected);
    }

    #[test]
    fn truncated_and_big_endian_ones_are_refused() {
        let file = zimage();
        for size in 0..file.len() {
            assert!(BootFile::read(&file[..size]).is_err(), "{size} bytes");
        }
        let mut file = zimage();
        file[0x30..0x34].copy_from_slice(&[4, 3, 2, 1]);
        let error = BootFile::read(&file).unwrap_err();
        assert!(error.contains("big-endian"), "{error}");
    }
}
