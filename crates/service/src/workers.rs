//! The workers of a process, and processes that have nothing else.

use std::sync::Arc;
use std::time::Duration;

use preverify_bundle::Signer;
use preverify_target::{Store, TargetError};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::info;

use crate::directory::Announcement;
use crate::metrics::Metrics;
use crate::nats::{Nats, NatsError, NatsOptions};
use crate::pool::Pool;
use crate::shared::{Shared, SharedError};
use crate::targets::Targets;
use crate::tenants::Quota;
use crate::worker::Worker;

/// What workers are started with.
pub struct WorkerSetup<'a> {
    /// Where the targets are.
    pub store: &'a Store,
    /// The names of the targets to verify for; all that can be used, if there are none.
    pub targets: Vec<String>,
    /// Who signs.
    pub signer: Signer,
    /// Verifications at the same time.
    pub slots: usize,
    /// Verifiers that wait for an object.
    pub warm: usize,
}

/// There are no workers.
#[derive(Debug, thiserror::Error)]
pub enum WorkersError {
    /// There is nothing to verify for.
    #[error(
        "there is no target to verify for: `preverify target add debian:6.12-cloud-amd64` makes one"
    )]
    NoTargets,
    /// A target cannot be used.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// What other processes have cannot be used.
    #[error(transparent)]
    Shared(#[from] SharedError),
    /// The server cannot be used.
    #[error(transparent)]
    Nats(#[from] NatsError),
}

/// Workers that are about to start.
pub struct Workers {
    worker: Worker,
    slots: usize,
}

impl Workers {
    /// Prepares targets. `progress` is told what takes long.
    pub fn new(
        shared: &Shared,
        setup: WorkerSetup<'_>,
        metrics: Metrics,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Self, WorkersError> {
        let targets = Targets::of(setup.store, &setup.targets, progress)?;
        if targets.all().is_empty() {
            return Err(WorkersError::NoTargets);
        }
        Ok(Self {
            worker: Worker {
                scheduler: shared.scheduler.clone(),
                queue: shared.queue.clone(),
                blobs: shared.blobs.clone(),
                targets,
                tenants: shared.tenants.clone(),
                pool: Pool::new(setup.warm),
                signer: Arc::new(setup.signer),
                news: shared.news.clone(),
                metrics,
            },
            slots: setup.slots,
        })
    }

    /// What is told to others.
    pub fn announcement(&self) -> Announcement {
        Announcement::of(&self.worker.targets, self.slots)
    }

    /// Starts them. They end when they are told to stop and have ended what they have begun.
    pub fn start(self, stopped: &watch::Receiver<bool>) -> JoinSet<()> {
        let mut running = JoinSet::new();
        for _ in 0..self.slots {
            running.spawn(self.worker.clone().run(stopped.clone()));
        }
        running
    }
}

/// Works for a service until `end` comes; what has begun may take so long then.
pub async fn work(
    nats: &NatsOptions,
    setup: WorkerSetup<'_>,
    drain: Duration,
    end: impl Future<Output = ()>,
    progress: &mut dyn FnMut(&str),
) -> Result<(), WorkersError> {
    let nats = Nats::connect(nats).await?;
    // Whoever submits was asked about quotas.
    let shared = Shared::by(&nats, Quota::default()).await?;
    let workers = Workers::new(&shared, setup, Metrics::default(), progress)?;
    let announcement = workers.announcement();
    info!(
        worker = announcement.worker,
        targets = announcement.targets.len(),
        "working"
    );
    announcement.repeat(&nats);
    let (stop, stopped) = watch::channel(false);
    let mut running = workers.start(&stopped);
    end.await;
    info!("ending what has begun");
    stop.send_replace(true);
    // What has not ended by then, somebody else gets.
    let all = async { while running.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(drain, all).await;
    Ok(())
}
