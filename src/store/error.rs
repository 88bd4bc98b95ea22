//! Why something could not be kept or found.

use std::path::PathBuf;
use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::sqlite::SqliteError;

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
    /// What was being written was taken away meanwhile.
    #[error("it was deleted meanwhile")]
    Gone,
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

/// What an error of a database means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Unreachable,
    Busy,
    Full,
    Text,
    Other,
}

impl Meaning {
    /// Of SQLite's number. The lower eight bits say what it is, the others tell more of it.
    fn of_sqlite(code: &str) -> Self {
        match code.parse::<i32>().unwrap_or_default() & 0xff {
            // SQLITE_BUSY, SQLITE_LOCKED: others had it for too long.
            5 | 6 => Self::Busy,
            // SQLITE_IOERR, SQLITE_CANTOPEN: the disk, or what it is reached by.
            10 | 14 => Self::Unreachable,
            // SQLITE_FULL.
            13 => Self::Full,
            _ => Self::Other,
        }
    }

    /// Of PostgreSQL's five characters.
    fn of_postgres(code: &str) -> Self {
        match code {
            // character_not_in_repertoire: of NUL, which is valid in JSON.
            "22021" => Self::Text,
            // lock_not_available, deadlock_detected: others were before this one.
            "55P03" | "40P01" => Self::Busy,
            // disk_full.
            "53100" => Self::Full,
            // Out of connections; shutting down, starting up; a connection that broke.
            "53300" => Self::Unreachable,
            _ if code.starts_with("57P") || code.starts_with("08") => Self::Unreachable,
            _ => Self::Other,
        }
    }

    fn of(refused: &dyn DatabaseError) -> Self {
        let code = refused.code().unwrap_or_default();
        match refused.try_downcast_ref::<SqliteError>() {
            Some(_) => Self::of_sqlite(&code),
            None => Self::of_postgres(&code),
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let meaning = match &error {
            sqlx::Error::Database(refused) if refused.is_unique_violation() => return Self::Duplicate,
            sqlx::Error::Database(refused) => Meaning::of(refused.as_ref()),
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Meaning::Unreachable,
            _ => Meaning::Other,
        };
        match meaning {
            Meaning::Unreachable => Self::Unreachable(error),
            Meaning::Busy => Self::Busy,
            Meaning::Full => Self::Full(error),
            Meaning::Text => Self::Text,
            Meaning::Other => Self::Query(error),
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
            Self::Gone => Code::StateConflict,
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

#[cfg(test)]
mod tests {
    use sqlx::sqlite::SqliteConnectOptions;
    use sqlx::{ConnectOptions, SqliteConnection};

    use super::*;

    /// What SQLite says to a statement.
    async fn refusal(connection: &mut SqliteConnection, statement: &'static str) -> (String, StoreError) {
        let error = sqlx::raw_sql(statement).execute(connection).await.expect_err(statement);
        let code = error.as_database_error().and_then(|refused| refused.code().map(String::from));
        (code.unwrap_or_default(), error.into())
    }

    #[tokio::test]
    async fn sqlite_says_whether_it_is_busy_or_full() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = SqliteConnectOptions::new().filename(folder.path().join("a.db")).create_if_missing(true);
        let file = file.journal_mode(sqlx::sqlite::SqliteJournalMode::Wal).busy_timeout(Duration::ZERO);
        let (mut one, mut other) =
            (file.connect().await.expect("it opens"), file.connect().await.expect("it opens"));
        let run = async |connection: &mut SqliteConnection, text: &'static str| {
            sqlx::raw_sql(text).execute(connection).await.expect(text)
        };
        run(&mut one, "CREATE TABLE cup (tea TEXT); BEGIN IMMEDIATE").await;
        let (code, error) = refusal(&mut other, "BEGIN IMMEDIATE").await;
        assert!(code == "5" && matches!(error, StoreError::Busy), "{code}: {error:?}");
        run(&mut one, "COMMIT").await;
        // It has read, and another has written since.
        run(&mut other, "BEGIN; SELECT * FROM cup").await;
        run(&mut one, "INSERT INTO cup VALUES ('a')").await;
        let (code, error) = refusal(&mut other, "INSERT INTO cup VALUES ('b')").await;
        assert!(code == "517" && matches!(error, StoreError::Busy), "{code}: {error:?}");
        run(&mut other, "ROLLBACK; PRAGMA max_page_count = 1").await;
        let (code, error) = refusal(&mut other, "INSERT INTO cup VALUES (zeroblob(100000))").await;
        assert!(code == "13" && matches!(error, StoreError::Full(_)), "{code}: {error:?}");
        let (code, error) = refusal(&mut other, "SELECT * FROM pot").await;
        assert!(code == "1" && matches!(error, StoreError::Query(_)), "{code}: {error:?}");
    }

    #[test]
    fn what_sqlite_adds_to_a_number_does_not_change_its_meaning() {
        for (codes, meaning) in [
            (&[5, 261, 517, 773, 6, 262, 518][..], Meaning::Busy),
            (&[13], Meaning::Full),
            (&[10, 266, 522, 778, 1034, 14, 270], Meaning::Unreachable),
            (&[1, 11, 19, 26, 53_100], Meaning::Other),
        ] {
            for code in codes {
                assert_eq!(Meaning::of_sqlite(&code.to_string()), meaning, "{code}");
            }
        }
        // A number of the one is none of the other.
        assert_eq!(Meaning::of_postgres("13"), Meaning::Other);
        assert_eq!(Meaning::of_postgres("53100"), Meaning::Full);
    }
}
