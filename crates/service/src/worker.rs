//! Takes tasks from the queue, one after the other, and does them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use preverify_bundle::{Bundle, Signer};
use tokio::sync::watch;
use tokio::task::JoinError;
use tracing::field::Empty;
use tracing::{Instrument, Span, error, info, info_span, instrument, warn};

use crate::blobs::{BlobError, Blobs};
use crate::digest::Digest;
use crate::directory::Busy;
use crate::merge::{self, MergeError};
use crate::metrics::Metrics;
use crate::news::{Event, News, Progress, Step};
use crate::pool::Pool;
use crate::queue::{Claim, Queue, Ticket};
use crate::records::RecordError;
use crate::scheduler::Scheduler;
use crate::targets::{AllHeld, Targets};
use crate::task::{Accepted, Outcome, Program, Refused, TaskId, Verification, Work};
use crate::tenants::Tenants;
use crate::text::shortened;
use crate::traces::go_on;
use crate::verify::{Verdict, verify};

/// How often a task is tried that fails without a verdict.
const MOST_ATTEMPTS: u32 = 3;
/// How many workers may be lost with a task until it is the task that counts as broken.
const MOST_LOST: u32 = 3;
/// How long a worker waits before it goes on if what it needs is not there.
const PAUSE: Duration = Duration::from_secs(1);
/// The most of a verifier's log that is kept: its end, where the objection is.
const LOG_LIMIT: usize = 16 << 20;
/// The most of a message that is kept: it is in every answer about its job.
const MESSAGE_LIMIT: usize = 16 << 10;
/// The largest outcome that is kept: records must fit into one message of a NATS server, and lists of jobs into memory.
const OUTCOME_LIMIT: usize = 512 << 10;

/// What a worker needs.
#[derive(Clone)]
pub struct Worker {
    /// Knows what is to be done.
    pub scheduler: Scheduler,
    /// Where that waits.
    pub queue: Queue,
    /// Objects, logs and bundles.
    pub blobs: Blobs,
    /// What it can verify for.
    pub targets: Targets,
    /// Who pays for the time.
    pub tenants: Tenants,
    /// Verifiers that wait.
    pub pool: Pool,
    /// Who signs.
    pub signer: Arc<Signer>,
    /// Where it tells how far it is.
    pub news: News,
    /// Where it counts what it did.
    pub metrics: Metrics,
    /// Where it says that it has something to do.
    pub busy: Busy,
}

/// What keeps a worker from its work, which is no fault of the task.
#[derive(Debug, thiserror::Error)]
enum WorkError {
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Blob(#[from] BlobError),
    #[error("the verification panicked: {0}")]
    Panic(#[from] JoinError),
    #[error(transparent)]
    Merge(#[from] MergeError),
    #[error("the {what} {digest} is not there")]
    Missing { what: &'static str, digest: Digest },
}

impl WorkError {
    /// Whether it ends with what keeps the service's processes apart.
    fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Record(RecordError::Nats(_)) | Self::Blob(BlobError::Nats(_))
        )
    }
}

impl Worker {
    /// Works until it is told to stop; what it has begun it ends.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut changes = self.targets.changes();
        loop {
            // What was held when a task was taken is there until it has ended.
            let held = changes.borrow_and_update().clone();
            let identities: Vec<_> = held.values().map(|held| held.identity.clone()).collect();
            let claim = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                // What another server had just sent is sent again.
                _ = changes.changed() => continue,
                claim = self.queue.take(&identities) => claim,
            };
            let task = claim.ticket.task;
            let span = info_span!(
                "task",
                otel.kind = "consumer",
                %task,
                tenant = claim.ticket.tenant,
                outcome = Empty,
                trace_id = Empty,
            );
            go_on(&span, &claim.ticket.origin);
            let _busy = self.busy.begin();
            self.work(&claim, &held).instrument(span).await;
            // If it is delivered again, it is seen to have ended.
            if let Err(error) = claim.done().await {
                warn!(%task, %error, "the queue does not hear that a task has ended");
            }
        }
    }

    async fn work(&self, claim: &Claim, held: &AllHeld) {
        let (task, begun) = (claim.ticket.task, Instant::now());
        info!("task begun");
        let outcome = match claim.lost >= MOST_LOST {
            true => Some(Outcome::Failed {
                reason: format!("{} workers were lost while they worked on it", claim.lost),
            }),
            false => self.outcome(&claim.ticket, held).await,
        };
        // If there is none, somebody else has ended it.
        let Some(outcome) = outcome.map(bounded) else {
            return;
        };
        while let Err(error) = self.scheduler.end(task, outcome.clone()).await {
            error!(%error, "the outcome cannot be written");
            tokio::time::sleep(PAUSE).await;
        }
        self.metrics.ended(&outcome, begun.elapsed());
        Span::current().record("outcome", outcome.word());
        info!("task ended");
    }

    /// What comes of a task, if it has not ended already.
    async fn outcome(&self, ticket: &Ticket, held: &AllHeld) -> Option<Outcome> {
        let task = ticket.task;
        let mut attempt = 1;
        loop {
            let start = Instant::now();
            let attempt_outcome = self.attempt(task, held).await;
            if let Err(error) = self.tenants.spent(&ticket.tenant, start.elapsed()).await {
                error!(%error, "the time of a verification is not counted");
            }
            let reason = match attempt_outcome {
                Ok(Some(Attempt::Done(outcome))) => return Some(outcome),
                Ok(None) => return None,
                Ok(Some(Attempt::Again(reason))) => reason,
                Err(error) if error.is_passing() => {
                    // Somebody else may have the task by then, and may have ended it.
                    warn!(%error, "waiting for the server");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                Err(error) => error.to_string(),
            };
            warn!(attempt, reason, "no verdict");
            if attempt == MOST_ATTEMPTS {
                return Some(Outcome::Failed { reason });
            }
            attempt += 1;
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn attempt(&self, id: TaskId, held: &AllHeld) -> Result<Option<Attempt>, WorkError> {
        let task = self.scheduler.task(id).await?;
        let Some(task) = task.filter(|task| task.outcome.is_none()) else {
            return Ok(None);
        };
        Ok(Some(match task.work {
            Work::Verify(verification) => self.verify(id, *verification, held).await?,
            Work::Join { parts } => {
                let (bundle, parts) = self.unite(id, &parts, merge::join).await?;
                let programs = parts.iter().flat_map(|part| part.programs.clone());
                let notes = parts.iter().flat_map(|part| part.notes.clone());
                Attempt::Done(
                    self.keep(&bundle, programs.collect(), notes.collect())
                        .await?,
                )
            }
            Work::Merge { parts } => {
                let (bundle, _) = self.unite(id, &parts, merge::merge).await?;
                Attempt::Done(self.keep(&bundle, Vec::new(), Vec::new()).await?)
            }
        }))
    }

    async fn verify(
        &self,
        id: TaskId,
        verification: Verification,
        held: &AllHeld,
    ) -> Result<Attempt, WorkError> {
        // If there are several, they are the same but for their names.
        let mut found = held.values();
        let found = found.find(|held| held.identity == verification.target);
        let Some(held) = found.cloned() else {
            let reason = format!("no target here has the identity {}", verification.target);
            return Ok(Attempt::Done(Outcome::Failed { reason }));
        };
        let object = self.blob("object", verification.object).await?;
        let span = info_span!(
            "verification",
            object = verification.name,
            target = held.target.name(),
        );
        let (pool, signer, news) = (self.pool.clone(), self.signer.clone(), self.news.clone());
        let verdict = tokio::task::spawn_blocking(move || {
            let mut tell = |progress| news.tell(Event::Progress(id, progress));
            span.in_scope(|| verify(&verification, object, &held, &pool, &signer, &mut tell))
        });
        Ok(match verdict.await? {
            Verdict::Accepted {
                bundle,
                programs,
                notes,
            } => Attempt::Done(self.keep(&bundle, programs, notes).await?),
            Verdict::Refused {
                message,
                program,
                log,
            } => Attempt::Done(Outcome::Refused(Refused {
                message,
                program,
                log: match log {
                    Some(log) => Some(self.blobs.put(end_of(log)).await?),
                    None => None,
                },
            })),
            Verdict::None {
                reason,
                again: true,
            } => Attempt::Again(reason),
            Verdict::None { reason, .. } => Attempt::Done(Outcome::Failed { reason }),
        })
    }

    /// One bundle of those that other tasks made, and what came of these.
    #[instrument(name = "merge", skip_all, fields(parts = parts.len()))]
    async fn unite(
        &self,
        id: TaskId,
        parts: &[TaskId],
        unite: fn(&[Vec<u8>], &Signer) -> Result<Bundle, MergeError>,
    ) -> Result<(Bundle, Vec<Accepted>), WorkError> {
        self.news.tell(Event::Progress(
            id,
            Progress {
                step: Step::Merge,
                processed: None,
            },
        ));
        let mut bundles = Vec::with_capacity(parts.len());
        let mut outcomes = Vec::with_capacity(parts.len());
        for part in parts {
            let outcome = self
                .scheduler
                .task(*part)
                .await?
                .and_then(|task| task.outcome);
            let Some(Outcome::Bundle(accepted)) = outcome else {
                return Err(WorkError::Missing {
                    what: "bundle of task",
                    digest: *part,
                });
            };
            bundles.push(self.blob("bundle", accepted.bundle).await?);
            outcomes.push(accepted);
        }
        let signer = self.signer.clone();
        let bundle = tokio::task::spawn_blocking(move || unite(&bundles, &signer)).await??;
        Ok((bundle, outcomes))
    }

    async fn keep(
        &self,
        bundle: &Bundle,
        programs: Vec<Program>,
        notes: Vec<String>,
    ) -> Result<Outcome, WorkError> {
        let bytes = bundle.to_bytes();
        Ok(Outcome::Bundle(Accepted {
            bytes: bytes.len(),
            bundle: self.blobs.put(bytes).await?,
            programs,
            notes,
        }))
    }

    async fn blob(&self, what: &'static str, digest: Digest) -> Result<Vec<u8>, WorkError> {
        let found = self.blobs.get(digest).await?;
        found.ok_or(WorkError::Missing { what, digest })
    }
}

enum Attempt {
    Done(Outcome),
    /// There is no verdict, for this reason.
    Again(String),
}

/// What can be kept of an outcome: an object says how much there is to tell of it.
fn bounded(outcome: Outcome) -> Outcome {
    let outcome = match outcome {
        Outcome::Refused(refused) => Outcome::Refused(Refused {
            message: shortened(refused.message, MESSAGE_LIMIT),
            program: refused
                .program
                .map(|program| shortened(program, MESSAGE_LIMIT)),
            ..refused
        }),
        Outcome::Failed { reason } => Outcome::Failed {
            reason: shortened(reason, MESSAGE_LIMIT),
        },
        bundle => bundle,
    };
    let bytes = serde_json::to_vec(&outcome).map_or(0, |json| json.len());
    if bytes <= OUTCOME_LIMIT {
        return outcome;
    }
    Outcome::Refused(Refused {
        message: format!(
            "it is accepted, but what there is to tell of its programs has {bytes} bytes, and {OUTCOME_LIMIT} can be kept: \
             leave programs out, or give them shorter names"
        ),
        program: None,
        log: None,
    })
}

/// The end of a log, if it is longer than what is kept.
fn end_of(log: String) -> Vec<u8> {
    let mut bytes = log.into_bytes();
    if bytes.len() > LOG_LIMIT {
        bytes.drain(..bytes.len() - LOG_LIMIT);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::testing::refused;

    #[test]
    fn what_objects_make_long_is_not_kept_as_a_whole() {
        let Outcome::Refused(found) = bounded(refused(&"x".repeat(1 << 20))) else {
            panic!("it is refused");
        };
        assert!(found.message.len() < MESSAGE_LIMIT + 100);
        assert_eq!(bounded(refused("short")), refused("short"));

        let program = |name: &str| Program {
            function: name.repeat(100),
            total_insns: 0,
            total_states: 0,
            peak_states: 0,
            duration_us: 0,
            native_bytes: None,
            bytecode_bytes: None,
        };
        let accepted = |programs| {
            Outcome::Bundle(Accepted {
                bundle: Digest::of(b""),
                bytes: 0,
                programs: vec![program("p"); programs],
                notes: Vec::new(),
            })
        };
        assert_eq!(bounded(accepted(1000)), accepted(1000));
        let Outcome::Refused(found) = bounded(accepted(10_000)) else {
            panic!("it is too much");
        };
        assert!(found.message.contains("shorter names"), "{}", found.message);
    }
}
