//! Tasks: what is done once for all jobs that want the same.
//!
//! A task is called by the digest of all that its outcome depends on. So it is the cache, too: whoever wants what
//! has been done already finds it under the same name.

use preverify_pipeline::Limits;
use preverify_protocol::{Inputs, Share};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::traces::Origin;

/// Another version may come to another outcome.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a task is called.
pub type TaskId = Digest;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Work {
    /// Verify an object for one target, and sign what comes out.
    Verify(Box<Verification>),
    /// Make one bundle of those that other tasks made, and sign it: each has a share of an object's programs, for the same
    /// target. Who does it believes no bundle but by its signature: so it can come from verifiers alone.
    Join {
        /// These tasks, in the order of the programs.
        parts: Vec<TaskId>,
    },
    /// The same for bundles that have targets each.
    Merge {
        /// These tasks, in the order of the targets.
        parts: Vec<TaskId>,
    },
}

/// An object for one target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verification {
    /// The object's bytes.
    pub object: Digest,
    /// Its name, which those of its maps begin with.
    pub name: String,
    /// What its own user space would set.
    pub inputs: Inputs,
    /// How far the verification may go.
    pub limits: Limits,
    /// The target: [`preverify_target::Target::identity`].
    pub target: String,
    /// Which of its programs, if not all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Share>,
}

impl Work {
    /// The tasks that must have ended before.
    pub fn parts(&self) -> &[TaskId] {
        match self {
            Self::Verify(_) => &[],
            Self::Join { parts } | Self::Merge { parts } => parts,
        }
    }

    /// What its task is called.
    pub fn id(&self) -> TaskId {
        let text = serde_json::to_vec(&(VERSION, self)).expect("only strings are keys");
        Digest::of(&text)
    }
}

/// A piece of work, and how far it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// What is to be done.
    pub work: Work,
    /// Who wanted it first.
    pub tenant: String,
    /// The span in which they did.
    #[serde(default, skip_serializing_if = "Origin::is_none")]
    pub origin: Origin,
    /// What came out, if it has ended.
    pub outcome: Option<Outcome>,
}

impl Task {
    /// Whether it has ended without a verdict.
    pub fn has_failed(&self) -> bool {
        matches!(&self.outcome, Some(outcome) if !outcome.is_final())
    }
}

/// What came of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Outcome {
    /// A signed bundle.
    Bundle(Accepted),
    /// A verdict, or what a bundle cannot carry: it would be the same again.
    Refused(Refused),
    /// No verdict: it may be otherwise another time.
    Failed {
        /// Why.
        reason: String,
    },
}

/// An object that was accepted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accepted {
    /// The bundle.
    pub bundle: Digest,
    /// Its size in bytes.
    pub bytes: usize,
    /// The programs, if it is for one target.
    pub programs: Vec<Program>,
    /// What is remarkable.
    pub notes: Vec<String>,
}

/// What a target's verifier said of one program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// The name of its function.
    pub function: String,
    /// Instructions that the verifier processed.
    pub total_insns: u32,
    /// States that it kept in all.
    pub total_states: u32,
    /// States that it kept at the peak.
    pub peak_states: u32,
    /// How long it took.
    pub duration_us: u32,
    /// Bytes of machine code, if the bundle has it.
    pub native_bytes: Option<usize>,
    /// Bytes of bytecode, if the bundle has it.
    pub bytecode_bytes: Option<usize>,
}

/// An object that was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refused {
    /// Why, in words.
    pub message: String,
    /// The program that the verifier rejected.
    pub program: Option<String>,
    /// The verifier's whole log.
    pub log: Option<Digest>,
}

impl Outcome {
    /// Whether asking again would be in vain.
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Failed { .. })
    }

    /// What it is, in a word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Bundle(_) => "bundle",
            Self::Refused(_) => "refused",
            Self::Failed { .. } => "failed",
        }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// A verification of an object that has only a name.
    pub fn verification(name: &str, target: &str) -> Work {
        Work::Verify(Box::new(Verification {
            object: Digest::of(name.as_bytes()),
            name: name.into(),
            inputs: Inputs::default(),
            limits: Limits::default(),
            target: target.into(),
            share: None,
        }))
    }

    /// A bundle that has only a name.
    pub fn bundle(name: &str) -> Outcome {
        Outcome::Bundle(Accepted {
            bundle: Digest::of(name.as_bytes()),
            bytes: name.len(),
            programs: Vec::new(),
            notes: Vec::new(),
        })
    }

    /// A refusal for this reason.
    pub fn refused(message: &str) -> Outcome {
        Outcome::Refused(Refused {
            message: message.into(),
            program: None,
            log: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use preverify_protocol::GlobalValue;

    use super::testing::verification;
    use super::*;

    #[test]
    fn whatever_changes_the_outcome_changes_the_name() {
        let work = verification("a", "t");
        assert_eq!(work.id(), verification("a", "t").id());
        let Work::Verify(verification) = &work else {
            unreachable!("it is one");
        };
        let changes: [fn(&mut Verification); 6] = [
            |v| v.object = Digest::of(b"other"),
            |v| v.name = "b".into(),
            |v| {
                v.inputs.globals.insert("n".into(), GlobalValue::Integer(1));
            },
            |v| v.limits.verifier.insns = Some(5),
            |v| v.target = "u".into(),
            |v| v.share = Some(Share { number: 0, of: 2 }),
        ];
        for change in changes {
            let mut other = (**verification).clone();
            change(&mut other);
            assert_ne!(Work::Verify(Box::new(other)).id(), work.id());
        }
    }
}
