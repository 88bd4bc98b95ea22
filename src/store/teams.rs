//! Teams and who is in them: rows and queries.

use sqlx::FromRow;

use crate::clock::Timestamp;
use crate::store::list::{Bind, ListQuery, Row};
use crate::store::pool::{execute, on};
use crate::store::{ListRequest, Page, PageError, StoreError, Tx};

/// A team.
#[derive(Debug, Clone, FromRow)]
pub struct TeamRow {
    /// `team_…`
    pub id: String,
    /// Unique among those not deleted.
    pub name: String,
    /// For people.
    pub description: String,
    /// Made.
    pub created_at: Timestamp,
    /// Last changed.
    pub updated_at: Timestamp,
    /// Deleted.
    pub deleted_at: Option<Timestamp>,
}

impl Row for TeamRow {
    fn id(&self) -> Bind {
        self.id.as_str().into()
    }

    fn sort_key(&self, column: &str) -> Bind {
        match column {
            "name" => self.name.as_str().into(),
            _ => self.created_at.into(),
        }
    }
}

/// Columns that a list may be sorted by; the first is the usual.
pub const SORTS: &[&str] = &["created_at", "name"];

/// One page of the teams that are not deleted.
///
/// # Errors
/// [`PageError`].
pub async fn list(
    tx: &mut Tx,
    search: Option<&str>,
    request: &ListRequest,
) -> Result<Page<TeamRow>, PageError> {
    ListQuery::new("SELECT * FROM teams WHERE deleted_at IS NULL", "id")
        .search(&["name", "description"], search)
        .page(tx, request)
        .await
}

/// A team that is not deleted.
///
/// # Errors
/// [`StoreError`].
pub async fn find(tx: &mut Tx, id: &str) -> Result<Option<TeamRow>, StoreError> {
    const SQL: &str = "SELECT * FROM teams WHERE id = $1 AND deleted_at IS NULL";
    Ok(on!(tx, connection => sqlx::query_as(SQL).bind(id).fetch_optional(connection))?)
}

/// Adds a team.
///
/// # Errors
/// [`StoreError::Duplicate`] if the name is taken.
pub async fn insert(tx: &mut Tx, team: &TeamRow) -> Result<(), StoreError> {
    const SQL: &str = "INSERT INTO teams (id, name, description, created_at, updated_at, deleted_at) \
        VALUES ($1, $2, $3, $4, $5, $6)";
    execute!(
        tx,
        sqlx::query(SQL)
            .bind(&team.id)
            .bind(&team.name)
            .bind(&team.description)
            .bind(team.created_at)
            .bind(team.updated_at)
            .bind(team.deleted_at)
    )?;
    Ok(())
}

/// Writes all of a team but the id and when it was made.
///
/// # Errors
/// [`StoreError::Duplicate`] if the name is taken.
pub async fn update(tx: &mut Tx, team: &TeamRow) -> Result<(), StoreError> {
    const SQL: &str =
        "UPDATE teams SET name = $2, description = $3, updated_at = $4, deleted_at = $5 WHERE id = $1";
    execute!(
        tx,
        sqlx::query(SQL)
            .bind(&team.id)
            .bind(&team.name)
            .bind(&team.description)
            .bind(team.updated_at)
            .bind(team.deleted_at)
    )?;
    Ok(())
}

/// The ids of a user's teams that are not deleted.
///
/// # Errors
/// [`StoreError`].
pub async fn of_user(tx: &mut Tx, user_id: &str) -> Result<Vec<String>, StoreError> {
    const SQL: &str = "SELECT team_id FROM team_members JOIN teams ON teams.id = team_id \
        WHERE user_id = $1 AND deleted_at IS NULL ORDER BY team_id";
    Ok(on!(tx, connection => sqlx::query_scalar(SQL).bind(user_id).fetch_all(connection))?)
}

/// The ids of a team's members that are not deleted.
///
/// # Errors
/// [`StoreError`].
pub async fn members(tx: &mut Tx, team_id: &str) -> Result<Vec<String>, StoreError> {
    const SQL: &str = "SELECT user_id FROM team_members JOIN users ON users.id = user_id \
        WHERE team_id = $1 AND deleted_at IS NULL ORDER BY user_id";
    Ok(on!(tx, connection => sqlx::query_scalar(SQL).bind(team_id).fetch_all(connection))?)
}

/// Takes a user into a team; who is in stays in.
///
/// # Errors
/// [`StoreError`].
pub async fn add_member(tx: &mut Tx, team_id: &str, user_id: &str, now: Timestamp) -> Result<(), StoreError> {
    const SQL: &str = "INSERT INTO team_members (team_id, user_id, created_at) VALUES ($1, $2, $3) \
        ON CONFLICT (team_id, user_id) DO NOTHING";
    execute!(tx, sqlx::query(SQL).bind(team_id).bind(user_id).bind(now))?;
    Ok(())
}

/// Takes a user out of a team.
///
/// # Errors
/// [`StoreError`].
pub async fn remove_member(tx: &mut Tx, team_id: &str, user_id: &str) -> Result<(), StoreError> {
    const SQL: &str = "DELETE FROM team_members WHERE team_id = $1 AND user_id = $2";
    execute!(tx, sqlx::query(SQL).bind(team_id).bind(user_id))?;
    Ok(())
}
