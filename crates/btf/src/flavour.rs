//! Names of types in objects that the kernel has other definitions of.

/// A type's name as the kernel has it: `task_struct` of `task_struct___old`.
pub fn without_flavour(name: &str) -> &str {
    let bytes = name.as_bytes();
    let separates = |at: &usize| {
        let window = &bytes[*at..*at + 5];
        window[0] != b'_' && &window[1..4] == b"___" && window[4] != b'_'
    };
    let last = (0..bytes.len().saturating_sub(4)).rev().find(separates);
    last.map_or(name, |at| name.get(..=at).unwrap_or(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flavours_are_cut_off_as_libbpf_does() {
        for (name, expected) in [
            ("task_struct", "task_struct"),
            ("task_struct___old", "task_struct"),
            ("a___b___c", "a___b"),
            ("a____b", "a____b"),
            ("___b", "___b"),
            ("a___", "a___"),
            ("ä___b", "ä"),
            ("", ""),
        ] {
            assert_eq!(without_flavour(name), expected, "{name}");
        }
    }
}
