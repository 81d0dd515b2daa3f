//! Records in an SQLite database: one process, one file.
//!
//! Two threads have a connection each. One changes records: it takes what has been asked for meanwhile, does it in one
//! transaction, and answers all of it after the commit. So each answer is on disk, and many cost hardly more than one. The
//! other looks: it sees whatever was answered, and waits for no disk.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use tokio::sync::{mpsc, oneshot};

use super::{FORMAT, Page, Record, RecordError};

/// What brings a database of each format to the next: the first makes an empty file one of format 1.
const MIGRATIONS: [&str; FORMAT as usize] = ["CREATE TABLE record (
        key TEXT PRIMARY KEY,
        revision INTEGER NOT NULL,
        value BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;"];

/// How much is done in one transaction at most.
const BATCH: usize = 256;
/// How much may wait for the database; who comes later waits to be among these.
const QUEUE: usize = 1024;

/// A database of records.
#[derive(Clone, Debug)]
pub struct Sqlite {
    path: Arc<Path>,
    changes: mpsc::Sender<Change>,
    looks: mpsc::Sender<Look>,
}

/// What only reads.
type Look = Box<dyn FnOnce(&Connection) + Send>;
/// One thing to do, if there is a transaction to do it in.
type Change = Box<dyn FnOnce(Result<&Connection, Failure>) -> Answer + Send>;
/// Tells the outcome, once it is on disk or is not.
type Answer = Box<dyn FnOnce(Result<(), Failure>) + Send>;
/// What can befall all that is in one transaction.
type Failure = Arc<rusqlite::Error>;

type Found = (String, Record<Vec<u8>>);

impl Sqlite {
    /// Opens a database, makes one if there is none, and brings an older one up to date.
    pub fn open(path: &Path) -> Result<Self, RecordError> {
        let failed = |source| database_error(path, source);
        let mut connection = Connection::open(path).map_err(failed)?;
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 5000;",
            )
            .map_err(failed)?;
        migrate(&mut connection, path, &MIGRATIONS)?;
        let reading = read_only(path).map_err(failed)?;
        let (changes, changing) = mpsc::channel(QUEUE);
        let (looks, looking) = mpsc::channel(QUEUE);
        let no_thread =
            |error: io::Error| failed(rusqlite::Error::ToSqlConversionFailure(error.into()));
        thread::Builder::new()
            .name("changes".into())
            .spawn(move || change_all(&connection, changing))
            .map_err(no_thread)?;
        thread::Builder::new()
            .name("looks".into())
            .spawn(move || look_at_all(&reading, looking))
            .map_err(no_thread)?;
        Ok(Self {
            path: path.into(),
            changes,
            looks,
        })
    }

    /// Writes a copy of a database as it is at one moment, whoever else has it open.
    pub fn copy(path: &Path, copy: &Path) -> Result<(), RecordError> {
        let failed = |source| database_error(path, source);
        let connection = read_only(path).map_err(failed)?;
        format_of(&connection, path, MIGRATIONS.len())?;
        let name = copy.to_str();
        let name = name.ok_or_else(|| failed(rusqlite::Error::InvalidPath(copy.into())))?;
        connection
            .execute("VACUUM INTO ?1", [name])
            .map_err(failed)?;
        Ok(())
    }

    /// Fails unless a file is a database that this version can open.
    pub fn check(path: &Path) -> Result<(), RecordError> {
        let connection = read_only(path).map_err(|source| database_error(path, source))?;
        format_of(&connection, path, MIGRATIONS.len())?;
        Ok(())
    }

    /// The record under a key.
    pub async fn get(&self, key: &str) -> Result<Option<Record<Vec<u8>>>, RecordError> {
        let key = key.to_owned();
        self.look(move |connection| {
            connection
                .prepare_cached("SELECT value, revision FROM record WHERE key = ?1")?
                .query_row([key], |row| {
                    Ok(Record {
                        value: row.get(0)?,
                        revision: row.get(1)?,
                    })
                })
                .optional()
        })
        .await
    }

    /// Writes a record that is not there yet.
    pub async fn create(&self, key: &str, value: Vec<u8>) -> Result<bool, RecordError> {
        let key = key.to_owned();
        self.change(move |connection| {
            let written = connection
                .prepare_cached(
                    "INSERT INTO record (key, revision, value) VALUES (?1, 1, ?2) ON CONFLICT DO NOTHING",
                )?
                .execute(params![key, value])?;
            Ok(written == 1)
        })
        .await
    }

    /// Writes a record anew that has the given revision.
    pub async fn update(
        &self,
        key: &str,
        value: Vec<u8>,
        revision: u64,
    ) -> Result<bool, RecordError> {
        let key = key.to_owned();
        self.change(move |connection| {
            let written = connection
                .prepare_cached(
                    "UPDATE record SET value = ?2, revision = revision + 1 WHERE key = ?1 AND revision = ?3",
                )?
                .execute(params![key, value, revision])?;
            Ok(written == 1)
        })
        .await
    }

    /// Removes a record, if it is there.
    pub async fn remove(&self, key: &str) -> Result<(), RecordError> {
        let key = key.to_owned();
        self.change(move |connection| {
            connection
                .prepare_cached("DELETE FROM record WHERE key = ?1")?
                .execute([key])?;
            Ok(())
        })
        .await
    }

    /// The records whose keys begin with `prefix`, by key.
    pub async fn list(&self, prefix: &str, page: Page<'_>) -> Result<Vec<Found>, RecordError> {
        let first = prefix.to_owned();
        // Keys are ASCII: this is after all that begin with the prefix.
        let end = format!("{prefix}\u{7f}");
        let after = page.after.map(str::to_owned);
        let limit = i64::try_from(page.limit).unwrap_or(i64::MAX);
        let sql = match page.backwards {
            false => {
                "SELECT key, value, revision FROM record
                 WHERE key >= ?1 AND key < ?2 AND (?3 IS NULL OR key > ?3) ORDER BY key LIMIT ?4"
            }
            true => {
                "SELECT key, value, revision FROM record
                 WHERE key >= ?1 AND key < ?2 AND (?3 IS NULL OR key < ?3) ORDER BY key DESC LIMIT ?4"
            }
        };
        self.look(move |connection| {
            connection
                .prepare_cached(sql)?
                .query_map(params![first, end, after, limit], |row| {
                    let record = Record {
                        value: row.get(1)?,
                        revision: row.get(2)?,
                    };
                    Ok((row.get(0)?, record))
                })?
                .collect()
        })
        .await
    }

    async fn look<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, rusqlite::Error> + Send + 'static,
    ) -> Result<T, RecordError> {
        let (sender, answer) = oneshot::channel();
        // Nobody may wait any longer, which changes nothing.
        let look: Look = Box::new(move |connection| drop(sender.send(work(connection))));
        self.looks
            .send(look)
            .await
            .map_err(|_| RecordError::Closed)?;
        let outcome = answer.await.map_err(|_| RecordError::Closed)?;
        outcome.map_err(|source| database_error(&self.path, source))
    }

    async fn change<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, rusqlite::Error> + Send + 'static,
    ) -> Result<T, RecordError> {
        let (sender, answer) = oneshot::channel();
        let change: Change = Box::new(move |connection| {
            let outcome = connection.and_then(|connection| work(connection).map_err(Arc::new));
            // Nobody may wait any longer, which changes nothing.
            Box::new(move |committed| drop(sender.send(committed.and(outcome))))
        });
        self.changes
            .send(change)
            .await
            .map_err(|_| RecordError::Closed)?;
        let outcome = answer.await.map_err(|_| RecordError::Closed)?;
        outcome.map_err(|source| database_error(&self.path, source))
    }
}

fn database_error(path: &Path, source: impl Into<Failure>) -> RecordError {
    RecordError::Database {
        path: path.to_owned(),
        source: source.into(),
    }
}

fn read_only(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.execute_batch("PRAGMA busy_timeout = 5000;")?;
    Ok(connection)
}

/// The format of a database: how many migrations it has behind it. There is nothing to be done with one that has more
/// than are `known`.
fn format_of(connection: &Connection, path: &Path, known: usize) -> Result<usize, RecordError> {
    let found: u32 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(|source| database_error(path, source))?;
    match found as usize {
        found if found <= known => Ok(found),
        _ => Err(RecordError::Newer {
            place: format!("the database {}", path.display()),
            found: found.to_string(),
        }),
    }
}

/// Brings a database to the newest format, step by step: whatever happens in between, it has one of the formats.
fn migrate(
    connection: &mut Connection,
    path: &Path,
    migrations: &[&str],
) -> Result<(), RecordError> {
    let failed = |source| database_error(path, source);
    let found = format_of(connection, path, migrations.len())?;
    for (format, migration) in (1u32..).zip(migrations).skip(found) {
        let transaction = connection.transaction().map_err(failed)?;
        transaction.execute_batch(migration).map_err(failed)?;
        transaction
            .pragma_update(None, "user_version", format)
            .map_err(failed)?;
        transaction.commit().map_err(failed)?;
    }
    Ok(())
}

fn look_at_all(connection: &Connection, mut looks: mpsc::Receiver<Look>) {
    while let Some(look) = looks.blocking_recv() {
        look(connection);
    }
}

fn change_all(connection: &Connection, mut changes: mpsc::Receiver<Change>) {
    let mut batch = Vec::with_capacity(BATCH);
    while changes.blocking_recv_many(&mut batch, BATCH) > 0 {
        let begun = connection
            .execute_batch("BEGIN IMMEDIATE")
            .map_err(Arc::new);
        let answers: Vec<_> = batch
            .drain(..)
            .map(|change| change(begun.as_ref().map(|()| connection).map_err(Arc::clone)))
            .collect();
        let committed = begun.and_then(|()| connection.execute_batch("COMMIT").map_err(Arc::new));
        if committed.is_err() && !connection.is_autocommit() {
            // What was done is told to have failed.
            let _ = connection.execute_batch("ROLLBACK");
        }
        for answer in answers {
            answer(committed.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(value: &str, revision: u64) -> Record<Vec<u8>> {
        Record {
            value: value.into(),
            revision,
        }
    }

    #[tokio::test]
    async fn whoever_is_slower_loses() {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&folder.path().join("state.db")).unwrap();
        assert!(store.create("job.a.1", b"1".into()).await.unwrap());
        assert!(!store.create("job.a.1", b"2".into()).await.unwrap());
        assert!(store.update("job.a.1", b"3".into(), 1).await.unwrap());
        assert!(!store.update("job.a.1", b"4".into(), 1).await.unwrap());
        assert!(!store.update("job.a.2", b"4".into(), 1).await.unwrap());
        let found = store.get("job.a.1").await.unwrap();
        assert_eq!(found, Some(record("3", 2)));
        store.remove("job.a.1").await.unwrap();
        assert_eq!(store.get("job.a.1").await.unwrap(), None);
        assert!(store.create("job.a.1", b"5".into()).await.unwrap());
    }

    #[tokio::test]
    async fn lists_have_what_begins_with_the_prefix() {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&folder.path().join("state.db")).unwrap();
        for key in [
            "job.a.2", "job.a.1", "job.ab.1", "job.b.1", "jobs", "job.a.3",
        ] {
            assert!(store.create(key, key.into()).await.unwrap());
        }
        let keys = async |prefix, page| -> Vec<String> {
            let found = store.list(prefix, page).await.unwrap().into_iter();
            found.map(|(key, _)| key).collect()
        };
        let all = keys("job.a.", Page::ALL).await;
        assert_eq!(all, ["job.a.1", "job.a.2", "job.a.3"]);
        let page = Page {
            after: Some("job.a.1"),
            limit: 1,
            backwards: false,
        };
        assert_eq!(keys("job.a.", page).await, ["job.a.2"]);
        let page = Page {
            after: Some("job.a.3"),
            limit: 5,
            backwards: true,
        };
        assert_eq!(keys("job.a.", page).await, ["job.a.2", "job.a.1"]);
        assert!(keys("job.c.", Page::ALL).await.is_empty());
    }

    #[tokio::test]
    async fn what_was_answered_is_there_the_next_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let store = Sqlite::open(&path).unwrap();
        let written = (0..1000).map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.create(&format!("n.{n:04}"), vec![1]).await })
        });
        for created in futures_util::future::join_all(written).await {
            assert!(created.unwrap().unwrap());
        }
        let copy = folder.path().join("copy.db");
        Sqlite::copy(&path, &copy).unwrap();
        drop(store);
        for path in [path, copy] {
            let store = Sqlite::open(&path).unwrap();
            assert_eq!(store.list("n.", Page::ALL).await.unwrap().len(), 1000);
        }
    }

    #[test]
    fn newer_databases_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        drop(Sqlite::open(&path).unwrap());
        let connection = Connection::open(&path).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        drop(connection);
        let copy = folder.path().join("copy.db");
        for refused in [
            Sqlite::open(&path).map(drop),
            Sqlite::check(&path),
            Sqlite::copy(&path, &copy),
        ] {
            let error = refused.unwrap_err().to_string();
            let known = format!("up to {FORMAT}");
            assert!(
                error.contains("format 99") && error.contains(&known),
                "{error}"
            );
        }
        assert!(!copy.exists());
    }

    #[test]
    fn a_migration_that_is_interrupted_goes_on_the_next_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let mut connection = Connection::open(&path).unwrap();
        let steps = [
            "CREATE TABLE a (x); INSERT INTO a VALUES (1);",
            "ALTER TABLE a RENAME TO b;",
            "INSERT INTO b VALUES (2); INSERT INTO nowhere VALUES (3);",
        ];
        migrate(&mut connection, &path, &steps[..1]).unwrap();
        let error = migrate(&mut connection, &path, &steps).unwrap_err();
        assert!(error.to_string().contains("nowhere"), "{error}");
        drop(connection);

        let mut connection = Connection::open(&path).unwrap();
        let rows = |connection: &Connection| -> Vec<u32> {
            let mut select = connection.prepare("SELECT x FROM b").unwrap();
            let rows = select.query_map([], |row| row.get(0)).unwrap();
            rows.map(Result::unwrap).collect()
        };
        assert_eq!(format_of(&connection, &path, steps.len()).unwrap(), 2);
        assert_eq!(rows(&connection), [1], "half a step is no step");
        let mended = [steps[0], steps[1], "INSERT INTO b VALUES (2);"];
        migrate(&mut connection, &path, &mended).unwrap();
        assert_eq!(format_of(&connection, &path, mended.len()).unwrap(), 3);
        assert_eq!(rows(&connection), [1, 2]);
        migrate(&mut connection, &path, &mended).unwrap();
        assert_eq!(rows(&connection), [1, 2], "nothing is done twice");
    }
}
