//! Sessions and their refresh tokens: rows and queries. A token itself is never here, only its hash.

use sqlx::FromRow;

use crate::clock::Timestamp;
use crate::store::list::{Bind, ListQuery, Row};
use crate::store::pool::{execute, on};
use crate::store::{ListRequest, Page, PageError, StoreError, Tx};

/// One sign-in on one device: a family of refresh tokens.
#[derive(Debug, Clone, FromRow)]
pub struct SessionRow {
    /// `ses_…`
    pub id: String,
    /// Whose it is.
    pub user_id: String,
    /// Where it was begun.
    pub address: String,
    /// What the client called itself.
    pub user_agent: String,
    /// Begun.
    pub created_at: Timestamp,
    /// Last refreshed.
    pub last_used_at: Timestamp,
    /// Ends by itself.
    pub expires_at: Timestamp,
    /// Was ended.
    pub revoked_at: Option<Timestamp>,
    /// `signed_out`, `reused`, `password_changed`, `revoked` …
    pub revoked_because: Option<String>,
}

impl Row for SessionRow {
    fn id(&self) -> Bind {
        self.id.as_str().into()
    }

    fn sort_key(&self, column: &str) -> Bind {
        match column {
            "last_used_at" => self.last_used_at.into(),
            _ => self.created_at.into(),
        }
    }
}

/// A refresh token.
#[derive(Clone, FromRow)]
pub struct RefreshTokenRow {
    /// Of the token.
    pub hash: String,
    /// Its family.
    pub session_id: String,
    /// With it the successor is computed from the token.
    pub seed: String,
    /// Given out.
    pub created_at: Timestamp,
    /// Exchanged for its successor.
    pub used_at: Option<Timestamp>,
}

/// Columns that a list may be sorted by; the first is the usual.
pub const SORTS: &[&str] = &["created_at", "last_used_at"];

/// One page of the sessions that go on, of one user or of all.
///
/// # Errors
/// [`PageError`].
pub async fn list_active(
    tx: &mut Tx,
    user_id: Option<&str>,
    now: Timestamp,
    request: &ListRequest,
) -> Result<Page<SessionRow>, PageError> {
    ListQuery::new("SELECT * FROM sessions WHERE revoked_at IS NULL", "id")
        .filter("user_id = ?", user_id)
        .filter("expires_at > ?", Some(now))
        .page(tx, request)
        .await
}

/// A session, ended or not.
///
/// # Errors
/// [`StoreError`].
pub async fn find(tx: &mut Tx, id: &str) -> Result<Option<SessionRow>, StoreError> {
    const SQL: &str = "SELECT * FROM sessions WHERE id = $1";
    Ok(on!(tx, connection => sqlx::query_as(SQL).bind(id).fetch_optional(connection))?)
}

/// Whether a user signed in from this address after `since`.
///
/// # Errors
/// [`StoreError`].
pub async fn is_known_address(
    tx: &mut Tx,
    user_id: &str,
    address: &str,
    since: Timestamp,
) -> Result<bool, StoreError> {
    const SQL: &str = "SELECT COUNT(*) FROM sessions WHERE user_id = $1 AND address = $2 AND created_at > $3";
    let found: i64 = on!(tx, connection => sqlx::query_scalar(SQL)
        .bind(user_id).bind(address).bind(since).fetch_one(connection))?;
    Ok(found > 0)
}

/// Adds a session.
///
/// # Errors
/// [`StoreError`].
pub async fn insert(tx: &mut Tx, session: &SessionRow) -> Result<(), StoreError> {
    const SQL: &str = "INSERT INTO sessions (id, user_id, address, user_agent, created_at, last_used_at, \
        expires_at, revoked_at, revoked_because) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    execute!(
        tx,
        sqlx::query(SQL)
            .bind(&session.id)
            .bind(&session.user_id)
            .bind(&session.address)
            .bind(&session.user_agent)
            .bind(session.created_at)
            .bind(session.last_used_at)
            .bind(session.expires_at)
            .bind(session.revoked_at)
            .bind(&session.revoked_because)
    )?;
    Ok(())
}

/// Notes that a session was refreshed, and when it now ends.
///
/// # Errors
/// [`StoreError`].
pub async fn touch(tx: &mut Tx, id: &str, now: Timestamp, expires_at: Timestamp) -> Result<(), StoreError> {
    const SQL: &str = "UPDATE sessions SET last_used_at = $2, expires_at = $3 WHERE id = $1";
    execute!(tx, sqlx::query(SQL).bind(id).bind(now).bind(expires_at))?;
    Ok(())
}

/// Ends a session; one that has ended keeps its reason. Gives how many ended.
///
/// # Errors
/// [`StoreError`].
pub async fn revoke(tx: &mut Tx, id: &str, because: &str, now: Timestamp) -> Result<u64, StoreError> {
    const SQL: &str =
        "UPDATE sessions SET revoked_at = $3, revoked_because = $2 WHERE id = $1 AND revoked_at IS NULL";
    Ok(execute!(tx, sqlx::query(SQL).bind(id).bind(because).bind(now))?)
}

/// Ends all of a user's sessions but one. Gives how many ended.
///
/// # Errors
/// [`StoreError`].
pub async fn revoke_all_but(
    tx: &mut Tx,
    user_id: &str,
    kept: Option<&str>,
    because: &str,
    now: Timestamp,
) -> Result<u64, StoreError> {
    const SQL: &str = "UPDATE sessions SET revoked_at = $4, revoked_because = $3 \
        WHERE user_id = $1 AND id <> $2 AND revoked_at IS NULL AND expires_at > $4";
    Ok(execute!(tx, sqlx::query(SQL).bind(user_id).bind(kept.unwrap_or_default()).bind(because).bind(now))?)
}

/// A refresh token by its hash.
///
/// # Errors
/// [`StoreError`].
pub async fn find_token(tx: &mut Tx, hash: &str) -> Result<Option<RefreshTokenRow>, StoreError> {
    const SQL: &str = "SELECT * FROM refresh_tokens WHERE hash = $1";
    Ok(on!(tx, connection => sqlx::query_as(SQL).bind(hash).fetch_optional(connection))?)
}

/// Adds a refresh token.
///
/// # Errors
/// [`StoreError`].
pub async fn insert_token(tx: &mut Tx, token: &RefreshTokenRow) -> Result<(), StoreError> {
    const SQL: &str = "INSERT INTO refresh_tokens (hash, session_id, seed, created_at, used_at) VALUES ($1, $2, $3, $4, $5)";
    execute!(
        tx,
        sqlx::query(SQL)
            .bind(&token.hash)
            .bind(&token.session_id)
            .bind(&token.seed)
            .bind(token.created_at)
            .bind(token.used_at)
    )?;
    Ok(())
}

/// Notes that a refresh token was exchanged.
///
/// # Errors
/// [`StoreError`].
pub async fn use_token(tx: &mut Tx, hash: &str, now: Timestamp) -> Result<(), StoreError> {
    const SQL: &str = "UPDATE refresh_tokens SET used_at = $2 WHERE hash = $1";
    execute!(tx, sqlx::query(SQL).bind(hash).bind(now))?;
    Ok(())
}

/// Forgets all refresh tokens of a session: none of them can be exchanged any more.
///
/// # Errors
/// [`StoreError`].
pub async fn forget_tokens(tx: &mut Tx, session_id: &str) -> Result<(), StoreError> {
    const SQL: &str = "DELETE FROM refresh_tokens WHERE session_id = $1";
    execute!(tx, sqlx::query(SQL).bind(session_id))?;
    Ok(())
}

/// Forgets the refresh tokens of a session that were exchanged before a time.
///
/// # Errors
/// [`StoreError`].
pub async fn forget_used_tokens(tx: &mut Tx, session_id: &str, before: Timestamp) -> Result<(), StoreError> {
    const SQL: &str = "DELETE FROM refresh_tokens WHERE session_id = $1 AND used_at < $2";
    execute!(tx, sqlx::query(SQL).bind(session_id).bind(before))?;
    Ok(())
}

/// Forgets the sessions of a user that ended before a time.
///
/// # Errors
/// [`StoreError`].
pub async fn forget_ended(tx: &mut Tx, user_id: &str, before: Timestamp) -> Result<(), StoreError> {
    const TOKENS: &str = "DELETE FROM refresh_tokens WHERE session_id IN \
        (SELECT id FROM sessions WHERE user_id = $1 AND (expires_at < $2 OR revoked_at < $2))";
    const SESSIONS: &str = "DELETE FROM sessions WHERE user_id = $1 AND (expires_at < $2 OR revoked_at < $2)";
    execute!(tx, sqlx::query(TOKENS).bind(user_id).bind(before))?;
    execute!(tx, sqlx::query(SESSIONS).bind(user_id).bind(before))?;
    Ok(())
}

/// Ends all sessions of all users.
///
/// # Errors
/// [`StoreError`].
pub async fn revoke_of_everybody(tx: &mut Tx, because: &str, now: Timestamp) -> Result<(), StoreError> {
    const SQL: &str = "UPDATE sessions SET revoked_at = $2, revoked_because = $1 WHERE revoked_at IS NULL";
    execute!(tx, sqlx::query(SQL).bind(because).bind(now))?;
    Ok(())
}
