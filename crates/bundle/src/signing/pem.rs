//! The blocks of a PEM text. What stands between them (openssl likes to explain) is passed over.

use std::path::Path;
use std::{fs, io};

use der::zeroize::Zeroizing;

const BEGIN: &str = "-----BEGIN ";
const DASHES: &str = "-----";

/// One block, its boundaries included.
pub(super) struct Block<'a> {
    /// What it says that it holds: `CERTIFICATE`.
    pub(super) label: &'a str,
    /// The whole block.
    pub(super) text: &'a str,
}

/// All whole blocks of `text`.
pub(super) fn blocks(text: &str) -> impl Iterator<Item = Block<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let start = rest.find(BEGIN)?;
        let (label, _) = rest[start + BEGIN.len()..].split_once(DASHES)?;
        let end = format!("{DASHES}END {label}{DASHES}");
        let size = rest[start..].find(&end)? + end.len();
        let (block, behind) = rest[start..].split_at(size);
        rest = behind;
        Some(Block { label, text: block })
    })
}

/// Reads a file that may hold a private key: no copy stays in memory.
pub(super) fn read(path: &Path) -> io::Result<Zeroizing<String>> {
    fs::read_to_string(path).map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_among_other_text() {
        let text = "Subject: me\n-----BEGIN A B-----\nYQ==\n-----END A B-----\nmore\n\
                    -----BEGIN C-----\n-----END C-----\n-----BEGIN D-----\nno end";
        let found: Vec<_> = blocks(text)
            .map(|block| (block.label, block.text))
            .collect();
        assert_eq!(
            found,
            [
                ("A B", "-----BEGIN A B-----\nYQ==\n-----END A B-----"),
                ("C", "-----BEGIN C-----\n-----END C-----"),
            ]
        );
    }
}
