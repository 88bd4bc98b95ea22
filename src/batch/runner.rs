//! Who looks for batches that nobody works on, and works on them: a few at a time, and so many lines of all of them.
//!
//! The one thing to know: a replica holds a batch by saying again and again that it does. One that is silent is taken for
//! dead, and another goes on with what it held.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::batch::job::Job;
use crate::batch::sweeper;
use crate::clock::Clock;
use crate::http::AppState;
use crate::store::batches::{self, BatchRow};
use crate::store::{Store, StoreError};
use crate::usage::Recorder;

/// Batches that one replica works on at the same time; so that a short one does not wait for a long one.
const MOST_JOBS: usize = 4;

/// How often it is looked for batches that were made elsewhere, or are nobody's any more.
const LOOK: Duration = Duration::from_secs(2);

/// How long a batch is held without another word.
pub(super) const HOLD: Duration = Duration::from_secs(15);

/// Works on batches.
pub struct Runner {
    app: AppState,
    store: Store,
    usage: Recorder,
    slots: Arc<Semaphore>,
    /// Counts what was asked for here: there may be something new, or the end of something.
    asked: watch::Sender<u64>,
}

impl Runner {
    /// Over all that the server has.
    pub fn new(app: AppState, store: Store, usage: Recorder) -> Arc<Self> {
        let slots = Arc::new(Semaphore::new(app.settings().batch.running));
        Arc::new(Self { app, store, usage, slots, asked: watch::Sender::new(0) })
    }

    pub(super) fn app(&self) -> &AppState {
        &self.app
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    pub(super) fn usage(&self) -> &Recorder {
        &self.usage
    }

    pub(super) fn clock(&self) -> &Clock {
        self.app.auth().clock()
    }

    pub(super) fn asked(&self) -> watch::Receiver<u64> {
        self.asked.subscribe()
    }

    /// A place among the lines that run.
    pub(super) async fn slot(&self) -> Option<OwnedSemaphorePermit> {
        // Never closed.
        Arc::clone(&self.slots).acquire_owned().await.ok()
    }

    /// Works until the server is to end and what was begun has ended.
    pub async fn run(self: Arc<Self>) {
        self.begin().await;
        let mut jobs = JoinSet::new();
        let mut failing = false;
        while !self.app.shutdown().is_draining() {
            match self.take_all(&mut jobs).await {
                Ok(()) => failing = false,
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "batches cannot be looked for; it is tried again");
                    }
                }
            }
            tokio::select! {
                () = self.app.shutdown().drained() => {}
                Some(_) = jobs.join_next() => {}
                () = self.app.auth().batch_asked_for() => self.asked.send_modify(|count| *count += 1),
                () = tokio::time::sleep(LOOK) => {}
            }
        }
        while jobs.join_next().await.is_some() {}
    }

    /// Where there is one server, whatever is held was held by one that is gone.
    async fn begin(&self) {
        if self.store.kind() != "sqlite" {
            return;
        }
        let released = async {
            let mut tx = self.store.append().await?;
            batches::release_all(&mut tx).await?;
            sweeper::mark(&mut tx, self.clock().now(), Duration::ZERO).await?;
            tx.commit().await
        };
        if let Err(error) = released.await {
            tracing::warn!(%error, "batches that were broken off go on a little later");
        }
    }

    async fn take_all(self: &Arc<Self>, jobs: &mut JoinSet<()>) -> Result<(), StoreError> {
        while jobs.len() < MOST_JOBS {
            // Another name each time: who was silent for too long is another, here too.
            let holder = Uuid::new_v4().simple().to_string();
            let Some(batch) = self.take(&holder).await? else { return Ok(()) };
            jobs.spawn(Job::new(Arc::clone(self), batch, holder).work());
        }
        Ok(())
    }

    async fn take(&self, holder: &str) -> Result<Option<BatchRow>, StoreError> {
        let now = self.clock().now();
        let mut tx = self.store.append().await?;
        let taken = batches::take(&mut tx, holder, now, now.after(HOLD)).await?;
        tx.commit().await?;
        Ok(taken)
    }

    /// Takes away what is not needed any more, until it is dropped.
    pub async fn sweep(self: Arc<Self>) {
        sweeper::run(&self.store, self.clock()).await;
    }
}
