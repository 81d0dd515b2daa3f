//! Blobs in a folder of this process's own.
//!
//! ```text
//! STATE/blobs/ba/ba7816bf8f01cfea...    the bytes
//! STATE/blobs/.partial-...              bytes that are being written
//! ```

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{BlobError, Pieces};
use crate::digest::Digest;
use crate::files::at;

/// Names of files in the making start with this.
const PARTIAL: &str = ".partial-";

/// A folder of blobs.
#[derive(Clone, Debug)]
pub struct Folder {
    folder: Arc<Path>,
}

impl Folder {
    /// Those in a folder, which is made if it is not there. What was left half-written goes.
    pub fn open(folder: &Path) -> Result<Self, BlobError> {
        fs::create_dir_all(folder).map_err(at("create", folder))?;
        for entry in fs::read_dir(folder).map_err(at("read", folder))? {
            let path = entry.map_err(at("read", folder))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(PARTIAL) {
                fs::remove_file(&path).map_err(at("remove", &path))?;
            }
        }
        Ok(Self {
            folder: folder.into(),
        })
    }

    /// Those in a folder that somebody else may be writing to.
    pub fn of_others(folder: &Path) -> Self {
        Self {
            folder: folder.into(),
        }
    }

    /// All that are there, in order.
    pub fn list(&self) -> Result<Vec<Digest>, BlobError> {
        let mut found = Vec::new();
        for parent in fs::read_dir(&self.folder).map_err(at("read", &self.folder))? {
            let parent = parent.map_err(at("read", &self.folder))?.path();
            if !parent.is_dir() {
                continue;
            }
            for entry in fs::read_dir(&parent).map_err(at("read", &parent))? {
                let name = entry.map_err(at("read", &parent))?.file_name();
                let digest = name.to_str().and_then(|name| name.parse().ok());
                found.extend(digest.filter(|digest| self.path(*digest).starts_with(&parent)));
            }
        }
        found.sort();
        Ok(found)
    }

    /// Keeps bytes.
    pub async fn put(&self, bytes: Vec<u8>) -> Result<Digest, BlobError> {
        let blobs = self.clone();
        tokio::task::spawn_blocking(move || blobs.write(&bytes)).await?
    }

    /// The bytes with a digest.
    pub async fn get(&self, digest: Digest) -> Result<Option<Vec<u8>>, BlobError> {
        let blobs = self.clone();
        tokio::task::spawn_blocking(move || blobs.read(digest)).await?
    }

    /// The same, a piece after the other.
    pub async fn pieces(&self, digest: Digest) -> Result<Option<Pieces>, BlobError> {
        let path = self.path(digest);
        match tokio::fs::File::open(&path).await {
            Ok(file) => Ok(Some(Pieces::of(digest, file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(at("read", &path)(error).into()),
        }
    }

    /// Whether there are bytes with a digest.
    pub async fn has(&self, digest: Digest) -> Result<bool, BlobError> {
        let path = self.path(digest);
        let found =
            tokio::task::spawn_blocking(move || path.try_exists().map_err(at("find", &path)));
        Ok(found.await??)
    }

    /// Keeps bytes, in a thread that may wait.
    pub fn write(&self, bytes: &[u8]) -> Result<Digest, BlobError> {
        let digest = Digest::of(bytes);
        let path = self.path(digest);
        if path.try_exists().map_err(at("find", &path))? {
            return Ok(digest);
        }
        let parent = path.parent().unwrap_or(&self.folder);
        fs::create_dir_all(parent).map_err(at("create", parent))?;
        let mut file = tempfile::Builder::new()
            .prefix(PARTIAL)
            .tempfile_in(&self.folder)
            .map_err(at("create a file in", &self.folder))?;
        file.write_all(bytes)
            .and_then(|()| file.as_file().sync_all())
            .map_err(at("write", &path))?;
        file.persist(&path)
            .map_err(|error| at("create", &path)(error.error))?;
        // Records that name it may be on disk before its name in this folder is.
        fs::File::open(parent)
            .and_then(|folder| folder.sync_all())
            .map_err(at("write", parent))?;
        Ok(digest)
    }

    /// The bytes with a digest, in a thread that may wait.
    pub fn read(&self, digest: Digest) -> Result<Option<Vec<u8>>, BlobError> {
        let path = self.path(digest);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes.map_err(at("read", &path))?,
        };
        match Digest::of(&bytes) {
            found if found == digest => Ok(Some(bytes)),
            found => Err(BlobError::Damaged { path, found }),
        }
    }

    fn path(&self, digest: Digest) -> PathBuf {
        let name = digest.to_string();
        self.folder.join(&name[..2]).join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_are_kept_once() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Folder::open(folder.path()).unwrap();
        let digest = blobs.put(b"abc".into()).await.unwrap();
        assert_eq!(digest, Digest::of(b"abc"));
        assert_eq!(blobs.put(b"abc".into()).await.unwrap(), digest);
        assert!(blobs.has(digest).await.unwrap());
        let second = blobs.put(b"second".into()).await.unwrap();
        fs::write(folder.path().join(".partial-x"), b"").unwrap();
        let mut both = [digest, second];
        both.sort();
        assert_eq!(Folder::of_others(folder.path()).list().unwrap(), both);
        assert_eq!(blobs.get(digest).await.unwrap(), Some(b"abc".into()));
        let other = Digest::of(b"abd");
        assert!(!blobs.has(other).await.unwrap());
        assert_eq!(blobs.get(other).await.unwrap(), None);
    }

    #[tokio::test]
    async fn damage_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Folder::open(folder.path()).unwrap();
        let digest = blobs.put(b"abc".into()).await.unwrap();
        fs::write(blobs.path(digest), b"ab").unwrap();
        let error = blobs.get(digest).await.unwrap_err().to_string();
        assert!(
            error.contains("damaged") && error.contains("ba7816bf"),
            "{error}"
        );
    }

    #[test]
    fn what_was_left_half_written_goes() {
        let folder = tempfile::tempdir().unwrap();
        let left = folder.path().join(".partial-x");
        fs::write(&left, b"a").unwrap();
        Folder::open(folder.path()).unwrap();
        assert!(!left.exists());
    }
}
