//! Perf events for probes of functions.

use std::env::consts::ARCH;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::plan::Moment;
use crate::sys::perf::{self, Probe};

/// Probes a kernel function.
pub fn kernel(function: &str, offset: u64, moment: Moment) -> io::Result<OwnedFd> {
    set("kprobe", function.as_bytes(), offset, moment)
}

/// Probes a system call: the function that the kernel enters first, whose name depends on the
/// architecture.
pub fn system_call(name: &str, moment: Moment) -> io::Result<OwnedFd> {
    let prefix = match ARCH {
        "x86_64" => "__x64_sys_",
        "aarch64" => "__arm64_sys_",
        "riscv64" => "__riscv_sys_",
        "s390x" => "__s390x_sys_",
        _ => "__se_sys_",
    };
    match kernel(&format!("{prefix}{name}"), 0, moment) {
        // Kernels whose system calls have no wrappers.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            kernel(&format!("__se_sys_{name}"), 0, moment)
        }
        other => other,
    }
}

/// Probes a place in a file that is mapped into programs.
pub fn user(file: &Path, offset: u64, moment: Moment) -> io::Result<OwnedFd> {
    set("uprobe", file.as_os_str().as_bytes(), offset, moment)
}

fn set(source: &str, name: &[u8], offset: u64, moment: Moment) -> io::Result<OwnedFd> {
    let name = CString::new(name)?;
    let folder = format!("/sys/bus/event_source/devices/{source}");
    let number = |file: &str, prefix: &str| -> io::Result<u32> {
        let path = format!("{folder}/{file}");
        let text = fs::read_to_string(&path)
            .map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))?;
        text.trim()
            .strip_prefix(prefix)
            .and_then(|number| number.parse().ok())
            .ok_or_else(|| io::Error::other(format!("{path} has no number: {text:?}")))
    };
    let config = match moment {
        Moment::Entry | Moment::Session => 0,
        Moment::Return => 1_u64
            .checked_shl(number("format/retprobe", "config:")?)
            .unwrap_or(0),
    };
    perf::probe(&Probe {
        source: number("type", "")?,
        config,
        name: &name,
        offset,
    })
}
