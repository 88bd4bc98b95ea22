//! Chats that were kept with `store`: shown, listed, noted and deleted by their owner.

use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::IntoParams;

use crate::api::openai::fields::{Fields, ParameterError};
use crate::api::openai::files::listed;
use crate::api::openai::responses::{ItemOrder, page, page_length};
use crate::api::openai::{metadata, schema};
use crate::auth::ModelUser;
use crate::auth::responses::chats::ChatList;
use crate::http::{ApiError, AppState, Granted, JsonBody, OpenAiError, Path, Query};

/// Which of the chats.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Most chats of the page.
    #[param(minimum = 1, maximum = 100, default = 20, example = 20)]
    limit: Option<usize>,
    /// `asc`: the oldest is first, the usual; `desc`: the other way round.
    #[param(inline)]
    order: Option<ItemOrder>,
    /// The id of the chat after which the page begins.
    #[param(example = "chatcmpl-4f1c5fd0a3c14c5c8d9f6f8c2b7e9a10")]
    after: Option<String>,
    /// Only answers of this model, by the name that it was asked for by.
    #[param(example = "gpt-4o")]
    model: Option<String>,
}

/// A query for chats: `metadata[name]=note` may stand in it, and stands for as many notes as there are.
pub struct Chosen(ListQuery, Map<String, Value>);

impl FromRequestParts<AppState> for Chosen {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, ApiError> {
        Self::of_text(parts.uri.query().unwrap_or_default())
    }
}

impl Chosen {
    fn of_text(text: &str) -> Result<Self, ApiError> {
        let (mut rest, mut notes) = (Vec::new(), Map::new());
        for part in text.split('&') {
            let pairs: Vec<(String, String)> = Query::of_text(part)?.0;
            let note = pairs.into_iter().next().and_then(|(name, note)| {
                let name = name.strip_prefix("metadata[")?.strip_suffix(']')?;
                Some((name.to_owned(), note))
            });
            match note {
                Some((name, note)) => drop(notes.insert(name, note.into())),
                None => rest.push(part),
            }
        }
        Ok(Self(Query::of_text(&rest.join("&"))?.0, notes))
    }
}

/// Lists the chats that were kept.
///
/// # Errors
/// In OpenAI's shape: 400 for a query that is not right.
#[utoipa::path(get, path = "/v1/chat/completions", operation_id = "openaiListChatCompletions", tag = "openai",
    params(ListQuery, ("metadata" = Option<BTreeMap<String, String>>, Query, style = DeepObject, explode,
        example = json!({"job": "nightly"}), description = "Only with these notes: `metadata[name]=note`")),
    responses((status = 200, description = "One page of the chats", body = schema::OpenAiStoredChats)))]
pub async fn list(
    Granted(user): Granted<ModelUser>,
    Chosen(query, metadata): Chosen,
) -> Result<Json<Value>, OpenAiError> {
    let ListQuery { limit, order, after, model } = query;
    let is_ascending = order.unwrap_or(ItemOrder::Asc) == ItemOrder::Asc;
    let asked = ChatList { limit: page_length(limit)?, is_ascending, after, model, metadata };
    let part = user.responses().list_chats(&asked).await?;
    Ok(Json(listed(part.items.into_iter().map(|chat| chat.body).collect(), part.has_more)))
}

/// Shows a chat that was kept.
///
/// # Errors
/// In OpenAI's shape: 404 for one that is not there, or not yours.
#[utoipa::path(get, path = "/v1/chat/completions/{completionId}", operation_id = "openaiGetChatCompletion",
    tag = "openai", params(("completionId" = String, Path, description = "The answer's id",
        example = "chatcmpl-4f1c5fd0a3c14c5c8d9f6f8c2b7e9a10")),
    responses((status = 200, description = "The answer", body = schema::OpenAiStoredChat)))]
pub async fn retrieve(
    Granted(user): Granted<ModelUser>,
    Path(id): Path<String>,
) -> Result<Json<Value>, OpenAiError> {
    Ok(Json(user.responses().find_chat(&id).await?.body))
}

/// Changes the notes of a chat that was kept.
///
/// # Errors
/// In OpenAI's shape: 404 for one that is not there, or not yours; 400 for notes that cannot be.
#[utoipa::path(post, path = "/v1/chat/completions/{completionId}", operation_id = "openaiUpdateChatCompletion",
    tag = "openai", params(("completionId" = String, Path, description = "The answer's id",
        example = "chatcmpl-4f1c5fd0a3c14c5c8d9f6f8c2b7e9a10")),
    request_body(content = schema::ChatUpdate, example = json!({"metadata": {"job": "nightly"}})),
    responses((status = 200, description = "The answer with its new notes", body = schema::OpenAiStoredChat)))]
pub async fn update(
    Granted(user): Granted<ModelUser>,
    Path(id): Path<String>,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, OpenAiError> {
    Ok(Json(user.responses().note_chat(&id, notes(body)?).await?.body))
}

/// The notes of a body; `null` takes them all away.
fn notes(body: Value) -> Result<Map<String, Value>, ParameterError> {
    let is_there = body.get("metadata").is_some();
    let mut fields = Fields::of(body, "")?;
    if !is_there {
        fields.required("metadata")?;
    }
    let notes = metadata::take(&mut fields)?.unwrap_or_default();
    fields.finish()?;
    Ok(notes)
}

/// Deletes a chat that was kept.
///
/// # Errors
/// In OpenAI's shape: 404 for one that is not there, or not yours.
#[utoipa::path(delete, path = "/v1/chat/completions/{completionId}", operation_id = "openaiDeleteChatCompletion",
    tag = "openai", params(("completionId" = String, Path, description = "The answer's id",
        example = "chatcmpl-4f1c5fd0a3c14c5c8d9f6f8c2b7e9a10")),
    responses((status = 200, description = "It is deleted", body = schema::OpenAiDeletedChat)))]
pub async fn delete(
    Granted(user): Granted<ModelUser>,
    Path(id): Path<String>,
) -> Result<Json<Value>, OpenAiError> {
    user.responses().delete_chat(&id).await?;
    Ok(Json(json!({"id": id, "object": "chat.completion.deleted", "deleted": true})))
}

/// Which of the messages.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct MessagesQuery {
    /// Most messages of the page.
    #[param(minimum = 1, maximum = 100, default = 20, example = 20)]
    limit: Option<usize>,
    /// `asc`: the first is first, the usual; `desc`: the other way round.
    #[param(inline)]
    order: Option<ItemOrder>,
    /// The id of the message after which the page begins.
    #[param(example = "chatcmpl-4f1c5fd0a3c14c5c8d9f6f8c2b7e9a10-0")]
    after: Option<String>,
}

/// Lists the messages that a chat was asked for with.
///
/// # Errors
/// In OpenAI's shape: 404 for a chat that is not there, or not yours.
#[utoipa::path(get, path = "/v1/chat/completions/{completionId}/messages",
    operation_id = "openaiListChatCompletionMessages", tag = "openai",
    params(("completionId" = String, Path, description = "The answer's id",
        example = "chatcmpl-4f1c5fd0a3c14c5c8d9f6f8c2b7e9a10"), MessagesQuery),
    responses((status = 200, description = "One page of the messages", body = schema::OpenAiStoredMessages)))]
pub async fn messages(
    Granted(user): Granted<ModelUser>,
    Path(id): Path<String>,
    Query(query): Query<MessagesQuery>,
) -> Result<Json<Value>, OpenAiError> {
    let MessagesQuery { limit, order, after } = query;
    let stored = user.responses().find_chat(&id).await?;
    let numbered = stored.messages.into_iter().enumerate();
    let shown = numbered.map(|(number, message)| message_of(&id, number, message)).collect();
    Ok(Json(page(shown, limit, order.unwrap_or(ItemOrder::Asc), after.as_deref())?))
}

/// A message as it was sent, but for its parts, which stand by themselves.
fn message_of(id: &str, number: usize, mut message: Value) -> Value {
    let content = message["content"].take();
    let (content, parts) = if content.is_array() { (Value::Null, content) } else { (content, Value::Null) };
    message["id"] = format!("{id}-{number}").into();
    message["content"] = content;
    message["content_parts"] = parts;
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Code, Failure};

    #[test]
    fn notes_stand_in_a_query_beside_the_rest() {
        let chosen =
            Chosen::of_text("limit=3&metadata%5Ba%5D=x%20y&order=desc&metadata[b]=").map_err(|e| e.number());
        let Chosen(query, notes) = chosen.expect("it is right");
        assert_eq!((query.limit, query.order), (Some(3), Some(ItemOrder::Desc)));
        assert_eq!(Value::from(notes), json!({"a": "x y", "b": ""}));
        for wrong in ["metadata=x", "colour=x", "limit=x", "metadata[a=x"] {
            assert!(Chosen::of_text(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn notes_are_there_or_taken_away() {
        assert_eq!(notes(json!({"metadata": {"a": "b"}})).map(Value::from), Ok(json!({"a": "b"})));
        assert_eq!(notes(json!({"metadata": null})), Ok(Map::new()));
        assert_eq!(notes(json!({})).map_err(|error| error.code()), Err(Code::MissingParameter));
        assert_eq!(
            notes(json!({"metadata": {}, "x": 1})).map_err(|error| error.code()),
            Err(Code::UnknownParameter)
        );
    }

    #[test]
    fn parts_of_a_message_stand_by_themselves() {
        let shown = |content: Value| message_of("c", 2, json!({"role": "user", "content": content}));
        let text = shown(json!("x"));
        assert_eq!(
            (&text["id"], &text["content"], &text["content_parts"]),
            (&json!("c-2"), &json!("x"), &Value::Null)
        );
        let parts = json!([{"type": "text", "text": "x"}]);
        let shown = shown(parts.clone());
        assert_eq!((&shown["content"], &shown["content_parts"]), (&Value::Null, &parts));
    }
}
