//! What requests and answers look like. Records may change with the next version; these do not.

use std::collections::BTreeSet;

use preverify_report::Code;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::audit::{Action, Entry};
use crate::digest::Digest;
use crate::directory::Heard;
use crate::job::{Ended, Job};
use crate::news::Progress;
use crate::targets::{Known, Unready};
use crate::task::{Outcome, Program};
use crate::tenants::Quota;
use crate::tokens::{Scope, Token};

/// A job.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct JobView {
    /// What it is called.
    pub id: String,
    /// The object's name.
    pub name: String,
    /// The object.
    pub object_sha256: String,
    /// When it was submitted.
    pub submitted: String,
    /// When it ended.
    pub ended: Option<String>,
    /// How far it is.
    pub state: JobState,
    /// The bundle, once there is one.
    pub bundle: Option<BundleView>,
    /// Why there is none, if it failed.
    pub reason: Option<String>,
    /// What each target says, in the order that they were asked for.
    pub targets: Vec<VerdictView>,
}

/// The code of a program for one target.
#[derive(Debug, Serialize, ToSchema)]
pub struct CodeView {
    /// The name of the program's function.
    pub program: String,
    /// The target's `uname -r`.
    pub release: String,
    /// What the code is: machine code or bytecode.
    pub kind: String,
    /// Its instructions, all functions one behind the other.
    pub lines: Vec<LineView>,
}

/// An instruction.
#[derive(Debug, Serialize, ToSchema)]
pub struct LineView {
    /// The function, counted from zero, which is the program's entry.
    pub function: usize,
    /// Bytes from the function's start.
    pub offset: usize,
    /// Its bytes, in hexadecimal; those of addresses are zero.
    pub bytes: String,
    /// As people read it.
    pub text: String,
    /// Whose address is written into it when the program is loaded.
    pub address: Option<String>,
    /// What the bytes do not say.
    pub notes: Vec<String>,
}

impl CodeView {
    /// What is told of code.
    pub fn of(code: &Code<'_>) -> Self {
        let lines = code.lines.iter();
        Self {
            program: code.program.function.clone(),
            release: code.target.release.clone(),
            kind: code.kind.to_string(),
            lines: lines
                .map(|line| LineView {
                    function: line.function,
                    offset: line.offset,
                    bytes: hex::encode(&line.bytes),
                    text: line.text.clone(),
                    address: line.relocation.as_ref().map(|found| found.name.clone()),
                    notes: code.notes(line),
                })
                .collect(),
        }
    }
}

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum JobState {
    /// Not all targets have a verdict.
    Running,
    /// There is a bundle.
    Accepted,
    /// A target does not take the object.
    Refused,
    /// It ended without a verdict.
    Failed,
}

/// A bundle.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct BundleView {
    /// The SHA-256 of the file.
    pub sha256: String,
    /// Its size.
    pub bytes: usize,
}

/// What a target says of an object.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct VerdictView {
    /// The target.
    pub target: String,
    /// How far it is.
    pub state: VerdictState,
    /// What is being done: `restore`, `verify`, `discover`, `prove`, `merge`, `sign`.
    pub step: Option<String>,
    /// Instructions that the kernel's verifier has processed by now, if it counts them.
    pub processed_insns: Option<u64>,
    /// What the verifier says of each program, if it accepts the object.
    pub programs: Vec<ProgramView>,
    /// What is remarkable.
    pub notes: Vec<String>,
    /// Why not, if it does not: the verifier's words, the instruction, its source line.
    pub message: Option<String>,
    /// The program that was rejected.
    pub program: Option<String>,
    /// Whether there is a log, at `/v1/jobs/{id}/targets/{target}/log`.
    pub has_log: bool,
}

/// How far a target is with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum VerdictState {
    /// It waits for a worker.
    Queued,
    /// A worker is at it.
    Running,
    /// The object is accepted.
    Accepted,
    /// It is not.
    Refused,
    /// There is no verdict.
    Failed,
}

/// What a verifier says of one program.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ProgramView {
    /// The name of its function.
    pub program: String,
    /// Instructions that the verifier processed.
    pub total_insns: u32,
    /// States that it kept in all.
    pub total_states: u32,
    /// States that it kept at the peak.
    pub peak_states: u32,
    /// How long that took, in microseconds.
    pub duration_us: u32,
    /// Bytes of machine code, if the bundle has it.
    pub native_bytes: Option<usize>,
    /// Bytes of bytecode, if the bundle has it.
    pub bytecode_bytes: Option<usize>,
}

/// An object that is kept.
#[derive(Debug, Serialize, ToSchema)]
pub struct ObjectView {
    /// Its SHA-256.
    pub sha256: String,
    /// Its size.
    pub bytes: usize,
}

/// A kernel that verifies.
#[derive(Debug, Serialize, ToSchema)]
pub struct TargetView {
    /// What it is called.
    pub name: String,
    /// Whether it can be verified for.
    pub state: TargetState,
    /// What is being done, while it is prepared.
    pub step: Option<String>,
    /// Why it could not be prepared, if it failed.
    pub reason: Option<String>,
    /// Once it is ready: the SHA-256 of all that verdicts and images depend on.
    pub identity: Option<String>,
    /// Once it is ready: `uname -r` of the kernel that verifies.
    pub release: Option<String>,
    /// Once it is ready: what processors it is for.
    pub architecture: Option<String>,
    /// Once it is ready: the GNU build id of the kernel that devices run.
    pub build_id: Option<String>,
}

/// Whether a target can be verified for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TargetState {
    /// Not yet.
    Preparing,
    /// It can.
    Ready,
    /// It cannot.
    Failed,
}

/// A target to add.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TargetRequest {
    /// A kernel of Debian's: `debian:SERIES-FLAVOUR`, for the newest of a series, or `debian:RELEASE`.
    pub source: String,
    /// What to call it; if this is left out, its source without `debian:`.
    pub name: Option<String>,
    /// The CPU that devices have, by QEMU's name.
    pub cpu: Option<String>,
    /// arm64: whether devices start the kernel at exception level 2.
    pub el2: Option<bool>,
    /// What devices have on the kernel's command line, as far as verification depends on it.
    pub command_line: Option<String>,
    /// The most CPUs that a device may have.
    pub max_cpus: Option<u32>,
    /// What `preverify-load fingerprint --json` printed on the board that the target is for: the machine is made like that
    /// board, and compared with it.
    #[schema(value_type = Option<Object>)]
    pub fingerprint: Option<serde_json::Value>,
}

/// A process that verifies.
#[derive(Debug, Serialize, ToSchema)]
pub struct WorkerView {
    /// What it calls itself.
    pub name: String,
    /// Tasks at the same time: verifications, and mergings of bundles.
    pub slots: usize,
    /// Tasks at this time.
    pub busy: usize,
    /// The names of the targets that it holds.
    pub targets: Vec<String>,
    /// When it was last heard of. It says something every 2 s, and counts for 10 s.
    pub heard: String,
}

/// What waits for workers, or has one.
#[derive(Debug, Serialize, ToSchema)]
pub struct QueueView {
    /// Tasks at the same time, of all workers.
    pub slots: usize,
    /// Tasks at this time.
    pub busy: usize,
    /// Tasks that wait for a worker or have one, by target.
    pub targets: Vec<QueuedView>,
}

/// Tasks that wait for a worker or have one.
#[derive(Debug, Serialize, ToSchema)]
pub struct QueuedView {
    /// The name of their target; none for those that merge bundles, and for targets that nobody holds.
    pub target: Option<String>,
    /// The identity of the target; none for those that merge bundles.
    pub identity: Option<String>,
    /// How many, of all tenants.
    pub tasks: usize,
    /// How many of them the tenant who asks was the first to ask for.
    pub own: usize,
}

/// Who asks.
#[derive(Debug, Serialize, ToSchema)]
pub struct CallerView {
    /// The name of the token that is shown.
    pub name: String,
    /// Whose it is.
    pub tenant: String,
    /// What it is good for.
    pub scopes: BTreeSet<Scope>,
}

/// A token to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// What it is for, for people.
    pub name: String,
    /// Whose it is: 1 to 40 of a-z, 0-9, `-` and `_`.
    pub tenant: String,
    /// What it is good for.
    pub scopes: BTreeSet<Scope>,
    /// How long; for ever, if this is left out.
    pub seconds: Option<u32>,
}

/// A token that was just made.
#[derive(Debug, Serialize, ToSchema)]
pub struct IssuedToken {
    /// The secret. The service does not know it any longer.
    pub token: String,
    /// What is known of it.
    pub about: TokenView,
}

/// A token, without what is secret about it.
#[derive(Debug, Serialize, ToSchema)]
pub struct TokenView {
    /// Its SHA-256.
    pub id: String,
    /// What it is for.
    pub name: String,
    /// Whose it is.
    pub tenant: String,
    /// What it is good for.
    pub scopes: BTreeSet<Scope>,
    /// When it was made.
    pub created: String,
    /// When it ends.
    pub expires: Option<String>,
}

/// A tenant.
#[derive(Debug, Serialize, ToSchema)]
pub struct TenantView {
    /// What it is called.
    pub name: String,
    /// What it may ask for.
    pub quota: Quota,
    /// Seconds of verification today (UTC).
    pub seconds_today: u64,
    /// Jobs that have not ended.
    pub open_jobs: usize,
}

/// An entry of the audit log.
#[derive(Debug, Serialize, ToSchema)]
pub struct EntryView {
    /// Counts from zero.
    pub number: u64,
    /// When.
    pub at: String,
    /// Whose it was.
    pub tenant: String,
    /// The name of their token.
    pub token: String,
    /// What was done.
    pub action: Action,
    /// With what: a job, a token, a bundle, a target.
    pub subject: String,
    /// The hash of the entry before.
    pub previous: String,
    /// The hash of this one.
    pub hash: String,
}

impl JobView {
    /// A job whose targets say so.
    pub fn of(job: &Job, targets: Vec<VerdictView>) -> Self {
        let how = job.end.as_ref().map(|end| &end.how);
        Self {
            id: job.id.to_string(),
            name: job.name.clone(),
            object_sha256: job.object.to_string(),
            submitted: job.submitted.to_string(),
            ended: job.end.as_ref().map(|end| end.at.to_string()),
            state: match how {
                None => JobState::Running,
                Some(Ended::Bundle { .. }) => JobState::Accepted,
                Some(Ended::Refused) => JobState::Refused,
                Some(Ended::Failed { .. }) => JobState::Failed,
            },
            bundle: match how {
                Some(Ended::Bundle { digest, bytes }) => Some(BundleView {
                    sha256: digest.to_string(),
                    bytes: *bytes,
                }),
                _ => None,
            },
            reason: match how {
                Some(Ended::Failed { reason }) => Some(reason.clone()),
                _ => None,
            },
            targets,
        }
    }
}

impl VerdictView {
    /// A target that is so far.
    pub fn of(target: &str, outcome: Option<Outcome>, progress: Option<Progress>) -> Self {
        let mut view = Self {
            target: target.to_owned(),
            state: match (&outcome, progress) {
                (Some(Outcome::Bundle(_)), _) => VerdictState::Accepted,
                (Some(Outcome::Refused(_)), _) => VerdictState::Refused,
                (Some(Outcome::Failed { .. }), _) => VerdictState::Failed,
                (None, Some(_)) => VerdictState::Running,
                (None, None) => VerdictState::Queued,
            },
            step: None,
            processed_insns: None,
            programs: Vec::new(),
            notes: Vec::new(),
            message: None,
            program: None,
            has_log: false,
        };
        match outcome {
            None => {
                view.step = progress.map(|progress| progress.step.to_string());
                view.processed_insns = progress.and_then(|progress| progress.processed);
            }
            Some(Outcome::Bundle(accepted)) => {
                view.programs = accepted.programs.iter().map(ProgramView::of).collect();
                view.notes = accepted.notes;
            }
            Some(Outcome::Refused(refused)) => {
                view.message = Some(refused.message);
                view.program = refused.program;
                view.has_log = refused.log.is_some();
            }
            Some(Outcome::Failed { reason }) => view.message = Some(reason),
        }
        view
    }
}

impl ProgramView {
    fn of(program: &Program) -> Self {
        Self {
            program: program.function.clone(),
            total_insns: program.total_insns,
            total_states: program.total_states,
            peak_states: program.peak_states,
            duration_us: program.duration_us,
            native_bytes: program.native_bytes,
            bytecode_bytes: program.bytecode_bytes,
        }
    }
}

impl From<Known> for TargetView {
    fn from(known: Known) -> Self {
        Self {
            name: known.name,
            state: TargetState::Ready,
            step: None,
            reason: None,
            identity: Some(known.identity),
            release: Some(known.release),
            architecture: Some(known.architecture),
            build_id: Some(known.build_id),
        }
    }
}

impl TargetView {
    /// One that is not ready.
    pub fn unready(name: String, why: Unready) -> Self {
        let (state, step, reason) = match why {
            Unready::Preparing(step) => (TargetState::Preparing, Some(step), None),
            Unready::Failed(reason) => (TargetState::Failed, None, Some(reason)),
        };
        Self {
            name,
            state,
            step,
            reason,
            identity: None,
            release: None,
            architecture: None,
            build_id: None,
        }
    }
}

impl From<Heard> for WorkerView {
    fn from(heard: Heard) -> Self {
        let said = heard.announcement;
        let targets = said.targets.into_iter();
        Self {
            name: said.worker,
            slots: said.slots,
            busy: said.busy,
            targets: targets.map(|known| known.name).collect(),
            heard: heard.at.to_string(),
        }
    }
}

impl TokenView {
    /// A token under its digest.
    pub fn of(id: Digest, token: &Token) -> Self {
        Self {
            id: id.to_string(),
            name: token.name.clone(),
            tenant: token.tenant.clone(),
            scopes: token.scopes.clone(),
            created: token.created.to_string(),
            expires: token.expires.map(|expires| expires.to_string()),
        }
    }
}

impl EntryView {
    /// An entry.
    pub fn of(entry: Entry) -> Self {
        Self {
            number: entry.number,
            at: entry.deed.at.to_string(),
            tenant: entry.deed.tenant,
            token: entry.deed.token,
            action: entry.deed.action,
            subject: entry.deed.subject,
            previous: entry.previous.to_string(),
            hash: entry.hash.to_string(),
        }
    }
}
