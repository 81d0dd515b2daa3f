//! Blobs in an object store of NATS JetStream.

use std::fmt;

use async_nats::jetstream::object_store::{GetErrorKind, InfoErrorKind, Object, ObjectStore};
use tokio::io::AsyncReadExt;

use super::{BlobError, Pieces};
use crate::digest::Digest;
use crate::nats::{Nats, NatsError};

/// A store of blobs.
pub struct Bucket {
    store: ObjectStore,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bucket")
    }
}

impl Bucket {
    /// The one of the service.
    pub async fn open(nats: &Nats) -> Result<Self, NatsError> {
        Ok(Self {
            store: nats.blobs().await?,
        })
    }

    /// Keeps bytes. What is there is not written again: who reads it then would find it half-replaced.
    pub async fn put(&self, bytes: Vec<u8>) -> Result<Digest, BlobError> {
        let digest = Digest::of(&bytes);
        if !self.has(digest).await? {
            let (name, mut rest) = (digest.to_string(), bytes.as_slice());
            let put = self.store.put(name.as_str(), &mut rest).await;
            put.map_err(NatsError::of(format!("keep {digest}")))?;
        }
        Ok(digest)
    }

    /// The bytes with a digest.
    pub async fn get(&self, digest: Digest) -> Result<Option<Vec<u8>>, BlobError> {
        let Some(mut object) = self.open_object(digest).await? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        let read = object.read_to_end(&mut bytes).await;
        read.map_err(NatsError::of(format!("fetch {digest}")))?;
        match Digest::of(&bytes) {
            found if found == digest => Ok(Some(bytes)),
            found => Err(BlobError::Altered { digest, found }),
        }
    }

    /// The same, a piece after the other.
    pub async fn pieces(&self, digest: Digest) -> Result<Option<Pieces>, BlobError> {
        let object = self.open_object(digest).await?;
        Ok(object.map(|object| Pieces::of(digest, object)))
    }

    async fn open_object(&self, digest: Digest) -> Result<Option<Object>, BlobError> {
        match self.store.get(digest.to_string()).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.kind() == GetErrorKind::NotFound => Ok(None),
            Err(error) => Err(NatsError::of(format!("fetch {digest}"))(error).into()),
        }
    }

    /// Whether there are bytes with a digest.
    pub async fn has(&self, digest: Digest) -> Result<bool, BlobError> {
        match self.store.info(digest.to_string()).await {
            Ok(info) => Ok(!info.deleted),
            Err(error) if error.kind() == InfoErrorKind::NotFound => Ok(false),
            Err(error) => Err(NatsError::of(format!("look for {digest}"))(error).into()),
        }
    }
}
