//! Why a request cannot be begun for lack of a place in the records.

use std::time::Duration;

use crate::error::{Code, Failure};

/// An error of this room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// More requests run than places there are.
    #[error("too many requests are running; try again shortly")]
    TooManyRunning,
    /// Records wait for a database that does not take them.
    #[error("the database cannot be reached, and no more can be recorded; try again shortly")]
    NotRecorded,
}

impl Failure for UsageError {
    fn code(&self) -> Code {
        match self {
            Self::TooManyRunning => Code::RateLimited,
            Self::NotRecorded => Code::DatabaseUnavailable,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        Some(Duration::from_secs(1))
    }
}
