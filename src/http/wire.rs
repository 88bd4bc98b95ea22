//! A connection's bytes, with two courtesies. Whoever reads nothing of what is written for long is given up: it would
//! keep its place for ever. And whoever is still sending when we close is listened to for a moment: otherwise the
//! system would throw our last words away before they are read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::runtime::Handle;
use tokio::time::{Sleep, sleep, timeout};
use tokio_util::task::task_tracker::TaskTrackerToken;

/// How long, and how much, is listened to after the last word.
const LINGER: Duration = Duration::from_secs(3);
const MOST_UNREAD: u64 = 4 << 20;

/// What a connection's bytes go through.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for S {}

/// What a connection holds as long as it is open: its place among the most that there may be.
pub trait Place: Unpin + Send + 'static {}

impl<P: Unpin + Send + 'static> Place for P {}

/// A connection, and whoever has it has it whole: a WebSocket too, once it is one.
pub struct Wire<S: Stream, P: Place> {
    /// None only while this is being dropped.
    open: Option<(S, P)>,
    /// Who waits for the end of all connections waits for this, but not for those who listen to no farewell.
    _counted: TaskTrackerToken,
    patience: Duration,
    /// Runs while a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
    /// The other end is gone, or does not read: there is nobody to be courteous to.
    is_over: bool,
}

impl<S: Stream, P: Place> Wire<S, P> {
    /// Gives the connection up when a write waits for longer than `patience`. Its place is free when it is closed at
    /// last.
    pub fn new(stream: S, place: P, counted: TaskTrackerToken, patience: Duration) -> Self {
        Self { open: Some((stream, place)), _counted: counted, patience, stalled: None, is_over: false }
    }

    fn stream(&mut self) -> Pin<&mut S> {
        let (stream, _) = self.open.as_mut().expect("it is taken out when this is dropped, and not before");
        Pin::new(stream)
    }

    /// The outcome of a write, unless it waits for too long.
    fn watch<T>(&mut self, context: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(outcome) = outcome {
            self.stalled = None;
            self.is_over |= outcome.is_err();
            return Poll::Ready(outcome);
        }
        let patience = self.patience;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(patience)));
        if stalled.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        self.is_over = true;
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: Stream, P: Place> AsyncRead for Wire<S, P> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (filled, room) = (buffer.filled().len(), buffer.remaining());
        let outcome = self.stream().poll_read(context, buffer);
        if let Poll::Ready(read) = &outcome {
            self.is_over |= read.is_err() || (room > 0 && buffer.filled().len() == filled);
        }
        outcome
    }
}

impl<S: Stream, P: Place> AsyncWrite for Wire<S, P> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = self.stream().poll_write(context, bytes);
        self.watch(context, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = self.stream().poll_write_vectored(context, parts);
        self.watch(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.open.as_ref().is_some_and(|(stream, _)| stream.is_write_vectored())
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(context)
    }
}

impl<S: Stream, P: Place> Drop for Wire<S, P> {
    fn drop(&mut self) {
        let (Some(open), Ok(runtime)) = (self.open.take(), Handle::try_current()) else { return };
        if !self.is_over {
            runtime.spawn(say_goodbye(open));
        }
    }
}

/// Says that nothing more will be said, and reads what still comes: a little of it, for a little while.
async fn say_goodbye((mut stream, place): (impl Stream, impl Place)) {
    let goodbye = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(MOST_UNREAD), &mut tokio::io::sink()).await
    };
    // Whether it was heard is the client's affair.
    let _ = timeout(LINGER, goodbye).await;
    drop(place);
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::oneshot;
    use tokio_util::task::TaskTracker;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn a_write_that_waits_is_done_when_it_is_read() {
        let (near, mut far) = duplex(4);
        let mut near = Wire::new(near, (), TaskTracker::new().token(), LONG);
        let (written, read) = tokio::join!(near.write_all(b"12345678"), async {
            let mut bytes = [0; 8];
            far.read_exact(&mut bytes).await.map(|_| bytes)
        });
        assert!(written.is_ok() && near.stalled.is_none());
        assert_eq!(&read.expect("it comes"), b"12345678");
    }

    #[tokio::test]
    async fn a_write_that_waits_too_long_fails_and_the_place_is_free() {
        let (near, _far) = duplex(4);
        let (place, free) = oneshot::channel::<()>();
        let mut near = Wire::new(near, place, TaskTracker::new().token(), Duration::from_millis(5));
        near.write_all(b"1234").await.expect("there is room");
        let stuck = near.write_all(b"5").await.expect_err("nobody reads");
        assert_eq!(stuck.kind(), io::ErrorKind::TimedOut);
        drop(near);
        assert!(free.await.is_err());
    }

    #[tokio::test]
    async fn the_last_words_reach_a_client_that_is_still_sending() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it listens");
        let client = tokio::spawn(async move {
            let mut stream = TcpStream::connect(address).await.expect("it listens");
            let sent = stream.write_all(&vec![0; 4 << 20]).await;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.expect("the connection is not reset");
            (sent.is_ok(), answer)
        });
        let (stream, _) = listener.accept().await.expect("it comes");
        let (place, free) = oneshot::channel::<()>();
        let connections = TaskTracker::new();
        let mut wire = Wire::new(stream, place, connections.token(), LONG);
        // Something, but not all, has come.
        wire.read_exact(&mut [0; 16]).await.expect("it is sending");
        wire.write_all(b"no more").await.expect("there is room");
        drop(wire);
        assert!(connections.is_empty(), "nobody waits for the farewell");
        assert_eq!(client.await.expect("no panic"), (true, "no more".to_owned()));
        assert!(free.await.is_err());
    }
}
