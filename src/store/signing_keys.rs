//! The keys that sign access tokens, shared by all replicas.

use sqlx::FromRow;

use crate::clock::Timestamp;
use crate::store::pool::{execute, on};
use crate::store::{StoreError, Tx};

/// A signing key. `Debug` shows no secret.
#[derive(Clone, FromRow)]
pub struct SigningKeyRow {
    /// The `kid` of its tokens.
    pub id: String,
    /// Base64.
    pub secret: String,
    /// Made.
    pub created_at: Timestamp,
    /// Signs no more; what it signed is accepted until then.
    pub retires_at: Option<Timestamp>,
}

impl std::fmt::Debug for SigningKeyRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKeyRow").field("id", &self.id).finish_non_exhaustive()
    }
}

/// All keys, the newest first.
///
/// # Errors
/// [`StoreError`].
pub async fn all(tx: &mut Tx) -> Result<Vec<SigningKeyRow>, StoreError> {
    const SQL: &str = "SELECT * FROM signing_keys ORDER BY created_at DESC, id DESC";
    Ok(on!(tx, connection => sqlx::query_as(SQL).fetch_all(connection))?)
}

/// Adds a key.
///
/// # Errors
/// [`StoreError`].
pub async fn insert(tx: &mut Tx, key: &SigningKeyRow) -> Result<(), StoreError> {
    const SQL: &str = "INSERT INTO signing_keys (id, secret, created_at, retires_at) VALUES ($1, $2, $3, $4)";
    execute!(tx, sqlx::query(SQL).bind(&key.id).bind(&key.secret).bind(key.created_at).bind(key.retires_at))?;
    Ok(())
}

/// Retires all keys that still sign, and forgets those whose time is over.
///
/// # Errors
/// [`StoreError`].
pub async fn retire_all(tx: &mut Tx, at: Timestamp, now: Timestamp) -> Result<(), StoreError> {
    const RETIRE: &str = "UPDATE signing_keys SET retires_at = $1 WHERE retires_at IS NULL";
    const FORGET: &str = "DELETE FROM signing_keys WHERE retires_at < $1";
    execute!(tx, sqlx::query(RETIRE).bind(at))?;
    execute!(tx, sqlx::query(FORGET).bind(now))?;
    Ok(())
}
