//! The header of an arm64 kernel file (Documentation/arch/arm64/booting.rst in Linux).

use std::io::Read;

use flate2::read::GzDecoder;

use super::{check_size, field, first_word};

/// More than any kernel has.
const LARGEST: u64 = 1 << 30;

/// Whether a file is an Image, or packed by gzip: then an Image may be in it.
pub(super) fn is_one(file: &[u8]) -> bool {
    is_image(file) || file.starts_with(&[0x1f, 0x8b])
}

/// `uname -r`.
pub(super) fn release(file: &[u8]) -> Result<String, String> {
    if is_image(file) {
        return release_of_image(file);
    }
    let mut image = Vec::new();
    GzDecoder::new(file)
        .take(LARGEST)
        .read_to_end(&mut image)
        .map_err(|error| format!("a file that gzip cannot unpack: {error}"))?;
    if is_image(&image) {
        release_of_image(&image)
    } else {
        Err("a file packed by gzip without an arm64 kernel in it".to_owned())
    }
}

fn is_image(file: &[u8]) -> bool {
    file.get(0x38..0x3c) == Some(b"ARM\x64")
}

fn release_of_image(image: &[u8]) -> Result<String, String> {
    const BIG_ENDIAN: usize = 1;
    if field(image, 0x18, 8).is_none_or(|flags| flags & BIG_ENDIAN != 0) {
        return Err("a big-endian kernel, and only little-endian ones are supported".to_owned());
    }
    // Its size in the header counts memory that is not in the file. As an EFI application, it says where its parts are.
    if image.starts_with(b"MZ") {
        check_size(image, end_of_sections(image))?;
    }
    const BANNER: &[u8] = b"Linux version ";
    let at = image
        .windows(BANNER.len())
        .position(|window| window == BANNER)
        .ok_or("a kernel without a version")?;
    let version = &image[at + BANNER.len()..];
    first_word(&version[..version.len().min(256)])
}

/// Where the last section of an EFI application ends.
fn end_of_sections(file: &[u8]) -> Option<usize> {
    const COFF: usize = 24;
    const SECTION: usize = 40;
    let header = field(file, 0x3c, 4)?;
    let count = field(file, header.checked_add(6)?, 2)?;
    let optional = field(file, header.checked_add(20)?, 2)?;
    let sections = header.checked_add(COFF)?.checked_add(optional)?;
    let mut end = 0;
    for index in 0..count {
        let section = sections.checked_add(index * SECTION)?;
        let size = field(file, section.checked_add(16)?, 4)?;
        let start = field(file, section.checked_add(20)?, 4)?;
        end = end.max(start.checked_add(size)?);
    }
    Some(end)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use crate::arch::Arch;
    use crate::boot_file::BootFile;

    const RELEASE: &str = "6.12.1-board";

    /// The smallest file that passes.
    fn image() -> Vec<u8> {
        let mut file = vec![0; 0x180];
        file[..2].copy_from_slice(b"MZ");
        file[0x38..0x3c].copy_from_slice(b"ARM\x64");
        file[0x3c] = 0x40;
        // One section, of 0x80 bytes at 0x100, behind an optional header of 16 bytes.
        file[0x46] = 1;
        file[0x54] = 16;
        let section = 0x40 + 24 + 16;
        file[section + 16..section + 20].copy_from_slice(&0x80_u32.to_le_bytes());
        file[section + 20..section + 24].copy_from_slice(&0x100_u32.to_le_bytes());
        let banner = format!("Linux version {RELEASE} (me@here) #1 SMP\n");
        file[0x110..0x110 + banner.len()].copy_from_slice(banner.as_bytes());
        file
    }

    fn packed(file: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(file).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn packed_or_not_the_release_is_found() {
        let expected = BootFile {
            arch: Arch::Arm64,
            release: Some(RELEASE.to_owned()),
        };
        assert_eq!(BootFile::read(&image()).unwrap(), expected);
        assert_eq!(BootFile::read(&packed(&image())).unwrap(), expected);
        let other = BootFile::read(&packed(b"something")).unwrap_err();
        assert!(other.contains("without an arm64 kernel"), "{other}");
    }

    #[test]
    fn truncated_images_are_no_kernels() {
        let file = image();
        for size in 0..file.len() {
            assert!(BootFile::read(&file[..size]).is_err(), "{size} bytes");
        }
        let error = BootFile::read(&file[..0x17f]).unwrap_err();
        assert!(error.contains("383 of 384 bytes"), "{error}");
        let file = packed(&file);
        for size in 0..file.len() {
            assert!(
                BootFile::read(&file[..size]).is_err(),
                "{size} bytes packed"
            );
        }
    }

    #[test]
    fn flipped_headers_never_panic() {
        let file = image();
        for at in 0..0x80 {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut file = file.clone();
                file[at] = value;
                let _ = BootFile::read(&file);
            }
        }
    }

    #[test]
    fn big_endian_kernels_are_refused() {
        let mut file = image();
        file[0x18] = 1;
        let error = BootFile::read(&file).unwrap_err();
        assert!(error.contains("big-endian"), "{error}");
    }
}
