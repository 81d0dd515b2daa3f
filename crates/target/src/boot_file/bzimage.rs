//! The header of an x86 kernel file (Documentation/arch/x86/boot.rst in Linux).

use super::{check_size, field, first_word};

/// Whether a file is a bzImage.
pub(super) fn is_one(file: &[u8]) -> bool {
    file.get(0x202..0x206) == Some(b"HdrS")
}

/// `uname -r`.
pub(super) fn release(file: &[u8]) -> Result<String, String> {
    let sizes = setup_size(file).zip(field(file, 0x1f4, 4));
    let needed = sizes.and_then(|(setup, units)| setup.checked_add(units * 16));
    check_size(file, needed)?;
    sizes
        .and_then(|(setup, _)| version(file, setup))
        .ok_or_else(|| "a kernel without a version".to_owned())
        .and_then(first_word)
}

/// Bytes in front of the protected-mode kernel.
fn setup_size(file: &[u8]) -> Option<usize> {
    // Zero means four, for the oldest loaders.
    let sectors = match *file.get(0x1f1)? {
        0 => 4,
        sectors => usize::from(sectors),
    };
    Some((sectors + 1) * 512)
}

/// The text of the version, and what follows it.
fn version(file: &[u8], setup: usize) -> Option<&[u8]> {
    let start = 0x200 + field(file, 0x20e, 2)?;
    file.get(start..setup)
}

#[cfg(test)]
pub(crate) mod tests {
    use crate::arch::Arch;
    use crate::boot_file::BootFile;

    /// The smallest file that passes for a kernel.
    pub(crate) fn kernel(version: &str) -> Vec<u8> {
        let mut file = vec![0; 1024 + 64];
        file[0x1f1] = 1;
        file[0x1f4] = 4;
        file[0x202..0x206].copy_from_slice(b"HdrS");
        file[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
        file[0x300..0x300 + version.len()].copy_from_slice(version.as_bytes());
        file
    }

    fn parse(file: &[u8]) -> Result<BootFile, String> {
        BootFile::read(file)
    }

    #[test]
    fn the_release_is_the_versions_first_word() {
        let file = kernel("6.12.117+deb12-cloud-amd64 (debian) #1 SMP");
        let expected = BootFile {
            arch: Arch::X86_64,
            release: Some("6.12.117+deb12-cloud-amd64".to_owned()),
        };
        assert_eq!(parse(&file).unwrap(), expected);
    }

    #[test]
    fn truncated_kernels_are_no_kernels() {
        let file = kernel("6.12.117 x");
        for size in 0..file.len() {
            assert!(parse(&file[..size]).is_err(), "{size} bytes");
        }
        let error = parse(&file[..1080]).unwrap_err();
        assert!(error.contains("1080 of 1088 bytes"), "{error}");
    }

    #[test]
    fn flipped_headers_never_panic() {
        let file = kernel("6.12.117 x");
        for at in 0x1f0..0x310 {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut file = file.clone();
                file[at] = value;
                let _ = parse(&file);
            }
        }
    }
}
