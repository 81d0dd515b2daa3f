//! The file that `preverify-load fingerprint --json` prints.

use std::path::Path;

use preverify_abi::ABI_VERSION;
use preverify_abi::manifest::Fingerprint;
use serde_json::{Map, Value};

use super::{Board, BoardError};
use crate::files::from_hex;

/// The longest build id that the kernel part knows.
const BUILD_ID_SIZE: usize = 32;

pub(super) fn parse(path: &Path, text: &[u8]) -> Result<Board, BoardError> {
    let value = serde_json::from_slice(text).map_err(|source| BoardError::NoJson {
        path: path.to_owned(),
        source,
    })?;
    let mut file = Fields::of(path, "", value)?;
    // First: other versions may have other fields.
    let version: u32 = file.number("abi_version")?;
    if version != ABI_VERSION {
        return Err(BoardError::Version {
            path: path.to_owned(),
            found: version,
        });
    }
    let release = file.text("release")?;
    let build_id = file.text("build_id")?;
    let build_id = match from_hex(&build_id) {
        Some(bytes) if (1..=BUILD_ID_SIZE).contains(&bytes.len()) => bytes,
        _ => {
            let expected = "the hexadecimal digits of up to 32 bytes";
            return Err(file.wrong("build_id", expected, &build_id.into()));
        }
    };
    let fingerprint = file.take("fingerprint")?;
    // The same for people.
    file.take("words")?;
    file.end()?;
    Ok(Board {
        path: path.to_owned(),
        release,
        build_id,
        fingerprint: parse_fingerprint(path, fingerprint)?,
    })
}

fn parse_fingerprint(path: &Path, value: Value) -> Result<Fingerprint, BoardError> {
    let mut numbers = Fields::of(path, "fingerprint", value)?;
    let fingerprint = Fingerprint {
        arch: numbers.number::<u32>("arch")?.into(),
        page_shift: numbers.number::<u32>("page_shift")?.into(),
        va_bits: numbers.number::<u32>("va_bits")?.into(),
        cpu_limit: numbers.number::<u32>("cpu_limit")?.into(),
        jit_flags: numbers.number::<u64>("jit_flags")?.into(),
        policy: numbers.number::<u64>("policy")?.into(),
        return_thunk: numbers.number::<u64>("return_thunk")?.into(),
        jit_harden: numbers.number::<u32>("jit_harden")?.into(),
        cfi_mode: numbers.number::<u32>("cfi_mode")?.into(),
        reserved: [0; 16],
    };
    numbers.end()?;
    Ok(fingerprint)
}

/// The fields of an object. Each is taken once, and none may be left.
struct Fields<'a> {
    path: &'a Path,
    /// The object's own name; empty for the whole file.
    name: &'static str,
    left: Map<String, Value>,
}

impl<'a> Fields<'a> {
    fn of(path: &'a Path, name: &'static str, value: Value) -> Result<Self, BoardError> {
        match value {
            Value::Object(left) => Ok(Self { path, name, left }),
            other => Err(BoardError::Field {
                path: path.to_owned(),
                field: if name.is_empty() { "the whole" } else { name }.to_owned(),
                problem: format!("is {other}: expected an object"),
            }),
        }
    }

    fn take(&mut self, field: &str) -> Result<Value, BoardError> {
        self.left
            .remove(field)
            .ok_or_else(|| self.error(field, "is missing".to_owned()))
    }

    fn number<N: TryFrom<u64>>(&mut self, field: &str) -> Result<N, BoardError> {
        let value = self.take(field)?;
        value
            .as_u64()
            .and_then(|number| number.try_into().ok())
            .ok_or_else(|| {
                let bits = 8 * size_of::<N>();
                self.wrong(field, &format!("a number of {bits} bits"), &value)
            })
    }

    fn text(&mut self, field: &str) -> Result<String, BoardError> {
        match self.take(field)? {
            Value::String(text) => Ok(text),
            other => Err(self.wrong(field, "a text", &other)),
        }
    }

    fn end(self) -> Result<(), BoardError> {
        match self.left.keys().next() {
            None => Ok(()),
            Some(field) => Err(self.error(field, "is not known here".to_owned())),
        }
    }

    fn wrong(&self, field: &str, expected: &str, found: &Value) -> BoardError {
        self.error(field, format!("is {found}: expected {expected}"))
    }

    fn error(&self, field: &str, problem: String) -> BoardError {
        let dot = if self.name.is_empty() { "" } else { "." };
        BoardError::Field {
            path: self.path.to_owned(),
            field: format!("{}{dot}{field}", self.name),
            problem,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a board with 6.12.117+deb12-cloud-arm64 prints it.
    const SAMPLE: &str = concat!(
        r#"{"abi_version":3,"release":"6.12.1","build_id":"ab00cd","fingerprint":{"arch":183,"#,
        r#""page_shift":12,"va_bits":48,"cpu_limit":2,"jit_flags":7,"policy":12,"#,
        r#""return_thunk":0,"jit_harden":0,"cfi_mode":0},"words":{"architecture":"arm64"}}"#
    );

    fn parse(text: &str) -> Result<Board, BoardError> {
        super::parse(Path::new("board.json"), text.as_bytes())
    }

    #[test]
    fn what_the_loader_prints_is_understood() {
        let board = parse(SAMPLE).unwrap();
        assert_eq!(board.release, "6.12.1");
        assert_eq!(board.build_id, [0xab, 0, 0xcd]);
        assert_eq!(board.fingerprint.arch, 183);
        assert_eq!(board.fingerprint.jit_flags, 7);
        assert_eq!(board.fingerprint.policy, 12);
        assert_eq!(board.fingerprint.cpu_limit, 2);
    }

    #[test]
    fn errors_name_the_file_and_the_field() {
        let long = format!(r#""{}""#, "ab".repeat(33));
        for (from, to, expected) in [
            (r#""release":"6.12.1","#, "", "release is missing"),
            (r#""va_bits":48,"#, "", "fingerprint.va_bits is missing"),
            (
                r#""arch":183"#,
                r#""arch":"arm64""#,
                "fingerprint.arch is \"arm64\": expected a number of 32 bits",
            ),
            (
                ":183",
                ":4294967296",
                "fingerprint.arch is 4294967296: expected a number of 32 bits",
            ),
            (
                r#""policy":12"#,
                r#""policy":-1"#,
                "fingerprint.policy is -1: expected a number of 64 bits",
            ),
            (
                r#""arch""#,
                r#""vendor":1,"arch""#,
                "fingerprint.vendor is not known here",
            ),
            (
                r#""release""#,
                r#""board":"x","release""#,
                "board is not known here",
            ),
            (r#""6.12.1""#, "6", "release is 6: expected a text"),
            (
                r#""ab00cd""#,
                r#""ab0""#,
                "build_id is \"ab0\": expected the hexadecimal digits",
            ),
            (
                r#""ab00cd""#,
                r#""""#,
                "build_id is \"\": expected the hexadecimal digits",
            ),
            (r#""ab00cd""#, &long, "expected the hexadecimal digits"),
            (r#""abi_version":3"#, r#""abi_version":9"#, "version 9"),
        ] {
            let text = SAMPLE.replace(from, to);
            assert_ne!(text, SAMPLE);
            let error = parse(&text).unwrap_err().to_string();
            assert!(error.starts_with("board.json "), "{error}");
            assert!(error.contains(expected), "{error}");
        }
        for text in ["", "{", "architecture arm64", "[]", "7"] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with("board.json "), "{error}");
            assert!(error.contains("fingerprint --json"), "{error}");
        }
    }
}
