//! What is too large for a record: objects, logs and bundles, by the SHA-256 of their bytes.

mod folder;
mod nats;
mod pieces;

use std::path::PathBuf;
use std::sync::Arc;

pub use folder::Folder;
pub use nats::Bucket;
pub use pieces::Pieces;

use crate::digest::Digest;
use crate::files::FileError;
use crate::nats::NatsError;

/// Bytes cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The bytes are not those that their name says.
    #[error(
        "{} is damaged: its SHA-256 is {found}; remove it, and submit again what it belongs to",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What its bytes have.
        found: Digest,
    },
    /// The bytes that a server has are not those that their name says.
    #[error("the server's blob {digest} is damaged: its SHA-256 is {found}")]
    Altered {
        /// Its name.
        digest: Digest,
        /// What its bytes have.
        found: Digest,
    },
    /// The server refuses, or cannot be reached.
    #[error(transparent)]
    Nats(#[from] NatsError),
    /// The thread that was to do it was not to be had.
    #[error("no thread for a file: {0}")]
    Thread(#[from] tokio::task::JoinError),
}

/// The blobs of a service.
#[derive(Clone, Debug)]
pub enum Blobs {
    /// In a folder of this process's own.
    Folder(Folder),
    /// Where other processes have them, too.
    Bucket(Arc<Bucket>),
}

impl Blobs {
    /// Keeps bytes.
    pub async fn put(&self, bytes: Vec<u8>) -> Result<Digest, BlobError> {
        match self {
            Self::Folder(folder) => folder.put(bytes).await,
            Self::Bucket(bucket) => bucket.put(bytes).await,
        }
    }

    /// The bytes with a digest.
    pub async fn get(&self, digest: Digest) -> Result<Option<Vec<u8>>, BlobError> {
        match self {
            Self::Folder(folder) => folder.get(digest).await,
            Self::Bucket(bucket) => bucket.get(digest).await,
        }
    }

    /// The same, a piece after the other.
    pub async fn pieces(&self, digest: Digest) -> Result<Option<Pieces>, BlobError> {
        match self {
            Self::Folder(folder) => folder.pieces(digest).await,
            Self::Bucket(bucket) => bucket.pieces(digest).await,
        }
    }

    /// Whether there are bytes with a digest.
    pub async fn has(&self, digest: Digest) -> Result<bool, BlobError> {
        match self {
            Self::Folder(folder) => folder.has(digest).await,
            Self::Bucket(bucket) => bucket.has(digest).await,
        }
    }
}
