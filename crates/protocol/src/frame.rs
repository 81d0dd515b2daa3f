//! One message on a byte stream: a head of sixteen bytes (magic, version, length and checksum of
//! the body), then the body. A reader that finds anything else says what, and does not guess where
//! the next message starts.

use std::io::{self, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::PROTOCOL_VERSION;

/// The first bytes of a frame.
const MAGIC: [u8; 4] = *b"PVFY";
const HEAD_SIZE: usize = 16;

/// The largest body. A kernel's symbols are 10 MB; of a program, each instruction is exported in three forms, of
/// about thirty bytes together: that makes [`crate::Limits::LONGEST`] 480 MB.
pub const MAX_BODY: usize = 512 << 20;

/// What can be wrong with a message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The stream broke.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// The bytes are no frame.
    #[error("expected the start of a message, found {found:02x?}")]
    Magic {
        /// The four bytes found.
        found: [u8; 4],
    },
    /// The other side speaks another version.
    #[error(
        "expected protocol version {PROTOCOL_VERSION}, found {found}: host and agent are of different builds"
    )]
    Version {
        /// The version found.
        found: u32,
    },
    /// The message is larger than any may be.
    #[error("a message of {size} bytes is above the limit of {MAX_BODY}")]
    TooLarge {
        /// Its size.
        size: usize,
    },
    /// The body was damaged on its way.
    #[error("a message's checksum is {found:#010x}, expected {expected:#010x}")]
    Checksum {
        /// As the head says.
        expected: u32,
        /// Of the body that came.
        found: u32,
    },
    /// The body is not the expected message.
    #[error("a message cannot be understood: {0}")]
    Body(#[from] postcard::Error),
}

/// Sends one message.
pub fn send<T: Serialize>(stream: &mut impl Write, message: &T) -> Result<(), FrameError> {
    let body = postcard::to_stdvec(message)?;
    let size = u32::try_from(body.len())
        .ok()
        .filter(|_| body.len() <= MAX_BODY)
        .ok_or(FrameError::TooLarge { size: body.len() })?;
    let mut head = [0; HEAD_SIZE];
    head[0..4].copy_from_slice(&MAGIC);
    head[4..8].copy_from_slice(&PROTOCOL_VERSION.to_le_bytes());
    head[8..12].copy_from_slice(&size.to_le_bytes());
    head[12..16].copy_from_slice(&crc32fast::hash(&body).to_le_bytes());
    stream.write_all(&head)?;
    stream.write_all(&body)?;
    stream.flush()?;
    Ok(())
}

/// Receives one message.
pub fn receive<T: DeserializeOwned>(stream: &mut impl Read) -> Result<T, FrameError> {
    let mut head = [0; HEAD_SIZE];
    stream.read_exact(&mut head)?;
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    if head[0..4] != MAGIC {
        return Err(FrameError::Magic {
            found: [head[0], head[1], head[2], head[3]],
        });
    }
    if word(4) != PROTOCOL_VERSION {
        return Err(FrameError::Version { found: word(4) });
    }
    let size = word(8) as usize;
    if size > MAX_BODY {
        return Err(FrameError::TooLarge { size });
    }
    // The body grows as it arrives, so that a damaged length alone cannot exhaust memory.
    let mut body = Vec::new();
    stream.by_ref().take(size as u64).read_to_end(&mut body)?;
    if body.len() != size {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    let found = crc32fast::hash(&body);
    if found != word(12) {
        return Err(FrameError::Checksum {
            expected: word(12),
            found,
        });
    }
    Ok(postcard::from_bytes(&body)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{Inputs, LoadRequest, MapInputs, Request, Share, WantedLimits};

    fn sent() -> Vec<u8> {
        let mut bytes = Vec::new();
        send(
            &mut bytes,
            &Request::ReadFile {
                path: "/proc/meminfo".into(),
            },
        )
        .unwrap();
        bytes
    }

    #[test]
    fn a_message_arrives_as_it_was_sent() {
        let received: Request = receive(&mut sent().as_slice()).unwrap();
        assert_eq!(
            received,
            Request::ReadFile {
                path: "/proc/meminfo".into()
            }
        );
    }

    #[test]
    fn what_is_left_out_of_inputs_arrives_as_left_out() {
        let inputs = Inputs {
            maps: BTreeMap::from([("m".to_owned(), MapInputs::default())]),
            modules: vec!["nf_conntrack".into()],
            ..Inputs::default()
        };
        let request = Request::Load(LoadRequest {
            object: vec![1, 2, 3],
            name: "o".into(),
            inputs,
            share: Some(Share { number: 1, of: 3 }),
            export: true,
            doubles: 1,
            limits: WantedLimits {
                insns: Some(64_000_000),
                jumps: None,
            },
            time_limit: 7,
        });
        let mut bytes = Vec::new();
        send(&mut bytes, &request).unwrap();
        assert_eq!(receive::<Request>(&mut bytes.as_slice()).unwrap(), request);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        for bit in 0..sent().len() * 8 {
            let mut bytes = sent();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(
                receive::<Request>(&mut bytes.as_slice()).is_err(),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn every_truncation_is_noticed() {
        for size in 0..sent().len() {
            assert!(
                receive::<Request>(&mut &sent()[..size]).is_err(),
                "{size} bytes"
            );
        }
    }
}
