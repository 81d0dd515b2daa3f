//! All that a service knows in one file, taken while it runs.
//!
//! ```text
//! backup.json         the format, and what belongs to it
//! state.db            the database as it was at one moment
//! blobs/DIGEST        the blobs that were there after that moment
//! ```
//!
//! Blobs are written before the records that name them and are never changed: those that the database names are all
//! there. It is a tar archive, so that it can be looked into; its only secrets are the objects and what was said of them. The
//! signer and tokens stay where they are.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tar::{Archive, Builder, Entry, EntryType, Header};
use tempfile::TempDir;

use crate::blobs::{BlobError, Folder};
use crate::digest::Digest;
use crate::files::{FileError, at};
use crate::records::{RecordError, Sqlite};
use crate::state::{self, BLOBS, DATABASE, StateError};

/// The format of archives.
const FORMAT: u32 = 1;
/// The archive's first file.
const CONTENTS: &str = "backup.json";
/// Names of what is in the making start with this.
const PARTIAL: &str = ".partial-";

/// What an archive says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backup {
    format: u32,
    /// When it was begun.
    pub taken: Timestamp,
    /// The digest of the database.
    database: Digest,
    /// How many blobs there are.
    pub blobs: usize,
}

/// There is no backup, or it cannot be restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is nothing to take.
    #[error(
        "{} has no {DATABASE}: name the service's folder with --state (with --nats, state is not in a folder but in the \
         server, whose own tools back it up)",
        .0.display()
    )]
    NoDatabase(PathBuf),
    /// The archive would replace another.
    #[error("{} exists, and a backup is never overwritten: choose another name, or remove it", .0.display())]
    Exists(PathBuf),
    /// The folder has state already.
    #[error("{} exists, and state is never overwritten: restore into another folder, or move it away", .0.display())]
    Occupied(PathBuf),
    /// The archive was written by a newer version.
    #[error(
        "{} is a backup of the format {found}, and this version knows those up to {FORMAT}: restore it with a newer one",
        path.display()
    )]
    Newer {
        /// The archive.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The archive is not as it was written.
    #[error("{} is no backup, or a damaged one: {what}", path.display())]
    Damaged {
        /// The archive.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The folder cannot be had.
    #[error(transparent)]
    State(#[from] StateError),
    /// The database cannot be used.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A blob cannot be used.
    #[error(transparent)]
    Blob(#[from] BlobError),
}

/// Writes all that the service with a folder knows to an archive. The service may be running.
pub fn back_up(state: &Path, archive: &Path) -> Result<Backup, BackupError> {
    let taken = Timestamp::now();
    let database = state.join(DATABASE);
    if !database.exists() {
        return Err(BackupError::NoDatabase(state.into()));
    }
    if archive.exists() {
        return Err(BackupError::Exists(archive.into()));
    }
    let folder = match archive.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let making = partial_folder(folder)?;
    let snapshot = making.path().join(DATABASE);
    Sqlite::copy(&database, &snapshot)?;
    // Only now: what the database names is there.
    let blobs = Folder::of_others(&state.join(BLOBS));
    let names = blobs.list()?;
    let mut database = File::open(&snapshot).map_err(at("read", &snapshot))?;
    let contents = Backup {
        format: FORMAT,
        taken,
        database: Digest::of_reader(&mut database).map_err(at("read", &snapshot))?,
        blobs: names.len(),
    };
    let failed = || at("write", archive);
    // Only its owner can read it.
    let file = tempfile::Builder::new()
        .prefix(PARTIAL)
        .tempfile_in(folder)
        .map_err(failed())?;
    let mut tar = Builder::new(file);
    let text = serde_json::to_vec(&contents).expect("all its keys are strings");
    append(&mut tar, taken, CONTENTS, text.len() as u64, &text[..]).map_err(failed())?;
    database.rewind().map_err(at("read", &snapshot))?;
    let size = database.metadata().map_err(at("read", &snapshot))?.len();
    append(&mut tar, taken, DATABASE, size, database).map_err(failed())?;
    for name in names {
        let Some(bytes) = blobs.read(name)? else {
            let gone = io::ErrorKind::NotFound.into();
            return Err(at("read the blob", Path::new(&name.to_string()))(gone).into());
        };
        let path = format!("{BLOBS}/{name}");
        append(&mut tar, taken, &path, bytes.len() as u64, &bytes[..]).map_err(failed())?;
    }
    let file = tar.into_inner().map_err(failed())?;
    file.as_file().sync_all().map_err(failed())?;
    match file.persist_noclobber(archive) {
        Ok(_) => sync(folder)?,
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(BackupError::Exists(archive.into()));
        }
        Err(error) => return Err(failed()(error.error).into()),
    }
    Ok(contents)
}

/// Makes a folder of what is in an archive, all of it or nothing. The service can be started with it then.
pub fn restore(archive: &Path, state: &Path) -> Result<Backup, BackupError> {
    let _lock = state::take(state)?;
    let places = [DATABASE, BLOBS].map(|name| state.join(name));
    if let Some(occupied) = places.iter().find(|place| place.exists()) {
        return Err(BackupError::Occupied(occupied.clone()));
    }
    let making = partial_folder(state)?;
    let contents = unpack(archive, making.path())?;
    Sqlite::check(&making.path().join(DATABASE))?;
    // The database last: it names blobs.
    for name in [BLOBS, DATABASE] {
        let place = state.join(name);
        fs::rename(making.path().join(name), &place).map_err(at("create", &place))?;
        sync(state)?;
    }
    Ok(contents)
}

/// Writes what is in an archive to an empty folder, if it is all there and as it was.
fn unpack(archive: &Path, folder: &Path) -> Result<Backup, BackupError> {
    let read = |source| at("read", archive)(source);
    let damaged = |what: String| BackupError::Damaged {
        path: archive.into(),
        what,
    };
    let blobs = Folder::open(&folder.join(BLOBS))?;
    let mut file = Archive::new(File::open(archive).map_err(read)?);
    let broken = |error: io::Error| damaged(error.to_string());
    let mut entries = file.entries().map_err(broken)?;
    let mut next = |wanted: &str| match entries.next() {
        None => Err(damaged(format!("it ends before {wanted}"))),
        Some(entry) => entry.map_err(broken),
    };

    let mut entry = next(CONTENTS)?;
    expect(&entry, CONTENTS).map_err(damaged)?;
    let text = io::read_to_string(&mut entry).map_err(broken)?;
    let contents = read_contents(&text, archive)?;

    let mut entry = next(DATABASE)?;
    expect(&entry, DATABASE).map_err(damaged)?;
    let place = folder.join(DATABASE);
    let mut database = private_file(&place)?;
    io::copy(&mut entry, &mut database).map_err(at("write", &place))?;
    database.sync_all().map_err(at("write", &place))?;
    database.rewind().map_err(at("read", &place))?;
    let found = Digest::of_reader(&mut database).map_err(at("read", &place))?;
    if found != contents.database {
        let expected = contents.database;
        return Err(damaged(format!(
            "the SHA-256 of {DATABASE} is {found}, and not {expected}"
        )));
    }

    let mut found = BTreeSet::new();
    while found.len() < contents.blobs {
        let mut entry = next(&format!("{} more blobs", contents.blobs - found.len()))?;
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(broken)?;
        let digest = Digest::of(&bytes);
        expect(&entry, &format!("{BLOBS}/{digest}")).map_err(damaged)?;
        if !found.insert(digest) {
            return Err(damaged(format!("the blob {digest} is there twice")));
        }
        blobs.write(&bytes)?;
    }
    match entries.next().transpose().map_err(broken)? {
        None => Ok(contents),
        Some(_) => Err(damaged("it goes on after its last blob".into())),
    }
}

/// What an archive says of itself, if it has a format that is known.
fn read_contents(text: &str, archive: &Path) -> Result<Backup, BackupError> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let damaged = |error: serde_json::Error| BackupError::Damaged {
        path: archive.into(),
        what: format!("{CONTENTS} cannot be read: {error}"),
    };
    let Format { format } = serde_json::from_str(text).map_err(damaged)?;
    if format > FORMAT {
        return Err(BackupError::Newer {
            path: archive.into(),
            found: format,
        });
    }
    serde_json::from_str(text).map_err(damaged)
}

/// Fails unless an entry is a file of this name.
fn expect(entry: &Entry<'_, impl Read>, name: &str) -> Result<(), String> {
    let found = entry.path_bytes();
    match entry.header().entry_type() {
        EntryType::Regular if *found == *name.as_bytes() => Ok(()),
        EntryType::Regular => Err(format!(
            "expected {name}, found {}",
            String::from_utf8_lossy(&found)
        )),
        kind => Err(format!("expected the file {name}, found {kind:?}")),
    }
}

fn append(
    tar: &mut Builder<impl io::Write>,
    taken: Timestamp,
    name: &str,
    size: u64,
    data: impl Read,
) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o600);
    header.set_mtime(u64::try_from(taken.as_second()).unwrap_or(0));
    header.set_size(size);
    tar.append_data(&mut header, name, data)
}

/// A folder that nobody else can look into, and that goes with whoever has it.
fn partial_folder(parent: &Path) -> Result<TempDir, FileError> {
    use std::os::unix::fs::PermissionsExt;
    tempfile::Builder::new()
        .prefix(PARTIAL)
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir_in(parent)
        .map_err(at("create a folder in", parent))
}

fn private_file(path: &Path) -> Result<File, FileError> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = File::options();
    options.read(true).write(true).create_new(true).mode(0o600);
    options.open(path).map_err(at("create", path))
}

/// Has the names in a folder on disk.
fn sync(folder: &Path) -> Result<(), FileError> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(at("write", folder))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::records::{Page, Records};

    /// A folder with some records and blobs, and an archive of it.
    struct Taken {
        state: TempDir,
        archive: PathBuf,
        records: Records,
    }

    impl Taken {
        async fn new() -> Self {
            let state = tempfile::tempdir().unwrap();
            let records = Records::from(Sqlite::open(&state.path().join(DATABASE)).unwrap());
            let blobs = Folder::open(&state.path().join(BLOBS)).unwrap();
            for name in ["a", "b", "c"] {
                let digest = blobs.put(name.repeat(3000).into()).await.unwrap();
                let key = format!("n.{name}");
                records.create(&key, &digest).await.unwrap();
            }
            let archive = state.path().join("archive.tar");
            let backup = back_up(state.path(), &archive).unwrap();
            assert_eq!(backup.blobs, 3);
            Self {
                state,
                archive,
                records,
            }
        }

        /// Why another archive cannot be restored, and that nothing is left of it then.
        fn refusal(&self, archive: &[u8]) -> String {
            let path = self.state.path().join("other.tar");
            fs::write(&path, archive).unwrap();
            let state = self.state.path().join("refused");
            let error = restore(&path, &state).unwrap_err();
            let left: Vec<_> = fs::read_dir(&state).unwrap().collect();
            assert_eq!(left.len(), 1, "the lock alone: {left:?}");
            error.to_string()
        }
    }

    #[tokio::test]
    async fn what_is_restored_is_what_was_there() {
        let taken = Taken::new().await;
        let mode = fs::metadata(&taken.archive).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // What comes later is not in it.
        taken.records.create("n.later", &0).await.unwrap();
        let state = taken.state.path().join("restored");
        fs::create_dir(&state).unwrap();
        fs::write(state.join("signer.pem"), "").unwrap();
        let backup = restore(&taken.archive, &state).unwrap();
        assert_eq!(backup.blobs, 3);
        let records = Records::from(Sqlite::open(&state.join(DATABASE)).unwrap());
        let blobs = Folder::open(&state.join(BLOBS)).unwrap();
        let found = records.list::<Digest>("n.", Page::ALL).await.unwrap();
        assert_eq!(found.len(), 3);
        for (_, record) in found {
            let bytes = blobs.get(record.value).await.unwrap();
            assert_eq!(bytes.map(|bytes| bytes.len()), Some(3000));
        }
        let error = restore(&taken.archive, &state).unwrap_err().to_string();
        assert!(error.contains("state is never overwritten"), "{error}");
        let again = back_up(taken.state.path(), &taken.archive);
        let error = again.unwrap_err().to_string();
        assert!(error.contains("a backup is never overwritten"), "{error}");
        let nothing = back_up(&taken.state.path().join("nowhere"), &state.join("x"));
        let error = nothing.unwrap_err().to_string();
        assert!(error.contains("has no state.db"), "{error}");
        let left = fs::read_dir(taken.state.path()).unwrap();
        let mut left = left.map(|entry| entry.unwrap().file_name());
        assert!(!left.any(|name| name.to_string_lossy().starts_with(PARTIAL)));
    }

    #[tokio::test]
    async fn folders_in_use_are_left_alone() {
        let taken = Taken::new().await;
        let state = taken.state.path().join("restored");
        let _lock = state::take(&state).unwrap();
        let error = restore(&taken.archive, &state).unwrap_err().to_string();
        assert!(error.contains("in use by another process"), "{error}");
    }

    #[tokio::test]
    async fn torn_archives_are_refused_wherever_they_end() {
        let taken = Taken::new().await;
        let archive = fs::read(&taken.archive).unwrap();
        // The last two blocks of a tar archive say that it ends, and have nothing else.
        let whole = archive.len() - 1024;
        for end in (0..whole).step_by(512).chain([1, 700, whole - 1]) {
            let error = taken.refusal(&archive[..end]);
            assert!(
                error.contains("no backup, or a damaged one"),
                "{end}: {error}"
            );
        }
    }

    #[tokio::test]
    async fn altered_archives_are_refused() {
        let taken = Taken::new().await;
        let archive = fs::read(&taken.archive).unwrap();
        let replaced = |from: &[u8], to: &[u8]| {
            let mut archive = archive.clone();
            let place = archive.windows(from.len()).position(|part| part == from);
            let place = place.expect("it is there");
            archive[place..][..to.len()].copy_from_slice(to);
            archive
        };
        let error = taken.refusal(&replaced(b"bbbb", b"bbxb"));
        assert!(
            error.contains("expected blobs/") && error.contains("found blobs/"),
            "{error}"
        );
        let error = taken.refusal(&replaced(b"SQLite format 3\0", b"SQLite format 4"));
        assert!(error.contains("the SHA-256 of state.db is"), "{error}");
        let error = taken.refusal(&replaced(b"\"format\":1", b"\"format\":7"));
        assert!(error.contains("of the format 7"), "{error}");
        let error = taken.refusal(&replaced(b"\"blobs\":3", b"\"blobs\":2"));
        assert!(error.contains("goes on after its last blob"), "{error}");
        let error = taken.refusal(b"no tar at all");
        assert!(error.contains("no backup, or a damaged one"), "{error}");
    }

    #[tokio::test]
    async fn damaged_blobs_are_not_taken_along() {
        let taken = Taken::new().await;
        let name = Digest::of("a".repeat(3000).as_bytes()).to_string();
        let blob = taken.state.path().join(BLOBS).join(&name[..2]).join(&name);
        fs::write(blob, "aa").unwrap();
        let archive = taken.state.path().join("other.tar");
        let error = back_up(taken.state.path(), &archive).unwrap_err();
        assert!(error.to_string().contains("is damaged"), "{error}");
        assert!(!archive.exists());
    }
}
