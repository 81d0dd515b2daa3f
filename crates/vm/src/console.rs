//! What a guest and its QEMU print: read as it comes, so that a full pipe never stops the guest,
//! and kept up to a limit.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

/// Bytes kept of each stream: several times what a kernel prints while it boots.
const KEPT: usize = 256 << 10;

/// The end of what a stream carried so far.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    bytes: Arc<Mutex<VecDeque<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Tail {
    /// Reads `stream` to its end, in a thread of its own. That is when QEMU exits.
    pub(crate) fn follow(stream: impl Read + Send + 'static) -> Self {
        let bytes = Arc::default();
        let kept = Arc::clone(&bytes);
        let reader = Some(thread::spawn(move || keep(&kept, stream)));
        Self { bytes, reader }
    }

    /// Waits for the stream's end. Call it when what writes it is gone.
    pub(crate) fn finish(&mut self) {
        if let Some(reader) = self.reader.take() {
            // The reader cannot panic; if it did, what it kept is still worth showing.
            let _ = reader.join();
        }
    }

    /// What is kept, as text.
    pub(crate) fn text(&self) -> String {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(bytes.make_contiguous()).replace('\r', "")
    }
}

fn keep(kept: &Mutex<VecDeque<u8>>, mut stream: impl Read) {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => {
                let mut bytes = kept.lock().unwrap_or_else(PoisonError::into_inner);
                bytes.extend(&buffer[..count]);
                let surplus = bytes.len().saturating_sub(KEPT);
                bytes.drain(..surplus);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_kept_and_the_start_forgotten() {
        let lines: String = (0..60_000).map(|n| format!("line {n}\r\n")).collect();
        let mut tail = Tail::follow(io::Cursor::new(lines));
        tail.finish();
        let text = tail.text();
        assert!(text.len() <= KEPT);
        assert!(text.ends_with("line 59998\nline 59999\n"));
        assert!(!text.contains("line 17\n"));
    }
}
