//! How far a verification may go: `insns=64M,jumps=1M,memory=8G,time=30min`.

use std::str::FromStr;
use std::time::Duration;

use preverify_protocol::{Rejection, Stage, WantedLimits};
use preverify_target::Target;
use serde::{Deserialize, Serialize};

/// How far a verification may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// What the verifier shall do at most, where that is not left to its kernel.
    pub verifier: WantedLimits,
    /// Memory of each machine that verifies, if the target's own is not enough.
    pub memory_mib: Option<u32>,
    /// How long one verification may take.
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            verifier: WantedLimits::default(),
            memory_mib: None,
            time: Duration::from_secs(600),
        }
    }
}

impl Limits {
    /// What the memory of a target's machines must be, if theirs is not enough.
    pub fn more_memory(&self, target: &Target) -> Option<u32> {
        self.memory_mib
            .filter(|&wanted| wanted > target.hardware().memory_mib)
    }

    /// No other than this.
    pub fn of_time(time: Duration) -> Self {
        Self {
            time,
            ..Self::default()
        }
    }
}

/// The limit that a verifier has run into, if that is why it rejects a program.
pub(crate) fn reached(rejection: &Rejection) -> Option<&'static str> {
    /// Of programs that are longer than any may be.
    const E2BIG: i32 = 7;
    let log = &rejection.verifier_log;
    if log.contains("jumps is too complex") {
        Some("jumps")
    } else if log.contains("BPF program is too large. Processed ")
        || (rejection.stage == Stage::Verify && rejection.errno.abs() == E2BIG && log.is_empty())
    {
        Some("insns")
    } else {
        None
    }
}

/// What people write is no limit.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LimitsError {
    /// There is no such limit.
    #[error(
        "there is no limit {found:?}: write `NAME=VALUE`, as in `insns=64M,time=30min`; the names are {NAMES}"
    )]
    Unknown {
        /// As written.
        found: String,
    },
    /// A limit is given twice.
    #[error("{name} is given twice: give it once")]
    Twice {
        /// Its name.
        name: &'static str,
    },
    /// The value is none.
    #[error("{name}={found}: expected {expected}")]
    Value {
        /// The limit.
        name: &'static str,
        /// As written.
        found: String,
        /// What it may be.
        expected: &'static str,
    },
}

const NAMES: &str = "insns, jumps, memory and time";

const COUNT: &str = "a number from 1 to 4294967295, where k is a thousand, M a million and G a thousand millions, \
                     as in 64M";
const MEMORY: &str = "a size from 64M to 1024G, as in 8G";
const TIME: &str = "a time from 1s to 24h, as in 90s, 30min or 2h";

impl FromStr for Limits {
    type Err = LimitsError;

    fn from_str(text: &str) -> Result<Self, LimitsError> {
        let (mut insns, mut jumps, mut memory, mut time) = (None, None, None, None);
        for part in text.split(',') {
            let unknown = || LimitsError::Unknown {
                found: part.to_owned(),
            };
            let (name, value) = part.split_once('=').ok_or_else(unknown)?;
            match name {
                "insns" => set(&mut insns, "insns", value, count, COUNT)?,
                "jumps" => set(&mut jumps, "jumps", value, count, COUNT)?,
                "memory" => set(&mut memory, "memory", value, mebibytes, MEMORY)?,
                "time" => set(&mut time, "time", value, duration, TIME)?,
                _ => return Err(unknown()),
            }
        }
        Ok(Self {
            verifier: WantedLimits { insns, jumps },
            memory_mib: memory,
            time: time.unwrap_or(Self::default().time),
        })
    }
}

fn set<T>(
    limit: &mut Option<T>,
    name: &'static str,
    value: &str,
    parse: impl Fn(&str) -> Option<T>,
    expected: &'static str,
) -> Result<(), LimitsError> {
    let parsed = parse(value).ok_or_else(|| LimitsError::Value {
        name,
        found: value.to_owned(),
        expected,
    })?;
    match limit.replace(parsed) {
        Some(_) => Err(LimitsError::Twice { name }),
        None => Ok(()),
    }
}

fn count(text: &str) -> Option<u32> {
    let (number, unit) = number_and_unit(text)?;
    let factor = match unit {
        "" => 1,
        "k" | "K" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        _ => return None,
    };
    number.checked_mul(factor).filter(|&count| count > 0)
}

fn mebibytes(text: &str) -> Option<u32> {
    let (number, unit) = number_and_unit(text)?;
    let factor = match unit {
        "M" => 1,
        "G" => 1024,
        _ => return None,
    };
    let mib = number.checked_mul(factor)?;
    (64..=1024 * 1024).contains(&mib).then_some(mib)
}

fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = number_and_unit(text)?;
    let factor = match unit {
        "s" => 1,
        "min" => 60,
        "h" => 3600,
        _ => return None,
    };
    let seconds = number.checked_mul(factor)?;
    (1..=24 * 3600)
        .contains(&seconds)
        .then(|| Duration::from_secs(seconds.into()))
}

fn number_and_unit(text: &str) -> Option<(u32, &str)> {
    let digits = text
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_limits_are_read() {
        assert_eq!(
            "insns=64M,jumps=1M,memory=8G,time=30min".parse(),
            Ok(Limits {
                verifier: WantedLimits {
                    insns: Some(64_000_000),
                    jumps: Some(1_000_000),
                },
                memory_mib: Some(8192),
                time: Duration::from_secs(1800),
            })
        );
        let limits: Limits = "jumps=9000".parse().unwrap();
        assert_eq!(limits.verifier.jumps, Some(9000));
        assert_eq!(limits.verifier.insns, None);
        assert_eq!(limits.memory_mib, None);
        assert_eq!(limits.time, Limits::default().time);
    }

    #[test]
    fn limits_that_are_reached_are_known() {
        let rejection = |errno, verifier_log: &str| Rejection {
            stage: Stage::Verify,
            program: Some("f".into()),
            errno,
            verifier_log: verifier_log.into(),
            libbpf_log: String::new(),
        };
        let large = rejection(-7, "BPF program is too large. Processed 1000001 insn\n");
        assert_eq!(reached(&large), Some("insns"));
        let jumps = rejection(-14, "The sequence of 8193 jumps is too complex.\n");
        assert_eq!(reached(&jumps), Some("jumps"));
        assert_eq!(reached(&rejection(-7, "")), Some("insns"));
        assert_eq!(reached(&rejection(-13, "R1 invalid mem access\n")), None);
        assert_eq!(reached(&rejection(-13, "")), None);
    }

    #[test]
    fn what_is_no_limit_is_named() {
        for (text, parts) in [
            ("", ["there is no limit \"\"", "insns=64M"]),
            ("insns", ["no limit \"insns\"", "NAME=VALUE"]),
            ("insn=5", ["no limit \"insn=5\"", NAMES]),
            ("insns=1M,", ["no limit \"\"", NAMES]),
            ("insns=1M,insns=2M", ["insns is given twice", "once"]),
            ("insns=many", ["insns=many", "a number from 1"]),
            ("insns=0", ["insns=0", "a number from 1"]),
            ("insns=5G", ["insns=5G", "4294967295"]),
            ("jumps=-1", ["jumps=-1", "as in 64M"]),
            ("jumps=1m", ["jumps=1m", "M a million"]),
            ("memory=8", ["memory=8", "as in 8G"]),
            ("memory=1M", ["memory=1M", "from 64M"]),
            ("memory=4194304G", ["memory=4194304G", "to 1024G"]),
            ("time=30", ["time=30", "30min"]),
            ("time=0s", ["time=0s", "from 1s"]),
            ("time=25h", ["time=25h", "to 24h"]),
        ] {
            let error = text.parse::<Limits>().unwrap_err().to_string();
            for part in parts {
                assert!(error.contains(part), "{text}: {error}");
            }
        }
    }
}
