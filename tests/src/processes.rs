//! The processes that machines run as, on this host.

use std::fs;

/// The processes that QEMU's machines run as, of all that a process has started.
pub fn machines_of(parent: u32) -> Vec<u32> {
    let is_machine = |&process: &u32| {
        let is_qemu = status(process).is_some_and(|status| {
            status.contains(&format!("PPid:\t{parent}\n"))
                && status.starts_with("Name:\tqemu-system")
        });
        // It is also asked for its version.
        let words = fs::read_to_string(format!("/proc/{process}/cmdline")).unwrap_or_default();
        is_qemu && words.contains("-machine")
    };
    // Where there are no processes to be seen, there are none of ours.
    let processes = fs::read_dir("/proc").into_iter().flatten();
    let mut machines: Vec<u32> = processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(is_machine)
        .collect();
    machines.sort_unstable();
    machines
}

/// Whether a process is there, and no zombie that nobody has waited for.
pub fn is_running(process: u32) -> bool {
    status(process).is_some_and(|status| !status.contains("State:\tZ"))
}

/// The most memory that a running process has had, in KiB.
pub fn peak_memory(process: u32) -> Option<u64> {
    kibibytes(process, "VmHWM:")
}

/// The memory that a running process has, in KiB.
pub fn memory(process: u32) -> Option<u64> {
    kibibytes(process, "VmRSS:")
}

fn kibibytes(process: u32, field: &str) -> Option<u64> {
    let status = status(process)?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

fn status(process: u32) -> Option<String> {
    fs::read_to_string(format!("/proc/{process}/status")).ok()
}
