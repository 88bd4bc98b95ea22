//! The accept loop: HTTP/1.1 over TCP, with a bound on connections and on the time a request's head may take.
//!
//! HTTP/2 is left to a proxy in front, which also ends TLS: behind one, connections are few and long.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;

use crate::http::layers::Peer;

/// Time for the whole head of a request, and for the next one on a kept connection to begin. Longer than clients keep
/// an idle connection, so that they, not we, close it.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Most connections, where the process may open that many files.
const MOST_CONNECTIONS: u64 = 8192;

/// Most of an answer that is held for a client that reads slowly, and most of a request's head.
const BUFFER: usize = 64 * 1024;

/// Open files that are not connections: weights, databases, pipes.
const OTHER_FILES: u64 = 128;

/// After an error that will not go away at once (no free file descriptor).
const PAUSE: Duration = Duration::from_millis(200);

/// How connections are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Most at a time; more wait until one ends.
    pub connections: usize,
    /// Time for the head of a request.
    pub head_timeout: Duration,
}

impl Bounds {
    /// As many connections as the process's limit of open files leaves.
    pub fn of_process() -> Self {
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let connections = files.saturating_sub(OTHER_FILES).clamp(16, MOST_CONNECTIONS);
        Self { connections: usize::try_from(connections).unwrap_or(16), head_timeout: HEAD_TIMEOUT }
    }
}

/// Serves until `drained` is done, then closes idle connections and returns when the last busy one has ended.
/// Dropping the future leaves running connections to the runtime.
pub async fn serve(listener: TcpListener, router: Router, bounds: Bounds, drained: impl Future<Output = ()>) {
    let places = Arc::new(Semaphore::new(bounds.connections));
    let connections = TaskTracker::new();
    let (closing, closes) = watch::channel(false);
    let mut drained = std::pin::pin!(drained);
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            accepted = accepted => accepted,
            () = &mut drained => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let router = router.clone().layer(Extension(Peer(peer.ip())));
                let closes = closes.clone();
                connections.spawn(async move {
                    serve_one(stream, router, bounds.head_timeout, closes).await;
                    drop(place);
                });
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    closing.send_replace(true);
    connections.close();
    connections.wait().await;
}

/// Serves one connection to its end; once `closes` is true, to the end of the request that is running.
async fn serve_one(
    stream: TcpStream,
    router: Router,
    head_timeout: Duration,
    mut closes: watch::Receiver<bool>,
) {
    // Small events must leave at once; a connection that cannot promise it is served all the same.
    let _ = stream.set_nodelay(true);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    // An error of a connection is the client's: it left, or did not speak HTTP.
    let closing = async { drop(closes.wait_for(|closes| *closes).await) };
    tokio::select! {
        _ = connection.as_mut() => return,
        () = closing => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// Whether only this connection failed, before it was accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn start(bounds: Bounds) -> (std::net::SocketAddr, tokio::sync::oneshot::Sender<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (end, ended) = tokio::sync::oneshot::channel();
        let router = Router::new().route("/", get(|| async { "here" }));
        tokio::spawn(serve(listener, router, bounds, async { drop(ended.await) }));
        (address, end)
    }

    #[tokio::test]
    async fn a_head_that_does_not_end_is_given_up() {
        let (address, _end) = start(Bounds { connections: 8, head_timeout: Duration::from_millis(50) }).await;
        for half in ["", "G", "GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: "] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(half.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            // The server closes: otherwise this would never return.
            let _ = stream.read_to_end(&mut answer).await;
            assert!(!String::from_utf8_lossy(&answer).contains("200 OK"));
        }
    }

    #[tokio::test]
    async fn one_connection_too_many_waits_for_its_place() {
        let (address, _end) = start(Bounds { connections: 1, head_timeout: HEAD_TIMEOUT }).await;
        let first = TcpStream::connect(address).await.unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        second.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
        drop(first);
        let mut answer = String::new();
        second.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("here"), "{answer}");
    }
}
