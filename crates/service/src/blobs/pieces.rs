//! A blob, a piece after the other: who takes it slowly has no more of it in memory than that.

use std::fmt;
use std::io;

use axum::body::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt};
use tracing::error;

use crate::digest::Digest;

/// Bytes of a piece at most.
const PIECE: usize = 64 << 10;

/// What is left of a blob. It comes to its end with an error if its bytes are not those that its name says.
pub struct Pieces(BoxStream<'static, io::Result<Bytes>>);

struct Rest<R> {
    reader: R,
    hash: Sha256,
    digest: Digest,
}

impl Pieces {
    /// Of a blob that is read so.
    pub fn of(digest: Digest, reader: impl AsyncRead + Send + Unpin + 'static) -> Self {
        let rest = Rest {
            reader,
            hash: Sha256::new(),
            digest,
        };
        let pieces = stream::unfold(Some(rest), async |rest| {
            let mut rest = rest?;
            match rest.next().await {
                Ok(None) => None,
                Ok(Some(piece)) => Some((Ok(piece), Some(rest))),
                Err(error) => {
                    // Whoever fetches it only sees that it breaks off.
                    error!(blob = %rest.digest, %error, "a blob cannot be read to its end");
                    Some((Err(error), None))
                }
            }
        });
        Self(pieces.boxed())
    }

    /// As the body of an answer.
    pub fn into_body(self) -> axum::body::Body {
        axum::body::Body::from_stream(self.0)
    }
}

impl fmt::Debug for Pieces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pieces")
    }
}

impl<R: AsyncRead + Unpin> Rest<R> {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let mut piece = vec![0; PIECE];
        let size = self.reader.read(&mut piece).await?;
        if size > 0 {
            piece.truncate(size);
            self.hash.update(&piece);
            return Ok(Some(piece.into()));
        }
        match Digest::from(std::mem::take(&mut self.hash)) {
            found if found == self.digest => Ok(None),
            found => Err(io::Error::other(format!("its SHA-256 is {found}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(digest: Digest, bytes: Vec<u8>) -> io::Result<usize> {
        let mut pieces = Pieces::of(digest, io::Cursor::new(bytes)).0;
        let mut size = 0;
        while let Some(piece) = pieces.next().await {
            size += piece?.len();
        }
        Ok(size)
    }

    #[tokio::test]
    async fn damage_is_noticed_at_the_end() {
        let bytes = vec![7; 3 * PIECE + 1];
        let digest = Digest::of(&bytes);
        assert_eq!(read(digest, bytes.clone()).await.unwrap(), bytes.len());
        let error = read(digest, bytes[1..].to_vec()).await.unwrap_err();
        assert!(error.to_string().contains("SHA-256"), "{error}");
    }
}
