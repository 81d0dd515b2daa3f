//! What is under way, for whoever watches: told as it happens, kept by nobody.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;

use crate::job::JobId;
use crate::task::TaskId;

/// How much a slow watcher may be behind before it has to look for itself.
const BEHIND: usize = 1024;

/// Something has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A task is at a step.
    Progress(TaskId, Progress),
    /// A task has ended.
    TaskEnded(TaskId),
    /// A job has ended.
    JobEnded(JobId),
}

/// How far a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub step: Step,
    /// Instructions that a kernel's verifier has processed by now, if it counts them.
    pub processed: Option<u64>,
}

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
}

impl Default for News {
    fn default() -> Self {
        Self {
            told: broadcast::Sender::new(BEHIND),
            running: Arc::default(),
        }
    }
}

impl News {
    /// Tells what has happened.
    pub fn tell(&self, event: Event) {
        match &event {
            Event::Progress(task, progress) => drop(self.running().insert(*task, *progress)),
            Event::TaskEnded(task) => drop(self.running().remove(task)),
            Event::JobEnded(_) => {}
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
