//! Answers that are kept for whoever asked: to be looked at again, to be gone on from, to be waited for.
//!
//! Each belongs to a user, whichever of their keys it was made with; others' are not there. The one thing to know: what is
//! being made says so again and again; what has not for a minute was lost with its server, and is found failed.

pub mod chats;
pub mod sides;

use std::time::Duration;

use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval};

use crate::auth::{Auth, AuthError, ModelUser};
use crate::clock::Timestamp;
use crate::store::responses::{self, Reach, ResponseRow};
use crate::store::{StoreError, Tx};

/// Most bytes of one, with what it answers.
pub const MOST_BYTES: usize = 8 << 20;

/// How far back a conversation goes.
const REACH: Reach = Reach { answers: 2_000, bytes: 64 << 20 };

/// Most that one owner has. Beyond that, and beyond so many bytes, the oldest go.
const MOST_KEPT: i64 = 10_000;
const MOST_KEPT_BYTES: i64 = 1 << 30;

/// Of what is being made nothing was heard for so long: it is lost.
const LOST_AFTER: Duration = Duration::from_secs(60);

/// How often it is looked for what may go.
const SWEEP: Duration = Duration::from_secs(60);

/// How it stands with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseStatus {
    /// Waits for its turn.
    Queued,
    /// Is being made.
    InProgress,
    /// Is whole.
    Completed,
    /// Was cut by a limit.
    Incomplete,
    /// Broke.
    Failed,
    /// Was taken back.
    Cancelled,
}

impl ResponseStatus {
    const ALL: [Self; 6] =
        [Self::Queued, Self::InProgress, Self::Completed, Self::Incomplete, Self::Failed, Self::Cancelled];

    /// As it is stored and sent.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Incomplete => "incomplete",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether it goes on.
    pub const fn is_running(self) -> bool {
        matches!(self, Self::Queued | Self::InProgress)
    }

    fn of(name: &str) -> Result<Self, StoreError> {
        let found = Self::ALL.into_iter().find(|status| status.name() == name);
        found.ok_or_else(|| damaged(format!("`{name}` is no status")))
    }
}

/// An answer to be kept.
#[derive(Debug, Clone)]
pub struct NewResponse<'a> {
    /// `resp_…`
    pub id: &'a str,
    /// The one that it goes on from.
    pub previous_id: Option<&'a str>,
    /// If it goes on it is kept alive by [`OwnResponses::beat`].
    pub status: ResponseStatus,
    /// As it is shown.
    pub body: &'a Value,
    /// The items that it answers.
    pub input: &'a [Value],
    /// How long it is kept.
    pub retention: Duration,
}

/// An answer that is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredResponse {
    /// `resp_…`
    pub id: String,
    /// How it stands now; the body may be of before.
    pub status: ResponseStatus,
    /// As it was when it was written.
    pub body: Value,
    /// The items that it answers.
    pub input: Vec<Value>,
}

impl StoredResponse {
    fn of(row: ResponseRow, now: Timestamp) -> Result<Self, AuthError> {
        let unreadable = |error: serde_json::Error| damaged(error.to_string());
        let is_lost = row.beat_at.is_some_and(|beat| beat < now.before(LOST_AFTER));
        Ok(Self {
            status: if is_lost { ResponseStatus::Failed } else { ResponseStatus::of(&row.status)? },
            body: serde_json::from_str(&row.body).map_err(unreadable)?,
            input: serde_json::from_str(&row.input).map_err(unreadable)?,
            id: row.id,
        })
    }
}

fn damaged(reason: String) -> StoreError {
    StoreError::Damaged { table: "responses", reason }
}

const NO_RESPONSE: AuthError = AuthError::NotFound("response");

/// What ids of responses begin with. Chats are kept beside them, and are none.
const PREFIX: &str = "resp_";

fn check_kind(id: &str) -> Result<(), AuthError> {
    if id.starts_with(PREFIX) { Ok(()) } else { Err(NO_RESPONSE) }
}

/// The answers of one owner. Cheap to clone.
#[derive(Clone)]
pub struct OwnResponses {
    auth: Auth,
    owner: String,
}

impl ModelUser {
    /// The answers that are kept for them.
    pub fn responses(&self) -> OwnResponses {
        OwnResponses { auth: self.0.auth().clone(), owner: self.caller().owner().to_owned() }
    }
}

impl OwnResponses {
    /// Whose they are.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    fn now(&self) -> Timestamp {
        self.auth.clock().now()
    }

    /// Nothing is decided by these rows but what their owner sees.
    async fn write(&self) -> Result<Tx, StoreError> {
        self.auth.store().append().await
    }

    /// Keeps an answer, in place of theirs of the same id if there is one.
    ///
    /// # Errors
    /// [`AuthError::Invalid`] for one that is too large; [`AuthError::Store`], also where the id is somebody else's.
    pub async fn keep(&self, new: NewResponse<'_>) -> Result<(), AuthError> {
        let row = self.row(new, "input")?;
        let mut tx = self.write().await?;
        responses::insert(&mut tx, &row).await?;
        Ok(tx.commit().await?)
    }

    /// What is written of an answer; `input` is what the request calls that which it answers.
    fn row(&self, new: NewResponse<'_>, input_name: &str) -> Result<ResponseRow, AuthError> {
        let (body, input) = (new.body.to_string(), Value::from(new.input).to_string());
        let bytes = body.len() + input.len();
        if bytes > MOST_BYTES {
            let reason = format!(
                "is too large to be stored ({bytes} bytes, at most {MOST_BYTES}): send `store: false`"
            );
            return Err(AuthError::invalid(input_name, reason));
        }
        let now = self.now();
        Ok(ResponseRow {
            id: new.id.to_owned(),
            owner: self.owner.clone(),
            previous_id: new.previous_id.map(str::to_owned),
            status: new.status.name().to_owned(),
            created_at: now,
            expires_at: now.after(new.retention),
            beat_at: new.status.is_running().then_some(now),
            bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
            body,
            input,
        })
    }

    /// One of them.
    ///
    /// # Errors
    /// [`AuthError::NotFound`], also for somebody else's; [`AuthError::Store`].
    pub async fn find(&self, id: &str) -> Result<StoredResponse, AuthError> {
        check_kind(id)?;
        let mut tx = self.auth.store().read().await?;
        let row = responses::find(&mut tx, &self.owner, id, self.now()).await?;
        StoredResponse::of(row.ok_or(NO_RESPONSE)?, self.now())
    }

    /// One of them and those that it goes on from, the oldest first. All are kept as long as one that is made now.
    ///
    /// # Errors
    /// [`AuthError::NotFound`] if one of them is not there; [`AuthError::Invalid`] for a conversation that is too long;
    /// [`AuthError::Store`].
    pub async fn chain(&self, id: &str, retention: Duration) -> Result<Vec<StoredResponse>, AuthError> {
        check_kind(id)?;
        let now = self.now();
        let mut tx = self.auth.store().read().await?;
        let rows = responses::chain(&mut tx, &self.owner, id, now, REACH).await?;
        drop(tx);
        let oldest = rows.first().ok_or(NO_RESPONSE)?;
        if let Some(earlier) = &oldest.previous_id {
            self.find(earlier).await?;
            return Err(AuthError::invalid("previous_response_id", "ends a conversation that is too long"));
        }
        let kept: Vec<(&str, Timestamp)> = rows.iter().map(|row| (row.id.as_str(), row.expires_at)).collect();
        self.prolong(&kept, now, retention).await?;
        rows.into_iter().map(|row| StoredResponse::of(row, now)).collect()
    }

    /// Keeps longer what is kept until then, where it makes a difference: not for each turn of a conversation.
    async fn prolong(
        &self,
        kept: &[(&str, Timestamp)],
        now: Timestamp,
        retention: Duration,
    ) -> Result<(), AuthError> {
        let (until, soon) = (now.after(retention), now.after(retention - retention / 16));
        let mut short = Vec::new();
        for (id, expires_at) in kept {
            if *expires_at < soon {
                short.push(*id);
            }
        }
        if short.is_empty() {
            return Ok(());
        }
        let mut tx = self.write().await?;
        for id in short {
            responses::keep_until(&mut tx, id, until).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Says that one that waited is being made; whether it still is to be.
    ///
    /// # Errors
    /// [`AuthError::Store`].
    pub async fn begun(&self, id: &str) -> Result<bool, AuthError> {
        let mut tx = self.write().await?;
        let goes_on = responses::go_on(&mut tx, id, ResponseStatus::InProgress.name()).await?;
        tx.commit().await?;
        Ok(goes_on)
    }

    /// Ends one that was being made. One that was ended or deleted meanwhile stays so.
    ///
    /// # Errors
    /// [`AuthError::Store`].
    pub async fn finish(&self, id: &str, status: ResponseStatus, body: &Value) -> Result<(), AuthError> {
        let mut tx = self.write().await?;
        responses::finish(&mut tx, id, status.name(), &body.to_string()).await?;
        Ok(tx.commit().await?)
    }

    /// Takes back one that another server makes, which will see it.
    ///
    /// # Errors
    /// [`AuthError::NotFound`], also for somebody else's; [`AuthError::Store`].
    pub async fn cancel(&self, id: &str) -> Result<(), AuthError> {
        self.find(id).await?;
        let mut tx = self.write().await?;
        responses::end(&mut tx, id, ResponseStatus::Cancelled.name()).await?;
        Ok(tx.commit().await?)
    }

    /// Deletes one.
    ///
    /// # Errors
    /// [`AuthError::NotFound`], also for somebody else's; [`AuthError::Store`].
    pub async fn delete(&self, id: &str) -> Result<(), AuthError> {
        check_kind(id)?;
        let mut tx = self.write().await?;
        let deleted = responses::delete(&mut tx, &self.owner, id).await?;
        tx.commit().await?;
        if deleted == 0 { Err(NO_RESPONSE) } else { Ok(()) }
    }
}

impl Auth {
    /// Says of answers that they are being made; gives those that are not to be any more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn responses_go_on(&self, ids: &[String]) -> Result<Vec<String>, StoreError> {
        let mut tx = self.store().append().await?;
        let now = self.clock().now();
        let mut ended = Vec::new();
        for id in ids {
            if !responses::beat(&mut tx, id, now).await? {
                ended.push(id.clone());
            }
        }
        tx.commit().await?;
        Ok(ended)
    }

    /// Ends the answers that were being made when the server ended, where only one server can have made them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn end_lost_responses(&self) -> Result<(), StoreError> {
        if self.store().file().is_none() {
            // Others may be making theirs: those of servers that are gone are found by their silence.
            return Ok(());
        }
        let mut tx = self.store().append().await?;
        let lost =
            responses::end_lost(&mut tx, ResponseStatus::Failed.name(), Timestamp::from_millis(i64::MAX));
        let lost = lost.await?;
        tx.commit().await?;
        if lost > 0 {
            tracing::warn!(lost, "answers that were being made in the background are lost");
        }
        Ok(())
    }

    /// Deletes now and then what is not to be kept, until it is dropped.
    pub async fn keep_responses_few(self) {
        let mut ticks = interval(SWEEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            ticks.tick().await;
            match self.sweep_responses().await {
                Ok(()) => failing = false,
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "old answers cannot be deleted; it is tried again");
                    }
                }
            }
        }
    }

    /// Deletes what is not to be kept, and ends what is lost.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn sweep_responses(&self) -> Result<(), StoreError> {
        let now = self.clock().now();
        let mut tx = self.store().append().await?;
        responses::end_lost(&mut tx, ResponseStatus::Failed.name(), now.before(LOST_AFTER)).await?;
        let expired = responses::forget_expired(&mut tx, now).await?;
        let beyond = responses::forget_beyond(&mut tx, MOST_KEPT, MOST_KEPT_BYTES).await?;
        tx.commit().await?;
        if expired + beyond > 0 {
            tracing::debug!(expired, beyond, "deleted old answers");
        }
        Ok(())
    }
}
