//! A file being written, a piece at a time: never whole in memory, and not seen before it is whole.
//!
//! The one thing to know: dropped before [`FileWriter::finish`], it leaves a file that nobody sees, and that is taken away
//! once nothing has come for a while.

use std::time::Duration;

use crate::clock::Clock;
use crate::store::files::{self, CHUNK, FileRow};
use crate::store::{Store, StoreError, Tx};

/// Bytes that are written at once.
const FLUSH: usize = 8 * CHUNK;

/// Writes one file.
pub struct FileWriter {
    store: Store,
    clock: Clock,
    file: FileRow,
    pending: Vec<u8>,
    /// Pieces written.
    written: i64,
}

impl FileWriter {
    /// Begins a file; of the row, what is said of its length and its status does not count.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn begin(store: &Store, clock: &Clock, file: FileRow) -> Result<Self, StoreError> {
        let file = FileRow { bytes: 0, status: "arriving".to_owned(), touched_at: clock.now(), ..file };
        let mut tx = store.append().await?;
        files::insert(&mut tx, &file).await?;
        tx.commit().await?;
        Ok(Self { store: store.clone(), clock: clock.clone(), file, pending: Vec::new(), written: 0 })
    }

    /// Has it deleted so long after its making.
    pub fn expire_after(&mut self, time: Option<Duration>) {
        self.file.expires_at = time.map(|time| self.file.created_at.after(time));
    }

    /// The file as it is by now.
    pub fn file(&self) -> &FileRow {
        &self.file
    }

    /// Adds to the file. Whether anything was written to the database; false: it is kept until there is more.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::Gone`] if the file was deleted meanwhile.
    pub async fn push(&mut self, bytes: &[u8]) -> Result<bool, StoreError> {
        self.pending.extend_from_slice(bytes);
        self.file.bytes += length(bytes);
        if self.pending.len() < FLUSH {
            return Ok(false);
        }
        let mut tx = self.store.append().await?;
        self.flush(&mut tx, false).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Makes it a file that is there, when `tx` commits.
    ///
    /// # Errors
    /// As [`FileWriter::push`].
    pub async fn finish(mut self, tx: &mut Tx) -> Result<FileRow, StoreError> {
        self.flush(tx, true).await?;
        if !files::finish(tx, &self.file.id, self.file.expires_at).await? {
            return Err(StoreError::Gone);
        }
        self.file.status = "there".to_owned();
        Ok(self.file)
    }

    /// Takes away what there is of it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn give_up(self) -> Result<(), StoreError> {
        let mut tx = self.store.append().await?;
        files::delete(&mut tx, &self.file.id).await?;
        tx.commit().await
    }

    /// Writes what is pending: whole pieces, and at the end the rest.
    async fn flush(&mut self, tx: &mut Tx, is_last: bool) -> Result<(), StoreError> {
        if !files::grow(tx, &self.file.id, self.file.bytes, self.clock.now()).await? {
            return Err(StoreError::Gone);
        }
        let whole = self.pending.len() / CHUNK * CHUNK;
        let until = if is_last { self.pending.len() } else { whole };
        for piece in self.pending[..until].chunks(CHUNK) {
            files::add_chunk(tx, &self.file.id, self.written, piece).await?;
            self.written += 1;
        }
        self.pending.drain(..until);
        Ok(())
    }
}

fn length(bytes: &[u8]) -> i64 {
    i64::try_from(bytes.len()).unwrap_or(i64::MAX)
}
