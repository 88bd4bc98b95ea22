//! Batches and their lines: rows and queries.
//!
//! One replica at a time works on a batch: its holder, for as long as it says so again and again. The one thing to know:
//! whatever the holder writes, it writes as the holder, in the same transaction; so one that was taken for dead, and is
//! not, can write nothing.

use sqlx::FromRow;

use crate::clock::Timestamp;
use crate::store::list::{Bind, ListQuery, Row, cursor_after};
use crate::store::pool::{execute, on};
use crate::store::{JsonText, ListRequest, Order, PageError, StoreError, Tx};

/// A batch.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct BatchRow {
    /// `batch_…`
    pub id: String,
    /// A user's id, or who it was without one.
    pub owner: String,
    /// The credential that it goes on by.
    pub credential: JsonText<serde_json::Value>,
    /// Its requests.
    pub input_file_id: String,
    /// The URL that they are for.
    pub endpoint: String,
    /// As it was asked for.
    pub completion_window: String,
    /// Its owner's notes.
    pub metadata: Option<JsonText<serde_json::Value>>,
    /// How long what it writes is kept, in seconds; none: until it is deleted.
    pub output_seconds: Option<i64>,
    /// `validating`, `in_progress`, `finalizing`, `completed`, `failed`, `expired`, `cancelling`, `cancelled`.
    pub status: String,
    /// The status it will have once its files are written.
    pub ending: Option<String>,
    /// What is wrong with it.
    pub errors: Option<JsonText<Vec<BatchError>>>,
    /// Answers.
    pub output_file_id: Option<String>,
    /// Refusals.
    pub error_file_id: Option<String>,
    /// Made.
    pub created_at: Timestamp,
    /// All its lines were found right.
    pub in_progress_at: Option<Timestamp>,
    /// Its files began to be written.
    pub finalizing_at: Option<Timestamp>,
    /// Each line had its turn.
    pub completed_at: Option<Timestamp>,
    /// It could not be done.
    pub failed_at: Option<Timestamp>,
    /// Its window was over before it was.
    pub expired_at: Option<Timestamp>,
    /// Its owner asked for its end.
    pub cancelling_at: Option<Timestamp>,
    /// It came to that end.
    pub cancelled_at: Option<Timestamp>,
    /// Its window is over.
    pub expires_at: Timestamp,
    /// Lines.
    pub total: i64,
    /// Of those, answered.
    pub completed: i64,
    /// Of those, refused.
    pub failed: i64,
    /// The replica that works on it.
    pub holder: Option<String>,
    /// Until then, unless it says so again.
    pub held_until: Option<Timestamp>,
    /// Its lines are gone.
    pub is_swept: bool,
    /// Deleted with its owner.
    pub deleted_at: Option<Timestamp>,
}

/// What is wrong with a batch.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BatchError {
    /// For programs.
    pub code: String,
    /// For people.
    pub message: String,
    /// The field at fault.
    pub param: Option<String>,
    /// The number of the line at fault, from 1.
    pub line: Option<i64>,
}

impl Row for BatchRow {
    fn id(&self) -> Bind {
        self.id.as_str().into()
    }

    fn sort_key(&self, _column: &str) -> Bind {
        self.created_at.into()
    }
}

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

/// Adds a batch.
///
/// # Errors
/// [`StoreError`].
pub async fn insert(tx: &mut Tx, batch: &BatchRow) -> Result<(), StoreError> {
    const SQL: &str = "INSERT INTO batches (id, owner, credential, input_file_id, endpoint, completion_window, metadata, \
        output_seconds, status, created_at, expires_at, total, completed, failed, is_swept) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)";
    execute!(
        tx,
        sqlx::query(SQL)
            .bind(&batch.id)
            .bind(&batch.owner)
            .bind(&batch.credential)
            .bind(&batch.input_file_id)
            .bind(&batch.endpoint)
            .bind(&batch.completion_window)
            .bind(&batch.metadata)
            .bind(batch.output_seconds)
            .bind(&batch.status)
            .bind(batch.created_at)
            .bind(batch.expires_at)
            .bind(batch.total)
            .bind(batch.completed)
            .bind(batch.failed)
            .bind(batch.is_swept)
    )?;
    Ok(())
}

/// A batch that is not deleted.
///
/// # Errors
/// [`StoreError`].
pub async fn find(tx: &mut Tx, id: &str) -> Result<Option<BatchRow>, StoreError> {
    const SQL: &str = "SELECT * FROM batches WHERE id = $1 AND deleted_at IS NULL";
    Ok(on!(tx, connection => sqlx::query_as(SQL).bind(id).fetch_optional(connection))?)
}

/// Batches of an owner, the newest first, and whether there are more; after one of them, or from the beginning.
///
/// # Errors
/// [`PageError`].
pub async fn list(
    tx: &mut Tx,
    owner: &str,
    after: Option<&BatchRow>,
    limit: u32,
) -> Result<(Vec<BatchRow>, bool), PageError> {
    const SORT: &str = "created_at";
    let cursor = after.map(|row| cursor_after(SORT, row));
    let page = ListQuery::new("SELECT * FROM batches WHERE deleted_at IS NULL", "id")
        .filter("owner = ?", Some(owner))
        .page(tx, &ListRequest { limit, cursor, sort: SORT, order: Order::Descending })
        .await?;
    Ok((page.items, page.next.is_some()))
}

/// How many batches of an owner are not over.
///
/// # Errors
/// [`StoreError`].
pub async fn unfinished_of(tx: &mut Tx, owner: &str) -> Result<i64, StoreError> {
    const SQL: &str = "SELECT COUNT(*) FROM batches WHERE owner = $1 AND deleted_at IS NULL \
        AND status IN ('validating', 'in_progress', 'finalizing', 'cancelling')";
    Ok(on!(tx, connection => sqlx::query_scalar(SQL).bind(owner).fetch_one(connection))?)
}

/// A batch that is not over and reads this file.
///
/// # Errors
/// [`StoreError`].
pub async fn reader_of(tx: &mut Tx, file_id: &str) -> Result<Option<String>, StoreError> {
    const SQL: &str = "SELECT id FROM batches WHERE input_file_id = $1 AND deleted_at IS NULL \
        AND status IN ('validating', 'in_progress', 'finalizing', 'cancelling') LIMIT 1";
    Ok(on!(tx, connection => sqlx::query_scalar(SQL).bind(file_id).fetch_optional(connection))?)
}

/// Asks for the end of a batch, unless it is ending or over.
///
/// # Errors
/// [`StoreError`].
pub async fn cancel(tx: &mut Tx, id: &str, now: Timestamp) -> Result<(), StoreError> {
    const SQL: &str = "UPDATE batches SET status = 'cancelling', cancelling_at = $2 \
        WHERE id = $1 AND status IN ('validating', 'in_progress')";
    execute!(tx, sqlx::query(SQL).bind(id).bind(now))?;
    Ok(())
}

/// Deletes all batches of an owner.
///
/// # Errors
/// [`StoreError`].
pub async fn delete_of_owner(tx: &mut Tx, owner: &str, now: Timestamp) -> Result<(), StoreError> {
    const SQL: &str = "UPDATE batches SET deleted_at = $2, holder = NULL, held_until = NULL \
        WHERE owner = $1 AND deleted_at IS NULL";
    execute!(tx, sqlx::query(SQL).bind(owner).bind(now))?;
    Ok(())
}

/// Takes a batch that is not over and that nobody works on: of those of the owners for whom least is going on, the oldest.
///
/// # Errors
/// [`StoreError`].
pub async fn take(
    tx: &mut Tx,
    holder: &str,
    now: Timestamp,
    until: Timestamp,
) -> Result<Option<BatchRow>, StoreError> {
    const SQL: &str = "UPDATE batches SET holder = $1, held_until = $3 WHERE id = (\
            SELECT id FROM batches AS free WHERE deleted_at IS NULL AND (held_until IS NULL OR held_until < $2) \
            AND status IN ('validating', 'in_progress', 'finalizing', 'cancelling') \
            ORDER BY (SELECT COUNT(*) FROM batches AS busy WHERE busy.owner = free.owner AND busy.held_until >= $2), \
                created_at, id LIMIT 1) \
        AND (held_until IS NULL OR held_until < $2) RETURNING *";
    Ok(
        on!(tx, connection => sqlx::query_as(SQL).bind(holder).bind(now).bind(until).fetch_optional(connection))?,
    )
}

/// Lets go of all batches that anybody works on: where there is one server, nobody did before it started.
///
/// # Errors
/// [`StoreError`].
pub async fn release_all(tx: &mut Tx) -> Result<(), StoreError> {
    const SQL: &str = "UPDATE batches SET holder = NULL, held_until = NULL WHERE holder IS NOT NULL";
    execute!(tx, sqlx::query(SQL))?;
    Ok(())
}

/// Lets go of a batch, if it is still the holder's.
///
/// # Errors
/// [`StoreError`].
pub async fn release(tx: &mut Tx, id: &str, holder: &str) -> Result<(), StoreError> {
    const SQL: &str = "UPDATE batches SET holder = NULL, held_until = NULL WHERE id = $1 AND holder = $2";
    execute!(tx, sqlx::query(SQL).bind(id).bind(holder))?;
    Ok(())
}

/// Says that the holder goes on until then, having answered and refused so many more lines; the status now. None if it is
/// the holder no more.
///
/// # Errors
/// [`StoreError`].
pub async fn hold(
    tx: &mut Tx,
    (id, holder): (&str, &str),
    (answered, refused): (i64, i64),
    until: Timestamp,
) -> Result<Option<String>, StoreError> {
    const SQL: &str = "UPDATE batches SET held_until = $3, completed = completed + $4, failed = failed + $5 \
        WHERE id = $1 AND holder = $2 RETURNING status";
    Ok(on!(tx, connection => {
        sqlx::query_scalar(SQL).bind(id).bind(holder).bind(until).bind(answered).bind(refused).fetch_optional(connection)
    })?)
}

/// Begins to run a batch whose lines were all found right. False if its owner has asked for its end.
///
/// # Errors
/// [`StoreError`].
pub async fn begin(tx: &mut Tx, id: &str, lines: i64, now: Timestamp) -> Result<bool, StoreError> {
    const SQL: &str = "UPDATE batches SET status = 'in_progress', in_progress_at = $3, total = $2 \
        WHERE id = $1 AND status = 'validating'";
    Ok(execute!(tx, sqlx::query(SQL).bind(id).bind(lines).bind(now))? == 1)
}

/// Begins to write the files of a batch, after which it has this status.
///
/// # Errors
/// [`StoreError`].
pub async fn begin_to_end(
    tx: &mut Tx,
    id: &str,
    ending: &str,
    errors: Option<&JsonText<Vec<BatchError>>>,
    now: Timestamp,
) -> Result<(), StoreError> {
    const SQL: &str = "UPDATE batches SET ending = $2, errors = $3, finalizing_at = $4, \
        status = CASE status WHEN 'cancelling' THEN status ELSE 'finalizing' END WHERE id = $1";
    execute!(tx, sqlx::query(SQL).bind(id).bind(ending).bind(errors).bind(now))?;
    Ok(())
}

/// Ends a batch: it has the status that it was to have, its files, and no holder.
///
/// # Errors
/// [`StoreError`].
pub async fn end(
    tx: &mut Tx,
    id: &str,
    (output, errors): (Option<&str>, Option<&str>),
    now: Timestamp,
) -> Result<(), StoreError> {
    const SQL: &str = "UPDATE batches SET status = ending, output_file_id = $2, error_file_id = $3, holder = NULL, \
        held_until = NULL, \
        completed_at = CASE ending WHEN 'completed' THEN $4 ELSE completed_at END, \
        failed_at = CASE ending WHEN 'failed' THEN $4 ELSE failed_at END, \
        expired_at = CASE ending WHEN 'expired' THEN $4 ELSE expired_at END, \
        cancelled_at = CASE ending WHEN 'cancelled' THEN $4 ELSE cancelled_at END WHERE id = $1";
    execute!(tx, sqlx::query(SQL).bind(id).bind(output).bind(errors).bind(now))?;
    Ok(())
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

/// A batch that is over, or deleted, and still has its lines.
///
/// # Errors
/// [`StoreError`].
pub async fn one_to_sweep(tx: &mut Tx) -> Result<Option<String>, StoreError> {
    const SQL: &str = "SELECT id FROM batches WHERE NOT is_swept AND (deleted_at IS NOT NULL \
        OR status IN ('completed', 'failed', 'expired', 'cancelled')) LIMIT 1";
    Ok(on!(tx, connection => sqlx::query_scalar(SQL).fetch_optional(connection))?)
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

/// Notes that a batch has no lines any more; one that is deleted goes itself.
///
/// # Errors
/// [`StoreError`].
pub async fn swept(tx: &mut Tx, id: &str) -> Result<(), StoreError> {
    const GONE: &str = "DELETE FROM batches WHERE id = $1 AND deleted_at IS NOT NULL";
    const SWEPT: &str = "UPDATE batches SET is_swept = $2 WHERE id = $1";
    execute!(tx, sqlx::query(GONE).bind(id))?;
    execute!(tx, sqlx::query(SWEPT).bind(id).bind(true))?;
    Ok(())
}
