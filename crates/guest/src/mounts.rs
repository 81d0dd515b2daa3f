//! The file systems that BPF user space expects.

use std::fs;
use std::io;

use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

use crate::error::AgentError;

struct Mount {
    kind: &'static str,
    target: &'static str,
    required: bool,
}

const fn required(kind: &'static str, target: &'static str) -> Mount {
    Mount {
        kind,
        target,
        required: true,
    }
}

/// Kernels can be configured without these.
const fn if_known(kind: &'static str, target: &'static str) -> Mount {
    Mount {
        kind,
        target,
        required: false,
    }
}

/// In this order: later ones lie in earlier ones.
const MOUNTS: &[Mount] = &[
    required("proc", "/proc"),
    required("sysfs", "/sys"),
    required("devtmpfs", "/dev"),
    required("tmpfs", "/tmp"),
    required("tmpfs", "/run"),
    required("bpf", "/sys/fs/bpf"),
    if_known("cgroup2", "/sys/fs/cgroup"),
    if_known("tracefs", "/sys/kernel/tracing"),
    if_known("debugfs", "/sys/kernel/debug"),
    if_known("securityfs", "/sys/kernel/security"),
];

/// Mounts all of them.
pub fn mount_all() -> Result<(), AgentError> {
    for &Mount {
        kind,
        target,
        required,
    } in MOUNTS
    {
        // Folders in /sys exist if the kernel knows the file system; those of the root are ours.
        if !target.starts_with("/sys/") {
            fs::create_dir_all(target).map_err(AgentError::file("create", target))?;
        }
        match mount(kind, target, kind, MountFlags::empty(), None) {
            // The kernel may have mounted devtmpfs itself.
            Ok(()) | Err(Errno::BUSY) => {}
            Err(Errno::NODEV | Errno::NOENT) if !required => {}
            Err(errno) => {
                return Err(AgentError::file("mount", target)(io::Error::from(errno)));
            }
        }
    }
    Ok(())
}
