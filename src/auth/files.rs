//! Files that users upload and that their batches write: the capability to have some.
//!
//! Not their content's way into the database (`store/file_writer.rs`). The one thing to know: a file is its owner's alone;
//! for everybody else, whatever they may do, there is none of that id.

use std::time::Duration;

use serde_json::json;

use crate::auth::capability::Deed;
use crate::auth::{AuthError, Caller, Capability, Permission, Permit, new_id};
use crate::clock::Timestamp;
use crate::store::files::{self, CHUNK};
use crate::store::{FileWriter, Store, batches};

pub use crate::store::Order;
pub use crate::store::files::FileRow;

/// Most files of one owner.
pub const MOST_FILES: i64 = 10_000;

/// Pieces of a file that are read at once.
const READ_AHEAD: i64 = 4;

/// What a user uploads a file for.
pub const FOR_BATCHES: &str = "batch";

/// What a batch writes.
pub const BATCH_OUTPUT: &str = "batch_output";

/// May have files.
pub struct FileUser(Permit);

impl Capability for FileUser {
    const PERMISSION: Permission = Permission::Inference;

    fn of(permit: Permit) -> Self {
        Self(permit)
    }
}

/// What an owner's files may take.
#[derive(Debug, Clone, Copy)]
pub struct FileLimits {
    /// Longest file.
    pub file_bytes: u64,
    /// All files of an owner together.
    pub owner_bytes: u64,
}

/// A part of a list.
#[derive(Debug)]
pub struct Part<T> {
    /// The items.
    pub items: Vec<T>,
    /// Whether there are more behind them.
    pub has_more: bool,
}

const NO_FILE: AuthError = AuthError::NotFound("file");

impl FileUser {
    /// Who it is.
    pub fn caller(&self) -> &Caller {
        self.0.caller()
    }

    fn owner(&self) -> &str {
        self.caller().owner()
    }

    /// Begins a file for batches.
    ///
    /// # Errors
    /// [`AuthError::Full`] for too many files, and when they take all that they may.
    pub async fn upload(&self, name: String, limits: FileLimits) -> Result<Upload, AuthError> {
        let now = self.0.now();
        let store = self.0.auth().store().clone();
        check_room(&store, self.owner(), limits).await?;
        let file = FileRow {
            id: new_id("file").replacen('_', "-", 1),
            owner: self.owner().to_owned(),
            name,
            purpose: FOR_BATCHES.to_owned(),
            bytes: 0,
            status: String::new(),
            batch_id: None,
            created_at: now,
            touched_at: now,
            expires_at: None,
        };
        let writer = FileWriter::begin(&store, self.0.auth().clock(), file).await?;
        Ok(Upload { writer, store, limits })
    }

    /// Makes an upload a file that is there.
    ///
    /// # Errors
    /// [`AuthError`].
    pub async fn finish(&self, upload: Upload) -> Result<FileRow, AuthError> {
        let mut act = self.0.write().await?;
        let file = upload.writer.finish(&mut act).await?;
        act.record(deed("file.create", &file)).await?;
        act.commit().await?;
        Ok(file)
    }

    /// Some files, in the order of their making.
    ///
    /// # Errors
    /// [`AuthError::Invalid`] where `after` is none of them.
    pub async fn list(
        &self,
        purpose: Option<&str>,
        after: Option<&str>,
        (limit, order): (u32, Order),
    ) -> Result<Part<FileRow>, AuthError> {
        let now = self.0.now();
        let mut tx = self.0.store().read_long().await?;
        let after = match after {
            Some(id) => {
                let row = files::find(&mut tx, id, now).await?.filter(|file| file.owner == self.owner());
                Some(row.ok_or_else(|| AuthError::invalid("after", "names no file"))?)
            }
            None => None,
        };
        let (items, has_more) =
            files::list(&mut tx, (self.owner(), purpose), after.as_ref(), (limit, order), now).await?;
        Ok(Part { items, has_more })
    }

    /// One file.
    ///
    /// # Errors
    /// [`AuthError::NotFound`].
    pub async fn find(&self, id: &str) -> Result<FileRow, AuthError> {
        let mut tx = self.0.store().read().await?;
        let file = files::find(&mut tx, id, self.0.now()).await?;
        file.filter(|file| file.owner == self.owner()).ok_or(NO_FILE)
    }

    /// The content of a file, a few pieces at a time.
    pub fn content(&self, file: FileRow) -> FileReader {
        FileReader::new(self.0.auth().store().clone(), file)
    }

    /// Deletes a file.
    ///
    /// # Errors
    /// [`AuthError::NotFound`]; [`AuthError::Conflict`] while a batch reads it.
    pub async fn delete(&self, id: &str) -> Result<(), AuthError> {
        let deleted = self.try_delete(id).await;
        self.0.or_record_refusal(("file", Some(id)), deleted).await
    }

    async fn try_delete(&self, id: &str) -> Result<(), AuthError> {
        let mut act = self.0.write().await?;
        let file = files::find(&mut act, id, self.0.now()).await?;
        let file = file.filter(|file| file.owner == act.caller().owner()).ok_or(NO_FILE)?;
        if batches::reader_of(&mut act, id).await?.is_some() {
            return Err(AuthError::Conflict("a batch reads the file: cancel it first, or wait for its end"));
        }
        files::delete(&mut act, id).await?;
        act.record(deed("file.delete", &file)).await?;
        act.commit().await
    }
}

fn deed(action: &'static str, file: &FileRow) -> Deed {
    let shown = json!({"id": file.id, "name": file.name, "purpose": file.purpose, "bytes": file.bytes});
    let (before, after) = if action == "file.delete" { (Some(shown), None) } else { (None, Some(shown)) };
    Deed { action, target: ("file", file.id.clone()), before, after }
}

/// A file that arrives.
pub struct Upload {
    writer: FileWriter,
    store: Store,
    limits: FileLimits,
}

impl Upload {
    /// Takes some of its content.
    ///
    /// # Errors
    /// [`AuthError::TooLarge`]; [`AuthError::Full`] when the owner's files take all that they may.
    pub async fn push(&mut self, bytes: &[u8]) -> Result<(), AuthError> {
        if self.bytes().saturating_add(bytes.len() as u64) > self.limits.file_bytes {
            return Err(AuthError::TooLarge { most: self.limits.file_bytes });
        }
        if self.writer.push(bytes).await? {
            check_room(&self.store, &self.writer.file().owner, self.limits).await?;
        }
        Ok(())
    }

    /// Has it deleted so long after its making; none: when its owner says so.
    pub fn expire_after(&mut self, time: Option<Duration>) {
        self.writer.expire_after(time);
    }

    /// How long it is by now.
    pub fn bytes(&self) -> u64 {
        self.writer.file().bytes.unsigned_abs()
    }

    /// Takes away what there is of it.
    pub async fn give_up(self) {
        if let Err(error) = self.writer.give_up().await {
            tracing::debug!(%error, "what there is of an upload is taken away later");
        }
    }
}

/// Whether an owner may have more.
async fn check_room(store: &Store, owner: &str, limits: FileLimits) -> Result<(), AuthError> {
    let (files, bytes) = files::total_of(&mut store.read().await?, owner).await?;
    if files > MOST_FILES {
        return Err(AuthError::Full("there are too many files: delete some first"));
    }
    if bytes.unsigned_abs() > limits.owner_bytes {
        return Err(AuthError::Full("the files take all the room that they may: delete some first"));
    }
    Ok(())
}

/// Reads a file from its beginning, a few pieces at a time.
pub struct FileReader {
    store: Store,
    file: FileRow,
    next: i64,
}

impl FileReader {
    /// Over one file.
    pub fn new(store: Store, file: FileRow) -> Self {
        Self { store, file, next: 0 }
    }

    /// What comes next; none at the end.
    ///
    /// # Errors
    /// [`AuthError::NotFound`] if the file was deleted meanwhile.
    pub async fn read(&mut self) -> Result<Option<Vec<u8>>, AuthError> {
        let pieces = (self.file.bytes + CHUNK as i64 - 1) / CHUNK as i64;
        if self.next >= pieces {
            return Ok(None);
        }
        let wanted = READ_AHEAD.min(pieces - self.next);
        let mut tx = self.store.read().await?;
        let found = files::chunks(&mut tx, &self.file.id, self.next, wanted).await?;
        if found.len() as i64 != wanted {
            return Err(NO_FILE);
        }
        self.next += wanted;
        Ok(Some(found.concat()))
    }
}

/// A part of a file: `length` bytes from `place` on.
///
/// # Errors
/// [`AuthError::NotFound`] if it is not there whole.
pub async fn part(store: &Store, id: &str, place: u64, length: usize) -> Result<Vec<u8>, AuthError> {
    let (first, skipped) = (place / CHUNK as u64, (place % CHUNK as u64) as usize);
    let count = (skipped + length).div_ceil(CHUNK);
    let mut tx = store.read().await?;
    let found = files::chunks(&mut tx, id, first as i64, count as i64).await?.concat();
    found.get(skipped..skipped + length).map(<[u8]>::to_vec).ok_or(NO_FILE)
}

/// When what a batch writes now is deleted.
pub fn output_expiry(now: Timestamp, seconds: Option<i64>) -> Option<Timestamp> {
    seconds.map(|seconds| now.after(Duration::from_secs(seconds.unsigned_abs())))
}
