//! Counters that every replica watches: who changed something that others keep in memory counts one up, in the same
//! transaction.

use crate::store::pool::{execute, on};
use crate::store::{StoreError, Tx};

/// Users, roles, keys, sessions, teams: what decides who may do what.
pub const AUTHORITY: &str = "authority";

/// The registered models.
pub const MODELS: &str = "models";

/// All counters: `(authority, models)`.
///
/// # Errors
/// [`StoreError`].
pub async fn read(tx: &mut Tx) -> Result<(i64, i64), StoreError> {
    const SQL: &str = "SELECT name, value FROM revisions";
    let rows: Vec<(String, i64)> = on!(tx, connection => sqlx::query_as(SQL).fetch_all(connection))?;
    let value = |name: &str| rows.iter().find(|(found, _)| found == name).map_or(0, |(_, value)| *value);
    Ok((value(AUTHORITY), value(MODELS)))
}

/// Counts one up.
///
/// # Errors
/// [`StoreError`].
pub async fn bump(tx: &mut Tx, name: &str) -> Result<(), StoreError> {
    const SQL: &str = "UPDATE revisions SET value = value + 1 WHERE name = $1";
    execute!(tx, sqlx::query(SQL).bind(name))?;
    Ok(())
}
