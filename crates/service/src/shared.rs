//! What all processes of a service have in common: its state, and how they hear of each other.

use std::path::Path;
use std::sync::Arc;

use crate::blobs::{self, BlobError, Blobs, Folder};
use crate::nats::{Nats, NatsError};
use crate::news::News;
use crate::queue::{Lines, Queue, Work};
use crate::records::{self, RecordError, Records, Sqlite};
use crate::scheduler::Scheduler;
use crate::state::{BLOBS, DATABASE};
use crate::tenants::{Quota, Tenants};

/// It cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SharedError {
    /// The records cannot be used.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The blobs cannot be used.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The server cannot be used.
    #[error(transparent)]
    Nats(#[from] NatsError),
}

/// The common ground.
#[derive(Clone, Debug)]
pub struct Shared {
    /// What is known.
    pub records: Records,
    /// What is too large for a record.
    pub blobs: Blobs,
    /// What waits for a worker.
    pub queue: Queue,
    /// What is under way.
    pub news: News,
    /// Who asks for how much.
    pub tenants: Tenants,
    /// What is to be done.
    pub scheduler: Scheduler,
}

impl Shared {
    /// Of one process, in a folder.
    pub fn alone(state: &Path, quota: Quota) -> Result<Self, SharedError> {
        let records = Sqlite::open(&state.join(DATABASE))?;
        let blobs = Blobs::Folder(Folder::open(&state.join(BLOBS))?);
        let queue = Queue::Lines(Lines::default());
        Ok(Self::new(
            records.into(),
            blobs,
            queue,
            News::default(),
            quota,
        ))
    }

    /// Of all processes that have the same server.
    pub async fn by(nats: &Nats, quota: Quota) -> Result<Self, SharedError> {
        let records = records::Bucket::open(nats).await?;
        let blobs = Blobs::Bucket(Arc::new(blobs::Bucket::open(nats).await?));
        let queue = Queue::Work(Arc::new(Work::open(nats.clone()).await?));
        let news = News::shared(nats).await?;
        Ok(Self::new(records.into(), blobs, queue, news, quota))
    }

    fn new(records: Records, blobs: Blobs, queue: Queue, news: News, quota: Quota) -> Self {
        let tenants = Tenants::new(records.clone(), quota);
        let scheduler = Scheduler::new(
            records.clone(),
            queue.clone(),
            news.clone(),
            tenants.clone(),
        );
        Self {
            records,
            blobs,
            queue,
            news,
            tenants,
            scheduler,
        }
    }
}
