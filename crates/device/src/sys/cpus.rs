//! The machine's CPUs.

use std::fs;
use std::io;

/// The CPUs that may ever be there: a per-CPU map has a value for each, in this order.
pub fn possible() -> io::Result<Vec<u32>> {
    read("/sys/devices/system/cpu/possible")
}

/// The CPUs that run now.
pub fn online() -> io::Result<Vec<u32>> {
    read("/sys/devices/system/cpu/online")
}

fn read(path: &str) -> io::Result<Vec<u32>> {
    let text = fs::read_to_string(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))?;
    parse(text.trim()).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{path}: expected a list of CPUs, found {text:?}"),
        )
    })
}

/// A list such as `0-3,6`.
fn parse(list: &str) -> Option<Vec<u32>> {
    let mut cpus = Vec::new();
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        // No machine has so many: a list that claims it is no list of CPUs.
        if first > last || last > 1 << 20 {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read() {
        assert_eq!(parse("0"), Some(vec![0]));
        assert_eq!(parse("0-3,6"), Some(vec![0, 1, 2, 3, 6]));
        for list in ["", "a", "3-1", "0-", "0,,1", "0-4294967295"] {
            assert_eq!(parse(list), None, "{list:?}");
        }
    }
}
