//! A stream of serialisable values → server-sent events, with keep-alive comments and an error event.
//!
//! A task reads the values and a bounded channel carries them to the connection. The client gone: the task drops the
//! stream, and work stops. The client not reading: the channel stays full, and after a while the stream is cut. After
//! an error there is no `[DONE]`.

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use axum::http::HeaderValue;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt, stream};
use metrics::counter;
use serde::Serialize;
use tokio::sync::mpsc;
use tracing::Instrument;

use crate::http::{ApiError, AppState, OpenAiError};
use crate::shutdown::Shutdown;
use crate::telemetry::metrics::SLOW_CLIENTS;

/// Events on their way to a connection.
const BUFFERED_EVENTS: usize = 64;

enum Message {
    Data(String),
    Done,
}

/// Sends the values of `chunks`, then `[DONE]`; or an error in OpenAI's shape and the end.
pub fn openai_events<T, S>(state: &AppState, chunks: S) -> Response
where
    T: Serialize + Send + Sync + 'static,
    S: Stream<Item = Result<Vec<T>, OpenAiError>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(BUFFERED_EVENTS);
    let pump =
        Pump { sender, shutdown: state.shutdown().clone(), patience: state.settings().slow_client_timeout };
    tokio::spawn(pump.run(chunks).in_current_span());
    respond(receiver, state.settings().keep_alive)
}

/// What carries values to a connection. Dropping its sender without `Done` means that something broke.
struct Pump {
    sender: mpsc::Sender<Message>,
    shutdown: Shutdown,
    patience: Duration,
}

impl Pump {
    async fn run<T: Serialize + Send + Sync>(self, chunks: impl Stream<Item = Result<Vec<T>, OpenAiError>>) {
        let mut chunks = pin!(chunks);
        loop {
            let next = tokio::select! {
                biased;
                () = self.sender.closed() => return,
                () = self.shutdown.ended() => Some(Err(ApiError::shutting_down().into())),
                next = chunks.next() => next,
            };
            let go_on = match next {
                Some(Ok(values)) => self.send_all(&values).await,
                Some(Err(error)) => {
                    self.send(Message::Data(error.to_json().to_string())).await;
                    self.send(Message::Done).await;
                    return;
                }
                None => {
                    self.send(Message::Data("[DONE]".to_owned())).await;
                    self.send(Message::Done).await;
                    return;
                }
            };
            if !go_on {
                return;
            }
        }
    }

    async fn send_all<T: Serialize + Send + Sync>(&self, values: &[T]) -> bool {
        for value in values {
            let Ok(text) = serde_json::to_string(value) else { return false };
            if !self.send(Message::Data(text)).await {
                return false;
            }
        }
        true
    }

    /// Whether it was taken; false when the client is gone or does not read.
    async fn send(&self, message: Message) -> bool {
        match self.sender.send_timeout(message, self.patience).await {
            Ok(()) => true,
            Err(mpsc::error::SendTimeoutError::Closed(_)) => false,
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
                tracing::warn!("the client does not read; its stream is cut");
                counter!(SLOW_CLIENTS).increment(1);
                false
            }
        }
    }
}

fn respond(receiver: mpsc::Receiver<Message>, interval: Duration) -> Response {
    let events = stream::unfold(Some(receiver), |receiver| async move {
        let mut receiver = receiver?;
        match receiver.recv().await {
            Some(Message::Data(text)) => {
                Some((Ok::<_, Infallible>(Event::default().data(text)), Some(receiver)))
            }
            Some(Message::Done) => None,
            None => {
                let broken = OpenAiError::from(ApiError::internal()).to_json().to_string();
                Some((Ok(Event::default().data(broken)), None))
            }
        }
    });
    let keep_alive = KeepAlive::new().interval(interval).text("keep-alive");
    let mut response = Sse::new(events).keep_alive(keep_alive).into_response();
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    type Chunk = Result<Vec<u32>, OpenAiError>;

    fn pump(patience: Duration) -> (Pump, mpsc::Receiver<Message>, Shutdown) {
        let (sender, receiver) = mpsc::channel(BUFFERED_EVENTS);
        let shutdown = Shutdown::new();
        (Pump { sender, shutdown: shutdown.clone(), patience }, receiver, shutdown)
    }

    async fn text(receiver: mpsc::Receiver<Message>) -> String {
        let body = axum::body::to_bytes(respond(receiver, LONG).into_body(), 1 << 20).await.expect("it ends");
        String::from_utf8(body.to_vec()).expect("it is text")
    }

    #[tokio::test]
    async fn values_are_followed_by_done() {
        let (pump, receiver, _shutdown) = pump(LONG);
        tokio::spawn(pump.run(stream::iter([Chunk::Ok(vec![1, 2]), Ok(vec![]), Ok(vec![3])])));
        assert_eq!(text(receiver).await, "data: 1\n\ndata: 2\n\ndata: 3\n\ndata: [DONE]\n\n");
    }

    #[tokio::test]
    async fn an_error_ends_the_stream_without_done() {
        let (pump, receiver, _shutdown) = pump(LONG);
        let error = Chunk::Err(ApiError::shutting_down().into());
        tokio::spawn(pump.run(stream::iter([Ok(vec![1]), error, Ok(vec![2])])));
        let text = text(receiver).await;
        assert!(text.starts_with("data: 1\n\ndata: {\"error\":{"), "{text}");
        assert!(!text.contains("[DONE]") && !text.contains("data: 2"), "{text}");
    }

    #[tokio::test]
    async fn a_panic_of_the_source_becomes_an_error_event() {
        let (pump, receiver, _shutdown) = pump(LONG);
        let source = stream::iter([1, 2])
            .map(|n| if n == 2 { panic!("forced by the test") } else { Chunk::Ok(vec![n]) });
        tokio::spawn(pump.run(source));
        let text = text(receiver).await;
        assert!(text.contains("\"code\":\"internal_error\"") && !text.contains("[DONE]"), "{text}");
    }

    #[tokio::test]
    async fn the_end_of_the_server_cuts_the_stream_with_an_error_event() {
        let (pump, receiver, shutdown) = pump(LONG);
        tokio::spawn(pump.run(stream::pending::<Chunk>()));
        shutdown.end();
        let text = text(receiver).await;
        assert!(text.contains("\"code\":\"unavailable\"") && !text.contains("[DONE]"), "{text}");
    }

    #[tokio::test]
    async fn a_client_that_leaves_ends_the_work() {
        struct Guard(Arc<Notify>);
        impl Drop for Guard {
            fn drop(&mut self) {
                self.0.notify_one();
            }
        }
        let dropped = Arc::new(Notify::new());
        let guard = Guard(Arc::clone(&dropped));
        let (pump, receiver, _shutdown) = pump(LONG);
        let source = stream::pending::<Chunk>().inspect(move |_| {
            let _held = &guard;
        });
        tokio::spawn(pump.run(source));
        drop(receiver);
        dropped.notified().await;
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_cut_and_little_is_kept_for_it() {
        let made = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&made);
        let source = stream::repeat(0_u32).map(move |n| {
            counted.fetch_add(1, Ordering::Relaxed);
            Chunk::Ok(vec![n])
        });
        let (pump, receiver, _shutdown) = pump(Duration::from_millis(5));
        pump.run(source).await;
        assert_eq!(made.load(Ordering::Relaxed), BUFFERED_EVENTS + 1);
        drop(receiver);
    }
}
