//! JSON as far as this command writes it.

use std::fmt::Write;

/// An object, field by field.
#[derive(Clone, Debug, Default)]
pub struct Object(String);

impl Object {
    pub fn text(self, key: &str, value: &str) -> Self {
        self.raw(key, &string(value))
    }

    pub fn number(self, key: &str, value: impl Into<u64>) -> Self {
        self.raw(key, &value.into().to_string())
    }

    /// A value that is JSON already.
    pub fn raw(mut self, key: &str, value: &str) -> Self {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        self.0.push_str(&string(key));
        self.0.push(':');
        self.0.push_str(value);
        self
    }

    pub fn finish(self) -> String {
        if self.0.is_empty() {
            "{}".to_owned()
        } else {
            self.0 + "}"
        }
    }
}

/// An array of values that are JSON already.
pub fn array<I: IntoIterator<Item = String>>(items: I) -> String {
    let items: Vec<String> = items.into_iter().collect();
    format!("[{}]", items.join(","))
}

fn string(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            control if control < ' ' => {
                write!(quoted, "\\u{:04x}", u32::from(control)).expect("strings grow");
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_and_arrays() {
        let object = Object::default()
            .text("a\"b", "x\\y\n\u{e9}")
            .number("n", 7_u32)
            .raw("list", &array(["1".to_owned(), "{}".to_owned()]));
        assert_eq!(
            object.finish(),
            "{\"a\\\"b\":\"x\\\\y\\u000a\u{e9}\",\"n\":7,\"list\":[1,{}]}"
        );
        assert_eq!(Object::default().finish(), "{}");
        assert_eq!(array([]), "[]");
    }
}
