//! What carries the values of a stream to a connection: a task reads them, a bounded channel holds a few.
//!
//! The client gone: the task drops the stream, and work stops. The client not reading: the channel stays full, and after
//! a while the stream is cut. The credential taken away, or the end of the server: it is cut at once.

use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use metrics::counter;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::{SendTimeoutError, TrySendError};
use tracing::Instrument;

use crate::error::Code;
use crate::http::{ApiError, Interruption, RequestContext};
use crate::telemetry::metrics::SLOW_CLIENTS;

/// Values on their way to a connection.
const BUFFERED: usize = 64;

enum Message {
    /// A value in JSON.
    Value(String),
    /// There are no more.
    Done,
}

/// Where the values come out. Dropping it ends the work.
pub struct Outlet {
    /// The pump sends. It drops its end without `Done` when something broke.
    receiver: mpsc::Receiver<Message>,
    /// What broke, if the pump could still say so.
    broken: Arc<OnceLock<ApiError>>,
    is_done: bool,
}

impl Outlet {
    /// The next value, in JSON. None at the good end; an error is the last.
    pub async fn next(&mut self) -> Option<Result<String, ApiError>> {
        if self.is_done {
            return None;
        }
        match self.receiver.recv().await {
            Some(Message::Value(text)) => return Some(Ok(text)),
            Some(Message::Done) => self.is_done = true,
            None => {
                self.is_done = true;
                return Some(Err(self.broken.get().cloned().unwrap_or_else(ApiError::internal)));
            }
        }
        None
    }
}

/// Starts a task that pumps `values` until they end, `interruption` happens, or nothing is taken for `patience`.
pub fn start<T, S>(values: S, interruption: Interruption, patience: Duration) -> Outlet
where
    T: Serialize + Send + Sync + 'static,
    S: Stream<Item = Result<Vec<T>, ApiError>> + Send + 'static,
{
    start_until(async move { interruption.happened().await }, values, patience)
}

fn start_until<T, S>(
    interrupted: impl Future<Output = ApiError> + Send + 'static,
    values: S,
    patience: Duration,
) -> Outlet
where
    T: Serialize + Send + Sync + 'static,
    S: Stream<Item = Result<Vec<T>, ApiError>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(BUFFERED);
    let broken = Arc::new(OnceLock::new());
    let pump = Pump { sender, patience, broken: Arc::clone(&broken) };
    let running = async move { pump.run(values, pin!(interrupted)).await };
    tokio::spawn(RequestContext::current().scope(running.in_current_span()));
    Outlet { receiver, broken, is_done: false }
}

struct Pump {
    sender: mpsc::Sender<Message>,
    patience: Duration,
    broken: Arc<OnceLock<ApiError>>,
}

impl Pump {
    async fn run<T: Serialize>(
        self,
        values: impl Stream<Item = Result<Vec<T>, ApiError>>,
        mut interrupted: Pin<&mut impl Future<Output = ApiError>>,
    ) {
        let mut values = pin!(values);
        loop {
            let next = tokio::select! {
                biased;
                () = self.sender.closed() => return,
                error = interrupted.as_mut() => Some(Err(error)),
                next = values.next() => next,
            };
            let messages = match next {
                Some(Ok(values)) => values.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>(),
                Some(Err(error)) => return self.break_off(error),
                None => {
                    self.send(Message::Done, interrupted.as_mut()).await;
                    return;
                }
            };
            let Ok(messages) = messages else { return self.break_off(ApiError::internal()) };
            for text in messages {
                if !self.send(Message::Value(text), interrupted.as_mut()).await {
                    return;
                }
            }
        }
    }

    fn break_off(&self, error: ApiError) {
        // Only ever set once, just before the end.
        let _ = self.broken.set(error);
    }

    /// Whether it was taken; false when that was the end.
    async fn send(&self, message: Message, interrupted: Pin<&mut impl Future<Output = ApiError>>) -> bool {
        let message = match self.sender.try_send(message) {
            Ok(()) => return true,
            Err(TrySendError::Closed(_)) => return false,
            Err(TrySendError::Full(message)) => message,
        };
        let sent = tokio::select! {
            biased;
            error = interrupted => {
                self.break_off(error);
                return false;
            }
            sent = self.sender.send_timeout(message, self.patience) => sent,
        };
        if let Err(SendTimeoutError::Timeout(_)) = sent {
            tracing::warn!("the client does not read; its stream is cut");
            counter!(SLOW_CLIENTS).increment(1);
            self.break_off(ApiError::new(Code::Timeout, "the stream was not read in time"));
        }
        sent.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::stream;
    use tokio::sync::{Notify, oneshot};

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    type Values = Result<Vec<u32>, ApiError>;

    fn forever() -> impl Future<Output = ApiError> + Send + 'static {
        std::future::pending()
    }

    /// What came out, and how it ended.
    async fn read(mut outlet: Outlet) -> (Vec<String>, Option<Code>) {
        let mut texts = Vec::new();
        loop {
            match outlet.next().await {
                Some(Ok(text)) => texts.push(text),
                Some(Err(error)) => return (texts, Some(error.code())),
                None => return (texts, None),
            }
        }
    }

    #[tokio::test]
    async fn all_values_come_out_in_their_order() {
        let values = stream::iter([Values::Ok(vec![1, 2]), Ok(vec![]), Ok(vec![3])]);
        let (texts, error) = read(start_until(forever(), values, LONG)).await;
        assert_eq!((texts.join(" "), error), ("1 2 3".to_owned(), None));
    }

    #[tokio::test]
    async fn an_error_is_the_last_that_comes_out() {
        let values = stream::iter([Ok(vec![1]), Values::Err(ApiError::shutting_down()), Ok(vec![2])]);
        let (texts, error) = read(start_until(forever(), values, LONG)).await;
        assert_eq!((texts.join(" "), error), ("1".to_owned(), Some(Code::Unavailable)));
    }

    #[tokio::test]
    async fn a_panic_of_the_source_is_an_error() {
        let values = stream::iter([1, 2])
            .map(|n| if n == 2 { panic!("forced by the test") } else { Values::Ok(vec![n]) });
        let (texts, error) = read(start_until(forever(), values, LONG)).await;
        assert_eq!((texts.join(" "), error), ("1".to_owned(), Some(Code::Internal)));
    }

    #[tokio::test]
    async fn an_interruption_cuts_a_stream_that_waits() {
        let (interrupt, interrupted) = oneshot::channel();
        let interrupted = async move { interrupted.await.expect("the test sends it") };
        let outlet = start_until(interrupted, stream::pending::<Values>(), LONG);
        interrupt.send(ApiError::shutting_down()).expect("it is waited for");
        assert_eq!(read(outlet).await.1, Some(Code::Unavailable));
    }

    #[tokio::test]
    async fn an_interruption_cuts_a_stream_that_nobody_reads() {
        let full = Arc::new(Notify::new());
        let told = Arc::clone(&full);
        let mut made = 0;
        let values = stream::repeat_with(move || {
            made += 1;
            if made > BUFFERED {
                told.notify_one();
            }
            Values::Ok(vec![0])
        });
        let (interrupt, interrupted) = oneshot::channel();
        let interrupted = async move { interrupted.await.expect("the test sends it") };
        let outlet = start_until(interrupted, values, LONG);
        full.notified().await;
        interrupt.send(ApiError::shutting_down()).expect("it is waited for");
        let (texts, error) = read(outlet).await;
        assert_eq!((texts.len(), error), (BUFFERED, Some(Code::Unavailable)));
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
        let values = stream::pending::<Values>().inspect(move |_| {
            let _held = &guard;
        });
        drop(start_until(forever(), values, LONG));
        dropped.notified().await;
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_cut_and_little_is_kept_for_it() {
        let made = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&made);
        let values = stream::repeat_with(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            Values::Ok(vec![0])
        });
        let mut outlet = start_until(forever(), values, Duration::from_millis(5));
        // Its end is the end of the task: until then it is not read.
        while !outlet.receiver.is_closed() {
            tokio::task::yield_now().await;
        }
        assert_eq!(made.load(Ordering::Relaxed), BUFFERED + 1);
        while let Some(Ok(_)) = outlet.next().await {}
        assert_eq!(outlet.broken.get().map(ApiError::code), Some(Code::Timeout));
    }
}
