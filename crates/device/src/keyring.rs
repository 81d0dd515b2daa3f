//! Whom the kernel part trusts: certificates in its keyring, which is then sealed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use preverify_abi::ioctl::KEYRING_NAME;

use crate::sys::keys;

/// A certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    path: PathBuf,
    der: Vec<u8>,
}

impl Certificate {
    /// Reads a file with one certificate in DER, or with certificates in PEM.
    pub fn read(path: &Path) -> Result<Vec<Self>, TrustError> {
        let bytes = fs::read(path).map_err(|source| TrustError::File {
            path: path.to_owned(),
            source,
        })?;
        let certificates = certificates(&bytes).ok_or_else(|| TrustError::NotACertificate {
            path: path.to_owned(),
        })?;
        Ok(certificates
            .into_iter()
            .map(|der| Self {
                path: path.to_owned(),
                der,
            })
            .collect())
    }
}

/// Adds the certificates to the kernel part's keyring and seals it: from then on bundles load, and
/// nobody adds trust any more. Returns the descriptions of what is trusted then. If a certificate is
/// refused, none stays, and nothing loads.
pub fn trust(certificates: &[Certificate]) -> Result<Vec<String>, TrustError> {
    if certificates.is_empty() {
        return Err(TrustError::Nobody);
    }
    let keyring = find(&key_list()?).ok_or(TrustError::NoKeyring)?;
    let mut added = Vec::new();
    match add_and_seal(keyring, certificates, &mut added) {
        Ok(()) => {
            let list = key_list()?;
            Ok(added
                .iter()
                .map(|key| description(&list, *key).unwrap_or_else(|| format!("key {key}")))
                .collect())
        }
        Err(error) => {
            for key in added {
                // If it stays, the keyring is at least not sealed: nothing loads.
                let _ = keys::unlink(key, keyring);
            }
            Err(error)
        }
    }
}

fn add_and_seal(
    keyring: i32,
    certificates: &[Certificate],
    added: &mut Vec<i32>,
) -> Result<(), TrustError> {
    for certificate in certificates {
        let key = keys::add_certificate(keyring, &certificate.der).map_err(|source| {
            let path = certificate.path.clone();
            match source.raw_os_error() {
                Some(libc::EPERM) => TrustError::Sealed,
                Some(libc::EBADMSG | libc::EINVAL) => TrustError::NotACertificate { path },
                _ => TrustError::Add { path, source },
            }
        })?;
        added.push(key);
    }
    keys::restrict(keyring).map_err(|source| match source.raw_os_error() {
        Some(libc::EEXIST | libc::EPERM) => TrustError::Sealed,
        _ => TrustError::Seal { source },
    })
}

const KEY_LIST: &str = "/proc/keys";

fn key_list() -> Result<String, TrustError> {
    fs::read_to_string(KEY_LIST).map_err(|source| TrustError::File {
        path: KEY_LIST.into(),
        source,
    })
}

/// The number of the kernel part's keyring.
fn find(list: &str) -> Option<i32> {
    list.lines()
        .filter_map(parse)
        .find(|key| {
            key.kind == "keyring"
                && key
                    .description
                    .split_once(": ")
                    .is_some_and(|(name, _)| name == KEYRING_NAME)
        })
        .map(|key| key.serial)
}

/// Whose key it is.
fn description(list: &str, serial: i32) -> Option<String> {
    list.lines()
        .filter_map(parse)
        .find(|key| key.serial == serial)
        .map(|key| key.description.to_owned())
}

struct Key<'a> {
    serial: i32,
    kind: &'a str,
    description: &'a str,
}

/// `serial flags usage timeout permissions uid gid type description`
fn parse(line: &str) -> Option<Key<'_>> {
    let mut rest = line;
    let mut word = || {
        let trimmed = rest.trim_start();
        let (word, after) = trimmed.split_once(' ')?;
        rest = after;
        Some(word)
    };
    let serial = word()?;
    for _ in 0..6 {
        word()?;
    }
    let kind = word()?;
    Some(Key {
        serial: i32::from_str_radix(serial, 16).ok()?,
        kind,
        description: rest.trim(),
    })
}

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// The certificates in a file's bytes: in DER if they start like it, else in PEM.
fn certificates(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    const DER_SEQUENCE: u8 = 0x30;
    if bytes.first() == Some(&DER_SEQUENCE) {
        return Some(vec![bytes.to_vec()]);
    }
    let mut rest = str::from_utf8(bytes).ok()?;
    let mut found = Vec::new();
    while let Some((_, after)) = rest.split_once(BEGIN) {
        let (body, after) = after.split_once(END)?;
        found.push(base64(body)?);
        rest = after;
    }
    (!found.is_empty()).then_some(found)
}

/// Bytes from base64 with line breaks.
fn base64(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    let mut bytes = Vec::new();
    let (groups, []) = digits.as_chunks::<4>() else {
        return None;
    };
    for (number, group) in groups.iter().enumerate() {
        let padding = group.iter().rev().take_while(|&&byte| byte == b'=').count();
        if padding > 2 || (padding > 0 && number + 1 < groups.len()) {
            return None;
        }
        let mut bits = 0_u32;
        for &digit in &group[..4 - padding] {
            bits = bits << 6 | u32::from(base64_digit(digit)?);
        }
        bits <<= 6 * padding;
        let [_, three @ ..] = bits.to_be_bytes();
        let (kept, dropped) = three.split_at(3 - padding);
        // Bits that padding leaves over are zero: one text for one meaning.
        if dropped.iter().any(|&byte| byte != 0) {
            return None;
        }
        bytes.extend_from_slice(kept);
    }
    Some(bytes)
}

fn base64_digit(digit: u8) -> Option<u8> {
    match digit {
        b'A'..=b'Z' => Some(digit - b'A'),
        b'a'..=b'z' => Some(digit - b'a' + 26),
        b'0'..=b'9' => Some(digit - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

/// Why nobody new is trusted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// No certificate was given.
    #[error(
        "no certificate was given: sealing an empty keyring would refuse every bundle for ever"
    )]
    Nobody,
    /// A file cannot be read.
    #[error("cannot read {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is no certificate.
    #[error("{path} holds no X.509 certificate, neither in DER nor in PEM")]
    NotACertificate {
        /// Which file.
        path: PathBuf,
    },
    /// The kernel part is not there.
    #[error(
        "there is no keyring {KEYRING_NAME}: the kernel part is not inserted (modprobe bpf_preverified), or this is not root"
    )]
    NoKeyring,
    /// It is too late.
    #[error(
        "the keyring {KEYRING_NAME} is sealed: whom to trust is decided once in the kernel part's life"
    )]
    Sealed,
    /// The kernel refused a certificate.
    #[error("the kernel does not take the certificate in {path}")]
    Add {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The kernel refused to seal the keyring.
    #[error("cannot seal the keyring {KEYRING_NAME}")]
    Seal {
        /// Why not.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "\
05de8e40 I--Q---     2 perm 3f030000     0 65534 keyring   _uid.0: empty
2f0b1a33 I------     1 perm 1f0b0000     0     0 keyring   .bpf_preverified_x: 1
30b5a36b I------     1 perm 1f0f0000     0     0 keyring   .bpf_preverified: empty
3a11b2c3 I------     1 perm 1f030000     0     0 asymmetri Some signer: 6ccece7e: X509.rsa 2b []
broken
";

    #[test]
    fn the_keyring_is_found_by_its_whole_name() {
        assert_eq!(find(LIST), Some(0x30b5_a36b));
        assert_eq!(
            find("05de8e40 I--Q--- 2 perm 3f030000 0 65534 keyring   _ses: 1"),
            None
        );
        assert_eq!(
            description(LIST, 0x3a11_b2c3).as_deref(),
            Some("Some signer: 6ccece7e: X509.rsa 2b []")
        );
    }

    #[test]
    fn der_and_pem() {
        assert_eq!(certificates(&[0x30, 1, 2]), Some(vec![vec![0x30, 1, 2]]));
        let pem = format!("subject=x\n{BEGIN}\nMAEC\nAw==\n{END}\n{BEGIN}\nMA==\n{END}\n");
        assert_eq!(
            certificates(pem.as_bytes()),
            Some(vec![vec![0x30, 1, 2, 3], vec![0x30]])
        );
        for bytes in [
            "".as_bytes(),
            b"text",
            b"\xff",
            b"-----BEGIN CERTIFICATE-----\nMAEC\n",
            b"-----BEGIN CERTIFICATE-----\nMA?C\n-----END CERTIFICATE-----",
        ] {
            assert_eq!(certificates(bytes), None, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn base64_is_strict() {
        assert_eq!(base64("").as_deref(), Some(&b""[..]));
        assert_eq!(base64("Zm9v\nYmE=").as_deref(), Some(&b"fooba"[..]));
        for text in ["Zg", "Zg=", "Z===", "Zg==Zg==", "Zh==", "Zm9=", "=m9v"] {
            assert_eq!(base64(text), None, "{text}");
        }
    }

    #[test]
    fn an_empty_keyring_is_not_sealed() {
        assert!(matches!(trust(&[]), Err(TrustError::Nobody)));
    }
}
