//! Work that is written down: where a place in the records (platform) and what an engine counts (inference) meet, so
//! that neither wing learns of the other.
//!
//! Dropping it is the end of the work, and settles its record with what the engine counted, however far that had come.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, Stream};

use crate::engine::EngineError;
use crate::generate::{
    Account, Attribution, EndReason, GenerateError, GenerationBatch, GenerationEvent, Usage,
};
use crate::http::{ApiError, Interruption};
use crate::usage::{Outcome, Tally, Tokens};

/// A record of work that begins. Without an open account nothing is written when it is dropped: no engine was asked.
pub struct Record {
    tally: Option<Tally>,
    account: Account,
    interruption: Interruption,
    /// How it ended; none while it goes on.
    outcome: Option<Outcome>,
}

impl Record {
    /// Of work that may be interrupted.
    pub fn new(tally: Tally, interruption: Interruption) -> Self {
        Self { tally: Some(tally), account: Account::default(), interruption, outcome: None }
    }

    /// Where the work's cost is counted.
    pub fn account(&mut self) -> &mut Account {
        &mut self.account
    }

    /// Notes whom the work is for, in the caller's words.
    pub fn attribute(&mut self, attribution: Attribution) {
        let Attribution { end_user, metadata } = attribution;
        let metadata = (!metadata.is_empty()).then(|| serde_json::Value::Object(metadata).to_string());
        if let Some(tally) = &mut self.tally {
            tally.attribute(end_user, metadata);
        }
    }

    /// Says how the work ended; the first word counts.
    pub fn ended(&mut self, outcome: Outcome) {
        self.outcome.get_or_insert(outcome);
    }

    /// Says that the work failed, and how.
    pub fn failed(&mut self, error: &GenerateError) {
        self.ended(match error {
            GenerateError::Engine(EngineError::DeadlineExceeded) => Outcome::Timeout,
            _ => Outcome::Failed,
        });
    }

    /// What may end the work early.
    pub fn interruption(&self) -> &Interruption {
        &self.interruption
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let Some(tally) = self.tally.take().filter(|_| self.account.is_open()) else { return };
        let outcome = self.outcome.or_else(|| self.interruption.cause()).unwrap_or(Outcome::ClientGone);
        let account = std::mem::take(&mut self.account);
        tally.settle(outcome, async move { tokens(account.settled().await) });
    }
}

fn tokens(usage: Usage) -> Tokens {
    Tokens { prompt: usage.prompt_tokens, cached: usage.cached_tokens, completion: usage.completion_tokens }
}

/// Generations with their record.
pub struct Metered {
    // Dropped before the record: the engine may let go.
    generation: GenerationBatch,
    record: Record,
    /// None where whoever sends the pieces watches for it.
    interrupted: Option<BoxFuture<'static, ApiError>>,
    longest: bool,
}

impl Metered {
    /// Puts them together.
    pub fn new(generation: GenerationBatch, record: Record) -> Self {
        Self { generation, record, interrupted: None, longest: false }
    }

    /// The same, which breaks off by itself when it must: for those who send its pieces and watch over something larger.
    #[must_use]
    pub fn watched(mut self) -> Self {
        let interruption = self.record.interruption().clone();
        self.interrupted = Some(async move { interruption.happened().await }.boxed());
        self
    }

    /// As [`GenerationBatch::fingerprint`].
    pub fn fingerprint(&self) -> &str {
        self.generation.fingerprint()
    }

    /// What may end the work early.
    pub fn interruption(&self) -> &Interruption {
        self.record.interruption()
    }

    /// Breaks it off because its client wants no more of it; what it cost. When this returns, no engine works on it.
    pub async fn cancelled(self) -> Usage {
        self.broken_off(Outcome::Cancelled).await
    }

    /// Breaks it off because it takes too long; what it cost.
    pub async fn timed_out(self) -> Usage {
        self.broken_off(Outcome::Timeout).await
    }

    async fn broken_off(mut self, outcome: Outcome) -> Usage {
        self.record.ended(outcome);
        let account = self.record.account.clone();
        drop(self);
        account.settled().await
    }

    fn note(&mut self, event: &Result<GenerationEvent, GenerateError>) {
        match event {
            Ok(GenerationEvent::Ended { reason: EndReason::Length, .. }) => self.longest = true,
            Ok(GenerationEvent::Done { .. }) => {
                self.record.ended(if self.longest { Outcome::Length } else { Outcome::Stop });
            }
            Ok(_) => {}
            Err(error) => self.record.failed(error),
        }
    }
}

impl Stream for Metered {
    type Item = Result<GenerationEvent, ApiError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.record.interruption().cause().is_none()
            && let Some(interrupted) = &mut this.interrupted
            && let Poll::Ready(error) = interrupted.poll_unpin(context)
        {
            this.generation.let_go();
            return Poll::Ready(Some(Err(error)));
        }
        let event = ready!(Pin::new(&mut this.generation).poll_next(context));
        if let Some(event) = &event {
            this.note(event);
        }
        Poll::Ready(event.map(|event| event.map_err(ApiError::from)))
    }
}
