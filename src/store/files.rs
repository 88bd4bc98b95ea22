//! Files of users and of their batches: rows, and their content in pieces. A file that is not whole yet is not found.

use sqlx::FromRow;

use crate::clock::Timestamp;
use crate::store::list::{Bind, ListQuery, Row, cursor_after};
use crate::store::pool::{execute, on};
use crate::store::{ListRequest, Order, PageError, StoreError, Tx};

/// Bytes of every piece but the last of a file.
pub const CHUNK: usize = 64 * 1024;

/// A file.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct FileRow {
    /// `file-…`
    pub id: String,
    /// A user's id, or who it was without one.
    pub owner: String,
    /// What its owner calls it.
    pub name: String,
    /// What it is for.
    pub purpose: String,
    /// Its length.
    pub bytes: i64,
    /// `arriving`, `there`, `deleted`.
    pub status: String,
    /// The batch that wrote it.
    pub batch_id: Option<String>,
    /// Made.
    pub created_at: Timestamp,
    /// When the last piece came.
    pub touched_at: Timestamp,
    /// Deleted from then on.
    pub expires_at: Option<Timestamp>,
}

impl Row for FileRow {
    fn id(&self) -> Bind {
        self.id.as_str().into()
    }

    fn sort_key(&self, _column: &str) -> Bind {
        self.created_at.into()
    }
}

/// Adds a file of which nothing is there yet.
///
/// # Errors
/// [`StoreError`].
pub async fn insert(tx: &mut Tx, file: &FileRow) -> Result<(), StoreError> {
    const SQL: &str = "INSERT INTO files (id, owner, name, purpose, bytes, status, batch_id, created_at, touched_at, \
        expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    execute!(
        tx,
        sqlx::query(SQL)
            .bind(&file.id)
            .bind(&file.owner)
            .bind(&file.name)
            .bind(&file.purpose)
            .bind(file.bytes)
            .bind(&file.status)
            .bind(&file.batch_id)
            .bind(file.created_at)
            .bind(file.touched_at)
            .bind(file.expires_at)
    )?;
    Ok(())
}

/// A file that is there, and whose time is not over.
///
/// # Errors
/// [`StoreError`].
pub async fn find(tx: &mut Tx, id: &str, now: Timestamp) -> Result<Option<FileRow>, StoreError> {
    const SQL: &str = "SELECT * FROM files WHERE id = $1 AND status = 'there' \
        AND (expires_at IS NULL OR expires_at > $2)";
    Ok(on!(tx, connection => sqlx::query_as(SQL).bind(id).bind(now).fetch_optional(connection))?)
}

/// Files of an owner that are there, and whether there are more; after one of them, or from the beginning.
///
/// # Errors
/// [`PageError`].
pub async fn list(
    tx: &mut Tx,
    (owner, purpose): (&str, Option<&str>),
    after: Option<&FileRow>,
    (limit, order): (u32, Order),
    now: Timestamp,
) -> Result<(Vec<FileRow>, bool), PageError> {
    const SORT: &str = "created_at";
    let cursor = after.map(|row| cursor_after(SORT, row));
    let page = ListQuery::new("SELECT * FROM files WHERE status = 'there'", "id")
        .filter("owner = ?", Some(owner))
        .filter("purpose = ?", purpose)
        .filter("(expires_at IS NULL OR expires_at > ?)", Some(now))
        .page(tx, &ListRequest { limit, cursor, sort: SORT, order })
        .await?;
    Ok((page.items, page.next.is_some()))
}

/// How many files an owner has and how long they are together, those that are arriving among them.
///
/// # Errors
/// [`StoreError`].
pub async fn total_of(tx: &mut Tx, owner: &str) -> Result<(i64, i64), StoreError> {
    const SQL: &str = "SELECT COUNT(*), CAST(COALESCE(SUM(bytes), 0) AS BIGINT) FROM files \
        WHERE owner = $1 AND status <> 'deleted'";
    Ok(on!(tx, connection => sqlx::query_as(SQL).bind(owner).fetch_one(connection))?)
}

/// Adds a piece of a file that is arriving.
///
/// # Errors
/// [`StoreError`].
pub async fn add_chunk(tx: &mut Tx, id: &str, number: i64, content: &[u8]) -> Result<(), StoreError> {
    const SQL: &str = "INSERT INTO file_chunks (file_id, number, content) VALUES ($1, $2, $3)";
    execute!(tx, sqlx::query(SQL).bind(id).bind(number).bind(content))?;
    Ok(())
}

/// Notes how long a file that is arriving is by now. False if it is not arriving any more.
///
/// # Errors
/// [`StoreError`].
pub async fn grow(tx: &mut Tx, id: &str, bytes: i64, now: Timestamp) -> Result<bool, StoreError> {
    const SQL: &str = "UPDATE files SET bytes = $2, touched_at = $3 WHERE id = $1 AND status = 'arriving'";
    Ok(execute!(tx, sqlx::query(SQL).bind(id).bind(bytes).bind(now))? == 1)
}

/// Makes a file that was arriving one that is there, until it expires. False if it is not arriving any more.
///
/// # Errors
/// [`StoreError`].
pub async fn finish(tx: &mut Tx, id: &str, expires_at: Option<Timestamp>) -> Result<bool, StoreError> {
    const SQL: &str =
        "UPDATE files SET status = 'there', expires_at = $2 WHERE id = $1 AND status = 'arriving'";
    Ok(execute!(tx, sqlx::query(SQL).bind(id).bind(expires_at))? == 1)
}

/// Some pieces of a file, from a number on.
///
/// # Errors
/// [`StoreError`].
pub async fn chunks(tx: &mut Tx, id: &str, from: i64, count: i64) -> Result<Vec<Vec<u8>>, StoreError> {
    const SQL: &str = "SELECT content FROM file_chunks WHERE file_id = $1 AND number >= $2 AND number < $3 \
        ORDER BY number";
    Ok(on!(tx, connection => {
        sqlx::query_scalar(SQL).bind(id).bind(from).bind(from.saturating_add(count)).fetch_all(connection)
    })?)
}

/// Deletes a file. Its content goes later, a piece at a time.
///
/// # Errors
/// [`StoreError`].
pub async fn delete(tx: &mut Tx, id: &str) -> Result<(), StoreError> {
    const SQL: &str = "UPDATE files SET status = 'deleted' WHERE id = $1";
    execute!(tx, sqlx::query(SQL).bind(id))?;
    Ok(())
}

/// Deletes all files of an owner.
///
/// # Errors
/// [`StoreError`].
pub async fn delete_of_owner(tx: &mut Tx, owner: &str) -> Result<(), StoreError> {
    const SQL: &str = "UPDATE files SET status = 'deleted' WHERE owner = $1";
    execute!(tx, sqlx::query(SQL).bind(owner))?;
    Ok(())
}

/// Deletes what a batch has begun to write and not ended.
///
/// # Errors
/// [`StoreError`].
pub async fn delete_unfinished_of_batch(tx: &mut Tx, batch_id: &str) -> Result<(), StoreError> {
    const SQL: &str = "UPDATE files SET status = 'deleted' WHERE batch_id = $1 AND status = 'arriving'";
    execute!(tx, sqlx::query(SQL).bind(batch_id))?;
    Ok(())
}

/// Which files are outdated: those whose time is over, unless a batch still reads them, and those that stopped arriving.
macro_rules! outdated {
    () => {
        "((status = 'there' AND expires_at <= $1 AND NOT EXISTS (SELECT 1 FROM batches \
            WHERE batches.input_file_id = files.id AND batches.deleted_at IS NULL \
            AND batches.status IN ('validating', 'in_progress', 'finalizing', 'cancelling'))) \
         OR (status = 'arriving' AND touched_at <= $2))"
    };
}

/// Whether there are files whose time is over, or of which nothing has come since then and that are not whole.
///
/// # Errors
/// [`StoreError`].
pub async fn is_any_outdated(
    tx: &mut Tx,
    now: Timestamp,
    silent_since: Timestamp,
) -> Result<bool, StoreError> {
    const SQL: &str = concat!("SELECT id FROM files WHERE ", outdated!(), " LIMIT 1");
    let found: Option<String> = on!(tx, connection => {
        sqlx::query_scalar(SQL).bind(now).bind(silent_since).fetch_optional(connection)
    })?;
    Ok(found.is_some())
}

/// Deletes those.
///
/// # Errors
/// [`StoreError`].
pub async fn delete_outdated(tx: &mut Tx, now: Timestamp, silent_since: Timestamp) -> Result<(), StoreError> {
    const SQL: &str = concat!("UPDATE files SET status = 'deleted' WHERE ", outdated!());
    execute!(tx, sqlx::query(SQL).bind(now).bind(silent_since))?;
    Ok(())
}

/// A file that is deleted and not gone.
///
/// # Errors
/// [`StoreError`].
pub async fn one_deleted(tx: &mut Tx) -> Result<Option<String>, StoreError> {
    const SQL: &str = "SELECT id FROM files WHERE status = 'deleted' ORDER BY touched_at LIMIT 1";
    Ok(on!(tx, connection => sqlx::query_scalar(SQL).fetch_optional(connection))?)
}

/// Takes some of the pieces of a deleted file out; once it has none, the file too.
///
/// # Errors
/// [`StoreError`].
pub async fn forget_some(tx: &mut Tx, id: &str, count: i64) -> Result<(), StoreError> {
    const SOME: &str = "DELETE FROM file_chunks WHERE file_id = $1 AND number IN \
        (SELECT number FROM file_chunks WHERE file_id = $1 ORDER BY number LIMIT $2)";
    const WHOLE: &str = "DELETE FROM files WHERE id = $1 AND status = 'deleted'";
    let gone = execute!(tx, sqlx::query(SOME).bind(id).bind(count))?;
    if gone < count.unsigned_abs() {
        execute!(tx, sqlx::query(WHOLE).bind(id))?;
    }
    Ok(())
}
