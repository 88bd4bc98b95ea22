//! The one who writes the records, a batch at a time.
//!
//! A row is written again until the database takes it, and its place is not given back before: so there are never more
//! rows in memory than places. A row that the database refuses for what it is, not for how the database is, is logged
//! and given up.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::store::usage::{self, UsageRow};
use crate::store::{Store, StoreError};
use crate::usage::recorder::State;
use crate::usage::tally::Settled;

/// Most rows of one transaction.
const BATCH: usize = 256;

/// How long the first row of a batch waits for others.
const LINGER: Duration = Duration::from_millis(100);

/// Before the database is asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// A row with its place.
pub(super) type Placed = (UsageRow, OwnedSemaphorePermit);

/// Writes what tallies settle.
pub struct Scribe {
    store: Store,
    settled: mpsc::Receiver<Settled>,
    state: Arc<State>,
    hurried: bool,
}

impl Scribe {
    pub(super) fn new(store: Store, settled: mpsc::Receiver<Settled>, state: Arc<State>) -> Self {
        Self { store, settled, state, hurried: false }
    }

    /// Writes until it is dropped.
    pub async fn run(mut self) {
        let mut counting = FuturesUnordered::new();
        let mut batch: Vec<Placed> = Vec::new();
        let linger = tokio::time::sleep(LINGER);
        tokio::pin!(linger);
        let state = Arc::clone(&self.state);
        loop {
            tokio::select! {
                Some(settled) = self.settled.recv() => counting.push(counted(settled)),
                Some(row) = counting.next(), if !counting.is_empty() => {
                    if batch.is_empty() {
                        linger.as_mut().reset(tokio::time::Instant::now() + LINGER);
                    }
                    batch.push(row);
                }
                () = state.hurry.notified() => self.hurried = true,
                () = linger.as_mut(), if !batch.is_empty() => self.write(&mut batch).await,
            }
            if batch.len() >= BATCH || (self.hurried && !batch.is_empty()) {
                self.write(&mut batch).await;
            }
        }
    }

    async fn write(&self, batch: &mut Vec<Placed>) {
        let (rows, places): (Vec<UsageRow>, Vec<OwnedSemaphorePermit>) =
            std::mem::take(batch).into_iter().unzip();
        self.insert(&rows).await;
        drop(places);
        self.state.written.send_modify(|written| *written += rows.len() as u64);
    }

    async fn insert(&self, rows: &[UsageRow]) {
        while let Err(error) = self.try_insert(rows).await {
            if error.is_passing() {
                if !self.state.failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "what requests used cannot be written; it is kept and tried again");
                }
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            if let [row] = rows {
                tracing::error!(%error, details = ?error, ?row, "what a request used cannot be written");
                return;
            }
            for row in rows {
                Box::pin(self.insert(std::slice::from_ref(row))).await;
            }
            return;
        }
        self.state.failing.store(false, Ordering::Relaxed);
    }

    async fn try_insert(&self, rows: &[UsageRow]) -> Result<(), StoreError> {
        let mut tx = self.store.append().await?;
        usage::insert(&mut tx, rows).await?;
        tx.commit().await
    }
}

/// A row with its final count.
pub(super) async fn counted(settled: Settled) -> Placed {
    let tokens = settled.counting.await;
    let mut row = settled.row;
    row.prompt_tokens = tokens.prompt.into();
    row.cached_tokens = tokens.cached.into();
    row.completion_tokens = tokens.completion.into();
    (row, settled.place)
}
