//! Batches: rows and queries.
//!
//! One replica at a time works on a batch: its holder, for as long as it says so again and again. The one thing to know:
//! whatever the holder writes, it writes as the holder, in the same transaction; so one that was taken for dead, and is
//! not, can write nothing.

mod lines;
mod row;
mod status;

use crate::clock::Timestamp;
use crate::store::list::{ListQuery, cursor_after};
use crate::store::pool::{execute, on};
use crate::store::{JsonText, ListRequest, Order, PageError, StoreError, Tx};

pub use lines::{LineRow, forget_lines, insert_line, lines, lines_to_do, set_result};
pub use row::{BatchError, BatchOrder, BatchResults, BatchRow, BatchTimes, BatchUsage, LineCounts};
pub use status::BatchStatus;

/// What the holder has done since it last said so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Lines answered.
    pub answered: i64,
    /// Lines refused.
    pub refused: i64,
    /// Tokens of prompts.
    pub input_tokens: i64,
    /// Those of them that were found in the cache.
    pub cached_tokens: i64,
    /// Tokens that were generated.
    pub output_tokens: i64,
    /// Those of them that are thoughts.
    pub reasoning_tokens: i64,
}

/// Adds a batch.
///
/// # Errors
/// [`StoreError`].
pub async fn insert(tx: &mut Tx, batch: &BatchRow) -> Result<(), StoreError> {
    const SQL: &str = "INSERT INTO batches (id, owner, credential, input_file_id, endpoint, completion_window, metadata, \
        output_seconds, status, created_at, expires_at, total, completed, failed, input_tokens, cached_tokens, \
        output_tokens, reasoning_tokens, is_swept) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)";
    let (order, counts, usage) = (&batch.order, &batch.counts, &batch.usage);
    execute!(
        tx,
        sqlx::query(SQL)
            .bind(&batch.id)
            .bind(&batch.owner)
            .bind(&order.credential)
            .bind(&order.input_file_id)
            .bind(&order.endpoint)
            .bind(&order.completion_window)
            .bind(&order.metadata)
            .bind(order.output_seconds)
            .bind(batch.status)
            .bind(batch.times.created_at)
            .bind(batch.times.expires_at)
            .bind(counts.total)
            .bind(counts.completed)
            .bind(counts.failed)
            .bind(usage.input_tokens)
            .bind(usage.cached_tokens)
            .bind(usage.output_tokens)
            .bind(usage.reasoning_tokens)
            .bind(false)
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

/// Says that the holder goes on until then, and what it has done; the status now. None if it is the holder no more.
///
/// # Errors
/// [`StoreError`].
pub async fn hold(
    tx: &mut Tx,
    (id, holder): (&str, &str),
    done: Progress,
    until: Timestamp,
) -> Result<Option<BatchStatus>, StoreError> {
    const SQL: &str = "UPDATE batches SET held_until = $3, completed = completed + $4, failed = failed + $5, \
        input_tokens = input_tokens + $6, cached_tokens = cached_tokens + $7, output_tokens = output_tokens + $8, \
        reasoning_tokens = reasoning_tokens + $9 WHERE id = $1 AND holder = $2 RETURNING status";
    Ok(on!(tx, connection => {
        sqlx::query_scalar(SQL)
            .bind(id)
            .bind(holder)
            .bind(until)
            .bind(done.answered)
            .bind(done.refused)
            .bind(done.input_tokens)
            .bind(done.cached_tokens)
            .bind(done.output_tokens)
            .bind(done.reasoning_tokens)
            .fetch_optional(connection)
    })?)
}

/// Begins to run a batch whose lines were all found right, and ask for this model if for one. False if its owner has asked
/// for its end.
///
/// # Errors
/// [`StoreError`].
pub async fn begin(
    tx: &mut Tx,
    id: &str,
    (lines, model): (i64, Option<&str>),
    now: Timestamp,
) -> Result<bool, StoreError> {
    const SQL: &str = "UPDATE batches SET status = 'in_progress', in_progress_at = $4, total = $2, model = $3 \
        WHERE id = $1 AND status = 'validating'";
    Ok(execute!(tx, sqlx::query(SQL).bind(id).bind(lines).bind(model).bind(now))? == 1)
}

/// Begins to write the files of a batch, after which it has this status.
///
/// # Errors
/// [`StoreError`].
pub async fn begin_to_end(
    tx: &mut Tx,
    id: &str,
    ending: BatchStatus,
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

/// A batch that is over, or deleted, and still has its lines.
///
/// # Errors
/// [`StoreError`].
pub async fn one_to_sweep(tx: &mut Tx) -> Result<Option<String>, StoreError> {
    const SQL: &str = "SELECT id FROM batches WHERE NOT is_swept AND (deleted_at IS NOT NULL \
        OR status IN ('completed', 'failed', 'expired', 'cancelled')) LIMIT 1";
    Ok(on!(tx, connection => sqlx::query_scalar(SQL).fetch_optional(connection))?)
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
