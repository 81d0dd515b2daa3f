//! Has what this kernel allocates lie elsewhere than in other boots.
//!
//! The host tells addresses from constants by comparing two boots. Where a kernel chooses all its addresses at random,
//! they differ; but on arm and arm64, and on x86_64 without `CONFIG_RANDOMIZE_MEMORY`, what it allocates goes to the first
//! place with enough room, which is the same in every boot. In boots that the host marks, many such places are taken
//! from the start.

use std::mem;

use libbpf_sys as sys;

use crate::error::AgentError;
use crate::libbpf::{MapShape, create_map};
use crate::machine::read_text;

/// The word on the kernel's command line that marks a boot. The kernel takes it for a parameter of a module.
const MARK: &str = "preverify.occupy=1";

/// Places taken of each size, at least as many as an object's maps would take.
const PLACES: usize = 16;
/// Sizes in KiB. Kernels with larger pages make more of the smallest ones.
const SIZES: [u32; 7] = [4, 8, 16, 32, 64, 128, 256];

/// Takes places until the machine is turned off, if this boot is marked.
pub fn occupy() -> Result<(), AgentError> {
    let command_line = read_text("/proc/cmdline")?;
    if !command_line.split_whitespace().any(|word| word == MARK) {
        return Ok(());
    }
    for size in SIZES {
        for _ in 0..PLACES {
            let map = create_map(&paged_map(size << 10))
                .map_err(AgentError::system("take places in memory"))?;
            // It stays open as long as this process, the first one, lives.
            mem::forget(map);
        }
    }
    Ok(())
}

/// A map whose values take whole pages: the kernel has to map them one behind the other.
fn paged_map(size: u32) -> MapShape<'static> {
    MapShape {
        map_type: sys::BPF_MAP_TYPE_ARRAY,
        key_size: 4,
        value_size: size,
        max_entries: 1,
        map_flags: sys::BPF_F_MMAPABLE,
        map_extra: 0,
        types: None,
    }
}
