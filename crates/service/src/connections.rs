//! How many connections there are, so that nobody takes all of them.

use std::collections::HashMap;
use std::future::{Ready, ready};
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum_server::accept::Accept;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What part of all files that the process may open one address may have connections with.
const SHARE: u64 = 4;

/// Takes connections, so many at most from one address. Others are closed at once.
#[derive(Clone, Debug)]
pub struct Connections {
    most: usize,
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A connection, which counts as long as it is open.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    address: IpAddr,
    all: Connections,
}

impl Connections {
    /// So many from one address, but no more than a share of what the process may open.
    pub fn new(most: usize) -> Self {
        let share = most_files().map_or(most, |files| {
            usize::try_from(files / SHARE).unwrap_or(usize::MAX)
        });
        Self {
            most: most.min(share),
            by_address: Arc::default(),
        }
    }

    fn take(&self, stream: TcpStream) -> io::Result<Connection> {
        let address = stream.peer_addr().map(|address: SocketAddr| address.ip())?;
        let mut counts = self.counts();
        let count = counts.entry(address).or_default();
        if *count >= self.most {
            return Err(io::Error::other(format!(
                "{address} has {count} connections already"
            )));
        }
        *count += 1;
        drop(counts);
        Ok(Connection {
            stream,
            address,
            all: self.clone(),
        })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets the process open as many files as it is allowed to: what is usual is few for a server. None: there is no limit.
fn most_files() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: maximum,
        maximum,
    };
    match setrlimit(Resource::Nofile, all) {
        Ok(()) => maximum,
        Err(_) => current,
    }
}

impl<S> Accept<TcpStream, S> for Connections {
    type Stream = Connection;
    type Service = S;
    type Future = Ready<io::Result<(Connection, S)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        ready(self.take(stream).map(|connection| (connection, service)))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut counts = self.all.counts();
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
