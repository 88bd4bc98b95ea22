//! Users: rows and queries.

use sqlx::FromRow;

use crate::clock::Timestamp;
use crate::store::list::{Bind, ListQuery, Row};
use crate::store::pool::{execute, on};
use crate::store::{ListRequest, Page, PageError, StoreError, Tx};

/// A user. `Debug` shows no password hash.
#[derive(Clone, FromRow)]
pub struct UserRow {
    /// `usr_…`
    pub id: String,
    /// What one signs in with: lower case, unique among those not deleted.
    pub username: String,
    /// What people call them.
    pub display_name: String,
    /// Where they can be reached.
    pub email: Option<String>,
    /// The name of a role.
    pub role: String,
    /// `active` or `disabled`.
    pub status: String,
    /// As PHC string.
    pub password_hash: String,
    /// Nothing but a new password is accepted from them.
    pub must_change_password: bool,
    /// Access tokens carry it; another number ends them.
    pub token_version: i64,
    /// Made.
    pub created_at: Timestamp,
    /// Last changed.
    pub updated_at: Timestamp,
    /// Last signed in.
    pub last_login_at: Option<Timestamp>,
    /// Deleted.
    pub deleted_at: Option<Timestamp>,
}

impl std::fmt::Debug for UserRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserRow")
            .field("id", &self.id)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

impl Row for UserRow {
    fn id(&self) -> Bind {
        self.id.as_str().into()
    }

    fn sort_key(&self, column: &str) -> Bind {
        match column {
            "username" => self.username.as_str().into(),
            "updated_at" => self.updated_at.into(),
            _ => self.created_at.into(),
        }
    }
}

/// Which users a list shows.
#[derive(Debug, Clone, Default)]
pub struct UserFilter {
    /// Of this role.
    pub role: Option<String>,
    /// Of this status.
    pub status: Option<String>,
    /// Members of this team.
    pub team_id: Option<String>,
    /// In user name, display name or e-mail address.
    pub search: Option<String>,
}

/// Columns that a list may be sorted by; the first is the usual.
pub const SORTS: &[&str] = &["created_at", "updated_at", "username"];

/// One page of the users that are not deleted.
///
/// # Errors
/// [`PageError`].
pub async fn list(
    tx: &mut Tx,
    filter: &UserFilter,
    request: &ListRequest,
) -> Result<Page<UserRow>, PageError> {
    ListQuery::new("SELECT * FROM users WHERE deleted_at IS NULL", "id")
        .filter("role = ?", filter.role.as_deref())
        .filter("status = ?", filter.status.as_deref())
        .filter("id IN (SELECT user_id FROM team_members WHERE team_id = ?)", filter.team_id.as_deref())
        .search(&["username", "display_name", "COALESCE(email, '')"], filter.search.as_deref())
        .page(tx, request)
        .await
}

/// A user that is not deleted.
///
/// # Errors
/// [`StoreError`].
pub async fn find(tx: &mut Tx, id: &str) -> Result<Option<UserRow>, StoreError> {
    const SQL: &str = "SELECT * FROM users WHERE id = $1 AND deleted_at IS NULL";
    Ok(on!(tx, connection => sqlx::query_as(SQL).bind(id).fetch_optional(connection))?)
}

/// A user by name, that is not deleted.
///
/// # Errors
/// [`StoreError`].
pub async fn find_by_username(tx: &mut Tx, username: &str) -> Result<Option<UserRow>, StoreError> {
    const SQL: &str = "SELECT * FROM users WHERE username = $1 AND deleted_at IS NULL";
    Ok(on!(tx, connection => sqlx::query_as(SQL).bind(username).fetch_optional(connection))?)
}

/// How many users of a role are active.
///
/// # Errors
/// [`StoreError`].
pub async fn count_active(tx: &mut Tx, role: &str) -> Result<i64, StoreError> {
    const SQL: &str =
        "SELECT COUNT(*) FROM users WHERE role = $1 AND status = 'active' AND deleted_at IS NULL";
    Ok(on!(tx, connection => sqlx::query_scalar(SQL).bind(role).fetch_one(connection))?)
}

/// How many users there ever were.
///
/// # Errors
/// [`StoreError`].
pub async fn count_ever(tx: &mut Tx) -> Result<i64, StoreError> {
    const SQL: &str = "SELECT COUNT(*) FROM users";
    Ok(on!(tx, connection => sqlx::query_scalar(SQL).fetch_one(connection))?)
}

/// Adds a user.
///
/// # Errors
/// [`StoreError::Duplicate`] if the name is taken.
pub async fn insert(tx: &mut Tx, user: &UserRow) -> Result<(), StoreError> {
    const SQL: &str = "INSERT INTO users (id, username, display_name, email, role, status, password_hash, \
        must_change_password, token_version, created_at, updated_at, last_login_at, deleted_at) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";
    execute!(
        tx,
        sqlx::query(SQL)
            .bind(&user.id)
            .bind(&user.username)
            .bind(&user.display_name)
            .bind(&user.email)
            .bind(&user.role)
            .bind(&user.status)
            .bind(&user.password_hash)
            .bind(user.must_change_password)
            .bind(user.token_version)
            .bind(user.created_at)
            .bind(user.updated_at)
            .bind(user.last_login_at)
            .bind(user.deleted_at)
    )?;
    Ok(())
}

/// Writes all of a user but the id and when it was made.
///
/// # Errors
/// [`StoreError::Duplicate`] if the name is taken.
pub async fn update(tx: &mut Tx, user: &UserRow) -> Result<(), StoreError> {
    const SQL: &str = "UPDATE users SET username = $2, display_name = $3, email = $4, role = $5, status = $6, \
        password_hash = $7, must_change_password = $8, token_version = $9, updated_at = $10, last_login_at = $11, \
        deleted_at = $12 WHERE id = $1";
    execute!(
        tx,
        sqlx::query(SQL)
            .bind(&user.id)
            .bind(&user.username)
            .bind(&user.display_name)
            .bind(&user.email)
            .bind(&user.role)
            .bind(&user.status)
            .bind(&user.password_hash)
            .bind(user.must_change_password)
            .bind(user.token_version)
            .bind(user.updated_at)
            .bind(user.last_login_at)
            .bind(user.deleted_at)
    )?;
    Ok(())
}
