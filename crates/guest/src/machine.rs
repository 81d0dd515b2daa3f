//! What the machine tells about itself.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::path::Path;

use flate2::read::GzDecoder;
use preverify_abi::ioctl::{DEVICE_PATH, EXPORT_DEVICE_PATH, IOC_INFO, Info};
use preverify_protocol::{Hello, PROTOCOL_VERSION};
use rustix::system::uname;
use zerocopy::{FromZeros, IntoBytes};

use crate::error::AgentError;
use crate::libbpf;

const SYMBOLS_PATH: &str = "/proc/kallsyms";
const SYSLOG_ACTION_READ_ALL: i32 = 3;
const SYSLOG_ACTION_SIZE_BUFFER: i32 = 10;

/// Who answers.
pub fn hello() -> Result<Hello, AgentError> {
    let uname = uname();
    let release = uname.release().to_string_lossy().into_owned();
    Ok(Hello {
        protocol: PROTOCOL_VERSION,
        version: uname.version().to_string_lossy().into_owned(),
        machine: uname.machine().to_string_lossy().into_owned(),
        command_line: read_text("/proc/cmdline")?.trim_end().into(),
        versions: BTreeMap::from([
            ("agent".into(), env!("CARGO_PKG_VERSION").into()),
            ("libbpf".into(), libbpf::version()),
        ]),
        info: kernel_part_info()?,
        kernel_config: kernel_config(&release)?,
        release,
    })
}

/// The text of `/proc/kallsyms`.
pub fn symbols() -> Result<String, AgentError> {
    read_text(SYMBOLS_PATH)
}

/// The kernel's log, from the oldest message that it still has.
pub fn kernel_log() -> Result<String, AgentError> {
    let error = || AgentError::system("read the kernel's log")(io::Error::last_os_error());
    // SAFETY: this action uses no buffer.
    let size = unsafe { libc::klogctl(SYSLOG_ACTION_SIZE_BUFFER, std::ptr::null_mut(), 0) };
    let mut buffer = vec![0_u8; usize::try_from(size).map_err(|_| error())?];
    // SAFETY: the buffer has `size` writable bytes.
    let read = unsafe { libc::klogctl(SYSLOG_ACTION_READ_ALL, buffer.as_mut_ptr().cast(), size) };
    buffer.truncate(usize::try_from(read).map_err(|_| error())?);
    Ok(String::from_utf8_lossy(&buffer).into_owned())
}

/// Reads a file that may lie in /proc, where sizes are unknown.
pub fn read_text(path: impl AsRef<Path>) -> Result<String, AgentError> {
    let bytes = fs::read(&path).map_err(AgentError::file("read", path.as_ref()))?;
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// Asks whichever role of the kernel part is there.
fn kernel_part_info() -> Result<Option<Vec<u8>>, AgentError> {
    for path in [EXPORT_DEVICE_PATH, DEVICE_PATH] {
        let device = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            device => device.map_err(AgentError::file("open", path))?,
        };
        let mut info = Info::new_zeroed();
        // SAFETY: IOC_INFO writes an `Info`, and `info` is one.
        if unsafe { libc::ioctl(device.as_raw_fd(), IOC_INFO.into(), &raw mut info) } < 0 {
            return Err(AgentError::file("ask", path)(io::Error::last_os_error()));
        }
        return Ok(Some(info.as_bytes().to_vec()));
    }
    Ok(None)
}

fn kernel_config(release: &str) -> Result<Option<String>, AgentError> {
    let packed = "/proc/config.gz";
    match File::open(packed) {
        Ok(file) => {
            let mut text = String::new();
            GzDecoder::new(file)
                .read_to_string(&mut text)
                .map_err(AgentError::file("unpack", packed))?;
            Ok(Some(text))
        }
        Err(_) => {
            let path = format!("/boot/config-{release}");
            match fs::exists(&path) {
                Ok(true) => read_text(path).map(Some),
                _ => Ok(None),
            }
        }
    }
}
