//! What the service knows: records under keys, each with a revision.
//!
//! A key is made of words that points separate, as in `job.acme.01J...`. Whoever changes a record says which
//! revision they have read, and loses against whoever was faster: so several processes can work on the same records.
//!
//! Records are JSON. All of them have the same format, a number. Whatever is written otherwise than before, be it one field
//! more, is another format: an older version leaves it alone then, and a newer one brings records up to date. So what is read
//! has no field that is not known, and one that has is refused: it would be lost when the record is written anew.

#[cfg(test)]
mod formats;
mod nats;
mod sqlite;

use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use nats::Bucket;
pub use sqlite::Sqlite;

use crate::nats::NatsError;

/// The format of records that this version writes.
const FORMAT: u32 = 1;

/// Records cannot be read or written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RecordError {
    /// The database refuses.
    #[error("the database {}: {source}", path.display())]
    Database {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: Arc<rusqlite::Error>,
    },
    /// They were written by a newer version.
    #[error(
        "{place} has the format {found}, and this version knows those up to {FORMAT}: start the version that wrote it, or \
         a newer one"
    )]
    Newer {
        /// What has them.
        place: String,
        /// Their format.
        found: String,
    },
    /// A record is not what is expected under its key.
    #[error("the record `{key}` cannot be read: {source}")]
    Malformed {
        /// Its key.
        key: String,
        /// Why not.
        source: Arc<serde_json::Error>,
    },
    /// The server refuses, or cannot be reached.
    #[error(transparent)]
    Nats(#[from] NatsError),
    /// The thread that has the database has ended.
    #[error("the database is closed")]
    Closed,
}

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<T> {
    /// What it says.
    pub value: T,
    /// Which of its versions it is.
    pub revision: u64,
}

/// Some of the records with a prefix.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    /// Only keys after this one, in the order that is asked for.
    pub after: Option<&'a str>,
    /// So many at most.
    pub limit: usize,
    /// From the last to the first.
    pub backwards: bool,
}

impl Page<'_> {
    /// All of them.
    pub const ALL: Self = Self {
        after: None,
        limit: usize::MAX,
        backwards: false,
    };
}

/// Where records are.
#[derive(Clone, Debug)]
enum Store {
    /// In a database of this process's own.
    Sqlite(Sqlite),
    /// Where other processes have them, too.
    Bucket(Arc<Bucket>),
}

/// The records of a service, as JSON.
#[derive(Clone, Debug)]
pub struct Records {
    store: Store,
}

impl From<Sqlite> for Records {
    fn from(store: Sqlite) -> Self {
        Self {
            store: Store::Sqlite(store),
        }
    }
}

impl From<Bucket> for Records {
    fn from(store: Bucket) -> Self {
        Self {
            store: Store::Bucket(Arc::new(store)),
        }
    }
}

impl Records {
    /// The record under a key.
    pub async fn get<T: DeserializeOwned>(
        &self,
        key: &str,
    ) -> Result<Option<Record<T>>, RecordError> {
        let found = match &self.store {
            Store::Sqlite(store) => store.get(key).await,
            Store::Bucket(store) => store.get(key).await,
        }?;
        found.map(|record| read(key, record)).transpose()
    }

    /// Writes a record that is not there yet. False: it is.
    pub async fn create<T: Serialize>(&self, key: &str, value: &T) -> Result<bool, RecordError> {
        let value = write(value);
        match &self.store {
            Store::Sqlite(store) => store.create(key, value).await,
            Store::Bucket(store) => store.create(key, value).await,
        }
    }

    /// Writes a record anew that has the given revision. False: it has another.
    pub async fn update<T: Serialize>(
        &self,
        key: &str,
        value: &T,
        revision: u64,
    ) -> Result<bool, RecordError> {
        let value = write(value);
        match &self.store {
            Store::Sqlite(store) => store.update(key, value, revision).await,
            Store::Bucket(store) => store.update(key, value, revision).await,
        }
    }

    /// Removes a record, if it is there.
    pub async fn remove(&self, key: &str) -> Result<(), RecordError> {
        match &self.store {
            Store::Sqlite(store) => store.remove(key).await,
            Store::Bucket(store) => store.remove(key).await,
        }
    }

    /// The records whose keys begin with `prefix`, by key.
    pub async fn list<T: DeserializeOwned>(
        &self,
        prefix: &str,
        page: Page<'_>,
    ) -> Result<Vec<(String, Record<T>)>, RecordError> {
        let found = match &self.store {
            Store::Sqlite(store) => store.list(prefix, page).await,
            Store::Bucket(store) => store.list(prefix, page).await,
        }?;
        found
            .into_iter()
            .map(|(key, record)| {
                let record = read(&key, record)?;
                Ok((key, record))
            })
            .collect()
    }

    /// Changes a record as often as it takes to be the one who does. `change` says no by returning nothing; what is not
    /// there is not changed.
    pub async fn change<T: Serialize + DeserializeOwned>(
        &self,
        key: &str,
        mut change: impl FnMut(T) -> Option<T>,
    ) -> Result<Option<T>, RecordError> {
        while let Some(found) = self.get(key).await? {
            let Some(changed) = change(found.value) else {
                return Ok(None);
            };
            if self.update(key, &changed, found.revision).await? {
                return Ok(Some(changed));
            }
        }
        Ok(None)
    }
}

fn read<T: DeserializeOwned>(key: &str, record: Record<Vec<u8>>) -> Result<Record<T>, RecordError> {
    let value = serde_json::from_slice(&record.value).map_err(|source| RecordError::Malformed {
        key: key.into(),
        source: Arc::new(source),
    })?;
    Ok(Record {
        value,
        revision: record.revision,
    })
}

fn write<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("records have only strings as keys")
}
