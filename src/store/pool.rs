//! Two databases behind one type. The only file that knows which of them it is, but for a few queries whose dialects
//! differ.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Postgres, Sqlite, Transaction};

use crate::store::StoreError;

static SQLITE_MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");
static POSTGRES_MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// How long another process may hold SQLite's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a request waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

const READERS: u32 = 4;
const POSTGRES_CONNECTIONS: u32 = 16;

/// The database.
#[derive(Debug, Clone)]
pub struct Store {
    database: Database,
}

#[derive(Debug, Clone)]
enum Database {
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

/// A step of the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    /// Its number.
    pub version: i64,
    /// What it is about.
    pub description: String,
    /// Whether it has been applied.
    pub is_applied: bool,
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
        let url = url.expose_secret();
        if let Some(path) = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:")) {
            return Self::open_sqlite(PathBuf::from(path)).await;
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            // The address holds a password: of what is wrong with it, only that is said.
            let options = PgConnectOptions::from_str(url)
                .map_err(|_| StoreError::Url("is not an address that PostgreSQL understands".into()))?
                .application_name("sconce")
                .disable_statement_logging();
            let pool = PgPoolOptions::new()
                .max_connections(POSTGRES_CONNECTIONS)
                .acquire_timeout(ACQUIRE_TIMEOUT)
                .connect_with(options)
                .await?;
            return Ok(Self { database: Database::Postgres(pool) });
        }
        Err(StoreError::Url("must begin with sqlite:// or postgres://".into()))
    }

    async fn open_sqlite(path: PathBuf) -> Result<Self, StoreError> {
        if path.as_os_str().is_empty() {
            return Err(StoreError::Url("names no file: sqlite:///var/lib/sconce/sconce.db".into()));
        }
        make_private(&path).map_err(|error| StoreError::Url(format!("({}): {error}", path.display())))?;
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // What was acknowledged is there after a power cut.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT)
            .disable_statement_logging();
        let pool = |connections: u32| {
            SqlitePoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(ACQUIRE_TIMEOUT)
                .idle_timeout(None)
                .max_lifetime(None)
        };
        let writer = pool(1).connect_with(options.clone()).await?;
        let readers = pool(READERS).connect_with(options.read_only(false)).await?;
        Ok(Self { database: Database::Sqlite { writer, readers, path } })
    }

    /// Brings the schema up to this version.
    ///
    /// # Errors
    /// [`StoreError::Schema`] if the database was written by a newer version, or a step fails.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let done = match &self.database {
            Database::Sqlite { writer, .. } => SQLITE_MIGRATIONS.run(writer).await,
            Database::Postgres(pool) => POSTGRES_MIGRATIONS.run(pool).await,
        };
        done.map_err(|error| StoreError::Schema(error.to_string()))
    }

    /// All steps of the schema, and which of them have been applied.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`], [`StoreError::Query`].
    pub async fn migrations(&self) -> Result<Vec<Migration>, StoreError> {
        const EXISTS_SQLITE: &str = "SELECT COUNT(*) FROM sqlite_master WHERE name = '_sqlx_migrations'";
        const EXISTS_POSTGRES: &str = "SELECT COUNT(*) FROM pg_tables WHERE tablename = '_sqlx_migrations' AND schemaname = current_schema()";
        const APPLIED: &str = "SELECT version FROM _sqlx_migrations WHERE success ORDER BY version";
        let (known, exists) = match &self.database {
            Database::Sqlite { .. } => (&SQLITE_MIGRATIONS, EXISTS_SQLITE),
            Database::Postgres(_) => (&POSTGRES_MIGRATIONS, EXISTS_POSTGRES),
        };
        let mut tx = self.read().await?;
        let tables: i64 = on!(&mut tx, connection => sqlx::query_scalar(exists).fetch_one(connection))?;
        let applied: Vec<i64> = match tables {
            0 => Vec::new(),
            _ => on!(&mut tx, connection => sqlx::query_scalar(APPLIED).fetch_all(connection))?,
        };
        let step = |migration: &sqlx::migrate::Migration| Migration {
            version: migration.version,
            description: migration.description.to_string(),
            is_applied: applied.contains(&migration.version),
        };
        Ok(known.iter().map(step).collect())
    }

    /// A transaction that only reads.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`].
    pub async fn read(&self) -> Result<Tx, StoreError> {
        Ok(match &self.database {
            Database::Sqlite { readers, .. } => Tx::Sqlite(readers.begin().await?),
            Database::Postgres(pool) => Tx::Postgres(pool.begin().await?),
        })
    }

    /// A transaction that writes. Those of all replicas happen one after the other.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`].
    pub async fn write(&self) -> Result<Tx, StoreError> {
        let mut tx = self.append().await?;
        if let Tx::Postgres(transaction) = &mut tx {
            sqlx::query("SELECT seq FROM audit_head WHERE id = 1 FOR UPDATE")
                .execute(&mut **transaction)
                .await?;
        }
        Ok(tx)
    }

    /// A transaction that only adds rows, or touches rows that nothing is decided by: not ordered with others on
    /// PostgreSQL.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`].
    pub async fn append(&self) -> Result<Tx, StoreError> {
        Ok(match &self.database {
            Database::Sqlite { writer, .. } => Tx::Sqlite(writer.begin_with("BEGIN IMMEDIATE").await?),
            Database::Postgres(pool) => Tx::Postgres(pool.begin().await?),
        })
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`].
    pub async fn ping(&self) -> Result<(), StoreError> {
        let mut tx = self.read().await?;
        execute!(&mut tx, sqlx::query("SELECT 1"))?;
        Ok(())
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
