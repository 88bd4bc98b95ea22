//! Chats that are kept: rows of the same table, swept and bounded with the answers of `/v1/responses`; with notes that their
//! owner may change, and lists may be chosen by.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::auth::AuthError;
use crate::auth::files::Part;
use crate::auth::responses::{NewResponse, OwnResponses, ResponseStatus, StoredResponse};
use crate::clock::Timestamp;
use crate::store::JsonText;
use crate::store::responses::{self, ResponseRow};
use crate::store::stored_chats::{self, Place, StoredChatRow};

/// Most bytes of a page, unless it has but one chat.
const MOST_PAGE_BYTES: i64 = 8 << 20;

/// How many are looked at together for a page.
const STEP: i64 = 200;

const NO_CHAT: AuthError = AuthError::NotFound("stored chat completion");

/// A chat to be kept.
#[derive(Debug, Clone)]
pub struct NewChat<'a> {
    /// `chatcmpl-…`
    pub id: &'a str,
    /// The model as it was asked for.
    pub model: &'a str,
    /// Its owner's notes.
    pub metadata: &'a Map<String, Value>,
    /// As it is shown, but for the notes.
    pub body: &'a Value,
    /// What it answers.
    pub messages: &'a [Value],
    /// How long it is kept.
    pub retention: Duration,
}

/// A chat that is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredChat {
    /// As it is shown.
    pub body: Value,
    /// What it answers.
    pub messages: Vec<Value>,
}

/// Which chats are listed.
#[derive(Debug, Clone, Default)]
pub struct ChatList {
    /// Most of them.
    pub limit: usize,
    /// The oldest is first.
    pub is_ascending: bool,
    /// The id of the one before the first.
    pub after: Option<String>,
    /// Of this model, as it was asked for.
    pub model: Option<String>,
    /// With these notes.
    pub metadata: Map<String, Value>,
}

impl ChatList {
    fn has(&self, row: &StoredChatRow) -> bool {
        self.metadata.iter().all(|(name, note)| row.metadata.0.get(name) == Some(note))
    }
}

impl OwnResponses {
    /// Keeps a chat, in place of theirs of the same id if there is one.
    ///
    /// # Errors
    /// [`AuthError::Invalid`] for one that is too large; [`AuthError::Store`], also where the id is somebody else's.
    pub async fn keep_chat(&self, new: NewChat<'_>) -> Result<(), AuthError> {
        let NewChat { id, model, metadata, body, messages, retention } = new;
        let status = ResponseStatus::Completed;
        let whole = NewResponse { id, previous_id: None, status, body, input: messages, retention };
        let mut row = self.row(whole, "messages")?;
        row.bytes += length(metadata);
        let mut tx = self.write().await?;
        // Ends here where the id is somebody else's: their notes stay theirs.
        responses::insert(&mut tx, &row).await?;
        stored_chats::insert(&mut tx, id, model, &JsonText(metadata.clone())).await?;
        Ok(tx.commit().await?)
    }

    /// One of the chats.
    ///
    /// # Errors
    /// [`AuthError::NotFound`], also for somebody else's; [`AuthError::Store`].
    pub async fn find_chat(&self, id: &str) -> Result<StoredChat, AuthError> {
        let now = self.now();
        let mut tx = self.auth.store().read().await?;
        let row = stored_chats::find(&mut tx, &self.owner, id, now).await?.ok_or(NO_CHAT)?;
        let whole = responses::find(&mut tx, &self.owner, id, now).await?.ok_or(NO_CHAT)?;
        drop(tx);
        whole_chat(row, whole, now)
    }

    /// Some of the chats.
    ///
    /// # Errors
    /// [`AuthError::Invalid`] where `after` is none of them; [`AuthError::Store`].
    pub async fn list_chats(&self, asked: &ChatList) -> Result<Part<StoredChat>, AuthError> {
        let now = self.now();
        // May go through all chats of an owner: one of few, which leave room for others.
        let mut tx = self.auth.store().read_long().await?;
        let mut place = Place { is_ascending: asked.is_ascending, after: None };
        if let Some(id) = &asked.after {
            let row = stored_chats::find(&mut tx, &self.owner, id, now).await?;
            let row = row.ok_or_else(|| AuthError::invalid("after", "names no stored chat completion"))?;
            place.after = Some((row.created_at, row.id));
        }
        let mut chosen = Vec::new();
        loop {
            let model = asked.model.as_deref();
            let rows = stored_chats::list(&mut tx, &self.owner, model, &place, now, STEP).await?;
            let Some(last) = rows.last() else { break };
            place.after = Some((last.created_at, last.id.clone()));
            chosen.extend(rows.into_iter().filter(|row| asked.has(row)));
            if chosen.len() > asked.limit {
                break;
            }
        }
        let mut has_more = chosen.len() > asked.limit;
        chosen.truncate(asked.limit);
        let (mut found, mut bytes) = (Vec::new(), 0);
        for row in chosen {
            bytes += row.bytes;
            if bytes > MOST_PAGE_BYTES && !found.is_empty() {
                has_more = true;
                break;
            }
            if let Some(whole) = responses::find(&mut tx, &self.owner, &row.id, now).await? {
                found.push((row, whole));
            }
        }
        drop(tx);
        let items =
            found.into_iter().map(|(row, whole)| whole_chat(row, whole, now)).collect::<Result<_, _>>()?;
        Ok(Part { items, has_more })
    }

    /// Changes the notes of a chat.
    ///
    /// # Errors
    /// [`AuthError::NotFound`], also for somebody else's; [`AuthError::Store`].
    pub async fn note_chat(&self, id: &str, metadata: Map<String, Value>) -> Result<StoredChat, AuthError> {
        let mut tx = self.write().await?;
        let before = stored_chats::find(&mut tx, &self.owner, id, self.now()).await?.ok_or(NO_CHAT)?;
        let longer = length(&metadata) - length(&before.metadata.0);
        stored_chats::note(&mut tx, id, &JsonText(metadata), longer).await?;
        tx.commit().await?;
        self.find_chat(id).await
    }

    /// Deletes a chat.
    ///
    /// # Errors
    /// [`AuthError::NotFound`], also for somebody else's; [`AuthError::Store`].
    pub async fn delete_chat(&self, id: &str) -> Result<(), AuthError> {
        let mut tx = self.write().await?;
        stored_chats::find(&mut tx, &self.owner, id, self.now()).await?.ok_or(NO_CHAT)?;
        responses::delete(&mut tx, &self.owner, id).await?;
        Ok(tx.commit().await?)
    }
}

/// Bytes of the notes, which count as part of a chat.
fn length(metadata: &Map<String, Value>) -> i64 {
    let text = serde_json::to_string(metadata).unwrap_or_default();
    i64::try_from(text.len()).unwrap_or(i64::MAX)
}

fn whole_chat(row: StoredChatRow, whole: ResponseRow, now: Timestamp) -> Result<StoredChat, AuthError> {
    let StoredResponse { mut body, input, .. } = StoredResponse::of(whole, now)?;
    body["metadata"] = row.metadata.0.into();
    Ok(StoredChat { body, messages: input })
}
