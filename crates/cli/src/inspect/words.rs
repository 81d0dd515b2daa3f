//! Words for people who look at bundles.

/// `1 map`, `2 maps`.
pub fn counted(count: usize, singular: &str) -> String {
    match count {
        1 => format!("1 {singular}"),
        _ if singular.ends_with('s') => format!("{count} {singular}es"),
        _ if singular.ends_with('y') => {
            format!("{count} {}ies", &singular[..singular.len() - 1])
        }
        _ => format!("{count} {singular}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_in_the_plural() {
        assert_eq!(counted(1, "map"), "1 map");
        assert_eq!(counted(0, "entry"), "0 entries");
        assert_eq!(counted(2, "address"), "2 addresses");
    }
}
