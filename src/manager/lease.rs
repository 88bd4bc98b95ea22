//! A model in use. Dropping the last clone of a lease is what lets the model be unloaded.

use std::sync::{Arc, Mutex, PoisonError};

use sconce_models::{ChatTemplate, GenerationDefaults, ModelSpec, Tokenizer};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::engine::{EmbedderHandle, EngineHandle};

/// What runs a loaded model.
#[derive(Clone)]
pub enum Runner {
    /// A causal model's engine.
    Engine(EngineHandle),
    /// An embedding model or cross-encoder on its thread.
    Embedder(EmbedderHandle),
}

/// A loaded model and all that belongs to it.
pub struct LoadedEntry {
    /// The name clients ask for.
    pub id: String,
    /// Its shape.
    pub spec: ModelSpec,
    /// Text ↔ token ids.
    pub tokenizer: Tokenizer,
    /// The conversation format, if it has one.
    pub chat_template: Option<ChatTemplate>,
    /// What its files suggest.
    pub defaults: GenerationDefaults,
    /// What runs it.
    pub runner: Runner,
}

/// Holds a loaded model. Clones are one lease.
#[derive(Clone)]
pub struct ModelLease {
    held: Arc<Held>,
}

struct Held {
    entry: Arc<LoadedEntry>,
    leases: Arc<Leases>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.leases.give_back();
    }
}

impl std::ops::Deref for ModelLease {
    type Target = LoadedEntry;

    fn deref(&self) -> &LoadedEntry {
        &self.held.entry
    }
}

/// How many leases a model has. Counted up under the registry's lock, down wherever a lease is dropped.
pub(super) struct Leases {
    count: watch::Sender<usize>,
    /// Told when the count falls to zero: from then on the model is idle.
    idle: Arc<Notify>,
    last_used: Mutex<Instant>,
}

impl Leases {
    pub(super) fn new(idle: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self { count: watch::Sender::new(0), idle, last_used: Mutex::new(Instant::now()) })
    }

    /// One more.
    pub(super) fn take(self: &Arc<Self>, entry: &Arc<LoadedEntry>) -> ModelLease {
        self.count.send_modify(|count| *count += 1);
        self.touch();
        ModelLease { held: Arc::new(Held { entry: Arc::clone(entry), leases: Arc::clone(self) }) }
    }

    pub(super) fn count(&self) -> usize {
        *self.count.borrow()
    }

    /// When a lease was last taken or given back.
    pub(super) fn last_used(&self) -> Instant {
        *self.last_used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The model was of use just now.
    pub(super) fn touch(&self) {
        *self.last_used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Waits until nobody holds the model.
    pub(super) async fn none_left(&self) {
        // The sender lives in `self`, so this cannot fail.
        let _ = self.count.subscribe().wait_for(|count| *count == 0).await;
    }

    fn give_back(&self) {
        self.touch();
        self.count.send_modify(|count| *count -= 1);
        if self.count() == 0 {
            self.idle.notify_one();
        }
    }
}
