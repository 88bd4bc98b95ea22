//! The record of one request, from before it begins to its last token.

use std::fmt;
use std::pin::Pin;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::clock::Clock;
use crate::store::usage::UsageRow;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Complete: the model, or a stop text, ended it.
    Stop,
    /// Complete: a length limit ended it.
    Length,
    /// The client took it back.
    Cancelled,
    /// The client left.
    ClientGone,
    /// It took too long.
    Timeout,
    /// The engine or the server failed it.
    Failed,
    /// The credential was taken away.
    Revoked,
    /// The server ended.
    Shutdown,
}

impl Outcome {
    /// As it is stored and sent.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Cancelled => "cancelled",
            Self::ClientGone => "client_gone",
            Self::Timeout => "timeout",
            Self::Failed => "failed",
            Self::Revoked => "revoked",
            Self::Shutdown => "shutdown",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Tokens of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Of the prompt.
    pub prompt: u32,
    /// Of the prompt, found in a cache.
    pub cached: u32,
    /// Generated.
    pub completion: u32,
}

/// The final count, when it is known.
pub(super) type Counting = Pin<Box<dyn Future<Output = Tokens> + Send>>;

/// A place in the records. Dropping it unsettled gives the place back and writes nothing: for a request that never
/// reached an engine.
#[derive(Debug)]
pub struct Tally {
    pub(super) row: UsageRow,
    pub(super) begun: Instant,
    pub(super) clock: Clock,
    /// Tallies send, the scribe receives. Has room for all tallies there can be.
    pub(super) sender: mpsc::Sender<Settled>,
    pub(super) place: OwnedSemaphorePermit,
}

/// A record that only waits for its final count.
pub(super) struct Settled {
    pub(super) row: UsageRow,
    pub(super) counting: Counting,
    pub(super) place: OwnedSemaphorePermit,
}

impl Tally {
    /// Notes whom the request is for, and what else its caller says of it (a JSON object).
    pub fn attribute(&mut self, end_user: Option<String>, metadata: Option<String>) {
        self.row.end_user = end_user;
        self.row.metadata = metadata;
    }

    /// Ends the request: its row is written as soon as `counting` is done. Does not wait.
    pub fn settle(mut self, outcome: Outcome, counting: impl Future<Output = Tokens> + Send + 'static) {
        self.row.outcome = outcome.name().to_owned();
        self.row.at = self.clock.now();
        self.row.duration_ms = millis(self.begun.elapsed());
        let settled = Settled { row: self.row, counting: Box::pin(counting), place: self.place };
        if self.sender.try_send(settled).is_err() {
            tracing::error!("a request ended after the records were closed; what it used is lost");
        }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
