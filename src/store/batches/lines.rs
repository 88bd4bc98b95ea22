//! The lines of batches: rows and queries.

use sqlx::FromRow;

use crate::store::pool::{execute, on};
use crate::store::{StoreError, Tx};

/// A line of a batch.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct LineRow {
    /// Of the line in the file, from 1.
    pub number: i64,
    /// Its owner's name for it.
    pub custom_id: String,
    /// Where it stands in the file, in bytes.
    pub place: i64,
    /// Its length in bytes.
    pub length: i64,
    /// Of the answer, as HTTP has it.
    pub status: Option<i64>,
    /// The line of the output.
    pub output: Option<String>,
}

/// Adds a line.
///
/// # Errors
/// [`StoreError`].
pub async fn insert_line(tx: &mut Tx, batch_id: &str, line: &LineRow) -> Result<(), StoreError> {
    const SQL: &str = "INSERT INTO batch_lines (batch_id, number, custom_id, place, length, status, output) \
        VALUES ($1, $2, $3, $4, $5, $6, $7)";
    execute!(
        tx,
        sqlx::query(SQL)
            .bind(batch_id)
            .bind(line.number)
            .bind(&line.custom_id)
            .bind(line.place)
            .bind(line.length)
            .bind(line.status)
            .bind(&line.output)
    )?;
    Ok(())
}

/// Lines that have no result yet, after a number.
///
/// # Errors
/// [`StoreError`].
pub async fn lines_to_do(
    tx: &mut Tx,
    batch_id: &str,
    after: i64,
    limit: i64,
) -> Result<Vec<LineRow>, StoreError> {
    const SQL: &str = "SELECT * FROM batch_lines WHERE batch_id = $1 AND status IS NULL AND number > $2 \
        ORDER BY number LIMIT $3";
    Ok(
        on!(tx, connection => sqlx::query_as(SQL).bind(batch_id).bind(after).bind(limit).fetch_all(connection))?,
    )
}

/// Lines, after a number.
///
/// # Errors
/// [`StoreError`].
pub async fn lines(tx: &mut Tx, batch_id: &str, after: i64, limit: i64) -> Result<Vec<LineRow>, StoreError> {
    const SQL: &str =
        "SELECT * FROM batch_lines WHERE batch_id = $1 AND number > $2 ORDER BY number LIMIT $3";
    Ok(
        on!(tx, connection => sqlx::query_as(SQL).bind(batch_id).bind(after).bind(limit).fetch_all(connection))?,
    )
}

/// Gives a line its result. False if it has one.
///
/// # Errors
/// [`StoreError`].
pub async fn set_result(
    tx: &mut Tx,
    batch_id: &str,
    number: i64,
    (status, output): (i64, &str),
) -> Result<bool, StoreError> {
    const SQL: &str = "UPDATE batch_lines SET status = $3, output = $4 \
        WHERE batch_id = $1 AND number = $2 AND status IS NULL";
    Ok(execute!(tx, sqlx::query(SQL).bind(batch_id).bind(number).bind(status).bind(output))? == 1)
}

/// Takes some lines of a batch out, whatever has become of them; gives how many there were.
///
/// # Errors
/// [`StoreError`].
pub async fn forget_lines(tx: &mut Tx, batch_id: &str, count: i64) -> Result<u64, StoreError> {
    const SQL: &str = "DELETE FROM batch_lines WHERE batch_id = $1 AND number IN \
        (SELECT number FROM batch_lines WHERE batch_id = $1 ORDER BY number LIMIT $2)";
    Ok(execute!(tx, sqlx::query(SQL).bind(batch_id).bind(count))?)
}
