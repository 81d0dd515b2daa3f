//! What a boot of a target told, and how to say it to people.

use std::collections::BTreeMap;

use preverify_abi::ioctl::Info;
use preverify_abi::manifest::Fingerprint;
use preverify_abi::words;
use serde::{Deserialize, Serialize};

use crate::files::hex;

/// What a boot of a target told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Facts {
    /// `uname -r`.
    pub release: String,
    /// `uname -v`.
    pub version: String,
    /// `uname -m`.
    pub machine: String,
    /// The kernel's whole command line.
    pub command_line: String,
    /// The kernel's GNU build id.
    #[serde(with = "hexadecimal")]
    pub build_id: Vec<u8>,
    /// What verdicts and code depend on.
    #[serde(with = "fingerprint_bytes")]
    pub fingerprint: Fingerprint,
    /// The name of the symbol that functions return through, if they do.
    pub return_thunk: Option<String>,
    /// The security modules that are active.
    pub security_modules: Vec<String>,
    /// Bytes of the kernel's BTF, if it has one.
    pub btf_size: Option<u64>,
    /// Bytes of the BTF that was given for a kernel without: CO-RE goes by it, and nothing else.
    #[serde(default)]
    pub given_btf_size: Option<u64>,
    /// The options of the kernel's configuration that matter here.
    pub config: BTreeMap<String, String>,
}

impl Facts {
    /// The build id in hexadecimal.
    pub fn build_id_text(&self) -> String {
        hex(&self.build_id)
    }

    /// The first of the facts on which bundles depend that differs: its name, and both values.
    pub(crate) fn difference(&self, other: &Self) -> Option<(&'static str, String, String)> {
        let ours = self.comparable();
        ours.into_iter()
            .zip(other.comparable())
            .find(|(ours, theirs)| ours != theirs)
            .map(|((what, ours), (_, theirs))| (what, ours, theirs))
    }

    fn comparable(&self) -> [(&'static str, String); 3] {
        let words = fingerprint_words(&self.fingerprint, self.return_thunk.as_deref());
        let fingerprint: Vec<String> = words
            .iter()
            .map(|(what, value)| format!("{what} {value}"))
            .collect();
        [
            ("the kernel", self.version.clone()),
            ("the build id", self.build_id_text()),
            ("the fingerprint", fingerprint.join(", ")),
        ]
    }
}

/// The parts of a kernel part's answer that describe the kernel: its build id and the fingerprint.
/// `None` if the answer counts more bytes of a build id than it has.
pub(crate) fn identity(info: &Info) -> Option<(Vec<u8>, Fingerprint)> {
    let size = usize::try_from(info.build_id_size).ok()?;
    Some((info.build_id.get(..size)?.to_vec(), info.fingerprint))
}

/// A fingerprint for people: what, and its value.
pub fn fingerprint_words(
    fingerprint: &Fingerprint,
    return_thunk: Option<&str>,
) -> Vec<(&'static str, String)> {
    words::facts(fingerprint, return_thunk)
        .map(|fact| (fact.name, fact.to_string()))
        .collect()
}

pub(crate) mod hexadecimal {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::files::{from_hex, hex};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        from_hex(&text).ok_or_else(|| D::Error::custom("expected hexadecimal digits"))
    }
}

mod fingerprint_bytes {
    use preverify_abi::manifest::Fingerprint;
    use serde::{Deserializer, Serializer, de::Error};
    use zerocopy::{FromBytes, IntoBytes};

    use super::hexadecimal;

    pub fn serialize<S: Serializer>(
        fingerprint: &Fingerprint,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        hexadecimal::serialize(fingerprint.as_bytes(), serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Fingerprint, D::Error> {
        let bytes = hexadecimal::deserialize(deserializer)?;
        Fingerprint::read_from_bytes(&bytes)
            .map_err(|_| D::Error::custom("expected the bytes of a fingerprint"))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use preverify_abi::manifest::{JIT_X86_BMI2, JIT_X86_RETPOLINE};

    use super::*;

    pub(crate) fn sample() -> Facts {
        Facts {
            release: "6.12.117".into(),
            version: "#1 SMP".into(),
            machine: "x86_64".into(),
            command_line: String::new(),
            build_id: vec![0xab, 0xcd],
            fingerprint: Fingerprint {
                arch: 62.into(),
                page_shift: 12.into(),
                va_bits: 48.into(),
                cpu_limit: 8.into(),
                jit_flags: (JIT_X86_BMI2 | JIT_X86_RETPOLINE | 1 << 40).into(),
                return_thunk: 0x1000.into(),
                ..Fingerprint::default()
            },
            return_thunk: Some("srso_return_thunk".into()),
            security_modules: vec!["bpf".into()],
            btf_size: Some(5_000_000),
            given_btf_size: None,
            config: BTreeMap::new(),
        }
    }

    #[test]
    fn facts_survive_being_written_down() {
        let text = serde_json::to_string(&sample()).unwrap();
        assert!(text.contains("\"build-id\":\"abcd\""), "{text}");
        assert_eq!(serde_json::from_str::<Facts>(&text).unwrap(), sample());
        for wrong in [
            text.replace("\"abcd\"", "\"abc\""),
            text.replace("3e000000", ""),
        ] {
            assert!(serde_json::from_str::<Facts>(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn fingerprints_are_put_into_words() {
        let facts = sample();
        let words: BTreeMap<_, _> =
            fingerprint_words(&facts.fingerprint, facts.return_thunk.as_deref())
                .into_iter()
                .collect();
        assert_eq!(words["JIT"], "BMI2, retpolines, unknown bits 0x10000000000");
        assert_eq!(words["verifier"], "plain");
        assert_eq!(words["returns"], "through srso_return_thunk");
    }

    #[test]
    fn what_bundles_depend_on_is_compared() {
        let mut other = sample();
        other.command_line = "something else".into();
        assert_eq!(sample().difference(&other), None);
        other.fingerprint.va_bits = 57.into();
        let (what, ours, theirs) = sample().difference(&other).unwrap();
        assert_eq!(what, "the fingerprint");
        assert!(ours.contains("address bits 48") && theirs.contains("address bits 57"));
    }

    #[test]
    fn a_build_id_that_is_too_long_is_none() {
        let info = |build_id_size| Info {
            abi_version: 1,
            build_id_size,
            build_id: [7; 32],
            fingerprint: Fingerprint::default(),
        };
        assert_eq!(identity(&info(20)).unwrap().0, [7; 20]);
        assert_eq!(identity(&info(33)), None);
    }
}
