//! What a kernel's file says about itself before it is booted.

mod arm64;
mod bzimage;
mod zimage;

use std::path::Path;

use crate::arch::Arch;
use crate::error::TargetError;
use crate::files;

/// A kernel's file, as boot loaders take it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BootFile {
    pub arch: Arch,
    /// `uname -r`, where it can be read without unpacking the kernel.
    pub release: Option<String>,
}

impl BootFile {
    /// Reads a bzImage (x86_64), an Image, packed by gzip or not (arm64), or a zImage (arm).
    pub(crate) fn parse(path: &Path, file: &[u8]) -> Result<Self, TargetError> {
        Self::read(file).map_err(|found| TargetError::NotAKernel {
            path: path.to_owned(),
            found,
        })
    }

    fn read(file: &[u8]) -> Result<Self, String> {
        if bzimage::is_one(file) {
            return Ok(Self {
                arch: Arch::X86_64,
                release: Some(bzimage::release(file)?),
            });
        }
        if arm64::is_one(file) {
            return Ok(Self {
                arch: Arch::Arm64,
                release: Some(arm64::release(file)?),
            });
        }
        if zimage::is_one(file) {
            zimage::check(file)?;
            return Ok(Self {
                arch: Arch::Arm,
                release: None,
            });
        }
        Err(other_file(file))
    }
}

/// What a file is that is no kernel, or none that is known here.
fn other_file(file: &[u8]) -> String {
    match file {
        [0x7f, b'E', b'L', b'F', ..] => "an ELF file (vmlinux?)".to_owned(),
        [0x27, 0x05, 0x19, 0x56, ..] => {
            "a U-Boot image: take the kernel's own file, without U-Boot's header".to_owned()
        }
        [0xd0, 0x0d, 0xfe, 0xed, ..] => {
            "a device tree or a FIT image: take the kernel's own file".to_owned()
        }
        [b'M', b'Z', 0, 0, b'z', b'i', b'm', b'g', ..] => {
            "an EFI application with a packed kernel (CONFIG_EFI_ZBOOT): take arch/arm64/boot/Image \
             of the kernel's build"
                .to_owned()
        }
        file if file.len() < 64 => format!("{} bytes", file.len()),
        file => format!("{} bytes of something else", file.len()),
    }
}

/// The number in so many bytes at an offset; `None` where the file ends before.
fn field(file: &[u8], offset: usize, size: usize) -> Option<usize> {
    usize::try_from(files::number(file, offset, size)?).ok()
}

/// Refuses a file that ends before `needed` bytes.
fn check_size(file: &[u8], needed: Option<usize>) -> Result<(), String> {
    match needed {
        Some(needed) if file.len() >= needed => Ok(()),
        Some(needed) => Err(format!("{} of {needed} bytes: it is truncated", file.len())),
        None => Err(format!("{} bytes, less than its header says", file.len())),
    }
}

/// The first word of a kernel's version, if it can be one.
fn first_word(version: &[u8]) -> Result<String, String> {
    let text = version.split(|byte| *byte == 0).next().unwrap_or_default();
    std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.split_whitespace().next())
        .filter(|release| release.len() < 65)
        .map(str::to_owned)
        .ok_or_else(|| "a kernel without a version".to_owned())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) use super::bzimage::tests::kernel;

    #[test]
    fn other_files_are_named() {
        let error = |file: &[u8]| BootFile::read(file).unwrap_err();
        assert!(error(b"\x7fELF and so on").contains("vmlinux?"));
        assert!(error(b"").contains("0 bytes"));
        assert!(error(b"MZ\0\0zimg and more").contains("CONFIG_EFI_ZBOOT"));
        assert!(error(b"\x27\x05\x19\x56 and more").contains("U-Boot"));
        assert!(error(&[7; 100]).contains("100 bytes of something else"));
    }
}
