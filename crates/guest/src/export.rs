//! Has the kernel part export loaded programs.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use preverify_abi::ioctl::{EXPORT_DEVICE_PATH, Export, IOC_EXPORT, REASON_SIZE};

/// Most programs fit; for others the kernel part says what they need.
const FIRST_SIZE: u32 = 256 << 10;

/// Why a program was not exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The kernel part is not there in its export role.
    #[error(
        "cannot open {EXPORT_DEVICE_PATH}: {source}; programs are exported by \
         bpf_preverified_export.ko, which must be in the initramfs"
    )]
    NoDevice {
        /// Why not.
        source: io::Error,
    },
    /// The kernel part refused.
    #[error("the kernel part does not export the program: {reason} ({source})")]
    Refused {
        /// In its own words.
        reason: String,
        /// The errno.
        source: io::Error,
    },
}

impl ExportError {
    /// The errno.
    pub fn errno(&self) -> i32 {
        let (Self::NoDevice { source } | Self::Refused { source, .. }) = self;
        source.raw_os_error().unwrap_or(0)
    }
}

/// The kernel part.
pub struct Exporter(File);

impl Exporter {
    /// Opens its device.
    pub fn open() -> Result<Self, ExportError> {
        File::options()
            .read(true)
            .write(true)
            .open(EXPORT_DEVICE_PATH)
            .map(Self)
            .map_err(|source| ExportError::NoDevice { source })
    }

    /// Everything about a loaded program that the system call hides.
    pub fn export(&self, program: BorrowedFd<'_>) -> Result<Vec<u8>, ExportError> {
        let mut size = FIRST_SIZE;
        loop {
            let mut buffer = vec![0_u8; size as usize];
            let mut request = Export {
                buffer: buffer.as_mut_ptr().expose_provenance() as u64,
                size,
                program: program.as_raw_fd(),
                reason: [0; REASON_SIZE],
            };
            // SAFETY: IOC_EXPORT reads and writes an `Export`, and up to `size` bytes at `buffer`.
            let result =
                unsafe { libc::ioctl(self.0.as_raw_fd(), IOC_EXPORT.into(), &raw mut request) };
            if result >= 0 {
                buffer.truncate(request.size as usize);
                return Ok(buffer);
            }
            let source = io::Error::last_os_error();
            // A size that does not grow would be asked for for ever.
            if source.raw_os_error() == Some(libc::ENOSPC) && request.size > size {
                size = request.size;
                continue;
            }
            return Err(ExportError::Refused {
                reason: sentence(&request.reason),
                source,
            });
        }
    }
}

/// The text before the first zero.
fn sentence(reason: &[u8; REASON_SIZE]) -> String {
    let end = reason.iter().position(|&byte| byte == 0);
    match &reason[..end.unwrap_or(REASON_SIZE)] {
        [] => "it gave no reason".to_owned(),
        text => String::from_utf8_lossy(text).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_ends_at_its_zero() {
        let mut reason = [0; REASON_SIZE];
        reason[..5].copy_from_slice(b"no\0xx");
        assert_eq!(sentence(&reason), "no");
        assert_eq!(sentence(&[0; REASON_SIZE]), "it gave no reason");
        assert_eq!(sentence(&[b'x'; REASON_SIZE]), "x".repeat(REASON_SIZE));
    }
}
