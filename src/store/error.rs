//! Why something could not be kept or found.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Code, Failure};

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database does not answer.
    #[error("the database cannot be reached; try again shortly")]
    Unreachable(#[source] sqlx::Error),
    /// It answers, but so many others are before this one that its turn did not come.
    #[error("too many requests wait for the database; try again shortly")]
    Busy,
    /// It has no room for more.
    #[error("the database's disk is full")]
    Full(#[source] sqlx::Error),
    /// What must be unique is there already.
    #[error("it exists already")]
    Duplicate,
    /// A text has a character that no column can hold.
    #[error("a text contains a character that cannot be kept")]
    Text,
    /// A query failed, or a row is not what it must be.
    #[error("the database refused a query")]
    Query(#[source] sqlx::Error),
    /// What a row holds cannot be read.
    #[error("a row of `{table}` is damaged: {reason}")]
    Damaged {
        /// Where.
        table: &'static str,
        /// How.
        reason: String,
    },
    /// The schema is not the one this program knows.
    #[error("the database's schema does not fit this version: {0}")]
    Schema(String),
    /// There is no database where one should be.
    #[error("there is no database at {}: start the server once, or run `sconce migrate`", path.display())]
    Absent {
        /// Where.
        path: PathBuf,
    },
    /// Another server has it.
    #[error(
        "the database {} is used by another sconce server{}; a SQLite file serves one, several need PostgreSQL \
         (`--database-url postgres://…`)",
        path.display(), process.map(|number| format!(" (process {number})")).unwrap_or_default()
    )]
    InUse {
        /// The file.
        path: PathBuf,
        /// Whose it is, if that is known.
        process: Option<u32>,
    },
    /// The address of the database means nothing.
    #[error("`database-url` {0}")]
    Url(String),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(refused) if refused.is_unique_violation() => Self::Duplicate,
            // character_not_in_repertoire: PostgreSQL of NUL, which is valid in JSON.
            sqlx::Error::Database(refused) if refused.code().is_some_and(|code| code == "22021") => {
                Self::Text
            }
            // lock_not_available: others were before this one for too long.
            sqlx::Error::Database(refused) if refused.code().is_some_and(|code| code == "55P03") => {
                Self::Busy
            }
            // SQLITE_FULL; PostgreSQL's disk_full.
            sqlx::Error::Database(refused)
                if refused.code().is_some_and(|code| code == "13" || code == "53100") =>
            {
                Self::Full(error)
            }
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unreachable(error),
            // PostgreSQL shutting down or starting up or out of connections, and SQLite locked by another process for
            // too long.
            sqlx::Error::Database(refused)
                if refused.code().is_some_and(|code| {
                    ["57P", "08", "53300"].iter().any(|class| code.starts_with(class))
                        || code == "5"
                        || code == "517"
                }) =>
            {
                Self::Unreachable(error)
            }
            _ => Self::Query(error),
        }
    }
}

impl StoreError {
    /// Whether the same may succeed when it is tried again.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Busy | Self::Full(_))
    }
}

impl Failure for StoreError {
    fn code(&self) -> Code {
        match self {
            Self::Unreachable(_) => Code::DatabaseUnavailable,
            Self::Busy => Code::DatabaseBusy,
            Self::Full(_) => Code::DiskFull,
            Self::Duplicate => Code::AlreadyExists,
            Self::Text => Code::InvalidValue,
            Self::Query(_)
            | Self::Damaged { .. }
            | Self::Schema(_)
            | Self::Absent { .. }
            | Self::InUse { .. }
            | Self::Url(_) => Code::Internal,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        self.is_passing().then_some(Duration::from_secs(1))
    }
}
