//! What is under way, for whoever watches: told as it happens, kept by nobody.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, mpsc};
use tracing::warn;

use crate::job::JobId;
use crate::nats::{Nats, NatsError, subject};
use crate::random;
use crate::task::TaskId;

/// How much a slow watcher may be behind before it has to look for itself.
const BEHIND: usize = 1024;

/// Something has happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// A task is at a step.
    Progress(TaskId, Progress),
    /// A task has ended.
    TaskEnded(TaskId),
    /// A job has ended.
    JobEnded {
        /// Whose it is.
        tenant: String,
        /// What it is called.
        id: JobId,
    },
}

/// How far a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is being done.
    pub step: Step,
    /// Instructions that a kernel's verifier has processed by now, if it counts them.
    pub processed: Option<u64>,
}

impl Progress {
    /// How far two parts of a whole are together.
    pub fn and(self, other: Self) -> Self {
        let counts = [self.processed, other.processed];
        Self {
            step: self.step.min(other.step),
            processed: counts.into_iter().flatten().reduce(|a, b| a + b),
        }
    }
}

/// What is being done, from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Two machines go on from snapshots.
    Restore,
    /// The kernels verify.
    Verify,
    /// Addresses are found.
    Discover,
    /// Images are compared with what both kernels made.
    Prove,
    /// Bundles become one.
    Merge,
    /// The bundle is signed.
    Sign,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Restore => "restore",
            Self::Verify => "verify",
            Self::Discover => "discover",
            Self::Prove => "prove",
            Self::Merge => "merge",
            Self::Sign => "sign",
        })
    }
}

/// Where events are told, and heard.
#[derive(Clone, Debug)]
pub struct News {
    told: broadcast::Sender<Event>,
    /// What runs, for those who come later.
    running: Arc<Mutex<HashMap<TaskId, Progress>>>,
    /// Where other processes hear of it, if there are any.
    others: Option<mpsc::UnboundedSender<Event>>,
}

impl Default for News {
    fn default() -> Self {
        Self {
            told: broadcast::Sender::new(BEHIND),
            running: Arc::default(),
            others: None,
        }
    }
}

impl News {
    /// What happens in this process and in others that have the same server.
    pub async fn shared(nats: &Nats) -> Result<Self, NatsError> {
        let own = hex::encode(random::bytes::<8>());
        let heard = nats.client.subscribe(subject("news.*")).await;
        let mut heard = heard.map_err(NatsError::of("hear what others do"))?;
        let (others, mut told) = mpsc::unbounded_channel();
        let news = Self {
            others: Some(others),
            ..Self::default()
        };
        let (client, ours) = (nats.client.clone(), subject(&format!("news.{own}")));
        tokio::spawn({
            let ours = ours.clone();
            async move {
                while let Some(event) = told.recv().await {
                    let text = serde_json::to_vec(&event).expect("all its keys are strings");
                    // News that are lost are missed by who watches, and by nobody else.
                    if let Err(error) = client.publish(ours.clone(), text.into()).await {
                        warn!(%error, "others do not hear what happens here");
                    }
                }
            }
        });
        let here = news.clone();
        tokio::spawn(async move {
            while let Some(message) = heard.next().await {
                let event = serde_json::from_slice(&message.payload);
                match event {
                    Ok(event) if *message.subject != ours => here.happened(event),
                    Ok(_) => {}
                    Err(error) => warn!(%error, "news from another process are not understood"),
                }
            }
        });
        Ok(news)
    }

    /// Tells what has happened.
    pub fn tell(&self, event: Event) {
        if let Some(others) = &self.others {
            // Only a runtime that ends has nobody to take it.
            let _ = others.send(event.clone());
        }
        self.happened(event);
    }

    fn happened(&self, event: Event) {
        match &event {
            Event::Progress(task, progress) => drop(self.running().insert(*task, *progress)),
            Event::TaskEnded(task) => drop(self.running().remove(task)),
            Event::JobEnded { .. } => {}
        }
        // It may be that nobody listens.
        let _ = self.told.send(event);
    }

    /// All that is told from now on.
    pub fn listen(&self) -> broadcast::Receiver<Event> {
        self.told.subscribe()
    }

    /// How far a task is, if somebody works on it.
    pub fn progress(&self, task: TaskId) -> Option<Progress> {
        self.running().get(&task).copied()
    }

    fn running(&self) -> MutexGuard<'_, HashMap<TaskId, Progress>> {
        let running = self.running.lock();
        running.unwrap_or_else(PoisonError::into_inner)
    }
}
