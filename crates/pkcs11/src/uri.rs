//! PKCS #11 URIs (RFC 7512): what a key in a token is called.

use std::fmt::Write;
use std::path::PathBuf;

use cryptoki::types::AuthPin;

/// What such a URI begins with.
pub const SCHEME: &str = "pkcs11:";

/// What may stand before `?`.
const OF_KEYS: &str = "token, serial, manufacturer, model, slot-id, object, id or type";
/// What may stand after it.
const OF_ACCESS: &str = "module-path, pin-source or pin-value";

/// A private key, and how to get at it. All that is not said fits everything.
#[derive(Debug, Default)]
pub struct Uri {
    /// As it was written, without the query: there may be a PIN in that.
    pub name: String,
    pub token: Option<String>,
    pub serial: Option<String>,
    pub manufacturer: Option<String>,
    pub model: Option<String>,
    pub slot_id: Option<u64>,
    /// CKA_LABEL.
    pub object: Option<String>,
    /// CKA_ID.
    pub id: Option<Vec<u8>>,
    pub module_path: Option<PathBuf>,
    pub pin: Option<PinSource>,
}

/// Where a URI says that the PIN is.
#[derive(Debug)]
pub enum PinSource {
    Value(AuthPin),
    File(PathBuf),
}

/// Why a text is no URI of a private key. None of it tells what may be a PIN.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UriError {
    /// Another scheme.
    #[error("expected a URI that begins with `{SCHEME}`")]
    Scheme,
    /// No `=`.
    #[error(
        "expected NAME=VALUE, found none in part {number} {place} `?`: parts are separated by `;` before it and by `&` after it"
    )]
    NoValue {
        /// Before or after `?`.
        place: &'static str,
        /// Which one, from 1.
        number: usize,
    },
    /// A name that means nothing here.
    #[error("expected {expected} {place} `?`, found `{found}`")]
    Unknown {
        /// Before or after `?`.
        place: &'static str,
        /// What may stand there.
        expected: &'static str,
        /// What does.
        found: String,
    },
    /// The same twice, or two that say the same.
    #[error("`{0}` is said twice")]
    Twice(&'static str),
    /// A wrong escape.
    #[error("the value of `{0}` has a `%` without two hexadecimal digits, or is not UTF-8")]
    Escape(&'static str),
    /// No number.
    #[error("expected a number as slot-id, found {0:?}")]
    SlotId(String),
    /// A class of objects that cannot sign.
    #[error("expected type=private, found type={0}: it is the private key that is to be named")]
    Type(String),
    /// A source of PINs that is none here.
    #[error("expected `file:` and a file as pin-source; programs are not run")]
    PinSource,
}

impl Uri {
    pub fn parse(text: &str) -> Result<Self, UriError> {
        let all = text.strip_prefix(SCHEME).ok_or(UriError::Scheme)?;
        let (path, query) = all.split_once('?').unwrap_or((all, ""));
        let mut uri = Self {
            name: format!("{SCHEME}{path}"),
            ..Self::default()
        };
        for attribute in attributes(path, ';', "before") {
            let (name, value) = attribute?;
            match name {
                "token" => set(&mut uri.token, "token", text_of("token", value)?)?,
                "serial" => set(&mut uri.serial, "serial", text_of("serial", value)?)?,
                "manufacturer" => {
                    let value = text_of("manufacturer", value)?;
                    set(&mut uri.manufacturer, "manufacturer", value)?;
                }
                "model" => set(&mut uri.model, "model", text_of("model", value)?)?,
                "slot-id" => {
                    let number = value.parse();
                    let number = number.map_err(|_| UriError::SlotId(value.to_owned()))?;
                    set(&mut uri.slot_id, "slot-id", number)?;
                }
                "object" => set(&mut uri.object, "object", text_of("object", value)?)?,
                "id" => set(
                    &mut uri.id,
                    "id",
                    decode(value).ok_or(UriError::Escape("id"))?,
                )?,
                "type" if value == "private" => {}
                "type" => return Err(UriError::Type(value.to_owned())),
                other => return Err(unknown("before", OF_KEYS, other)),
            }
        }
        for attribute in attributes(query, '&', "after") {
            let (name, value) = attribute?;
            match name {
                "module-path" => {
                    let path = text_of("module-path", value)?.into();
                    set(&mut uri.module_path, "module-path", path)?;
                }
                "pin-source" => {
                    let source = pin_source(&text_of("pin-source", value)?)?;
                    set(&mut uri.pin, "pin-source or pin-value", source)?;
                }
                "pin-value" => {
                    let pin = PinSource::Value(text_of("pin-value", value)?.into());
                    set(&mut uri.pin, "pin-source or pin-value", pin)?;
                }
                other => return Err(unknown("after", OF_ACCESS, other)),
            }
        }
        Ok(uri)
    }
}

/// How an object is called in a URI, so that it can be copied from a message.
pub fn name_of_object(label: &[u8], id: &[u8]) -> String {
    let id = id.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "%{byte:02x}");
        text
    });
    format!("object={};id={id}", encode(label))
}

/// How a token is called in a URI.
pub fn name_of_token(label: &str, serial: &str) -> String {
    format!(
        "token={};serial={}",
        encode(label.as_bytes()),
        encode(serial.as_bytes())
    )
}

/// The names and values in a part of a URI.
fn attributes<'a>(
    text: &'a str,
    separator: char,
    place: &'static str,
) -> impl Iterator<Item = Result<(&'a str, &'a str), UriError>> {
    let parts = text.split(separator).enumerate();
    parts
        .filter(|(_, part)| !part.is_empty())
        .map(move |(index, part)| {
            part.split_once('=').ok_or(UriError::NoValue {
                place,
                number: index + 1,
            })
        })
}

fn set<T>(place: &mut Option<T>, name: &'static str, value: T) -> Result<(), UriError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(UriError::Twice(name)),
    }
}

fn unknown(place: &'static str, expected: &'static str, found: &str) -> UriError {
    UriError::Unknown {
        place,
        expected,
        found: found.to_owned(),
    }
}

/// `file:FILE` or just a file.
fn pin_source(source: &str) -> Result<PinSource, UriError> {
    let file = source.strip_prefix("file:").unwrap_or(source);
    let file = file.strip_prefix("//").unwrap_or(file);
    match file.is_empty() || file.starts_with('|') {
        true => Err(UriError::PinSource),
        false => Ok(PinSource::File(file.into())),
    }
}

fn text_of(name: &'static str, value: &str) -> Result<String, UriError> {
    let bytes = decode(value).ok_or(UriError::Escape(name))?;
    String::from_utf8(bytes).map_err(|_| UriError::Escape(name))
}

fn decode(value: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => 16 * digit(rest.next()?)? + digit(rest.next()?)?,
            plain => plain,
        });
    }
    Some(bytes)
}

fn digit(byte: u8) -> Option<u8> {
    let value = char::from(byte).to_digit(16)?;
    u8::try_from(value).ok()
}

fn encode(bytes: &[u8]) -> String {
    let mut text = String::new();
    for &byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                text.push(byte.into());
            }
            _ => {
                let _ = write!(text, "%{byte:02x}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn all_attributes_are_understood() {
        let uri = Uri::parse(
            "pkcs11:model=SoftHSM%20v2;manufacturer=SoftHSM%20project;serial=8fe5;token=to%3bken;slot-id=7;\
             id=%00%fFa;object=%c3%a4;type=private?module-path=/usr/lib/a%26b.so&pin-source=file:/run/pin",
        )
        .unwrap();
        assert_eq!(uri.model.as_deref(), Some("SoftHSM v2"));
        assert_eq!(uri.manufacturer.as_deref(), Some("SoftHSM project"));
        assert_eq!(uri.serial.as_deref(), Some("8fe5"));
        assert_eq!(uri.token.as_deref(), Some("to;ken"));
        assert_eq!(uri.slot_id, Some(7));
        assert_eq!(uri.id.as_deref(), Some(&[0, 0xff, b'a'][..]));
        assert_eq!(uri.object.as_deref(), Some("ä"));
        assert_eq!(uri.module_path, Some("/usr/lib/a&b.so".into()));
        assert!(uri.name.starts_with("pkcs11:model=") && !uri.name.contains("pin"));
        for (source, file) in [
            ("file:/run/pin", "/run/pin"),
            ("file:///run/pin", "/run/pin"),
            ("pin", "pin"),
        ] {
            let uri = Uri::parse(&format!("pkcs11:?pin-source={source}")).unwrap();
            assert!(matches!(uri.pin, Some(PinSource::File(found)) if found == Path::new(file)));
        }
        assert!(Uri::parse("pkcs11:").unwrap().token.is_none());
    }

    #[test]
    fn wrong_ones_are_refused_without_telling_the_pin() {
        for (uri, expected) in [
            ("signer.pem", "begins with `pkcs11:`"),
            ("pkcs11:token=a;4711", "part 2 before `?`"),
            ("pkcs11:token=a?module-path=/m&4711", "part 2 after `?`"),
            ("pkcs11:library-version=3", "expected token, serial,"),
            ("pkcs11:pin-value=4711", "before `?`, found `pin-value`"),
            ("pkcs11:?module-name=softhsm2", "found `module-name`"),
            ("pkcs11:token=a;token=b", "`token` is said twice"),
            (
                "pkcs11:?pin-value=4711&pin-source=a",
                "pin-value` is said twice",
            ),
            ("pkcs11:token=%4", "`token` has a `%`"),
            ("pkcs11:id=%+1", "`id` has a `%`"),
            ("pkcs11:?pin-value=4711%", "`pin-value` has a `%`"),
            ("pkcs11:object=%ff", "not UTF-8"),
            ("pkcs11:slot-id=0x1", "found \"0x1\""),
            ("pkcs11:type=cert", "found type=cert"),
            ("pkcs11:?pin-source=|4711", "programs are not run"),
            ("pkcs11:?pin-source=file:", "programs are not run"),
        ] {
            let error = Uri::parse(uri).unwrap_err().to_string();
            assert!(error.contains(expected), "{uri}: {error}");
            assert!(!error.contains("4711"), "{error}");
        }
        let uri = Uri::parse("pkcs11:?pin-value=4711").unwrap();
        assert!(!format!("{uri:?}").contains("4711"));
    }

    #[test]
    fn names_can_be_copied() {
        let name = name_of_object("a b;ä".as_bytes(), &[1, 0xab]);
        assert_eq!(name, "object=a%20b%3b%c3%a4;id=%01%ab");
        let uri = Uri::parse(&format!("pkcs11:{name}")).unwrap();
        assert_eq!(uri.object.as_deref(), Some("a b;ä"));
        assert_eq!(uri.id.as_deref(), Some(&[1, 0xab][..]));
    }
}
