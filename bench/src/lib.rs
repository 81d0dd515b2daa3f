//! What one measurement on a device gives: the form in which `preverify-bench` tells it.

#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

/// One program, loaded both ways in one machine, alternating.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measurement {
    /// The name of the program's function.
    pub program: String,
    /// Nanoseconds of each `BPF_PROG_LOAD`: the system call alone, without a log.
    pub stock_ns: Vec<u64>,
    /// Nanoseconds of each opening of the bundle: the signature's check, and the manifest's.
    pub open_ns: Vec<u64>,
    /// Nanoseconds of each load from the open bundle: the system call alone.
    pub load_ns: Vec<u64>,
    /// The most memory, in bytes, that the kernel had less than before while it loaded its own way.
    pub stock_peak: u64,
    /// The same while a bundle was opened and the program loaded from it.
    pub load_peak: u64,
    /// Bytes of the program's image and symbols.
    pub image_bytes: usize,
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
