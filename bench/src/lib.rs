//! What one measurement on a device gives: the form in which `preverify-bench` tells it.

#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

/// One program, loaded in all ways in one machine, in turns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measurement {
    /// The name of the program's function.
    pub program: String,
    /// Each `BPF_PROG_LOAD`: the system call alone, without a log.
    pub stock: Loads,
    /// Nanoseconds of each opening of the bundle: the signature's check, and the manifest's.
    pub open_ns: Vec<u64>,
    /// Each load of the native image from the open bundle: the system call alone.
    pub native: Option<Image>,
    /// The same for the bytecode.
    pub bytecode: Option<Image>,
}

/// Loads of one image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Bytes of the image and its symbols.
    pub bytes: usize,
    /// The loads. The memory is that of opening the bundle, too.
    pub loads: Loads,
}

/// Loads in one way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loads {
    /// Nanoseconds of each.
    pub ns: Vec<u64>,
    /// The most memory, in bytes, that the kernel had less than before while it loaded.
    pub peak: u64,
}

/// The middle value: half of the others are below it.
pub fn median(values: &[u64]) -> u64 {
    let mut values = values.to_vec();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[9, 1, 5]), 5);
        assert_eq!(median(&[4]), 4);
        assert_eq!(median(&[]), 0);
    }
}
