//! Jobs: what a tenant has submitted, and what came of it.

use std::fmt;
use std::iter;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::random;
use crate::task::TaskId;

/// What a job is called: 28 hexadecimal digits, of which the first 12 are the milliseconds of its submission. So younger
/// ones are greater.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct JobId(String);

/// A text that names no job.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{found}` is no job: expected {JOB_ID_DIGITS} hexadecimal digits")]
pub struct JobIdError {
    found: String,
}

const JOB_ID_DIGITS: usize = 28;

impl JobId {
    /// A new one.
    pub fn new(now: Timestamp) -> Self {
        let random = u64::from_le_bytes(random::bytes());
        let milliseconds = now.as_millisecond();
        Self(format!("{milliseconds:012x}{random:016x}"))
    }

    /// How long ago it was submitted.
    pub fn age(&self) -> SignedDuration {
        let milliseconds = i64::from_str_radix(&self.0[..12], 16);
        let submitted = milliseconds.map(Timestamp::from_millisecond);
        match submitted {
            Ok(Ok(submitted)) => Timestamp::now().duration_since(submitted),
            // Only a name that nobody has given says such a time.
            _ => SignedDuration::MAX,
        }
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for JobId {
    type Err = JobIdError;

    fn from_str(text: &str) -> Result<Self, JobIdError> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        match text.len() == JOB_ID_DIGITS && text.bytes().all(is_digit) {
            true => Ok(Self(text.into())),
            false => Err(JobIdError {
                found: text.chars().take(80).collect(),
            }),
        }
    }
}

impl TryFrom<String> for JobId {
    type Error = JobIdError;

    fn try_from(text: String) -> Result<Self, JobIdError> {
        text.parse()
    }
}

impl From<JobId> for String {
    fn from(id: JobId) -> Self {
        id.0
    }
}

/// An object that was submitted for some targets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// What it is called.
    pub id: JobId,
    /// Whose it is.
    pub tenant: String,
    /// When it was submitted.
    pub submitted: Timestamp,
    /// The object's name.
    pub name: String,
    /// The object's bytes.
    pub object: Digest,
    /// The targets, in the order of the bundle.
    pub targets: Vec<JobTarget>,
    /// The task whose outcome is the job's.
    pub last: TaskId,
    /// What came of it, if it has ended.
    pub end: Option<JobEnd>,
}

/// A target of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobTarget {
    /// Its name.
    pub name: String,
    /// The task whose outcome is the target's.
    pub task: TaskId,
    /// The tasks that verify a share of the programs each, if there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<TaskId>,
}

/// How a job has ended, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobEnd {
    /// When.
    pub at: Timestamp,
    /// How.
    pub how: Ended,
}

/// How a job has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Ended {
    /// With a bundle for all targets.
    Bundle {
        /// It.
        digest: Digest,
        /// Its size.
        bytes: usize,
    },
    /// One target at least does not take the object.
    Refused,
    /// Without a verdict.
    Failed {
        /// Why.
        reason: String,
    },
}

impl JobTarget {
    /// The tasks that are under way, or are to be.
    pub fn tasks(&self) -> impl Iterator<Item = TaskId> {
        iter::once(self.task).chain(self.parts.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn younger_jobs_are_greater() {
        let at = |milliseconds| JobId::new(Timestamp::from_millisecond(milliseconds).unwrap());
        let (first, second) = (at(1_700_000_000_000), at(1_700_000_000_001));
        assert!(first < second);
        assert_ne!(at(5), at(5));
        assert_eq!(first.to_string().parse(), Ok(first));
    }

    #[test]
    fn what_names_no_job_is_refused() {
        let long = "0".repeat(29);
        for text in [
            "",
            "x",
            "../../../etc",
            &long,
            "0123456789ABCDEF0123456789AB",
        ] {
            assert!(text.parse::<JobId>().is_err(), "{text}");
        }
    }
}
