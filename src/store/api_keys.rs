//! API keys: rows and queries. A key itself is never here, only its hash.

use sqlx::FromRow;

use crate::clock::Timestamp;
use crate::store::list::{Bind, ListQuery, Row};
use crate::store::pool::{execute, on};
use crate::store::{JsonText, ListRequest, Page, PageError, StoreError, Tx};

/// An API key. `Debug` shows no hash.
#[derive(Clone, FromRow)]
pub struct ApiKeyRow {
    /// `key_…`
    pub id: String,
    /// Whose it is.
    pub user_id: String,
    /// The team it works for.
    pub team_id: Option<String>,
    /// For people.
    pub name: String,
    /// Its first characters.
    pub prefix: String,
    /// Of the whole key.
    pub hash: String,
    /// Of the key before the last rotation.
    pub previous_hash: Option<String>,
    /// Until when that one is accepted.
    pub previous_expires_at: Option<Timestamp>,
    /// Names of permissions.
    pub scopes: JsonText<Vec<String>>,
    /// Models it may use; none: all that its owner may.
    pub models: Option<JsonText<Vec<String>>>,
    /// Networks it may be used from; none: all.
    pub cidrs: Option<JsonText<Vec<String>>>,
    /// `enabled` or `disabled`.
    pub status: String,
    /// Not accepted from then on.
    pub expires_at: Option<Timestamp>,
    /// Made.
    pub created_at: Timestamp,
    /// By this user, or `system`.
    pub created_by: String,
    /// Last changed.
    pub updated_at: Timestamp,
    /// Last used; written now and then, not at once.
    pub last_used_at: Option<Timestamp>,
    /// Deleted.
    pub deleted_at: Option<Timestamp>,
}

impl std::fmt::Debug for ApiKeyRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiKeyRow").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}

impl Row for ApiKeyRow {
    fn id(&self) -> Bind {
        self.id.as_str().into()
    }

    fn sort_key(&self, column: &str) -> Bind {
        match column {
            "name" => self.name.as_str().into(),
            "updated_at" => self.updated_at.into(),
            _ => self.created_at.into(),
        }
    }
}

/// Which keys a list shows.
#[derive(Debug, Clone, Default)]
pub struct ApiKeyFilter {
    /// Of this user.
    pub user_id: Option<String>,
    /// Of this team.
    pub team_id: Option<String>,
    /// Of this status.
    pub status: Option<String>,
    /// In name or prefix.
    pub search: Option<String>,
}

/// Columns that a list may be sorted by; the first is the usual.
pub const SORTS: &[&str] = &["created_at", "updated_at", "name"];

/// One page of the keys that are not deleted.
///
/// # Errors
/// [`PageError`].
pub async fn list(
    tx: &mut Tx,
    filter: &ApiKeyFilter,
    request: &ListRequest,
) -> Result<Page<ApiKeyRow>, PageError> {
    ListQuery::new("SELECT * FROM api_keys WHERE deleted_at IS NULL", "id")
        .filter("user_id = ?", filter.user_id.as_deref())
        .filter("team_id = ?", filter.team_id.as_deref())
        .filter("status = ?", filter.status.as_deref())
        .search(&["name", "prefix"], filter.search.as_deref())
        .page(tx, request)
        .await
}

/// A key that is not deleted.
///
/// # Errors
/// [`StoreError`].
pub async fn find(tx: &mut Tx, id: &str) -> Result<Option<ApiKeyRow>, StoreError> {
    const SQL: &str = "SELECT * FROM api_keys WHERE id = $1 AND deleted_at IS NULL";
    Ok(on!(tx, connection => sqlx::query_as(SQL).bind(id).fetch_optional(connection))?)
}

/// The key with this hash, deleted ones too, or the one that had it before its last rotation.
///
/// # Errors
/// [`StoreError`].
pub async fn find_by_hash(tx: &mut Tx, hash: &str) -> Result<Option<ApiKeyRow>, StoreError> {
    const SQL: &str = "SELECT * FROM api_keys WHERE hash = $1 OR previous_hash = $1 LIMIT 1";
    Ok(on!(tx, connection => sqlx::query_as(SQL).bind(hash).fetch_optional(connection))?)
}

/// How many keys a user has that are not deleted.
///
/// # Errors
/// [`StoreError`].
pub async fn count_of_user(tx: &mut Tx, user_id: &str) -> Result<i64, StoreError> {
    const SQL: &str = "SELECT COUNT(*) FROM api_keys WHERE user_id = $1 AND deleted_at IS NULL";
    Ok(on!(tx, connection => sqlx::query_scalar(SQL).bind(user_id).fetch_one(connection))?)
}

/// Adds a key.
///
/// # Errors
/// [`StoreError`].
pub async fn insert(tx: &mut Tx, key: &ApiKeyRow) -> Result<(), StoreError> {
    const SQL: &str = "INSERT INTO api_keys (id, user_id, team_id, name, prefix, hash, previous_hash, \
        previous_expires_at, scopes, models, cidrs, status, expires_at, created_at, created_by, updated_at, \
        last_used_at, deleted_at) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)";
    execute!(
        tx,
        sqlx::query(SQL)
            .bind(&key.id)
            .bind(&key.user_id)
            .bind(&key.team_id)
            .bind(&key.name)
            .bind(&key.prefix)
            .bind(&key.hash)
            .bind(&key.previous_hash)
            .bind(key.previous_expires_at)
            .bind(&key.scopes)
            .bind(&key.models)
            .bind(&key.cidrs)
            .bind(&key.status)
            .bind(key.expires_at)
            .bind(key.created_at)
            .bind(&key.created_by)
            .bind(key.updated_at)
            .bind(key.last_used_at)
            .bind(key.deleted_at)
    )?;
    Ok(())
}

/// Writes all of a key but its id, owner, and how it was made and used.
///
/// # Errors
/// [`StoreError`].
pub async fn update(tx: &mut Tx, key: &ApiKeyRow) -> Result<(), StoreError> {
    const SQL: &str = "UPDATE api_keys SET team_id = $2, name = $3, prefix = $4, hash = $5, previous_hash = $6, \
        previous_expires_at = $7, scopes = $8, models = $9, cidrs = $10, status = $11, expires_at = $12, \
        updated_at = $13, deleted_at = $14 WHERE id = $1";
    execute!(
        tx,
        sqlx::query(SQL)
            .bind(&key.id)
            .bind(&key.team_id)
            .bind(&key.name)
            .bind(&key.prefix)
            .bind(&key.hash)
            .bind(&key.previous_hash)
            .bind(key.previous_expires_at)
            .bind(&key.scopes)
            .bind(&key.models)
            .bind(&key.cidrs)
            .bind(&key.status)
            .bind(key.expires_at)
            .bind(key.updated_at)
            .bind(key.deleted_at)
    )?;
    Ok(())
}

/// Deletes all keys of a user.
///
/// # Errors
/// [`StoreError`].
pub async fn delete_of_user(tx: &mut Tx, user_id: &str, now: Timestamp) -> Result<(), StoreError> {
    const SQL: &str =
        "UPDATE api_keys SET deleted_at = $2, updated_at = $2 WHERE user_id = $1 AND deleted_at IS NULL";
    execute!(tx, sqlx::query(SQL).bind(user_id).bind(now))?;
    Ok(())
}

/// Notes when a key was last used, unless a later time is noted already. It waits for no row that somebody else has: then
/// it gives false, and nothing is noted.
///
/// # Errors
/// [`StoreError`].
pub async fn touch(tx: &mut Tx, id: &str, at: Timestamp) -> Result<bool, StoreError> {
    const SQL: &str =
        "UPDATE api_keys SET last_used_at = $2 WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $2)";
    const HAS: &str = "SELECT id FROM api_keys WHERE id = $1 FOR UPDATE SKIP LOCKED";
    const IS_THERE: &str = "SELECT COUNT(*) FROM api_keys WHERE id = $1";
    if let Tx::Postgres(transaction, _) = tx {
        let mine = sqlx::query(HAS).bind(id).fetch_optional(&mut **transaction).await?;
        if mine.is_none() {
            let there: i64 = sqlx::query_scalar(IS_THERE).bind(id).fetch_one(&mut **transaction).await?;
            return Ok(there == 0);
        }
    }
    execute!(tx, sqlx::query(SQL).bind(id).bind(at))?;
    Ok(true)
}
