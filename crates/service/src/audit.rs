//! Who did what, in a form that nobody can edit unnoticed: each entry has the hash of itself and of the one before.
//!
//! ```text
//! hash = SHA-256(hash of the entry before || the entry as JSON, without its hash)
//! audit.NUMBER        entries that were written together, under the number of the first
//! ```
//!
//! Whoever keeps a hash can tell later whether anything before it was changed. Entries wait for each other to be written, so
//! what comes meanwhile is written together.

use std::collections::VecDeque;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use utoipa::ToSchema;

use crate::digest::Digest;
use crate::records::{Page, RecordError, Records};

/// How much is written together at most.
const BATCH: usize = 256;
/// How much may wait to be written; who comes later waits to be among these.
const QUEUE: usize = 1024;

/// What somebody did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deed {
    /// When.
    pub at: Timestamp,
    /// Whose it was.
    pub tenant: String,
    /// The name of their token.
    pub token: String,
    /// What.
    pub action: Action,
    /// With what: a job, a token, a bundle.
    pub subject: String,
}

/// What can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// A job was submitted.
    Submit,
    /// A bundle was fetched.
    Fetch,
    /// A token was made.
    IssueToken,
    /// A token was ended.
    RevokeToken,
    /// A tenant got a quota.
    SetQuota,
    /// A target was added, or began to be.
    AddTarget,
    /// A target was removed.
    RemoveTarget,
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Counts from zero.
    pub number: u64,
    /// What was done.
    #[serde(flatten)]
    pub deed: Deed,
    /// The hash of the entry before; of none, that of nothing.
    pub previous: Digest,
    /// The hash of this one.
    pub hash: Digest,
}

/// The end of the log: what the next entry follows.
#[derive(Clone, Copy)]
struct Head {
    next: u64,
    hash: Digest,
}

type Waiting = (Deed, oneshot::Sender<Result<(), RecordError>>);

/// The log of a service.
#[derive(Clone, Debug)]
pub struct Audit {
    records: Records,
    queue: mpsc::Sender<Waiting>,
}

impl Audit {
    /// The log among the records. It is written by a task of its own.
    pub fn open(records: Records) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        tokio::spawn(write_all(records.clone(), waiting));
        Self { records, queue }
    }

    /// Writes down what was done; when this returns, it is on disk.
    pub async fn write(&self, deed: Deed) -> Result<(), RecordError> {
        let (written, outcome) = oneshot::channel();
        self.queue
            .send((deed, written))
            .await
            .map_err(|_| RecordError::Closed)?;
        outcome.await.map_err(|_| RecordError::Closed)?
    }

    /// Entries from a number on, so many at least, if there are so many.
    pub async fn read(&self, from: u64, limit: usize) -> Result<Vec<Entry>, RecordError> {
        // The number may lie within a batch, which is under its first.
        let before = Page {
            after: Some(&key(from.saturating_add(1))),
            limit: 1,
            backwards: true,
        };
        let first = self.records.list::<Vec<Entry>>(PREFIX, before).await?;
        let mut batches: VecDeque<_> = first.into();
        let mut entries = Vec::new();
        loop {
            let Some((last, record)) = batches.pop_front() else {
                return Ok(entries);
            };
            let wanted = record
                .value
                .into_iter()
                .filter(|entry| entry.number >= from);
            entries.extend(wanted);
            if entries.len() >= limit {
                return Ok(entries);
            }
            if batches.is_empty() {
                let page = Page {
                    after: Some(&last),
                    limit: 16,
                    backwards: false,
                };
                batches = self.records.list(PREFIX, page).await?.into();
            }
        }
    }
}

const PREFIX: &str = "audit.";

fn key(number: u64) -> String {
    // As many digits as the largest number has, so that keys are in the order of numbers.
    format!("{PREFIX}{number:020}")
}

impl Head {
    async fn find(records: &Records) -> Result<Self, RecordError> {
        let last = Page {
            after: None,
            limit: 1,
            backwards: true,
        };
        let found = records.list::<Vec<Entry>>(PREFIX, last).await?;
        let last = found.first().and_then(|(_, record)| record.value.last());
        Ok(last.map_or(
            Self {
                next: 0,
                hash: Digest::of(b""),
            },
            Self::after,
        ))
    }

    fn after(entry: &Entry) -> Self {
        Self {
            next: entry.number + 1,
            hash: entry.hash,
        }
    }

    /// The entry that follows.
    fn follow(&mut self, deed: Deed) -> Entry {
        let mut entry = Entry {
            number: self.next,
            deed,
            previous: self.hash,
            hash: self.hash,
        };
        entry.hash = entry.expected_hash();
        *self = Self::after(&entry);
        entry
    }
}

impl Entry {
    /// The hash that it must have.
    pub fn expected_hash(&self) -> Digest {
        let text =
            serde_json::to_string(&(self.number, &self.deed)).expect("only strings are keys");
        Digest::of(format!("{}{text}", self.previous).as_bytes())
    }
}

async fn write_all(records: Records, mut waiting: mpsc::Receiver<Waiting>) {
    let mut head = None;
    let mut batch = Vec::with_capacity(BATCH);
    while waiting.recv_many(&mut batch, BATCH).await > 0 {
        let (deeds, answers): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
        let outcome = write_batch(&records, &mut head, &deeds).await;
        for answer in answers {
            // Nobody may wait any longer, which changes nothing.
            let _ = answer.send(outcome.clone());
        }
    }
}

/// Writes what follows `known`, the end of the log as this process knows it.
async fn write_batch(
    records: &Records,
    known: &mut Option<Head>,
    deeds: &[Deed],
) -> Result<(), RecordError> {
    loop {
        let last = match *known {
            Some(head) => head,
            None => Head::find(records).await?,
        };
        let mut head = last;
        let entries: Vec<_> = deeds.iter().map(|deed| head.follow(deed.clone())).collect();
        let key = key(last.next);
        if records.create(&key, &entries).await? {
            *known = Some(head);
            return Ok(());
        }
        let written = records.get::<Vec<Entry>>(&key).await?;
        let written = written.map(|record| record.value);
        *known = written
            .as_ref()
            .and_then(|theirs| theirs.last().map(Head::after));
        // It was this process that has written them, and was not told so.
        if written.is_some_and(|written| written == entries) {
            return Ok(());
        }
        // Another one has: these follow its entries.
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Sqlite;

    fn deed(subject: &str) -> Deed {
        Deed {
            at: Timestamp::UNIX_EPOCH,
            tenant: "acme".into(),
            token: "ci".into(),
            action: Action::Submit,
            subject: subject.into(),
        }
    }

    #[tokio::test]
    async fn entries_follow_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let records = Records::from(Sqlite::open(&path).unwrap());
        // Two processes would do the same.
        let logs = [Audit::open(records.clone()), Audit::open(records.clone())];
        let writes = (0..1000).map(|number| {
            let log = logs[number % 2].clone();
            tokio::spawn(async move { log.write(deed(&number.to_string())).await })
        });
        for written in futures_util::future::join_all(writes).await {
            written.unwrap().unwrap();
        }
        let entries = logs[0].read(0, usize::MAX).await.unwrap();
        assert_eq!(entries.len(), 1000);
        let mut previous = Digest::of(b"");
        for (number, entry) in (0..).zip(&entries) {
            assert_eq!(entry.number, number);
            assert_eq!(entry.previous, previous);
            assert_eq!(entry.hash, entry.expected_hash());
            previous = entry.hash;
        }
        let batches = records.list::<Vec<Entry>>(PREFIX, Page::ALL).await.unwrap();
        assert!(batches.len() < 500, "{} batches", batches.len());
        for (from, place) in [(0, 0), (1, 1), (499, 499), (998, 998), (999, 999)] {
            let rest = logs[0].read(from, 3).await.unwrap();
            assert_eq!(rest.first(), entries.get(place), "from {from}");
            assert!(rest.len() >= 3.min(1000 - place));
        }
        assert!(logs[0].read(1000, 3).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn edited_entries_do_not_fit() {
        let mut head = Head {
            next: 5,
            hash: Digest::of(b"before"),
        };
        let entry = head.follow(deed("job"));
        assert_eq!(entry.hash, entry.expected_hash());
        let edits: [fn(&mut Entry); 5] = [
            |entry| entry.number = 6,
            |entry| entry.previous = Digest::of(b"other"),
            |entry| entry.deed.tenant = "other".into(),
            |entry| entry.deed.subject = "another".into(),
            |entry| entry.deed.at = Timestamp::from_second(1).unwrap(),
        ];
        for edit in edits {
            let mut edited = entry.clone();
            edit(&mut edited);
            assert_ne!(edited.hash, edited.expected_hash());
        }
    }
}
