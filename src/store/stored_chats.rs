//! What a chat that is kept has beside its row in `responses`: what lists choose by, and what its owner may change. It goes
//! when that goes.

use serde_json::{Map, Value};
use sqlx::FromRow;

use crate::clock::Timestamp;
use crate::store::pool::{execute, on};
use crate::store::{JsonText, StoreError, Tx};

/// What a list looks at, so that bodies are read only of what it shows.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct StoredChatRow {
    /// `chatcmpl-…`
    pub id: String,
    /// Asked for.
    pub created_at: Timestamp,
    /// Of body, messages and notes together.
    pub bytes: i64,
    /// Its owner's notes.
    pub metadata: JsonText<Map<String, Value>>,
}

/// Which way a list goes, and after what.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    /// The oldest is first.
    pub is_ascending: bool,
    /// The one before the next; none: from the beginning.
    pub after: Option<(Timestamp, String)>,
}

/// Adds to a row of `responses` what only chats have, or replaces it with the row.
///
/// # Errors
/// [`StoreError`].
pub async fn insert(
    tx: &mut Tx,
    id: &str,
    model: &str,
    metadata: &JsonText<Map<String, Value>>,
) -> Result<(), StoreError> {
    const SQL: &str = "INSERT INTO stored_chats (id, model, metadata) VALUES ($1, $2, $3) \
        ON CONFLICT (id) DO UPDATE SET model = excluded.model, metadata = excluded.metadata";
    execute!(tx, sqlx::query(SQL).bind(id).bind(model).bind(metadata))?;
    Ok(())
}

/// A chat of this owner that is still kept, without what was said.
///
/// # Errors
/// [`StoreError`].
pub async fn find(
    tx: &mut Tx,
    owner: &str,
    id: &str,
    now: Timestamp,
) -> Result<Option<StoredChatRow>, StoreError> {
    const SQL: &str = "SELECT responses.id, created_at, bytes, metadata FROM responses \
        JOIN stored_chats ON stored_chats.id = responses.id \
        WHERE responses.id = $1 AND owner = $2 AND expires_at > $3";
    Ok(on!(tx, connection => sqlx::query_as(SQL)
        .bind(id).bind(owner).bind(now).fetch_optional(connection))?)
}

/// The next chats of this owner that are still kept, of one model or of all.
///
/// # Errors
/// [`StoreError`].
pub async fn list(
    tx: &mut Tx,
    owner: &str,
    model: Option<&str>,
    place: &Place,
    now: Timestamp,
    limit: i64,
) -> Result<Vec<StoredChatRow>, StoreError> {
    const ASCENDING: &str = "SELECT responses.id, created_at, bytes, metadata FROM responses \
        JOIN stored_chats ON stored_chats.id = responses.id \
        WHERE owner = $1 AND expires_at > $2 AND (CAST($3 AS TEXT) IS NULL OR model = $3) \
        AND (created_at, responses.id) > ($4, $5) ORDER BY created_at, responses.id LIMIT $6";
    const DESCENDING: &str = "SELECT responses.id, created_at, bytes, metadata FROM responses \
        JOIN stored_chats ON stored_chats.id = responses.id \
        WHERE owner = $1 AND expires_at > $2 AND (CAST($3 AS TEXT) IS NULL OR model = $3) \
        AND (created_at, responses.id) < ($4, $5) ORDER BY created_at DESC, responses.id DESC LIMIT $6";
    let (sql, end) = match place.is_ascending {
        true => (ASCENDING, Timestamp::from_millis(i64::MIN)),
        false => (DESCENDING, Timestamp::from_millis(i64::MAX)),
    };
    let (at, id) = place.after.as_ref().map_or((end, ""), |(at, id)| (*at, id.as_str()));
    Ok(on!(tx, connection => sqlx::query_as(sql)
        .bind(owner).bind(now).bind(model).bind(at).bind(id).bind(limit).fetch_all(connection))?)
}

/// Changes the notes of a chat, which is longer by so many bytes then.
///
/// # Errors
/// [`StoreError`].
pub async fn note(
    tx: &mut Tx,
    id: &str,
    metadata: &JsonText<Map<String, Value>>,
    longer: i64,
) -> Result<(), StoreError> {
    const NOTE: &str = "UPDATE stored_chats SET metadata = $2 WHERE id = $1";
    const COUNT: &str = "UPDATE responses SET bytes = bytes + $2 WHERE id = $1";
    execute!(tx, sqlx::query(NOTE).bind(id).bind(metadata))?;
    execute!(tx, sqlx::query(COUNT).bind(id).bind(longer))?;
    Ok(())
}
