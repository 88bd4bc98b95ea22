//! Batches: the capability to have requests done while nobody waits for them.
//!
//! Not the doing (`batch/`). The one thing to know: what a batch may do is decided anew for each of its lines, by what its
//! maker's credential may do then.

use std::time::Duration;

use serde_json::{Value, json};

use crate::auth::capability::{Act, Deed};
use crate::auth::files::{FOR_BATCHES, Part};
use crate::auth::{AuthError, Capability, Permission, Permit, new_id};
use crate::store::batches::{self, BatchOrder, BatchResults, BatchStatus, BatchTimes, LineCounts};
use crate::store::{JsonText, files};

pub use crate::store::batches::{BatchRow, BatchUsage};

/// Most batches of one owner that are not over.
const MOST_UNFINISHED: i64 = 100;

/// May have batches.
pub struct BatchUser(Permit);

impl Capability for BatchUser {
    const PERMISSION: Permission = Permission::Inference;

    fn of(permit: Permit) -> Self {
        Self(permit)
    }
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct NewBatch {
    /// The file of requests.
    pub input_file_id: String,
    /// The URL that they are for.
    pub endpoint: String,
    /// How long it may take, as it was said.
    pub completion_window: String,
    /// The same.
    pub window: Duration,
    /// The owner's notes.
    pub metadata: Option<Value>,
    /// How long what it writes is kept, in seconds.
    pub output_seconds: Option<i64>,
}

const NO_BATCH: AuthError = AuthError::NotFound("batch");

impl BatchUser {
    fn owner(&self) -> &str {
        self.0.caller().owner()
    }

    /// Makes a batch.
    ///
    /// # Errors
    /// [`AuthError::Invalid`] for a file that is not there or not for batches; [`AuthError::Full`] for too many batches.
    pub async fn create(&self, new: NewBatch) -> Result<BatchRow, AuthError> {
        let mut act = self.0.write().await?;
        let now = self.0.now();
        let owner = act.caller().owner().to_owned();
        let file = files::find(&mut act, &new.input_file_id, now).await?;
        let file = file.filter(|file| file.owner == owner);
        let file = file.ok_or_else(|| AuthError::invalid("input_file_id", "names no file"))?;
        if file.purpose != FOR_BATCHES {
            return Err(AuthError::invalid("input_file_id", "names a file that is not for batches"));
        }
        if batches::unfinished_of(&mut act, &owner).await? >= MOST_UNFINISHED {
            return Err(AuthError::Full(
                "there are 100 batches that are not over: wait for one, or cancel one",
            ));
        }
        let credential = self.0.auth().defer(act.caller());
        let batch = BatchRow {
            id: new_id("batch"),
            owner,
            order: BatchOrder {
                credential: JsonText(json!(credential)),
                input_file_id: new.input_file_id,
                endpoint: new.endpoint,
                completion_window: new.completion_window,
                metadata: new.metadata.map(JsonText),
                output_seconds: new.output_seconds,
            },
            status: BatchStatus::Validating,
            ending: None,
            times: BatchTimes::new(now, now.after(new.window)),
            counts: LineCounts::default(),
            usage: BatchUsage::begun(),
            results: BatchResults::default(),
        };
        batches::insert(&mut act, &batch).await?;
        self.commit(act, "batch.create", &batch).await?;
        Ok(batch)
    }

    /// Some batches, the newest first.
    ///
    /// # Errors
    /// [`AuthError::Invalid`] where `after` is none of them.
    pub async fn list(&self, after: Option<&str>, limit: u32) -> Result<Part<BatchRow>, AuthError> {
        let mut tx = self.0.store().read().await?;
        let after = match after {
            Some(id) => {
                let row = batches::find(&mut tx, id).await?.filter(|batch| batch.owner == self.owner());
                Some(row.ok_or_else(|| AuthError::invalid("after", "names no batch"))?)
            }
            None => None,
        };
        let (items, has_more) = batches::list(&mut tx, self.owner(), after.as_ref(), limit).await?;
        Ok(Part { items, has_more })
    }

    /// One batch.
    ///
    /// # Errors
    /// [`AuthError::NotFound`].
    pub async fn find(&self, id: &str) -> Result<BatchRow, AuthError> {
        let batch = batches::find(&mut self.0.store().read().await?, id).await?;
        batch.filter(|batch| batch.owner == self.owner()).ok_or(NO_BATCH)
    }

    /// Asks for the end of a batch. One that is ending already goes on doing so.
    ///
    /// # Errors
    /// [`AuthError::NotFound`]; [`AuthError::Conflict`] for one that is over.
    pub async fn cancel(&self, id: &str) -> Result<BatchRow, AuthError> {
        let cancelled = self.try_cancel(id).await;
        self.0.or_record_refusal(("batch", Some(id)), cancelled).await
    }

    async fn try_cancel(&self, id: &str) -> Result<BatchRow, AuthError> {
        let mut act = self.0.write().await?;
        let batch = batches::find(&mut act, id).await?;
        let batch = batch.filter(|batch| batch.owner == act.caller().owner()).ok_or(NO_BATCH)?;
        match batch.status {
            BatchStatus::Validating | BatchStatus::InProgress => {}
            BatchStatus::Finalizing | BatchStatus::Cancelling => return Ok(batch),
            BatchStatus::Completed | BatchStatus::Failed | BatchStatus::Expired | BatchStatus::Cancelled => {
                return Err(AuthError::Conflict("the batch is over"));
            }
        }
        batches::cancel(&mut act, id, self.0.now()).await?;
        let batch = batches::find(&mut act, id).await?.ok_or(NO_BATCH)?;
        self.commit(act, "batch.cancel", &batch).await?;
        Ok(batch)
    }

    async fn commit(&self, mut act: Act, action: &'static str, batch: &BatchRow) -> Result<(), AuthError> {
        let after = json!({"id": batch.id, "input_file_id": batch.order.input_file_id,
            "endpoint": batch.order.endpoint, "status": batch.status.name()});
        let target = ("batch", batch.id.clone());
        act.record(Deed { action, target, before: None, after: Some(after) }).await?;
        act.commit().await?;
        self.0.auth().0.batches.notify_one();
        Ok(())
    }
}
