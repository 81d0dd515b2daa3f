//! Records in a bucket of NATS JetStream: any number of processes, on any number of machines.

use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::consumer::{DeliverPolicy, ReplayPolicy};
use async_nats::jetstream::kv::{CreateErrorKind, Operation, Store, UpdateErrorKind};
use futures_util::StreamExt;

use super::{FORMAT, Page, Record, RecordError};
use crate::nats::{Nats, NatsError};

/// The record that has the format of all.
const FORMAT_KEY: &str = "format";
/// Says of a message what it has done to its key.
const OPERATION: &str = "KV-Operation";

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
            Err(error) if error.kind() == CreateErrorKind::AlreadyExists => Ok(false),
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
            Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => Ok(false),
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
    pub async fn list(&self, prefix: &str, page: Page<'_>) -> Result<Vec<Found>, RecordError> {
        // Keys of one page are fetched one by one, so that others are not sent in vain.
        if page.limit == usize::MAX {
            let mut all = self.matching(prefix, false).await?;
            all.retain(|(key, _)| is_after(key, page));
            order(&mut all, page);
            return Ok(all);
        }
        let mut keys = self.matching(prefix, true).await?;
        keys.retain(|(key, _)| is_after(key, page));
        order(&mut keys, page);
        let mut found = Vec::new();
        for (key, _) in keys.into_iter().take(page.limit) {
            if let Some(record) = self.get(&key).await? {
                found.push((key, record));
            }
        }
        Ok(found)
    }

    async fn matching(&self, prefix: &str, keys_only: bool) -> Result<Vec<Found>, RecordError> {
        // Prefixes end with a point: what follows is whole words.
        let filter = self.subject(&format!("{prefix}>"));
        let failed = format!("list {prefix}");
        let config = OrderedConfig {
            filter_subject: filter,
            deliver_policy: DeliverPolicy::LastPerSubject,
            replay_policy: ReplayPolicy::Instant,
            headers_only: keys_only,
            ..OrderedConfig::default()
        };
        let consumer = self.store.stream.create_consumer(config).await;
        let consumer = consumer.map_err(NatsError::of(failed.clone()))?;
        let mut found = Vec::new();
        if consumer.cached_info().num_pending == 0 {
            return Ok(found);
        }
        let messages = consumer.messages().await;
        let mut messages = messages.map_err(NatsError::of(failed.clone()))?;
        while let Some(message) = messages.next().await {
            let message = message.map_err(NatsError::of(failed.clone()))?;
            let info = message.info().map_err(NatsError::of_any(failed.clone()))?;
            let (revision, last) = (info.stream_sequence, info.pending == 0);
            let removed = message
                .headers
                .as_ref()
                .and_then(|headers| headers.get(OPERATION));
            if removed.is_none() {
                let key = message.subject.strip_prefix(self.store.prefix.as_str());
                let value = message.payload.to_vec();
                found.push((
                    key.unwrap_or_default().to_owned(),
                    Record { value, revision },
                ));
            }
            if last {
                break;
            }
        }
        Ok(found)
    }

    fn subject(&self, key: &str) -> String {
        format!("{}{key}", self.store.prefix)
    }
}

fn is_after(key: &str, page: Page<'_>) -> bool {
    page.after.is_none_or(|after| match page.backwards {
        true => key < after,
        false => key > after,
    })
}

fn order(found: &mut [Found], page: Page<'_>) {
    found.sort_by(|(a, _), (b, _)| match page.backwards {
        true => b.cmp(a),
        false => a.cmp(b),
    });
}
