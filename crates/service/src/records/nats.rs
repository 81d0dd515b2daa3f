//! Records in a bucket of NATS JetStream: any number of processes, on any number of machines.

use std::error::Error;

use async_nats::jetstream::kv::{CreateErrorKind, Operation, Store, UpdateErrorKind};
use async_nats::jetstream::{self, ErrorCode};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::{FORMAT, Page, Record, RecordError};
use crate::nats::{Nats, NatsError};

/// The record that has the format of all.
const FORMAT_KEY: &str = "format";
/// That the last sequence of a subject is not constant, for it is being written.
const UNDER_WAY: ErrorCode = ErrorCode(10164);
/// Records that are asked for at the same time.
const AT_ONCE: usize = 32;

/// A bucket of records.
#[derive(Debug)]
pub struct Bucket {
    store: Store,
}

type Found = (String, Record<Vec<u8>>);

impl Bucket {
    /// The one of the service.
    pub async fn open(nats: &Nats) -> Result<Self, RecordError> {
        let bucket = Self {
            store: nats.records().await?,
        };
        let own = FORMAT.to_string().into_bytes();
        if bucket.create(FORMAT_KEY, own.clone()).await? {
            return Ok(bucket);
        }
        match bucket.get(FORMAT_KEY).await? {
            Some(record) if record.value != own => Err(RecordError::Newer {
                place: format!("the bucket {} of the NATS server", bucket.store.name),
                found: String::from_utf8_lossy(&record.value).into_owned(),
            }),
            _ => Ok(bucket),
        }
    }

    /// The record under a key.
    pub async fn get(&self, key: &str) -> Result<Option<Record<Vec<u8>>>, RecordError> {
        let found = self.store.entry(key).await;
        let found = found.map_err(NatsError::of(format!("read {key}")))?;
        let found = found.filter(|entry| entry.operation == Operation::Put);
        Ok(found.map(|entry| Record {
            value: entry.value.into(),
            revision: entry.revision,
        }))
    }

    /// Writes a record that is not there yet.
    pub async fn create(&self, key: &str, value: Vec<u8>) -> Result<bool, RecordError> {
        match self.store.create(key, value.into()).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == CreateErrorKind::AlreadyExists || is_race(&error) => {
                Ok(false)
            }
            Err(error) => Err(NatsError::of(format!("write {key}"))(error).into()),
        }
    }

    /// Writes a record anew that has the given revision.
    pub async fn update(
        &self,
        key: &str,
        value: Vec<u8>,
        revision: u64,
    ) -> Result<bool, RecordError> {
        match self.store.update(key, value.into(), revision).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision || is_race(&error) => {
                Ok(false)
            }
            Err(error) => Err(NatsError::of(format!("write {key}"))(error).into()),
        }
    }

    /// Removes a record, if it is there. Nothing is left of it: markers would become ever more.
    pub async fn remove(&self, key: &str) -> Result<(), RecordError> {
        let subject = self.subject(key);
        let purged = self.store.stream.purge().filter(subject).await;
        purged.map_err(NatsError::of(format!("remove {key}")))?;
        Ok(())
    }

    /// The records whose keys begin with `prefix`, by key.
    ///
    /// Keys and records are asked for one after the other, of the server that leads. A consumer would bring all at once, but
    /// one whose server dies, or whose messages are removed meanwhile, is waited for in vain.
    pub async fn list(&self, prefix: &str, page: Page<'_>) -> Result<Vec<Found>, RecordError> {
        let mut keys = self.keys(prefix).await?;
        keys.retain(|key| is_after(key, page));
        order(&mut keys, page);
        let records = stream::iter(keys.into_iter().take(page.limit))
            .map(async |key| Ok::<_, RecordError>((self.get(&key).await?, key)))
            .buffered(AT_ONCE);
        // What is removed meanwhile is left out.
        records
            .try_filter_map(async |(found, key)| Ok(found.map(|record| (key, record))))
            .try_collect()
            .await
    }

    async fn keys(&self, prefix: &str) -> Result<Vec<String>, RecordError> {
        let failed = || NatsError::of(format!("list {prefix}"));
        // Prefixes end with a point: what follows is whole words.
        let filter = self.subject(&format!("{prefix}>"));
        let subjects = self.store.stream.info_with_subjects(filter).await;
        let subjects: Vec<_> = subjects
            .map_err(failed())?
            .try_collect()
            .await
            .map_err(failed())?;
        let prefix = self.store.prefix.as_str();
        let keys = subjects.iter();
        let keys = keys.filter_map(|(subject, _)| subject.strip_prefix(prefix));
        Ok(keys.map(str::to_owned).collect())
    }

    fn subject(&self, key: &str) -> String {
        format!("{}{key}", self.store.prefix)
    }
}

/// Whether a cluster says that another write to the same key is under way, as those after 2.10 do.
fn is_race(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let said = error.downcast_ref::<jetstream::Error>();
        if said.is_some_and(|said| said.error_code() == UNDER_WAY) {
            return true;
        }
        next = error.source();
    }
    false
}

fn is_after(key: &str, page: Page<'_>) -> bool {
    page.after.is_none_or(|after| match page.backwards {
        true => key < after,
        false => key > after,
    })
}

fn order(keys: &mut [String], page: Page<'_>) {
    keys.sort();
    if page.backwards {
        keys.reverse();
    }
}
