//! Registered models, the desired state: rows and queries.

use sqlx::FromRow;

use crate::clock::Timestamp;
use crate::store::pool::{execute, on};
use crate::store::{JsonText, StoreError, Tx};

/// A registered model.
#[derive(Debug, Clone, FromRow)]
pub struct ModelRow {
    /// The name clients ask for.
    pub id: String,
    /// Where it may be had, tried in order; none: the catalogue's.
    pub sources: JsonText<Vec<String>>,
    /// Other names for it.
    pub aliases: JsonText<Vec<String>>,
    /// For people.
    pub description: String,
    /// Checksum of its one file.
    pub sha256: Option<String>,
    /// A context length below its own.
    pub context_length: Option<i64>,
    /// Values for parameters that a request leaves open.
    pub defaults: JsonText<serde_json::Value>,
    /// Most that a request may ask for.
    pub limits: JsonText<serde_json::Value>,
    /// `everyone` or `teams`.
    pub visibility: String,
    /// Never unloaded to make room.
    pub pinned: bool,
    /// Not enabled: as if it were not there.
    pub enabled: bool,
    /// Loaded at start.
    pub preload: bool,
    /// Made.
    pub created_at: Timestamp,
    /// By this user.
    pub created_by: String,
    /// Last changed.
    pub updated_at: Timestamp,
}

/// All registered models: an administrator's list, not a stranger's, so it is short.
///
/// # Errors
/// [`StoreError`].
pub async fn all(tx: &mut Tx) -> Result<Vec<ModelRow>, StoreError> {
    const SQL: &str = "SELECT * FROM models ORDER BY created_at, id";
    Ok(on!(tx, connection => sqlx::query_as(SQL).fetch_all(connection))?)
}

/// Which teams see which models: `(model, team)`.
///
/// # Errors
/// [`StoreError`].
pub async fn all_teams(tx: &mut Tx) -> Result<Vec<(String, String)>, StoreError> {
    const SQL: &str = "SELECT model_id, team_id FROM model_teams ORDER BY model_id, team_id";
    Ok(on!(tx, connection => sqlx::query_as(SQL).fetch_all(connection))?)
}

/// The teams that see a model.
///
/// # Errors
/// [`StoreError`].
pub async fn teams(tx: &mut Tx, id: &str) -> Result<Vec<String>, StoreError> {
    const SQL: &str = "SELECT team_id FROM model_teams WHERE model_id = $1 ORDER BY team_id";
    Ok(on!(tx, connection => sqlx::query_scalar(SQL).bind(id).fetch_all(connection))?)
}

/// Says anew which teams see a model.
///
/// # Errors
/// [`StoreError`].
pub async fn set_teams(tx: &mut Tx, id: &str, teams: &[String]) -> Result<(), StoreError> {
    const CLEAR: &str = "DELETE FROM model_teams WHERE model_id = $1";
    const ADD: &str = "INSERT INTO model_teams (model_id, team_id) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    execute!(tx, sqlx::query(CLEAR).bind(id))?;
    for team in teams {
        execute!(tx, sqlx::query(ADD).bind(id).bind(team))?;
    }
    Ok(())
}

/// A registered model.
///
/// # Errors
/// [`StoreError`].
pub async fn find(tx: &mut Tx, id: &str) -> Result<Option<ModelRow>, StoreError> {
    const SQL: &str = "SELECT * FROM models WHERE id = $1";
    Ok(on!(tx, connection => sqlx::query_as(SQL).bind(id).fetch_optional(connection))?)
}

/// Adds a model.
///
/// # Errors
/// [`StoreError::Duplicate`] if the id is taken.
pub async fn insert(tx: &mut Tx, model: &ModelRow) -> Result<(), StoreError> {
    const SQL: &str = "INSERT INTO models (id, sources, aliases, description, sha256, context_length, defaults, \
        limits, visibility, pinned, enabled, preload, created_at, created_by, updated_at) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)";
    execute!(
        tx,
        sqlx::query(SQL)
            .bind(&model.id)
            .bind(&model.sources)
            .bind(&model.aliases)
            .bind(&model.description)
            .bind(&model.sha256)
            .bind(model.context_length)
            .bind(&model.defaults)
            .bind(&model.limits)
            .bind(&model.visibility)
            .bind(model.pinned)
            .bind(model.enabled)
            .bind(model.preload)
            .bind(model.created_at)
            .bind(&model.created_by)
            .bind(model.updated_at)
    )?;
    Ok(())
}

/// Writes all of a model but its id and how it was made.
///
/// # Errors
/// [`StoreError`].
pub async fn update(tx: &mut Tx, model: &ModelRow) -> Result<(), StoreError> {
    const SQL: &str = "UPDATE models SET sources = $2, aliases = $3, description = $4, sha256 = $5, \
        context_length = $6, defaults = $7, limits = $8, visibility = $9, pinned = $10, enabled = $11, \
        preload = $12, updated_at = $13 WHERE id = $1";
    execute!(
        tx,
        sqlx::query(SQL)
            .bind(&model.id)
            .bind(&model.sources)
            .bind(&model.aliases)
            .bind(&model.description)
            .bind(&model.sha256)
            .bind(model.context_length)
            .bind(&model.defaults)
            .bind(&model.limits)
            .bind(&model.visibility)
            .bind(model.pinned)
            .bind(model.enabled)
            .bind(model.preload)
            .bind(model.updated_at)
    )?;
    Ok(())
}

/// Removes a model.
///
/// # Errors
/// [`StoreError`].
pub async fn delete(tx: &mut Tx, id: &str) -> Result<(), StoreError> {
    const SQL: &str = "DELETE FROM models WHERE id = $1";
    execute!(tx, sqlx::query(SQL).bind(id))?;
    Ok(())
}
