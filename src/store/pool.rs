//! Two databases behind one type: opening them, and transactions. Which of the two it is, only this file and its
//! neighbours `schema.rs`, `backup.rs` and `lock.rs` know, but for a few queries whose dialects differ.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Executor, Postgres, Sqlite, Transaction};

use crate::store::StoreError;

/// How long another process may hold SQLite's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a request waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// PostgreSQL's answer to a replica that stopped in the middle of a transaction, which would stop all others.
const FORGETS_THE_DEAD: &str = "SET idle_in_transaction_session_timeout = '30s'";

/// On PostgreSQL: waits until no other transaction of any replica writes, but not for ever.
const TAKE_THE_TURN: &str =
    "SET LOCAL lock_timeout = '10s'; SELECT seq FROM audit_head WHERE id = 1 FOR UPDATE";

const READERS: u32 = 4;
const POSTGRES_CONNECTIONS: u32 = 16;

/// The database.
#[derive(Debug, Clone)]
pub struct Store {
    pub(super) database: Database,
    reading: Turns,
    writing: Turns,
}

/// How many transactions of a pool have begun. While others get their turn, a database is not out of reach but busy.
#[derive(Debug, Clone, Default)]
struct Turns(Arc<AtomicU64>);

impl Turns {
    async fn take<T>(&self, begins: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, StoreError> {
        let before = self.0.load(Ordering::Relaxed);
        match begins.await {
            Ok(begun) => {
                self.0.fetch_add(1, Ordering::Relaxed);
                Ok(begun)
            }
            Err(sqlx::Error::PoolTimedOut) if self.0.load(Ordering::Relaxed) != before => {
                Err(StoreError::Busy)
            }
            Err(error) => Err(error.into()),
        }
    }
}

#[derive(Debug, Clone)]
pub(super) enum Database {
    /// One connection writes, some read.
    Sqlite {
        writer: SqlitePool,
        readers: SqlitePool,
        path: PathBuf,
    },
    Postgres(PgPool),
}

/// A transaction; without a [`Tx::commit`] nothing of it happens.
pub enum Tx {
    /// On SQLite.
    Sqlite(Transaction<'static, Sqlite>),
    /// On PostgreSQL.
    Postgres(Transaction<'static, Postgres>),
}

/// Runs the same query on whichever database the transaction is on: `on!(tx, connection => query.fetch(connection))`.
macro_rules! on {
    ($tx:expr, $connection:ident => $query:expr) => {
        match $tx {
            $crate::store::Tx::Sqlite(transaction) => {
                let $connection = &mut **transaction;
                $query.await
            }
            $crate::store::Tx::Postgres(transaction) => {
                let $connection = &mut **transaction;
                $query.await
            }
        }
    };
}
pub(super) use on;

/// Runs the same statement on whichever database the transaction is on; gives the number of rows it touched.
macro_rules! execute {
    ($tx:expr, $statement:expr) => {
        match $tx {
            $crate::store::Tx::Sqlite(transaction) => {
                $statement.execute(&mut **transaction).await.map(|done| done.rows_affected())
            }
            $crate::store::Tx::Postgres(transaction) => {
                $statement.execute(&mut **transaction).await.map(|done| done.rows_affected())
            }
        }
    };
}
pub(super) use execute;

impl Store {
    /// Opens the database: `sqlite://PATH` (made if it is not there) or `postgres://…`. Checks nothing of the schema.
    ///
    /// # Errors
    /// [`StoreError::Url`], [`StoreError::Unreachable`].
    pub async fn open(url: &SecretString) -> Result<Self, StoreError> {
        if let Some(path) = sqlite_file(url)? {
            make_private(&path).map_err(|error| StoreError::Url(format!("({}): {error}", path.display())))?;
            // Kept in the file.
            let options = sqlite_options(&path).create_if_missing(true).journal_mode(SqliteJournalMode::Wal);
            return Self::open_sqlite(path, options).await;
        }
        Self::open_postgres(url).await
    }

    /// Opens a database that is there, and makes none.
    ///
    /// # Errors
    /// [`StoreError::Absent`], [`StoreError::Url`], [`StoreError::Unreachable`].
    pub async fn open_existing(url: &SecretString) -> Result<Self, StoreError> {
        let Some(path) = sqlite_file(url)? else { return Self::open_postgres(url).await };
        if !path.exists() {
            return Err(StoreError::Absent { path });
        }
        let options = sqlite_options(&path);
        Self::open_sqlite(path, options).await
    }

    async fn open_postgres(url: &SecretString) -> Result<Self, StoreError> {
        let url = url.expose_secret();
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            // The address holds a password: of what is wrong with it, only that is said.
            let options = PgConnectOptions::from_str(url)
                .map_err(|_| StoreError::Url("is not an address that PostgreSQL understands".into()))?
                .application_name("sconce")
                .disable_statement_logging();
            let pool = PgPoolOptions::new()
                .max_connections(POSTGRES_CONNECTIONS)
                .acquire_timeout(ACQUIRE_TIMEOUT)
                .after_connect(|connection, _| {
                    Box::pin(async move { connection.execute(FORGETS_THE_DEAD).await.map(drop) })
                })
                .connect_with(options)
                .await?;
            let turns = Turns::default();
            return Ok(Self { database: Database::Postgres(pool), reading: turns.clone(), writing: turns });
        }
        Err(StoreError::Url("must begin with sqlite:// or postgres://".into()))
    }

    async fn open_sqlite(path: PathBuf, options: SqliteConnectOptions) -> Result<Self, StoreError> {
        let pool = |connections: u32| {
            SqlitePoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(ACQUIRE_TIMEOUT)
                .idle_timeout(None)
                .max_lifetime(None)
        };
        let writer = pool(1).connect_with(options.clone()).await?;
        let readers = pool(READERS).connect_with(options).await?;
        Ok(Self {
            database: Database::Sqlite { writer, readers, path },
            reading: Turns::default(),
            writing: Turns::default(),
        })
    }

    /// A transaction that only reads.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`], [`StoreError::Busy`].
    pub async fn read(&self) -> Result<Tx, StoreError> {
        Ok(match &self.database {
            Database::Sqlite { readers, .. } => Tx::Sqlite(self.reading.take(readers.begin()).await?),
            Database::Postgres(pool) => Tx::Postgres(self.reading.take(pool.begin()).await?),
        })
    }

    /// A transaction that writes. Those of all replicas happen one after the other.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`], [`StoreError::Busy`].
    pub async fn write(&self) -> Result<Tx, StoreError> {
        let mut tx = self.append().await?;
        if let Tx::Postgres(transaction) = &mut tx {
            sqlx::raw_sql(TAKE_THE_TURN).execute(&mut **transaction).await?;
        }
        Ok(tx)
    }

    /// A transaction that only adds rows, or touches rows that nothing is decided by: not ordered with others on
    /// PostgreSQL.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`], [`StoreError::Busy`].
    pub async fn append(&self) -> Result<Tx, StoreError> {
        Ok(match &self.database {
            Database::Sqlite { writer, .. } => {
                Tx::Sqlite(self.writing.take(writer.begin_with("BEGIN IMMEDIATE")).await?)
            }
            Database::Postgres(pool) => Tx::Postgres(self.writing.take(pool.begin()).await?),
        })
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`], [`StoreError::Busy`].
    pub async fn ping(&self) -> Result<(), StoreError> {
        let mut tx = self.read().await?;
        execute!(&mut tx, sqlx::query("SELECT 1"))?;
        Ok(())
    }

    /// Which of the two it is: `sqlite` or `postgres`.
    pub fn kind(&self) -> &'static str {
        match &self.database {
            Database::Sqlite { .. } => "sqlite",
            Database::Postgres(_) => "postgres",
        }
    }

    /// The file, where there is one.
    pub fn file(&self) -> Option<&Path> {
        match &self.database {
            Database::Sqlite { path, .. } => Some(path),
            Database::Postgres(_) => None,
        }
    }

    /// Closes all connections, once those in use have come back.
    pub async fn close(&self) {
        match &self.database {
            Database::Sqlite { writer, readers, .. } => {
                readers.close().await;
                writer.close().await;
            }
            Database::Postgres(pool) => pool.close().await,
        }
    }
}

/// The file that an address names; none if the address is of no SQLite database.
pub(super) fn sqlite_file(url: &SecretString) -> Result<Option<PathBuf>, StoreError> {
    let url = url.expose_secret();
    let Some(path) = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:")) else {
        return Ok(None);
    };
    if path.is_empty() {
        return Err(StoreError::Url("names no file: sqlite:///var/lib/sconce/sconce.db".into()));
    }
    Ok(Some(PathBuf::from(path)))
}

/// How every connection to a SQLite file is opened.
pub(super) fn sqlite_options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        // What was acknowledged is there after a power cut.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        .disable_statement_logging()
}

/// Makes the file, and its folder, readable by nobody else: it holds the keys that sign.
fn make_private(path: &Path) -> std::io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

impl Tx {
    /// Makes it happen.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing of it happened, or (the connection lost) that is not known.
    pub async fn commit(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(transaction) => transaction.commit().await?,
            Self::Postgres(transaction) => transaction.commit().await?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waited_in_vain_while_others_had_their_turn_met_a_busy_database_and_not_a_lost_one() {
        let turns = Turns::default();
        let alone = turns.take::<()>(async { Err(sqlx::Error::PoolTimedOut) }).await;
        assert!(matches!(alone, Err(StoreError::Unreachable(_))), "{alone:?}");
        let in_a_crowd = turns.take::<()>(async {
            turns.take(std::future::ready(Ok(()))).await.expect("it begins");
            Err(sqlx::Error::PoolTimedOut)
        });
        let in_a_crowd = in_a_crowd.await;
        assert!(matches!(in_a_crowd, Err(StoreError::Busy)), "{in_a_crowd:?}");
    }
}
