//! How far a batch is; a text in the database.

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::{Database, Decode, Encode, Type};

/// How far a batch is. The first three and `Cancelling` lead to one of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchStatus {
    /// Its lines are looked for.
    Validating,
    /// Its lines are answered.
    InProgress,
    /// Its files are written.
    Finalizing,
    /// Its owner has asked for its end.
    Cancelling,
    /// Each line had its turn.
    Completed,
    /// It could not be done.
    Failed,
    /// Its window was over before it was.
    Expired,
    /// It came to the end that its owner asked for.
    Cancelled,
}

impl BatchStatus {
    const ALL: [Self; 8] = [
        Self::Validating,
        Self::InProgress,
        Self::Finalizing,
        Self::Cancelling,
        Self::Completed,
        Self::Failed,
        Self::Expired,
        Self::Cancelled,
    ];

    /// As OpenAI calls it, and the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Validating => "validating",
            Self::InProgress => "in_progress",
            Self::Finalizing => "finalizing",
            Self::Cancelling => "cancelling",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }
}

impl<DB: Database> Type<DB> for BatchStatus
where
    String: Type<DB>,
{
    fn type_info() -> DB::TypeInfo {
        String::type_info()
    }

    fn compatible(info: &DB::TypeInfo) -> bool {
        String::compatible(info)
    }
}

impl<'r, DB: Database> Decode<'r, DB> for BatchStatus
where
    String: Decode<'r, DB>,
{
    fn decode(value: DB::ValueRef<'r>) -> Result<Self, BoxDynError> {
        let name = String::decode(value)?;
        let found = Self::ALL.into_iter().find(|status| status.name() == name);
        found.ok_or_else(|| format!("`{name}` is no status of a batch").into())
    }
}

impl<'q, DB: Database> Encode<'q, DB> for BatchStatus
where
    String: Encode<'q, DB>,
{
    fn encode_by_ref(&self, buffer: &mut DB::ArgumentBuffer) -> Result<IsNull, BoxDynError> {
        self.name().to_owned().encode(buffer)
    }
}
