//! Chats that were kept: one, a page of them, what was asked, what may be changed.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa::openapi::schema::Schema;

use super::written;
use crate::api::openai::types::{ChatChoice, Usage};

/// What may be changed of a chat that was kept.
#[derive(ToSchema)]
#[schema(as = ChatCompletionUpdate)]
#[serde(deny_unknown_fields)]
pub struct ChatUpdate {
    #[schema(schema_with = notes)]
    metadata: Value,
}

fn notes() -> Schema {
    written(json!({"type": ["object", "null"], "maxProperties": 16,
        "additionalProperties": {"type": "string", "maxLength": 512}, "example": {"job": "nightly"},
        "description": "The notes from now on, in the place of those before; null: none."}))
}

/// A chat that was kept: the answer as it was given, and how it was asked for.
#[derive(ToSchema)]
#[schema(as = OpenAiStoredChatCompletion)]
pub struct OpenAiStoredChat {
    /// Names this answer.
    #[schema(example = "chatcmpl-4f1c5fd0a3c14c5c8d9f6f8c2b7e9a10")]
    id: String,
    /// Always `chat.completion`.
    #[schema(example = "chat.completion")]
    object: String,
    /// Seconds since 1970.
    #[schema(example = 1677652288)]
    created: u64,
    /// The model as it was asked for.
    #[schema(example = "gpt-4o")]
    model: String,
    /// Same fingerprint, same request and seed: same answer.
    #[schema(example = "fp_4c3f2a1b0d9e8f70")]
    system_fingerprint: String,
    /// Who went first where not all could: `default`, `flex` or `priority`.
    #[schema(example = "default")]
    service_tier: String,
    /// As many as were asked for by `n`.
    choices: Vec<ChatChoice>,
    usage: Usage,
    /// Its owner's notes.
    #[schema(schema_with = shown_notes)]
    metadata: BTreeMap<String, String>,
    /// Finds the request in the server's log.
    #[schema(example = "req_0198c0ffee0198c0ffee0198c0ffee01")]
    request_id: String,
    /// `user`, as it was sent.
    #[schema(example = "user-1234")]
    input_user: Option<String>,
    /// As it was sent; so are `top_p`, the penalties, `seed`, `tools`, `tool_choice` and `response_format`.
    #[schema(example = 0.7)]
    temperature: Option<f32>,
}

fn shown_notes() -> Schema {
    written(
        json!({"type": "object", "additionalProperties": {"type": "string"}, "example": {"job": "nightly"},
        "description": "Its owner's notes."}),
    )
}

/// One page of chats that were kept.
#[derive(ToSchema)]
#[schema(as = OpenAiStoredChatCompletions)]
pub struct OpenAiStoredChats {
    /// Always `list`.
    #[schema(example = "list")]
    object: String,
    /// The chats.
    data: Vec<OpenAiStoredChat>,
    /// The id of the first; null if there is none.
    #[schema(example = "chatcmpl-4f1c5fd0a3c14c5c8d9f6f8c2b7e9a10")]
    first_id: Option<String>,
    /// The id of the last; null if there is none.
    #[schema(example = "chatcmpl-4f1c5fd0a3c14c5c8d9f6f8c2b7e9a10")]
    last_id: Option<String>,
    /// There are more after these.
    #[schema(example = false)]
    has_more: bool,
}

/// One page of the messages that a chat was asked for with.
#[derive(ToSchema)]
#[schema(as = OpenAiStoredChatMessages)]
pub struct OpenAiStoredMessages {
    /// Always `list`.
    #[schema(example = "list")]
    object: String,
    #[schema(schema_with = messages)]
    data: Vec<Value>,
    /// The id of the first; null if there is none.
    #[schema(example = "chatcmpl-4f1c5fd0a3c14c5c8d9f6f8c2b7e9a10-0")]
    first_id: Option<String>,
    /// The id of the last; null if there is none.
    #[schema(example = "chatcmpl-4f1c5fd0a3c14c5c8d9f6f8c2b7e9a10-0")]
    last_id: Option<String>,
    /// There are more after these.
    #[schema(example = false)]
    has_more: bool,
}

fn messages() -> Schema {
    let id = "chatcmpl-4f1c5fd0a3c14c5c8d9f6f8c2b7e9a10-0";
    written(json!({"type": "array", "items": {"type": "object"},
        "example": [{"id": id, "role": "user", "content": "Hello!", "content_parts": null}],
        "description": "The messages as they were sent, with an `id`; those that came in parts have these in `content_parts`."}))
}

/// What is said of a chat that was deleted.
#[derive(ToSchema)]
#[schema(as = OpenAiDeletedChatCompletion)]
pub struct OpenAiDeletedChat {
    /// Named it.
    #[schema(example = "chatcmpl-4f1c5fd0a3c14c5c8d9f6f8c2b7e9a10")]
    id: String,
    /// Always `chat.completion.deleted`.
    #[schema(example = "chat.completion.deleted")]
    object: String,
    /// Always true.
    #[schema(example = true)]
    deleted: bool,
}
