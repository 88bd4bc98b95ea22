//! Where requests get their place in the records.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};

use crate::auth::{Caller, Identity, new_id};
use crate::clock::Clock;
use crate::store::Store;
use crate::store::usage::UsageRow;
use crate::usage::UsageError;
use crate::usage::scribe::{Scribe, counted};
use crate::usage::tally::{Settled, Tally};

/// Requests that run, or whose row is not in the database yet.
const PLACES: u32 = 4096;

/// Rows of one recorder that are not the scribe's.
const MOST_ASIDE: usize = 16;

/// Hands out places in the records. Cheap to clone.
#[derive(Clone)]
pub struct Recorder(Arc<Inner>);

struct Inner {
    clock: Clock,
    sender: mpsc::Sender<Settled>,
    state: Arc<State>,
}

/// What the recorder and its scribe share.
pub(super) struct State {
    /// One permit for each request that runs or whose row is not written.
    pub(super) places: Arc<Semaphore>,
    /// The database did not take the last rows.
    pub(super) failing: AtomicBool,
    /// Nothing is to be collected any more before it is written.
    pub(super) hurry: Notify,
    /// Counts the rows written.
    pub(super) written: watch::Sender<u64>,
}

/// Rows that are not the scribe's to write: whoever has this writes them, with what else belongs to them.
pub struct Aside(mpsc::Receiver<Settled>);

/// Rows that are settled and not written. Their places are free when this is dropped.
#[derive(Debug, Default)]
pub struct Unwritten {
    /// The rows.
    pub rows: Vec<UsageRow>,
    _places: Vec<OwnedSemaphorePermit>,
}

impl Aside {
    /// The rows of what has ended by now, with the final counts: those come within a step of the engine.
    pub async fn settled(&mut self) -> Unwritten {
        let mut unwritten = Unwritten::default();
        while let Ok(settled) = self.0.try_recv() {
            let (row, place) = counted(settled).await;
            unwritten.rows.push(row);
            unwritten._places.push(place);
        }
        unwritten
    }
}

impl Recorder {
    /// The same recorder, whose rows are not written but handed to whoever has the other half.
    pub fn aside(&self) -> (Self, Aside) {
        // One request has one row; more than a few are never begun by one of these.
        let (sender, settled) = mpsc::channel(MOST_ASIDE);
        let inner = Inner { clock: self.0.clock.clone(), sender, state: Arc::clone(&self.0.state) };
        (Self(Arc::new(inner)), Aside(settled))
    }

    /// A recorder, and the one who writes for it.
    pub fn open(store: Store, clock: Clock) -> (Self, Scribe) {
        let (sender, settled) = mpsc::channel(PLACES as usize);
        let state = Arc::new(State {
            places: Arc::new(Semaphore::new(PLACES as usize)),
            failing: AtomicBool::new(false),
            hurry: Notify::new(),
            written: watch::Sender::new(0),
        });
        let scribe = Scribe::new(store, settled, Arc::clone(&state));
        (Self(Arc::new(Inner { clock, sender, state })), scribe)
    }

    /// A place for a request that is about to begin: the caller's, for a model (and the name it was asked for by).
    ///
    /// # Errors
    /// [`UsageError`] when there is none.
    pub fn begin(
        &self,
        caller: &Caller,
        model: &str,
        asked_for: &str,
        endpoint: &'static str,
    ) -> Result<Tally, UsageError> {
        let state = &self.0.state;
        let place = Arc::clone(&state.places).try_acquire_owned().map_err(|_| self.refusal())?;
        let key_id = match caller.identity() {
            Identity::ApiKey { key_id, .. } => Some(key_id.clone()),
            _ => None,
        };
        let row = UsageRow {
            id: new_id("use"),
            at: self.0.clock.now(),
            request_id: caller.origin().request_id.clone(),
            user_id: caller.user().map(|user| user.id.clone()),
            key_id,
            team_id: caller.key_team().map(str::to_owned),
            model: model.to_owned(),
            asked_for: asked_for.to_owned(),
            endpoint: endpoint.to_owned(),
            prompt_tokens: 0,
            cached_tokens: 0,
            completion_tokens: 0,
            outcome: String::new(),
            duration_ms: 0,
            end_user: None,
            metadata: None,
        };
        Ok(Tally {
            row,
            begun: Instant::now(),
            clock: self.0.clock.clone(),
            sender: self.0.sender.clone(),
            place,
        })
    }

    fn refusal(&self) -> UsageError {
        if self.0.state.failing.load(Ordering::Relaxed) {
            UsageError::NotRecorded
        } else {
            UsageError::TooManyRunning
        }
    }

    /// Waits until everything that was begun has ended and is written.
    pub async fn flushed(&self) {
        self.0.state.hurry.notify_one();
        // Never closed.
        let _ = self.0.state.places.acquire_many(PLACES).await;
    }

    /// How many rows have been written so far.
    pub fn written(&self) -> watch::Receiver<u64> {
        self.0.state.written.subscribe()
    }
}
