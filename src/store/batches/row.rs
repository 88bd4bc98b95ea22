//! A batch: what was asked for, and how far that is.

use sqlx::FromRow;

use super::BatchStatus;
use crate::clock::Timestamp;
use crate::store::JsonText;
use crate::store::list::{Bind, Row};

/// A batch.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct BatchRow {
    /// `batch_…`
    pub id: String,
    /// A user's id, or who it was without one.
    pub owner: String,
    /// What is to be done.
    #[sqlx(flatten)]
    pub order: BatchOrder,
    /// How far it is.
    pub status: BatchStatus,
    /// The status it will have once its files are written.
    pub ending: Option<BatchStatus>,
    /// When it came so far.
    #[sqlx(flatten)]
    pub times: BatchTimes,
    /// What became of its lines.
    #[sqlx(flatten)]
    pub counts: LineCounts,
    /// What that took.
    #[sqlx(flatten)]
    pub usage: BatchUsage,
    /// What it comes to.
    #[sqlx(flatten)]
    pub results: BatchResults,
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct BatchOrder {
    /// The credential that it goes on by.
    pub credential: JsonText<serde_json::Value>,
    /// Its requests.
    pub input_file_id: String,
    /// The URL that they are for.
    pub endpoint: String,
    /// As it was asked for.
    pub completion_window: String,
    /// Its owner's notes.
    pub metadata: Option<JsonText<serde_json::Value>>,
    /// How long what it writes is kept, in seconds; none: until it is deleted.
    pub output_seconds: Option<i64>,
}

/// When a batch came to what.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct BatchTimes {
    /// Made.
    pub created_at: Timestamp,
    /// All its lines were found right.
    pub in_progress_at: Option<Timestamp>,
    /// Its files began to be written.
    pub finalizing_at: Option<Timestamp>,
    /// Each line had its turn.
    pub completed_at: Option<Timestamp>,
    /// It could not be done.
    pub failed_at: Option<Timestamp>,
    /// Its window was over before it was.
    pub expired_at: Option<Timestamp>,
    /// Its owner asked for its end.
    pub cancelling_at: Option<Timestamp>,
    /// It came to that end.
    pub cancelled_at: Option<Timestamp>,
    /// Its window is over.
    pub expires_at: Timestamp,
}

/// What became of the lines of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq, FromRow)]
pub struct LineCounts {
    /// Lines.
    pub total: i64,
    /// Of those, answered.
    pub completed: i64,
    /// Of those, refused.
    pub failed: i64,
}

/// What the lines of a batch ask for, and what they used. Of a batch that was made before this was counted nothing is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, FromRow)]
pub struct BatchUsage {
    /// The model, once it is known and where all ask for the same.
    pub model: Option<String>,
    /// Tokens of all prompts.
    pub input_tokens: Option<i64>,
    /// Those of them that were found in the cache.
    pub cached_tokens: Option<i64>,
    /// Tokens that were generated.
    pub output_tokens: Option<i64>,
    /// Those of them that are thoughts.
    pub reasoning_tokens: Option<i64>,
}

/// What a batch comes to.
#[derive(Debug, Clone, Default, PartialEq, FromRow)]
pub struct BatchResults {
    /// What is wrong with it.
    pub errors: Option<JsonText<Vec<BatchError>>>,
    /// Answers.
    pub output_file_id: Option<String>,
    /// Refusals.
    pub error_file_id: Option<String>,
}

/// What is wrong with a batch.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BatchError {
    /// For programs.
    pub code: String,
    /// For people.
    pub message: String,
    /// The field at fault.
    pub param: Option<String>,
    /// The number of the line at fault, from 1.
    pub line: Option<i64>,
}

impl Row for BatchRow {
    fn id(&self) -> Bind {
        self.id.as_str().into()
    }

    fn sort_key(&self, _column: &str) -> Bind {
        self.times.created_at.into()
    }
}

impl BatchTimes {
    /// Of a batch that is made now, and has time until then.
    pub fn new(created_at: Timestamp, expires_at: Timestamp) -> Self {
        Self {
            created_at,
            in_progress_at: None,
            finalizing_at: None,
            completed_at: None,
            failed_at: None,
            expired_at: None,
            cancelling_at: None,
            cancelled_at: None,
            expires_at,
        }
    }
}

impl BatchUsage {
    /// Nothing yet.
    pub fn begun() -> Self {
        let none = Some(0);
        Self {
            model: None,
            input_tokens: none,
            cached_tokens: none,
            output_tokens: none,
            reasoning_tokens: none,
        }
    }
}
