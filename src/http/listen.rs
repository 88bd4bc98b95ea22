//! The accept loop: HTTP/1.1 over TCP, with a bound on connections and on the time a request's head may take.
//!
//! HTTP/2 is left to a proxy in front, which also ends TLS: behind one, connections are few and long.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::http::layers::Peer;
use crate::http::wire::{Place, Wire};

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
    /// How long a client may read nothing of what is sent to it before the connection is given up.
    pub write_timeout: Duration,
}

impl Bounds {
    /// As many connections as the process's limit of open files leaves.
    pub fn of_process(write_timeout: Duration) -> Self {
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let connections = files.saturating_sub(OTHER_FILES).clamp(16, MOST_CONNECTIONS);
        let connections = usize::try_from(connections).unwrap_or(16);
        Self { connections, head_timeout: HEAD_TIMEOUT, write_timeout }
    }
}

/// Serves until `drained` is done, then closes idle connections and returns when the last busy one has ended, those
/// included that are no longer HTTP.
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
                // Small events must leave at once; a connection that cannot promise it is served all the same.
                let _ = stream.set_nodelay(true);
                let wire = Wire::new(stream, place, connections.token(), bounds.write_timeout);
                let peer = Peer(peer.ip());
                let served = serve_one(wire, router.clone(), peer, bounds.head_timeout, closes.clone());
                connections.spawn(served);
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
    wire: Wire<TcpStream, impl Place>,
    router: Router,
    peer: Peer,
    head_timeout: Duration,
    mut closes: watch::Receiver<bool>,
) {
    let service = router.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        request
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(wire), TowerToHyperService::new(service))
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
    use axum::http::StatusCode;
    use axum::routing::get;
    use hyper::upgrade;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::mpsc;
    use tokio::task::JoinHandle;

    use super::*;

    fn bounds(connections: usize, head_timeout: Duration) -> Bounds {
        Bounds { connections, head_timeout, write_timeout: HEAD_TIMEOUT }
    }

    async fn start(bounds: Bounds) -> (std::net::SocketAddr, tokio::sync::oneshot::Sender<()>) {
        let router = Router::new().route("/", get(|| async { "here" }));
        let (address, end, _) = start_with(router, bounds).await;
        (address, end)
    }

    async fn start_with(
        router: Router,
        bounds: Bounds,
    ) -> (std::net::SocketAddr, tokio::sync::oneshot::Sender<()>, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (end, ended) = tokio::sync::oneshot::channel();
        let server = tokio::spawn(serve(listener, router, bounds, async { drop(ended.await) }));
        (address, end, server)
    }

    async fn ask(address: std::net::SocketAddr, path: &str, more: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    }

    #[tokio::test]
    async fn a_head_that_does_not_end_is_given_up() {
        let (address, _end) = start(bounds(8, Duration::from_millis(50))).await;
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
        let (address, _end) = start(bounds(1, HEAD_TIMEOUT)).await;
        let first = TcpStream::connect(address).await.unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        second.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
        drop(first);
        let mut answer = String::new();
        second.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("here"), "{answer}");
    }

    #[tokio::test]
    async fn who_reads_nothing_of_a_long_answer_loses_the_connection() {
        let router = Router::new().route("/", get(|| async { "here" }));
        let router = router.route("/long", get(|| async { vec![0u8; 64 << 20] }));
        let bounds = Bounds { write_timeout: Duration::from_millis(20), ..bounds(1, HEAD_TIMEOUT) };
        let (address, _end, _) = start_with(router, bounds).await;
        let _unread = ask(address, "/long", "").await;
        // There is a place for one: this is answered when the other is given up.
        let mut next = ask(address, "/", "Connection: close\r\n").await;
        let mut answer = String::new();
        next.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("here"), "{answer}");
    }

    #[tokio::test]
    async fn a_connection_that_is_no_longer_http_keeps_its_place_and_is_waited_for() {
        let (upgraded, mut taken) = mpsc::channel(2);
        let upgrade = move |request: axum::extract::Request| async move {
            tokio::spawn(async move { upgraded.send(upgrade::on(request).await.unwrap()).await });
            (StatusCode::SWITCHING_PROTOCOLS, [("connection", "upgrade"), ("upgrade", "test")])
        };
        let router = Router::new().route("/", get(|| async { "here" })).route("/up", get(upgrade));
        let (address, end, server) = start_with(router, bounds(1, HEAD_TIMEOUT)).await;
        let up = "Connection: upgrade\r\nUpgrade: test\r\n";
        let first = ask(address, "/up", up).await;
        let first_taken = taken.recv().await.unwrap();
        // Of two, the second comes on when the first is gone.
        let _second = ask(address, "/up", up).await;
        assert!(settled(|| taken.try_recv().is_err()).await);
        drop((first, first_taken));
        let second_taken = taken.recv().await.unwrap();
        end.send(()).unwrap();
        while TcpStream::connect(address).await.is_ok() {}
        assert!(settled(|| !server.is_finished()).await);
        drop(second_taken);
        server.await.unwrap();
    }

    /// Whether something is so, and goes on being so when all who have something to do have done it.
    async fn settled(mut is_so: impl FnMut() -> bool) -> bool {
        for _ in 0..100 {
            if !is_so() {
                return false;
            }
            tokio::task::yield_now().await;
        }
        true
    }
}
