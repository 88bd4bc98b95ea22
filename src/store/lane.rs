//! Connections by what they are for: each purpose has a few of its own, so that no crowd of one kind takes those of
//! another. Not the transactions of the store, which are in `pool.rs`.
//!
//! The one thing to know: who waits in vain for a connection met a crowd, or a database that is out of reach, and is told
//! which.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use sqlx::pool::PoolOptions;
use sqlx::{Database, Pool, Transaction};

use crate::store::StoreError;

/// How long a request waits for a connection.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// What connections are for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    /// Reading a few rows.
    Read,
    /// Reading very many rows at once.
    Long,
    /// Reading all there is, step by step.
    Survey,
    /// Looking for what changed.
    Watch,
    /// Writing what has to take turns.
    Write,
}

/// Some for each purpose.
#[derive(Debug)]
pub(super) struct Lanes<D: Database> {
    pub(super) read: Lane<D>,
    pub(super) long: Lane<D>,
    pub(super) survey: Lane<D>,
    pub(super) watch: Lane<D>,
    pub(super) write: Lane<D>,
}

impl<D: Database> Lanes<D> {
    pub(super) fn of(&self, purpose: Purpose) -> &Lane<D> {
        match purpose {
            Purpose::Read => &self.read,
            Purpose::Long => &self.long,
            Purpose::Survey => &self.survey,
            Purpose::Watch => &self.watch,
            Purpose::Write => &self.write,
        }
    }

    /// Closes them, the one that writes last.
    pub(super) async fn close(&self) {
        for lane in [&self.read, &self.long, &self.survey, &self.watch, &self.write] {
            lane.pool.close().await;
        }
    }
}

/// Connections for one purpose.
#[derive(Debug)]
pub(super) struct Lane<D: Database> {
    pub(super) pool: Pool<D>,
    is_file: bool,
    begin: Option<&'static str>,
    turns: Arc<Turns>,
}

/// How many transactions of a lane go on, and how many ever began.
#[derive(Debug, Default)]
struct Turns {
    held: AtomicU32,
    begun: AtomicU64,
}

/// Counts as long as the transaction it belongs to goes on.
#[derive(Debug)]
pub struct Held(Arc<Turns>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What all pools have in common: patience, and no line in the log for each request that waited.
pub(super) fn pool_of<D: Database>(connections: u32) -> PoolOptions<D> {
    PoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(PATIENCE)
        // Nobody waits so long.
        .acquire_slow_threshold(Duration::MAX)
}

impl<D: Database> Lane<D> {
    /// Connections to a file.
    pub(super) fn to_file(pool: Pool<D>) -> Self {
        Self { pool, is_file: true, begin: None, turns: Arc::default() }
    }

    /// Connections to a server.
    pub(super) fn to_server(pool: Pool<D>) -> Self {
        Self { pool, is_file: false, begin: None, turns: Arc::default() }
    }

    /// The same, with transactions that begin by this statement.
    pub(super) fn begun_by(self, statement: &'static str) -> Self {
        Self { begin: Some(statement), ..self }
    }

    /// Begins a transaction.
    ///
    /// # Errors
    /// [`StoreError::Busy`], [`StoreError::Unreachable`].
    pub(super) async fn begin(&self) -> Result<(Transaction<'static, D>, Held), StoreError> {
        let before = self.turns.begun.load(Ordering::Relaxed);
        let (pool, statement) = (self.pool.clone(), self.begin);
        // In a task of its own, which is not dropped in the middle: the connection would go back to the others with a
        // transaction that nobody knows of.
        let begins = tokio::spawn(async move {
            match statement {
                Some(statement) => pool.begin_with(statement).await,
                None => pool.begin().await,
            }
        });
        match begins.await.unwrap_or(Err(sqlx::Error::PoolClosed)) {
            Ok(transaction) => Ok((transaction, self.count())),
            Err(sqlx::Error::PoolTimedOut) if self.is_busy_since(before) => Err(StoreError::Busy),
            Err(error) => Err(error.into()),
        }
    }

    fn count(&self) -> Held {
        self.turns.begun.fetch_add(1, Ordering::Relaxed);
        self.turns.held.fetch_add(1, Ordering::Relaxed);
        Held(Arc::clone(&self.turns))
    }

    /// Whether it is others that have the connections: a file is never out of reach without an error that says so, and of a
    /// server either all connections are at work, or some came free meanwhile.
    fn is_busy_since(&self, before: u64) -> bool {
        let all = self.pool.options().get_max_connections();
        self.is_file
            || self.turns.begun.load(Ordering::Relaxed) != before
            || self.turns.held.load(Ordering::Relaxed) >= all
    }
}

#[cfg(test)]
mod tests {
    use sqlx::Postgres;
    use sqlx::postgres::PgConnectOptions;

    use super::*;

    /// A lane to a server that nobody could reach.
    fn lane(connections: u32) -> Lane<Postgres> {
        Lane::to_server(pool_of(connections).connect_lazy_with(PgConnectOptions::new_without_pgpass()))
    }

    #[tokio::test]
    async fn a_server_is_busy_only_while_others_really_have_its_connections() {
        let lane = lane(2);
        assert!(!lane.is_busy_since(0), "nobody ever had one");
        let first = lane.count();
        assert!(lane.is_busy_since(0), "one began meanwhile");
        assert!(!lane.is_busy_since(1), "the other connection is still to be made");
        let second = lane.count();
        assert!(lane.is_busy_since(2), "both are at work");
        drop(first);
        assert!(!lane.is_busy_since(2), "one could have been had");
        drop(second);
        assert!(!lane.is_busy_since(2));
    }

    #[tokio::test]
    async fn nobody_waits_long_enough_to_be_logged() {
        let lane = lane(1);
        let options = lane.pool.options();
        assert!(options.get_acquire_slow_threshold() > options.get_acquire_timeout());
    }
}
