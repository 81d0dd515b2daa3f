//! Texts that others have written, as far as they are passed on.

/// A text of so many bytes at most, and how much was left out.
pub fn shortened(mut text: String, limit: usize) -> String {
    let Some(left) = text.len().checked_sub(limit).filter(|&left| left > 0) else {
        return text;
    };
    let mut end = limit;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text.push_str(&format!("... ({left} more bytes)"));
    text
}

#[cfg(test)]
mod tests {
    use super::shortened;

    #[test]
    fn characters_stay_whole() {
        assert_eq!(shortened("abc".into(), 3), "abc");
        assert_eq!(shortened("abcd".into(), 3), "abc... (1 more bytes)");
        assert_eq!(shortened("ab\u{e4}".into(), 3), "ab... (1 more bytes)");
    }
}
