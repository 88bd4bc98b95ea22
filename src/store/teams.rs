//! Teams and who is in them: rows and queries.

use sqlx::{AssertSqlSafe, FromRow};

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

/// A user in a team.
#[derive(Debug, Clone, FromRow)]
pub struct MemberRow {
    /// The user.
    pub user_id: String,
    /// The user's name.
    pub username: String,
    /// What people call them.
    pub display_name: String,
    /// Since when.
    pub joined_at: Timestamp,
}

impl Row for MemberRow {
    fn id(&self) -> Bind {
        self.user_id.as_str().into()
    }

    fn sort_key(&self, column: &str) -> Bind {
        match column {
            "username" => self.username.as_str().into(),
            _ => self.joined_at.into(),
        }
    }
}

/// Columns that the members of a team may be sorted by; the first is the usual.
pub const MEMBER_SORTS: &[&str] = &["joined_at", "username"];

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

/// Which of these users are in which teams that are not deleted: `(user, team)`. For a page of users.
///
/// # Errors
/// [`StoreError`].
pub async fn of_users(tx: &mut Tx, user_ids: &[&str]) -> Result<Vec<(String, String)>, StoreError> {
    if user_ids.is_empty() {
        return Ok(Vec::new());
    }
    let places: Vec<String> = (1..=user_ids.len()).map(|number| format!("${number}")).collect();
    let sql = format!(
        "SELECT user_id, team_id FROM team_members JOIN teams ON teams.id = team_id \
         WHERE deleted_at IS NULL AND user_id IN ({}) ORDER BY user_id, team_id",
        places.join(", ")
    );
    Ok(on!(tx, connection => {
        let mut query = sqlx::query_as(AssertSqlSafe(sql));
        for id in user_ids {
            query = query.bind(*id);
        }
        query.fetch_all(connection)
    })?)
}

/// One page of a team's members that are not deleted.
///
/// # Errors
/// [`PageError`].
pub async fn members(
    tx: &mut Tx,
    team_id: &str,
    request: &ListRequest,
) -> Result<Page<MemberRow>, PageError> {
    const SELECT: &str = "SELECT user_id, username, display_name, joined_at FROM \
        (SELECT team_id, user_id, username, display_name, team_members.created_at AS joined_at \
        FROM team_members JOIN users ON users.id = user_id WHERE deleted_at IS NULL) AS members WHERE 1 = 1";
    ListQuery::new(SELECT, "user_id").filter("team_id = ?", Some(team_id)).page(tx, request).await
}

/// How many keys and how many models are bound to a team.
///
/// # Errors
/// [`StoreError`].
pub async fn count_bound(tx: &mut Tx, id: &str) -> Result<(i64, i64), StoreError> {
    const KEYS: &str = "SELECT COUNT(*) FROM api_keys WHERE team_id = $1 AND deleted_at IS NULL";
    const MODELS: &str = "SELECT COUNT(*) FROM model_teams WHERE team_id = $1";
    let keys = on!(tx, connection => sqlx::query_scalar(KEYS).bind(id).fetch_one(connection))?;
    let models = on!(tx, connection => sqlx::query_scalar(MODELS).bind(id).fetch_one(connection))?;
    Ok((keys, models))
}

/// Takes a user into a team; who is in stays in. Gives whether they came.
///
/// # Errors
/// [`StoreError`].
pub async fn add_member(
    tx: &mut Tx,
    team_id: &str,
    user_id: &str,
    now: Timestamp,
) -> Result<bool, StoreError> {
    const SQL: &str = "INSERT INTO team_members (team_id, user_id, created_at) VALUES ($1, $2, $3) \
        ON CONFLICT (team_id, user_id) DO NOTHING";
    Ok(execute!(tx, sqlx::query(SQL).bind(team_id).bind(user_id).bind(now))? > 0)
}

/// Takes a user out of a team. Gives whether they were in it.
///
/// # Errors
/// [`StoreError`].
pub async fn remove_member(tx: &mut Tx, team_id: &str, user_id: &str) -> Result<bool, StoreError> {
    const SQL: &str = "DELETE FROM team_members WHERE team_id = $1 AND user_id = $2";
    Ok(execute!(tx, sqlx::query(SQL).bind(team_id).bind(user_id))? > 0)
}
