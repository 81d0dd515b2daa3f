//! Blobs in an object store of NATS JetStream.

use std::{fmt, io};

use async_nats::jetstream::object_store::{InfoErrorKind, ObjectInfo, ObjectStore};
use async_nats::jetstream::stream::Stream;
use futures_util::stream;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::io::StreamReader;

use super::{BlobError, Pieces};
use crate::digest::Digest;
use crate::nats::{Nats, NatsError};

/// A store of blobs.
pub struct Bucket {
    store: ObjectStore,
    /// What that is made of.
    stream: Stream,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bucket")
    }
}

impl Bucket {
    /// The one of the service.
    pub async fn open(nats: &Nats) -> Result<Self, NatsError> {
        let (store, stream) = nats.blobs().await?;
        Ok(Self { store, stream })
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

    /// What an object of the store is made of, one chunk after the other. The client's own way has a consumer for it: where
    /// that cannot be made, it panics, and one whose server dies is waited for in vain.
    async fn open_object(
        &self,
        digest: Digest,
    ) -> Result<Option<impl AsyncRead + Send + Unpin + use<>>, BlobError> {
        let Some(info) = self.info(digest).await? else {
            return Ok(None);
        };
        let subject = format!("$O.{}.C.{}", info.bucket, info.nuid);
        let start = (self.stream.clone(), 0, info.chunks);
        let chunks = stream::try_unfold(start, move |(stream, sequence, left)| {
            let subject = subject.clone();
            async move {
                if left == 0 {
                    return Ok(None);
                }
                let chunk = stream.get_first_raw_message_by_subject(subject, sequence);
                let chunk = chunk.await.map_err(io::Error::other)?;
                Ok::<_, io::Error>(Some((
                    chunk.payload,
                    (stream, chunk.sequence + 1, left - 1),
                )))
            }
        });
        Ok(Some(StreamReader::new(Box::pin(chunks))))
    }

    /// Whether there are bytes with a digest.
    pub async fn has(&self, digest: Digest) -> Result<bool, BlobError> {
        Ok(self.info(digest).await?.is_some())
    }

    async fn info(&self, digest: Digest) -> Result<Option<ObjectInfo>, BlobError> {
        match self.store.info(digest.to_string()).await {
            Ok(info) => Ok((!info.deleted).then_some(info)),
            Err(error) if error.kind() == InfoErrorKind::NotFound => Ok(None),
            Err(error) => Err(NatsError::of(format!("look for {digest}"))(error).into()),
        }
    }
}
