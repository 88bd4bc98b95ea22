//! Single-use tickets that open a WebSocket from a browser, which can send no header there.

use crate::clock::Timestamp;
use crate::store::pool::{execute, on};
use crate::store::{StoreError, Tx};

/// Adds a ticket; `grant_for` is JSON.
///
/// # Errors
/// [`StoreError`].
pub async fn insert(
    tx: &mut Tx,
    hash: &str,
    grant_for: &str,
    expires_at: Timestamp,
) -> Result<(), StoreError> {
    const SQL: &str = "INSERT INTO tickets (hash, grant_for, expires_at) VALUES ($1, $2, $3)";
    execute!(tx, sqlx::query(SQL).bind(hash).bind(grant_for).bind(expires_at))?;
    Ok(())
}

/// Whether there is such a ticket, good or not.
///
/// # Errors
/// [`StoreError`].
pub async fn exists(tx: &mut Tx, hash: &str) -> Result<bool, StoreError> {
    const SQL: &str = "SELECT COUNT(*) FROM tickets WHERE hash = $1";
    let found: i64 = on!(tx, connection => sqlx::query_scalar(SQL).bind(hash).fetch_one(connection))?;
    Ok(found > 0)
}

/// Takes a ticket out: what it was granted for, if it was there and its time was not over. Of many who try, one gets it.
///
/// # Errors
/// [`StoreError`].
pub async fn take(tx: &mut Tx, hash: &str, now: Timestamp) -> Result<Option<String>, StoreError> {
    const SQL: &str = "DELETE FROM tickets WHERE hash = $1 AND expires_at > $2 RETURNING grant_for";
    Ok(on!(tx, connection => sqlx::query_scalar(SQL).bind(hash).bind(now).fetch_optional(connection))?)
}

/// Forgets the tickets whose time is over.
///
/// # Errors
/// [`StoreError`].
pub async fn forget_expired(tx: &mut Tx, now: Timestamp) -> Result<(), StoreError> {
    const SQL: &str = "DELETE FROM tickets WHERE expires_at <= $1";
    execute!(tx, sqlx::query(SQL).bind(now))?;
    Ok(())
}
