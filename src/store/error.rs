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
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unreachable(error),
            // PostgreSQL shutting down or starting up, and SQLite locked by another process for too long.
            sqlx::Error::Database(refused)
                if refused.code().is_some_and(|code| {
                    code.starts_with("57P") || code.starts_with("08") || code == "5" || code == "517"
                }) =>
            {
                Self::Unreachable(error)
            }
            _ => Self::Query(error),
        }
    }
}

impl Failure for StoreError {
    fn code(&self) -> Code {
        match self {
            Self::Unreachable(_) => Code::DatabaseUnavailable,
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
        matches!(self, Self::Unreachable(_)).then_some(Duration::from_secs(1))
    }
}
