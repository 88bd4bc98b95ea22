//! A model in use. Dropping the last clone of a lease is what lets the model be unloaded.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sconce_models::grammar::Grammars;
use sconce_models::{ChatTemplate, GenerationDefaults, ModelSpec, Tokenizer};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::engine::{EmbedderHandle, EngineHandle, EngineStats};
use crate::manager::profile::Profile;

/// What runs a loaded model.
#[derive(Clone)]
pub enum Runner {
    /// A causal model's engine.
    Engine(EngineHandle),
    /// An embedding model or cross-encoder on its thread.
    Embedder(EmbedderHandle),
}

impl Runner {
    /// Whether its thread has ended, though this handle keeps it wanted.
    pub(super) fn is_lost(&self) -> bool {
        self.thread().is_over()
    }

    /// Its thread, to wait for its end once all handles are gone.
    pub(super) fn thread(&self) -> RunnerThread {
        match self {
            Self::Engine(engine) => RunnerThread::Engine(engine.watch()),
            Self::Embedder(embedder) => RunnerThread::Embedder(embedder.watch()),
        }
    }
}

/// The thread that runs a model. Its memory is free when it is over.
pub(super) enum RunnerThread {
    Engine(watch::Receiver<EngineStats>),
    Embedder(watch::Receiver<()>),
}

impl RunnerThread {
    fn is_over(&self) -> bool {
        match self {
            Self::Engine(figures) => figures.has_changed().is_err(),
            Self::Embedder(alive) => alive.has_changed().is_err(),
        }
    }

    /// Waits until the thread has ended.
    pub(super) async fn over(self) {
        match self {
            Self::Engine(mut figures) => while figures.changed().await.is_ok() {},
            Self::Embedder(mut alive) => while alive.changed().await.is_ok() {},
        }
    }
}

/// A loaded model and all that belongs to it.
pub struct LoadedEntry {
    /// The name clients ask for.
    pub id: String,
    /// Its shape.
    pub spec: ModelSpec,
    /// Text ↔ token ids.
    pub tokenizer: Tokenizer,
    /// What its answers can be held to; made when one is first asked for.
    pub grammars: Arc<Grammars>,
    /// The conversation format, if it has one.
    pub chat_template: Option<ChatTemplate>,
    /// What its files suggest; a request gets [`ModelLease::defaults`].
    pub(super) defaults: GenerationDefaults,
    /// What runs it.
    pub runner: Runner,
    /// What else is known of it.
    pub profile: Arc<Profile>,
}

/// Holds a loaded model. Clones are one lease.
#[derive(Clone)]
pub struct ModelLease {
    held: Arc<Held>,
}

struct Held {
    entry: Arc<LoadedEntry>,
    defaults: GenerationDefaults,
    leases: Arc<Leases>,
}

impl ModelLease {
    /// What a request that says nothing gets, as it was when the model was leased.
    pub fn defaults(&self) -> &GenerationDefaults {
        &self.held.defaults
    }
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
    /// Requests that wait for the model to come up: it is not unloaded before they had it.
    waiting: AtomicUsize,
}

impl Leases {
    pub(super) fn new(idle: Arc<Notify>) -> Arc<Self> {
        let (count, waiting) = (watch::Sender::new(0), AtomicUsize::new(0));
        Arc::new(Self { count, idle, last_used: Mutex::new(Instant::now()), waiting })
    }

    /// One more.
    pub(super) fn take(
        self: &Arc<Self>,
        entry: &Arc<LoadedEntry>,
        defaults: GenerationDefaults,
    ) -> ModelLease {
        self.count.send_modify(|count| *count += 1);
        self.touch();
        let (entry, leases) = (Arc::clone(entry), Arc::clone(self));
        ModelLease { held: Arc::new(Held { entry, defaults, leases }) }
    }

    /// Whether somebody holds the model or waits for it.
    pub(super) fn is_in_use(&self) -> bool {
        self.count() > 0 || self.waiting.load(Ordering::Relaxed) > 0
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

/// A request that waits for a model; counted until it is dropped. Made under the registry's lock, so that nobody
/// unloads the model between the look at its state and the wait.
pub(super) struct Waiting {
    leases: Arc<Leases>,
    /// How often the model had been unloaded by hand when the wait began.
    pub called_off: u64,
}

impl Waiting {
    pub(super) fn new(leases: &Arc<Leases>, called_off: u64) -> Self {
        leases.waiting.fetch_add(1, Ordering::Relaxed);
        Self { leases: Arc::clone(leases), called_off }
    }

    /// Whether it is this model that is waited for.
    pub(super) fn is_for(&self, leases: &Arc<Leases>) -> bool {
        Arc::ptr_eq(&self.leases, leases)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.leases.waiting.fetch_sub(1, Ordering::Relaxed);
        self.leases.idle.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use sconce_models::{Embedder, Error, ModelKind};

    use super::*;

    /// Ends the thread it is thrown on, for what catches it throws it away.
    struct Poison;

    impl Drop for Poison {
        fn drop(&mut self) {
            panic!("poison is thrown away");
        }
    }

    struct Poisoned(ModelSpec);

    impl Embedder for Poisoned {
        fn spec(&self) -> &ModelSpec {
            &self.0
        }

        fn embed(&self, _sequences: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, Error> {
            std::panic::panic_any(Poison)
        }
    }

    #[tokio::test]
    async fn an_encoder_whose_thread_is_gone_is_noticed() {
        let spec = ModelSpec {
            architecture: "poisoned".into(),
            kind: ModelKind::Embedding,
            layers: 1,
            hidden_size: 1,
            heads: 1,
            kv_heads: 1,
            head_dim: 1,
            vocab_size: 8,
            context_length: 8,
            embedding_size: 1,
            weights_bytes: 0,
            scratch_bytes_per_token: 0,
            fingerprint: String::new(),
        };
        let embedder = EmbedderHandle::spawn(Box::new(Poisoned(spec)), 8, 8).unwrap();
        let runner = Runner::Embedder(embedder.clone());
        assert!(!runner.is_lost());
        embedder.embed(vec![vec![1]]).await.unwrap_err();
        runner.thread().over().await;
        assert!(runner.is_lost());
    }
}
