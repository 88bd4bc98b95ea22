//! How often signing in failed lately, by account and by address, shared by all replicas.

use sqlx::FromRow;

use crate::clock::Timestamp;
use crate::store::pool::{execute, on};
use crate::store::{StoreError, Tx};

/// Failures of one subject: `account:NAME` or `address:IP`.
#[derive(Debug, Clone, FromRow)]
pub struct FailuresRow {
    /// Who.
    pub subject: String,
    /// How many in a row.
    pub failures: i64,
    /// The last.
    pub last_at: Timestamp,
    /// No attempt before then.
    pub blocked_until: Timestamp,
}

/// What is noted of a subject.
///
/// # Errors
/// [`StoreError`].
pub async fn find(tx: &mut Tx, subject: &str) -> Result<Option<FailuresRow>, StoreError> {
    const SQL: &str = "SELECT * FROM sign_in_failures WHERE subject = $1";
    Ok(on!(tx, connection => sqlx::query_as(SQL).bind(subject).fetch_optional(connection))?)
}

/// Notes it anew.
///
/// # Errors
/// [`StoreError`].
pub async fn put(tx: &mut Tx, row: &FailuresRow) -> Result<(), StoreError> {
    const SQL: &str = "INSERT INTO sign_in_failures (subject, failures, last_at, blocked_until) \
        VALUES ($1, $2, $3, $4) ON CONFLICT (subject) DO UPDATE \
        SET failures = excluded.failures, last_at = excluded.last_at, blocked_until = excluded.blocked_until";
    execute!(
        tx,
        sqlx::query(SQL).bind(&row.subject).bind(row.failures).bind(row.last_at).bind(row.blocked_until)
    )?;
    Ok(())
}

/// Forgets a subject.
///
/// # Errors
/// [`StoreError`].
pub async fn forget(tx: &mut Tx, subject: &str) -> Result<(), StoreError> {
    const SQL: &str = "DELETE FROM sign_in_failures WHERE subject = $1";
    execute!(tx, sqlx::query(SQL).bind(subject))?;
    Ok(())
}

/// Forgets a subject and those whose names go on after it with a colon.
///
/// # Errors
/// [`StoreError`].
pub async fn forget_all_of(tx: &mut Tx, subject: &str) -> Result<(), StoreError> {
    const SQL: &str =
        "DELETE FROM sign_in_failures WHERE subject = $1 OR SUBSTR(subject, 1, LENGTH($1) + 1) = $1 || ':'";
    execute!(tx, sqlx::query(SQL).bind(subject))?;
    Ok(())
}

/// Forgets everything older than a time: the table stays small.
///
/// # Errors
/// [`StoreError`].
pub async fn forget_before(tx: &mut Tx, before: Timestamp) -> Result<(), StoreError> {
    const SQL: &str = "DELETE FROM sign_in_failures WHERE last_at < $1 AND blocked_until < $1";
    execute!(tx, sqlx::query(SQL).bind(before))?;
    Ok(())
}
