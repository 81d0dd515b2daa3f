//! What a kernel file says about itself before it is booted.

use std::path::Path;

use crate::error::TargetError;

/// The header of an x86 kernel file (Documentation/arch/x86/boot.rst in Linux).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BzImage {
    /// `uname -r`.
    pub release: String,
}

impl BzImage {
    pub(crate) fn parse(path: &Path, file: &[u8]) -> Result<Self, TargetError> {
        let wrong = |found: String| TargetError::NotAKernel {
            path: path.to_owned(),
            found,
        };
        if file.get(0x202..0x206) != Some(b"HdrS") {
            return Err(wrong(match file.get(..4) {
                Some(b"\x7fELF") => "an ELF file (vmlinux?)".to_owned(),
                Some(_) => format!("{} bytes of something else", file.len()),
                None => format!("{} bytes", file.len()),
            }));
        }
        let needed = setup_size(file).zip(field(file, 0x1f4, 4).map(|units| units * 16));
        let short = || wrong(format!("{} bytes, less than its header says", file.len()));
        let (setup, rest) = needed.ok_or_else(short)?;
        if file.len() < setup + rest {
            return Err(wrong(format!(
                "{} of {} bytes: it is truncated",
                file.len(),
                setup + rest
            )));
        }
        release(file, setup)
            .map(|release| Self { release })
            .ok_or_else(|| wrong("a kernel without a version".to_owned()))
    }
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

fn release(file: &[u8], setup: usize) -> Option<String> {
    let start = 0x200 + field(file, 0x20e, 2)?;
    let text = file.get(start..setup)?;
    let text = text.split(|byte| *byte == 0).next()?;
    let release = std::str::from_utf8(text).ok()?.split_whitespace().next()?;
    (release.len() < 65).then(|| release.to_owned())
}

fn field(file: &[u8], offset: usize, size: usize) -> Option<usize> {
    let mut bytes = [0; 8];
    bytes[..size].copy_from_slice(file.get(offset..offset + size)?);
    usize::try_from(u64::from_le_bytes(bytes)).ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

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

    fn parse(file: &[u8]) -> Result<BzImage, String> {
        BzImage::parse(Path::new("bzImage"), file).map_err(|error| error.to_string())
    }

    #[test]
    fn the_release_is_the_versions_first_word() {
        let file = kernel("6.12.117+deb12-cloud-amd64 (debian) #1 SMP");
        assert_eq!(parse(&file).unwrap().release, "6.12.117+deb12-cloud-amd64");
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

    #[test]
    fn other_files_are_named() {
        assert!(
            parse(b"\x7fELF and so on")
                .unwrap_err()
                .contains("vmlinux?")
        );
        assert!(parse(b"").unwrap_err().contains("0 bytes"));
    }
}
