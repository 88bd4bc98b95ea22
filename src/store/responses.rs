//! Answers that are kept: rows and queries. What a body says is the edge's business, whose it is `auth/`'s.

use sqlx::FromRow;

use crate::clock::Timestamp;
use crate::store::pool::{execute, on};
use crate::store::{StoreError, Tx};

/// An answer, and what it answers.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct ResponseRow {
    /// `resp_…`
    pub id: String,
    /// Whose it is.
    pub owner: String,
    /// The answer that this one goes on from.
    pub previous_id: Option<String>,
    /// `queued`, `in_progress`, `completed`, `incomplete`, `failed`, `cancelled`.
    pub status: String,
    /// Asked for.
    pub created_at: Timestamp,
    /// Not kept any longer.
    pub expires_at: Timestamp,
    /// While it is being made: when its maker last said so.
    pub beat_at: Option<Timestamp>,
    /// Of body and input together.
    pub bytes: i64,
    /// JSON: the answer as it is shown.
    pub body: String,
    /// JSON: the items that it answers.
    pub input: String,
}

/// Which sides of an answer are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sides {
    /// The answer as it is shown.
    pub body: bool,
    /// The items that it answers.
    pub input: bool,
}

/// How far back a conversation is read.
#[derive(Debug, Clone, Copy)]
pub struct Reach {
    /// Most answers.
    pub answers: i64,
    /// Most bytes of all but the first.
    pub bytes: i64,
}

/// Adds an answer. One of the same id and owner is replaced: a line of a batch may be answered again.
///
/// # Errors
/// [`StoreError`]; [`StoreError::Duplicate`] if the id is another owner's.
pub async fn insert(tx: &mut Tx, row: &ResponseRow) -> Result<(), StoreError> {
    const SQL: &str = "INSERT INTO responses (id, owner, previous_id, status, created_at, expires_at, beat_at, \
        bytes, body, input) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (id) DO UPDATE SET \
        previous_id = excluded.previous_id, status = excluded.status, created_at = excluded.created_at, \
        expires_at = excluded.expires_at, beat_at = excluded.beat_at, bytes = excluded.bytes, \
        body = excluded.body, input = excluded.input WHERE responses.owner = excluded.owner";
    let written = execute!(
        tx,
        sqlx::query(SQL)
            .bind(&row.id)
            .bind(&row.owner)
            .bind(&row.previous_id)
            .bind(&row.status)
            .bind(row.created_at)
            .bind(row.expires_at)
            .bind(row.beat_at)
            .bind(row.bytes)
            .bind(&row.body)
            .bind(&row.input)
    )?;
    // Another owner's is left as it is.
    if written == 1 { Ok(()) } else { Err(StoreError::Duplicate) }
}

/// An answer of this owner that is still kept.
///
/// # Errors
/// [`StoreError`].
pub async fn find(
    tx: &mut Tx,
    owner: &str,
    id: &str,
    now: Timestamp,
) -> Result<Option<ResponseRow>, StoreError> {
    const SQL: &str = "SELECT * FROM responses WHERE id = $1 AND owner = $2 AND expires_at > $3";
    Ok(on!(tx, connection => sqlx::query_as(SQL)
        .bind(id).bind(owner).bind(now).fetch_optional(connection))?)
}

/// The same with the sides that are asked for: any other reads as JSON that has nothing in it.
///
/// # Errors
/// [`StoreError`].
pub async fn find_sides(
    tx: &mut Tx,
    owner: &str,
    id: &str,
    now: Timestamp,
    sides: Sides,
) -> Result<Option<ResponseRow>, StoreError> {
    const SQL: &str = "SELECT id, owner, previous_id, status, created_at, expires_at, beat_at, bytes, \
        CASE WHEN $4 THEN body ELSE 'null' END AS body, CASE WHEN $5 THEN input ELSE '[]' END AS input \
        FROM responses WHERE id = $1 AND owner = $2 AND expires_at > $3";
    Ok(on!(tx, connection => sqlx::query_as(SQL)
        .bind(id).bind(owner).bind(now).bind(sides.body).bind(sides.input).fetch_optional(connection))?)
}

/// An answer of this owner and those that it goes on from, the oldest first. If the oldest has one before it, that is not
/// there, or out of reach.
///
/// # Errors
/// [`StoreError`].
pub async fn chain(
    tx: &mut Tx,
    owner: &str,
    id: &str,
    now: Timestamp,
    reach: Reach,
) -> Result<Vec<ResponseRow>, StoreError> {
    const SQL: &str = "WITH RECURSIVE chain (id, previous_id, depth, total) AS ( \
            SELECT id, previous_id, CAST(1 AS BIGINT), CAST(0 AS BIGINT) \
            FROM responses WHERE id = $1 AND owner = $2 AND expires_at > $3 \
            UNION ALL \
            SELECT earlier.id, earlier.previous_id, chain.depth + 1, chain.total + earlier.bytes \
            FROM responses AS earlier JOIN chain ON earlier.id = chain.previous_id \
            WHERE earlier.owner = $2 AND earlier.expires_at > $3 AND chain.depth < $4 \
            AND chain.total + earlier.bytes <= $5 \
        ) SELECT responses.* FROM chain JOIN responses ON responses.id = chain.id ORDER BY chain.depth DESC";
    Ok(on!(tx, connection => sqlx::query_as(SQL)
        .bind(id).bind(owner).bind(now).bind(reach.answers).bind(reach.bytes).fetch_all(connection))?)
}

/// Keeps an answer until then, if it was to go earlier.
///
/// # Errors
/// [`StoreError`].
pub async fn keep_until(tx: &mut Tx, id: &str, until: Timestamp) -> Result<(), StoreError> {
    const SQL: &str = "UPDATE responses SET expires_at = $2 WHERE id = $1 AND expires_at < $2";
    execute!(tx, sqlx::query(SQL).bind(id).bind(until))?;
    Ok(())
}

/// Says that an answer is still being made; whether it was to be.
///
/// # Errors
/// [`StoreError`].
pub async fn beat(tx: &mut Tx, id: &str, now: Timestamp) -> Result<bool, StoreError> {
    const SQL: &str = "UPDATE responses SET beat_at = $2 WHERE id = $1 AND beat_at IS NOT NULL";
    Ok(execute!(tx, sqlx::query(SQL).bind(id).bind(now))? > 0)
}

/// Changes the status of an answer that is being made; whether it was.
///
/// # Errors
/// [`StoreError`].
pub async fn go_on(tx: &mut Tx, id: &str, status: &str) -> Result<bool, StoreError> {
    const SQL: &str = "UPDATE responses SET status = $2 WHERE id = $1 AND beat_at IS NOT NULL";
    Ok(execute!(tx, sqlx::query(SQL).bind(id).bind(status))? > 0)
}

/// Ends an answer that is being made, its body as it was; whether it was being made.
///
/// # Errors
/// [`StoreError`].
pub async fn end(tx: &mut Tx, id: &str, status: &str) -> Result<bool, StoreError> {
    const SQL: &str =
        "UPDATE responses SET status = $2, beat_at = NULL WHERE id = $1 AND beat_at IS NOT NULL";
    Ok(execute!(tx, sqlx::query(SQL).bind(id).bind(status))? > 0)
}

/// Ends an answer that is being made, with its last body; whether it was being made.
///
/// # Errors
/// [`StoreError`].
pub async fn finish(tx: &mut Tx, id: &str, status: &str, body: &str) -> Result<bool, StoreError> {
    const SQL: &str = "UPDATE responses SET status = $2, beat_at = NULL, bytes = bytes + $4, body = $3 \
        WHERE id = $1 AND beat_at IS NOT NULL";
    let bytes = i64::try_from(body.len()).unwrap_or(i64::MAX);
    Ok(execute!(tx, sqlx::query(SQL).bind(id).bind(status).bind(body).bind(bytes))? > 0)
}

/// Ends the answers of which nobody said since then that they are being made. Gives how many.
///
/// # Errors
/// [`StoreError`].
pub async fn end_lost(tx: &mut Tx, status: &str, since: Timestamp) -> Result<u64, StoreError> {
    const SQL: &str = "UPDATE responses SET status = $1, beat_at = NULL WHERE beat_at < $2";
    Ok(execute!(tx, sqlx::query(SQL).bind(status).bind(since))?)
}

/// Deletes an answer; how many there were.
///
/// # Errors
/// [`StoreError`].
pub async fn delete(tx: &mut Tx, owner: &str, id: &str) -> Result<u64, StoreError> {
    const SQL: &str = "DELETE FROM responses WHERE id = $1 AND owner = $2";
    Ok(execute!(tx, sqlx::query(SQL).bind(id).bind(owner))?)
}

/// Deletes all that an owner has.
///
/// # Errors
/// [`StoreError`].
pub async fn delete_of_owner(tx: &mut Tx, owner: &str) -> Result<u64, StoreError> {
    const SQL: &str = "DELETE FROM responses WHERE owner = $1";
    Ok(execute!(tx, sqlx::query(SQL).bind(owner))?)
}

/// Deletes what is not kept any longer, and what came to be written after its owner was deleted.
///
/// # Errors
/// [`StoreError`].
pub async fn forget_expired(tx: &mut Tx, now: Timestamp) -> Result<u64, StoreError> {
    const EXPIRED: &str = "DELETE FROM responses WHERE expires_at <= $1";
    const OF_NOBODY: &str =
        "DELETE FROM responses WHERE owner IN (SELECT id FROM users WHERE deleted_at IS NOT NULL)";
    let expired = execute!(tx, sqlx::query(EXPIRED).bind(now))?;
    Ok(expired + execute!(tx, sqlx::query(OF_NOBODY))?)
}

/// Deletes, of what each owner has, the oldest beyond a number and a sum of bytes. What is being made stays.
///
/// # Errors
/// [`StoreError`].
pub async fn forget_beyond(tx: &mut Tx, number: i64, bytes: i64) -> Result<u64, StoreError> {
    const SQL: &str = "DELETE FROM responses WHERE beat_at IS NULL AND id IN (SELECT id FROM (SELECT id, \
        ROW_NUMBER() OVER newer AS place, SUM(bytes) OVER newer AS total FROM responses \
        WINDOW newer AS (PARTITION BY owner ORDER BY created_at DESC, id DESC)) AS counted \
        WHERE place > $1 OR total > $2)";
    Ok(execute!(tx, sqlx::query(SQL).bind(number).bind(bytes))?)
}
