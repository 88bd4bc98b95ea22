//! The async side of the engine: submit a request, read its tokens, watch its figures.
//!
//! Nothing here waits. What a request may be is checked here, so that the engine thread meets only requests it can run.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::Stream;
use sconce_models::{Device, KvCache, Model, ModelSpec};
use tokio::sync::{Semaphore, mpsc, watch};
use uuid::Uuid;

use crate::engine::drain::DrainRate;
use crate::engine::pace::Pace;
use crate::engine::sampler::Sampler;
use crate::engine::scheduler::{Scheduler, tokens_limit};
use crate::engine::sequence::{Event, Submission};
use crate::engine::tab::{Bill, Tab};
use crate::engine::worker::{self, Worker};
use crate::engine::{EngineError, EngineLimits, EngineStats, SequenceRequest, TokenEvent};

/// Most answers of one request.
const MAX_CHOICES: u32 = 128;

/// Starts engines.
pub struct Engine;

impl Engine {
    /// Allocates the cache on `device` and starts the thread that owns `model`.
    ///
    /// # Errors
    /// [`EngineError::Failed`] if the cache cannot be allocated or the thread not started.
    pub fn spawn(
        model: Box<dyn Model>,
        device: &Device,
        limits: EngineLimits,
    ) -> Result<EngineHandle, EngineError> {
        let cache = KvCache::new(model.spec(), limits.cache_blocks, limits.cache_type, device);
        let cache = cache.map_err(|error| EngineError::Failed { reason: error.to_string() })?;
        let max_waiting = limits.max_waiting.clamp(1, Semaphore::MAX_PERMITS);
        let (sender, submissions) = mpsc::channel(max_waiting);
        let drain = Arc::new(DrainRate::default());
        let shared = Shared {
            spec: ModelSpec { context_length: tokens_limit(model.spec(), &limits), ..model.spec().clone() },
            max_waiting,
            places: Arc::new(Semaphore::new(max_waiting)),
            drain: drain.clone(),
        };
        let seed = Uuid::new_v4().as_u64_pair().0;
        let pace = Pace::new(limits.prefill_chunk);
        let scheduler = Scheduler::new(limits, model.spec(), drain, seed, Instant::now());
        let (publisher, stats) = watch::channel(scheduler.stats());
        let sampler = Sampler::default();
        let masks = None;
        let worker = Worker { model, cache, scheduler, sampler, pace, masks, submissions, stats: publisher };
        worker::spawn("engine", move || worker.run())?;
        Ok(EngineHandle { submissions: sender, shared: Arc::new(shared), stats })
    }
}

/// What all handles of an engine share; none of it changes but the count of places and the rate.
struct Shared {
    spec: ModelSpec,
    max_waiting: usize,
    /// One permit per request that may wait; it travels with the request until that starts or ends.
    places: Arc<Semaphore>,
    drain: Arc<DrainRate>,
}

/// A running engine. Cheap to clone; the thread ends once all handles are gone and all sequences are finished. To await
/// that end, keep what [`EngineHandle::watch`] gave, drop the handles, and wait until its `changed()` is an error: by
/// then the model's memory is free.
#[derive(Clone)]
pub struct EngineHandle {
    /// Handles send, the engine thread receives. The thread drops its end only when it is lost.
    submissions: mpsc::Sender<Submission>,
    shared: Arc<Shared>,
    stats: watch::Receiver<EngineStats>,
}

impl EngineHandle {
    /// Hands a request over. Returns at once: it either waits in the queue or is refused.
    ///
    /// # Errors
    /// [`EngineError::QueueFull`], [`EngineError::TooLong`], [`EngineError::Invalid`], [`EngineError::Lost`].
    pub fn submit(&self, request: SequenceRequest) -> Result<TokenStream, EngineError> {
        self.shared.check(&request)?;
        let Ok(place) = self.shared.places.clone().try_acquire_owned() else {
            return Err(self.shared.queue_full());
        };
        let choices = request.choices.max(1);
        let room = self.shared.spec.context_length - request.prompt.len();
        let answer = room.min(request.max_new_tokens as usize);
        // Per choice its tokens and its end; once for all the prompt's event, and a fault.
        let (sender, events) = mpsc::channel::<Event>(choices as usize * (answer + 1) + 2);
        let (tab, bill) = Tab::open();
        let submission =
            Submission { request, events: sender, tab, place: Some(place), arrival: Instant::now() };
        match self.submissions.try_send(submission) {
            Ok(()) => Ok(TokenStream { events, bill, unfinished: choices, has_ended: false }),
            Err(mpsc::error::TrySendError::Full(_)) => Err(self.shared.queue_full()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(EngineError::Lost),
        }
    }

    /// The model's shape; its context is no longer than the cache has room for.
    pub fn spec(&self) -> &ModelSpec {
        &self.shared.spec
    }

    /// The latest figures.
    pub fn stats(&self) -> EngineStats {
        *self.stats.borrow()
    }

    /// The figures as they change; the sender is gone when the thread has ended.
    pub fn watch(&self) -> watch::Receiver<EngineStats> {
        self.stats.clone()
    }
}

impl Shared {
    fn check(&self, request: &SequenceRequest) -> Result<(), EngineError> {
        let invalid = |param, reason: String| Err(EngineError::Invalid { param, reason });
        if request.prompt.is_empty() {
            return invalid("prompt", "the prompt has no tokens".into());
        }
        let vocab = self.spec.vocab_size;
        if let Some(id) = request.prompt.iter().find(|&&id| id as usize >= vocab) {
            return invalid(
                "prompt",
                format!("token id {id} is not below {vocab}, the size of the vocabulary"),
            );
        }
        if request.choices > MAX_CHOICES {
            return invalid("n", format!("at most {MAX_CHOICES} choices are possible"));
        }
        let needed = request.prompt.len() + request.max_new_tokens.min(1) as usize;
        if needed > self.spec.context_length {
            return Err(EngineError::TooLong { needed, available: self.spec.context_length });
        }
        Ok(())
    }

    fn queue_full(&self) -> EngineError {
        let waiting = self.max_waiting;
        EngineError::QueueFull { waiting, retry_after: self.drain.retry_after(waiting) }
    }
}

/// The events of one request. Dropping it cancels the request: its blocks are free within one step.
///
/// The stream ends after one [`TokenEvent::Finished`] per choice, after [`TokenEvent::Failed`], or after an error:
/// [`EngineError::DeadlineExceeded`] if the request's time ran out before it started, [`EngineError::Lost`] if the
/// engine ended without an answer.
pub struct TokenStream {
    /// The engine thread sends; it drops its end when the request has ended.
    events: mpsc::Receiver<Event>,
    bill: Bill,
    unfinished: u32,
    has_ended: bool,
}

impl TokenStream {
    /// What the request costs; goes on being counted when this stream is dropped.
    pub fn bill(&self) -> Bill {
        self.bill.clone()
    }
}

impl Stream for TokenStream {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        let Poll::Ready(event) = self.events.poll_recv(context) else { return Poll::Pending };
        let event = event.unwrap_or(Err(EngineError::Lost));
        if matches!(event, Ok(TokenEvent::Finished { .. })) {
            self.unfinished -= 1;
        }
        self.has_ended = self.unfinished == 0 || matches!(event, Err(_) | Ok(TokenEvent::Failed { .. }));
        Poll::Ready(Some(event))
    }
}
