//! The workers of a process, and processes that have nothing else.

use std::sync::Arc;
use std::time::Duration;

use preverify_bundle::Signer;
use preverify_target::{Store, TargetError};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::directory::{Busy, Own};
use crate::metrics::Metrics;
use crate::nats::{Nats, NatsError, NatsOptions};
use crate::pool::Pool;
use crate::shared::{Shared, SharedError};
use crate::targets::Targets;
use crate::tenants::Quota;
use crate::worker::Worker;

/// How often the store is looked at.
const OFTEN: Duration = Duration::from_secs(2);

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
        if targets.held().is_empty() {
            warn!(
                "there is no target to verify for yet: `preverify target add debian:6.12-cloud-amd64` makes one"
            );
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
                busy: Busy::default(),
            },
            slots: setup.slots,
        })
    }

    /// What others are told of them.
    pub fn own(&self) -> Own {
        let Worker { targets, busy, .. } = &self.worker;
        Own::new(targets.clone(), self.slots, busy.clone())
    }

    /// What they verify for.
    pub fn targets(&self) -> Targets {
        self.worker.targets.clone()
    }

    /// Starts them. They end when they are told to stop and have ended what they have begun.
    pub fn start(self, stopped: &watch::Receiver<bool>) -> JoinSet<()> {
        tokio::spawn(look(self.worker.targets.clone()));
        tokio::spawn(keep(self.worker.pool.clone(), self.worker.targets.clone()));
        let mut running = JoinSet::new();
        for _ in 0..self.slots {
            running.spawn(self.worker.clone().run(stopped.clone()));
        }
        running
    }
}

/// Sees which targets come and go, for as long as the process lives.
async fn look(targets: Targets) {
    loop {
        tokio::time::sleep(OFTEN).await;
        let targets = targets.clone();
        let looked = move || targets.look(&mut |what| info!("{what}"));
        match tokio::task::spawn_blocking(looked).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "which targets there are cannot be seen"),
            Err(error) => warn!(%error, "which targets there are cannot be seen"),
        }
    }
}

/// Ends verifiers that wait for a target that is gone.
async fn keep(pool: Pool, targets: Targets) {
    let mut changes = targets.changes();
    loop {
        let (pool, held) = (pool.clone(), changes.borrow_and_update().clone());
        if let Err(error) = tokio::task::spawn_blocking(move || pool.keep(&held)).await {
            warn!(%error, "verifiers of targets that are gone may still wait");
        }
        if changes.changed().await.is_err() {
            return;
        }
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
    let own = workers.own();
    info!(
        worker = own.worker(),
        targets = workers.targets().held().len(),
        "working"
    );
    own.repeat(&nats);
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
