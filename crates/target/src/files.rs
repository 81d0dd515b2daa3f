//! Files of the store: whole or not there.

use std::env;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{self, Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::error::TargetError;

/// Says where targets, snapshots and downloads are kept.
pub const CACHE_VARIABLE: &str = "PREVERIFY_CACHE";

/// The cache: as [`CACHE_VARIABLE`] says, or `~/.cache/preverify`.
pub fn default_cache() -> Result<PathBuf, TargetError> {
    let set = |name| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let cache = set(CACHE_VARIABLE)
        .or_else(|| Some(set("HOME")?.join(".cache/preverify")))
        .ok_or(TargetError::NoCache)?;
    // Programs that get paths in it run in other folders.
    path::absolute(&cache).map_err(at("find", &cache))
}

/// Names of folders in the making start with this.
pub(crate) const PARTIAL: &str = ".partial-";

/// A folder in the making inside `parent`; it goes away with this value unless [`finish`]ed.
pub(crate) fn start(parent: &Path) -> Result<TempDir, TargetError> {
    create_folder(parent)?;
    tempfile::Builder::new()
        .prefix(PARTIAL)
        .tempdir_in(parent)
        .map_err(at("create a folder in", parent))
}

/// Gives a folder its final name.
pub(crate) fn finish(partial: TempDir, to: &Path) -> Result<(), TargetError> {
    // What is there is not whole: nobody makes what exists.
    remove_folder(to)?;
    fs::rename(partial.path(), to).map_err(at("create", to))?;
    // It is no longer where it would be removed.
    let _ = partial.keep();
    Ok(())
}

/// Writes a file as a whole or not at all.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), TargetError> {
    let parent = path.parent().unwrap_or(Path::new("."));
    create_folder(parent)?;
    let mut file = tempfile::Builder::new()
        .prefix(PARTIAL)
        .tempfile_in(parent)
        .map_err(at("create", path))?;
    file.write_all(bytes)
        .and_then(|()| file.as_file().sync_all())
        .map_err(at("write", path))?;
    file.persist(path)
        .map_err(|error| at("create", path)(error.error))?;
    Ok(())
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, TargetError> {
    fs::read(path).map_err(at("read", path))
}

/// Reads what the store keeps as JSON.
pub(crate) fn read_record<T: DeserializeOwned>(path: PathBuf) -> Result<T, TargetError> {
    serde_json::from_slice(&read(&path)?).map_err(|source| TargetError::Record { path, source })
}

pub(crate) fn read_text(path: &Path) -> Result<String, TargetError> {
    fs::read_to_string(path).map_err(at("read", path))
}

/// Like [`read_text`]; a file that does not exist is empty.
pub(crate) fn read_text_if_there(path: &Path) -> Result<String, TargetError> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        text => text.map_err(at("read", path)),
    }
}

pub(crate) fn size(path: &Path) -> Result<u64, TargetError> {
    Ok(fs::metadata(path).map_err(at("read", path))?.len())
}

pub(crate) fn copy(from: &Path, to: &Path) -> Result<(), TargetError> {
    if let Some(parent) = to.parent() {
        create_folder(parent)?;
    }
    fs::copy(from, to).map_err(at("copy", from))?;
    Ok(())
}

pub(crate) fn create_folder(path: &Path) -> Result<(), TargetError> {
    fs::create_dir_all(path).map_err(at("create", path))
}

pub(crate) fn remove_folder(path: &Path) -> Result<(), TargetError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at("remove", path)(error)),
        _ => Ok(()),
    }
}

/// The paths in a folder, sorted. A folder that does not exist is empty.
pub(crate) fn entries(folder: &Path) -> Result<Vec<PathBuf>, TargetError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(at("read", folder))?,
    };
    let mut paths = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<Vec<_>>>()
        .map_err(at("read", folder))?;
    paths.sort();
    Ok(paths)
}

/// The regular files below a folder, sorted, relative to it. Links are not followed.
pub(crate) fn tree(folder: &Path) -> Result<Vec<PathBuf>, TargetError> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(at_hand) = folders.pop() {
        for path in entries(&at_hand)? {
            let kind = fs::symlink_metadata(&path)
                .map_err(at("read", &path))?
                .file_type();
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() {
                let relative = path.strip_prefix(folder).expect("it was found below it");
                found.push(relative.to_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Bytes that a folder occupies on disk: snapshots have holes.
pub(crate) fn occupied(folder: &Path) -> Result<u64, TargetError> {
    let mut sum = 0;
    for file in tree(folder)? {
        let path = folder.join(file);
        sum += fs::metadata(&path).map_err(at("read", &path))?.blocks() * 512;
    }
    Ok(sum)
}

pub(crate) fn at<'a>(
    action: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> TargetError + 'a {
    move |source| TargetError::File {
        action,
        path: path.to_owned(),
        source,
    }
}

/// A lock on a file, held as long as this value and this process live.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits until nobody else holds the lock; calls `waiting` first if somebody does.
    pub(crate) fn exclusive(path: &Path, waiting: impl FnOnce()) -> Result<Self, TargetError> {
        let file = lock_file(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => {
                waiting();
                flock(&file, FlockOperation::LockExclusive)
            }
            result => result,
        }
        .map_err(|errno| at("lock", path)(errno.into()))?;
        Ok(Self { _file: file })
    }

    /// Takes the lock if nobody at all holds it.
    pub(crate) fn try_exclusive(path: &Path) -> Result<Option<Self>, TargetError> {
        let file = lock_file(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(at("lock", path)(errno.into())),
        }
    }

    /// Holds the lock together with others that share it.
    pub(crate) fn shared(path: &Path) -> Result<Self, TargetError> {
        let file = lock_file(path)?;
        flock(&file, FlockOperation::LockShared).map_err(|errno| at("lock", path)(errno.into()))?;
        Ok(Self { _file: file })
    }
}

fn lock_file(path: &Path) -> Result<File, TargetError> {
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(at("open", path))
}

/// Where those lock that use a folder of the store.
pub(crate) fn use_lock(folder: &Path) -> PathBuf {
    folder.join("in-use")
}

/// Keeps a folder of the store from being removed. `None` if it is not there.
pub(crate) fn use_folder(folder: &Path) -> Result<Option<Lock>, TargetError> {
    match Lock::shared(&use_lock(folder)) {
        Err(TargetError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(None)
        }
        Err(error) => Err(error),
        // Who removes it does that under the lock, and may just have done so.
        Ok(lock) => Ok(use_lock(folder).exists().then_some(lock)),
    }
}

/// The same for a folder that must be there.
pub(crate) fn keep_folder(folder: &Path) -> Result<Lock, TargetError> {
    let in_use = use_folder(folder)?;
    in_use.ok_or_else(|| at("find", folder)(io::ErrorKind::NotFound.into()))
}

/// The digest of several things, each with its length, so that no two lists of things have the same
/// bytes.
#[derive(Default)]
pub(crate) struct Digest(Sha256);

impl Digest {
    pub(crate) fn add(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let bytes = bytes.as_ref();
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// Adds the contents of a file.
    pub(crate) fn add_file(&mut self, path: &Path) -> Result<&mut Self, TargetError> {
        let mut file = File::open(path).map_err(at("read", path))?;
        let mut contents = Sha256::new();
        io::copy(&mut file, &mut Hasher(&mut contents)).map_err(at("read", path))?;
        Ok(self.add(contents.finalize()))
    }

    /// A name for what was added: 128 bits in hexadecimal.
    pub(crate) fn id(&self) -> String {
        hex(&self.0.clone().finalize()[..16])
    }
}

struct Hasher<'a>(&'a mut Sha256);

impl Write for Hasher<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The little-endian number in so many bytes at an offset; `None` where the bytes end before.
pub(crate) fn number(bytes: &[u8], offset: usize, size: usize) -> Option<u64> {
    let mut number = [0; 8];
    number[..size].copy_from_slice(bytes.get(offset..offset.checked_add(size)?)?);
    Some(u64::from_le_bytes(number))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The bytes that [`hex`] wrote.
pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_appears_whole_or_not_at_all() {
        let scratch = tempfile::tempdir().unwrap();
        let whole = scratch.path().join("kernels/one");
        let partial = start(&scratch.path().join("kernels")).unwrap();
        fs::write(partial.path().join("file"), "x").unwrap();
        assert!(!whole.exists());
        finish(partial, &whole).unwrap();
        assert_eq!(fs::read(whole.join("file")).unwrap(), b"x");

        let partial = start(&scratch.path().join("kernels")).unwrap();
        fs::write(partial.path().join("file"), "y").unwrap();
        drop(partial);
        assert_eq!(entries(&scratch.path().join("kernels")).unwrap(), [whole]);
    }

    #[test]
    fn a_file_replaces_another_and_leaves_nothing_beside_it() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("targets/a.json");
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(entries(path.parent().unwrap()).unwrap(), [path]);
    }

    #[test]
    fn a_lock_excludes_and_sharing_shares() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("lock");
        let held = Lock::exclusive(&path, || panic!("nobody holds it")).unwrap();
        assert!(Lock::try_exclusive(&path).unwrap().is_none());
        drop(held);
        let one = Lock::shared(&path).unwrap();
        let two = Lock::shared(&path).unwrap();
        assert!(Lock::try_exclusive(&path).unwrap().is_none());
        drop((one, two));
        assert!(Lock::try_exclusive(&path).unwrap().is_some());
    }

    #[test]
    fn digests_know_where_things_end() {
        let id = |parts: &[&str]| {
            let mut digest = Digest::default();
            for part in parts {
                digest.add(part);
            }
            digest.id()
        };
        assert_ne!(id(&["ab", "c"]), id(&["a", "bc"]));
        assert_ne!(id(&["ab"]), id(&["ab", ""]));
        assert_eq!(id(&["ab", "c"]).len(), 32);
    }

    #[test]
    fn hexadecimal_round_trips() {
        assert_eq!(from_hex(&hex(&[0, 0xab, 0xff])), Some(vec![0, 0xab, 0xff]));
        for wrong in ["abc", "zz", "ää"] {
            assert_eq!(from_hex(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn trees_are_sorted_and_hold_files_alone() {
        let scratch = tempfile::tempdir().unwrap();
        fs::create_dir_all(scratch.path().join("b/c")).unwrap();
        fs::write(scratch.path().join("b/c/2"), "").unwrap();
        fs::write(scratch.path().join("a"), "").unwrap();
        std::os::unix::fs::symlink("/", scratch.path().join("link")).unwrap();
        assert_eq!(
            tree(scratch.path()).unwrap(),
            ["a", "b/c/2"].map(PathBuf::from)
        );
    }
}
