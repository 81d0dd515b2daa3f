//! Bytes that nobody can guess.

/// So many of them, from the operating system.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("Linux has random bytes for whoever asks");
    bytes
}
