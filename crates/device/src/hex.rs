use std::fmt::Write;

/// Bytes in hexadecimal, as they lie in memory.
pub fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        write!(text, "{byte:02x}").expect("strings grow");
    }
    text
}
