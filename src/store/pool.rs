//! Two databases behind one type: opening them, and transactions. Which of the two it is, only this file and its
//! neighbours `schema.rs`, `backup.rs` and `lock.rs` know, but for a few queries whose dialects differ.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, Postgres, Sqlite, SqliteConnection,
    Transaction,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::store::StoreError;
use crate::store::lane::{Held, Lane, Lanes, PATIENCE, Purpose, pool_of};

/// How long another process may hold SQLite's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// PostgreSQL's answer to a replica that stopped in the middle of a transaction, which would stop all others.
const FORGETS_THE_DEAD: &str = "SET idle_in_transaction_session_timeout = '30s'";

/// On PostgreSQL: waits until no other transaction of any replica writes, but not for ever.
const TAKE_THE_TURN: &str =
    "SET LOCAL lock_timeout = '10s'; SELECT seq FROM audit_head WHERE id = 1 FOR UPDATE";

/// How many connections there are for a purpose.
struct Connections {
    read: u32,
    long: u32,
    write: u32,
}

const SQLITE: Connections = Connections { read: 4, long: 2, write: 1 };

/// With one to survey and one to watch, 16. Those that write take turns anyway: one has it, one is next.
const POSTGRES: Connections = Connections { read: 9, long: 3, write: 2 };

/// The database.
#[derive(Debug, Clone)]
pub struct Store {
    pub(super) database: Arc<Database>,
    surveys: Arc<Semaphore>,
}

#[derive(Debug)]
pub(super) enum Database {
    /// One connection writes, the others read.
    Sqlite {
        lanes: Lanes<Sqlite>,
        path: PathBuf,
    },
    Postgres(Lanes<Postgres>),
}

/// A transaction; without a [`Tx::commit`] nothing of it happens.
pub enum Tx {
    /// On SQLite.
    Sqlite(Transaction<'static, Sqlite>, Held),
    /// On PostgreSQL.
    Postgres(Transaction<'static, Postgres>, Held),
}

/// Somebody who reads all of something, step by step; nobody else does meanwhile.
#[derive(Debug)]
pub struct Survey {
    store: Store,
    _turn: OwnedSemaphorePermit,
}

impl Survey {
    /// A transaction that only reads, for the next step. It should be short: as long as it lasts the database keeps what
    /// others have replaced.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`], [`StoreError::Busy`].
    pub async fn step(&self) -> Result<Tx, StoreError> {
        self.store.begin(Purpose::Survey).await
    }
}

/// Runs the same query on whichever database the transaction is on: `on!(tx, connection => query.fetch(connection))`.
macro_rules! on {
    ($tx:expr, $connection:ident => $query:expr) => {
        match $tx {
            $crate::store::Tx::Sqlite(transaction, _) => {
                let $connection = &mut **transaction;
                $query.await
            }
            $crate::store::Tx::Postgres(transaction, _) => {
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
            $crate::store::Tx::Sqlite(transaction, _) => {
                $statement.execute(&mut **transaction).await.map(|done| done.rows_affected())
            }
            $crate::store::Tx::Postgres(transaction, _) => {
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
        Self::open_within(url, None).await
    }

    /// The same, and lets a SQLite file grow to this many bytes at the most, or to what it has already.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub async fn open_within(url: &SecretString, most_bytes: Option<u64>) -> Result<Self, StoreError> {
        if let Some(path) = sqlite_file(url)? {
            make_private(&path).map_err(|error| StoreError::Url(format!("({}): {error}", path.display())))?;
            // Kept in the file.
            let options = sqlite_options(&path).create_if_missing(true).journal_mode(SqliteJournalMode::Wal);
            return Self::open_sqlite(path, options, most_bytes).await;
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
        Self::open_sqlite(path, options, None).await
    }

    async fn open_postgres(url: &SecretString) -> Result<Self, StoreError> {
        let url = url.expose_secret();
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            // The address holds a password: of what is wrong with it, only that is said.
            let options = PgConnectOptions::from_str(url)
                .map_err(|_| StoreError::Url("is not an address that PostgreSQL understands".into()))?
                .application_name("sconce")
                .disable_statement_logging();
            let pool = |connections| {
                pool_of(connections).after_connect(|connection: &mut PgConnection, _| {
                    Box::pin(async move { connection.execute(FORGETS_THE_DEAD).await.map(drop) })
                })
            };
            let lane = |connections| Lane::to_server(pool(connections).connect_lazy_with(options.clone()));
            // These are needed in any case, and whether the server is there is known at once. Who looks for changes has its
            // connection before a crowd can come.
            let read = Lane::to_server(pool(POSTGRES.read).connect_with(options.clone()).await?);
            let watch = Lane::to_server(pool(1).connect_with(options.clone()).await?);
            let (long, survey, write) = (lane(POSTGRES.long), lane(1), lane(POSTGRES.write));
            let lanes = Lanes { read, long, survey, watch, write };
            return Ok(Self::over(Database::Postgres(lanes)));
        }
        Err(StoreError::Url("must begin with sqlite:// or postgres://".into()))
    }

    async fn open_sqlite(
        path: PathBuf,
        options: SqliteConnectOptions,
        most_bytes: Option<u64>,
    ) -> Result<Self, StoreError> {
        let pool = |connections| {
            let pool = pool_of(connections).idle_timeout(None).max_lifetime(None);
            let pool = pool.after_connect(move |connection: &mut SqliteConnection, _| {
                Box::pin(bound(connection, most_bytes))
            });
            pool.after_release(|connection: &mut SqliteConnection, _| Box::pin(is_done(connection)))
        };
        let lane = |connections| Lane::to_file(pool(connections).connect_lazy_with(options.clone()));
        let write = pool(SQLITE.write).connect_with(options.clone()).await?;
        let read = pool(SQLITE.read).connect_with(options.clone()).await?;
        let lanes = Lanes {
            read: Lane::to_file(read),
            long: lane(SQLITE.long),
            survey: lane(1),
            watch: lane(1),
            write: Lane::to_file(write).begun_by("BEGIN IMMEDIATE"),
        };
        Ok(Self::over(Database::Sqlite { lanes, path }))
    }

    fn over(database: Database) -> Self {
        Self { database: Arc::new(database), surveys: Arc::new(Semaphore::new(1)) }
    }

    async fn begin(&self, purpose: Purpose) -> Result<Tx, StoreError> {
        match &*self.database {
            Database::Sqlite { lanes, .. } => {
                let (transaction, held) = lanes.of(purpose).begin().await?;
                Ok(Tx::Sqlite(transaction, held))
            }
            Database::Postgres(lanes) => {
                let (transaction, held) = lanes.of(purpose).begin().await?;
                Ok(Tx::Postgres(transaction, held))
            }
        }
    }

    /// A transaction that only reads.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`], [`StoreError::Busy`].
    pub async fn read(&self) -> Result<Tx, StoreError> {
        self.begin(Purpose::Read).await
    }

    /// A transaction that only reads, and very many rows: of those there are few at a time, so that they leave room for all
    /// others.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`], [`StoreError::Busy`].
    pub async fn read_long(&self) -> Result<Tx, StoreError> {
        self.begin(Purpose::Long).await
    }

    /// A transaction that only reads, for the one who looks for changes: it waits for nobody else.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`], [`StoreError::Busy`].
    pub async fn read_changes(&self) -> Result<Tx, StoreError> {
        self.begin(Purpose::Watch).await
    }

    /// Begins to read all of something, once nobody else does.
    ///
    /// # Errors
    /// [`StoreError::Busy`] if another goes on for too long.
    pub async fn survey(&self) -> Result<Survey, StoreError> {
        let turn = timeout(PATIENCE, Arc::clone(&self.surveys).acquire_owned()).await;
        // It is never closed.
        let turn = turn.ok().and_then(Result::ok).ok_or(StoreError::Busy)?;
        Ok(Survey { store: self.clone(), _turn: turn })
    }

    /// A transaction that writes. Those of all replicas happen one after the other.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`], [`StoreError::Busy`].
    pub async fn write(&self) -> Result<Tx, StoreError> {
        let mut tx = self.begin(Purpose::Write).await?;
        if let Tx::Postgres(transaction, _) = &mut tx {
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
        match &*self.database {
            Database::Sqlite { .. } => self.begin(Purpose::Write).await,
            Database::Postgres(_) => self.begin(Purpose::Read).await,
        }
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
        match &*self.database {
            Database::Sqlite { .. } => "sqlite",
            Database::Postgres(_) => "postgres",
        }
    }

    /// The file, where there is one.
    pub fn file(&self) -> Option<&Path> {
        match &*self.database {
            Database::Sqlite { path, .. } => Some(path),
            Database::Postgres(_) => None,
        }
    }

    /// Closes all connections, once those in use have come back.
    pub async fn close(&self) {
        match &*self.database {
            Database::Sqlite { lanes, .. } => lanes.close().await,
            Database::Postgres(lanes) => lanes.close().await,
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

/// Lets the file grow to this many bytes at the most, in pages of whatever size the file has.
async fn bound(connection: &mut SqliteConnection, most_bytes: Option<u64>) -> Result<(), sqlx::Error> {
    let Some(most) = most_bytes else { return Ok(()) };
    let page: u32 = sqlx::query_scalar("PRAGMA page_size").fetch_one(&mut *connection).await?;
    let pages = (most / u64::from(page.max(1))).max(1);
    sqlx::query(AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"))).execute(connection).await.map(drop)
}

/// Whether a connection that comes back is as it was. SQLite ends a transaction by itself when its disk is full or fails; to
/// roll it back then is an error, after which the connection would for ever take itself to be in it, and begin no other.
async fn is_done(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    // It answers after what was asked of it before: to roll back.
    connection.ping().await?;
    Ok(!connection.is_in_transaction())
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
            Self::Sqlite(transaction, _held) => transaction.commit().await?,
            Self::Postgres(transaction, _held) => transaction.commit().await?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_bounded_in_bytes_whatever_its_pages_are() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("large_pages.db");
        let made = SqliteConnectOptions::new().filename(&file).create_if_missing(true).page_size(8192);
        let mut made = made.connect().await.unwrap();
        made.execute("CREATE TABLE any (content BLOB)").await.unwrap();
        made.close().await.unwrap();

        let url = SecretString::from(format!("sqlite://{}", file.display()));
        let store = Store::open_within(&url, Some(1 << 20)).await.unwrap();
        let Tx::Sqlite(mut transaction, _held) = store.write().await.unwrap() else {
            unreachable!("it is a file")
        };
        let most = sqlx::query_scalar::<_, u32>("PRAGMA max_page_count");
        assert_eq!(most.fetch_one(&mut *transaction).await.unwrap(), 128);
    }
}
