//! Conversations: the request, the answer, a piece of one.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;
use utoipa::{PartialSchema, ToSchema};

use super::{AnswerParameters, only_false, written};
use crate::api::openai::types::{ChatChoice, ChunkChoice, Usage};
use crate::http::openapi::joined;

/// A conversation, and how it is to be answered.
pub struct ChatCompletionRequest;

impl PartialSchema for ChatCompletionRequest {
    fn schema() -> RefOr<Schema> {
        let description = "A conversation, and how it is to be answered. `null` is the same as leaving out.";
        joined(description, ChatParameters::schema(), AnswerParameters::schema())
    }
}

impl ToSchema for ChatCompletionRequest {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        ChatParameters::schemas(schemas);
        AnswerParameters::schemas(schemas);
    }
}

/// What only conversations have.
#[derive(ToSchema)]
struct ChatParameters {
    /// The name of a model, or another name for it.
    #[schema(example = "gpt-4o")]
    model: String,
    /// The conversation so far.
    #[schema(min_items = 1, max_items = 10000)]
    messages: Vec<ChatMessage>,
    /// Say no more than so many tokens. Left out: as many as the context has room for.
    #[schema(minimum = 1, maximum = 4294967295_u32, example = 1024)]
    max_tokens: Option<u64>,
    /// The newer name of `max_tokens`; where both are sent they must be equal.
    #[schema(minimum = 1, maximum = 4294967295_u32, example = 1024)]
    max_completion_tokens: Option<u64>,
    /// Tell how likely each token was.
    #[schema(default = false, example = true)]
    logprobs: Option<bool>,
    /// Tell so many of the likeliest tokens in each place; needs `logprobs`.
    #[schema(minimum = 0, maximum = 20, example = 2)]
    top_logprobs: Option<u32>,
    /// Begin the assistant's message before the answer.
    #[schema(default = true, example = true)]
    add_generation_prompt: Option<bool>,
    /// Go on with the last message, which must be the assistant's, instead of beginning another.
    #[schema(default = false, example = false)]
    continue_final_message: Option<bool>,
    /// Variables of the model's own template.
    chat_template_kwargs: Option<TemplateVariables>,
    /// In which form to answer; text is the only one.
    response_format: Option<ResponseFormat>,
    #[schema(schema_with = no_tools)]
    tools: Option<Vec<Value>>,
    #[schema(schema_with = only_none)]
    tool_choice: Option<String>,
    #[schema(schema_with = only_none)]
    function_call: Option<String>,
    #[schema(schema_with = only_text)]
    modalities: Option<Vec<String>>,
    /// Answers are not stored: only `false`.
    #[schema(schema_with = only_false)]
    store: Option<bool>,
    #[schema(schema_with = service_tier)]
    service_tier: Option<String>,
    /// Accepted, without effect.
    #[schema(schema_with = metadata)]
    metadata: Option<BTreeMap<String, String>>,
    /// Accepted, without effect.
    #[schema(example = "user-1234")]
    safety_identifier: Option<String>,
    /// Accepted, without effect: the cache finds by itself what begins alike.
    #[schema(example = "my-prompts")]
    prompt_cache_key: Option<String>,
}

/// A message of a conversation.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
struct ChatMessage {
    /// Who says it. `developer` is the newer name of `system`.
    role: ChatRole,
    /// What is said: a text, or parts that are put together.
    #[schema(schema_with = content)]
    content: String,
    /// Who of those with this role says it, for templates that tell them apart.
    #[schema(example = "ada")]
    name: Option<String>,
    /// What the assistant thought before, for templates that show it.
    #[schema(example = "The user greets me.")]
    reasoning_content: Option<String>,
    #[schema(schema_with = nothing_in_it)]
    tool_calls: Option<Vec<Value>>,
    #[schema(schema_with = nothing_in_it)]
    annotations: Option<Vec<Value>>,
}

/// Who speaks.
#[derive(ToSchema)]
#[serde(rename_all = "lowercase")]
enum ChatRole {
    System,
    Developer,
    User,
    Assistant,
}

/// Variables of the model's own template.
#[derive(ToSchema)]
#[schema(as = ChatTemplateVariables)]
#[serde(deny_unknown_fields)]
struct TemplateVariables {
    /// Let a model think that can.
    #[schema(example = false)]
    enable_thinking: Option<bool>,
}

/// In which form to answer.
#[derive(ToSchema)]
#[schema(as = ChatResponseFormat)]
#[serde(deny_unknown_fields)]
struct ResponseFormat {
    #[schema(schema_with = format_of_text)]
    r#type: String,
}

fn content() -> Schema {
    let text = json!({"type": "string", "enum": ["text"]});
    let part = json!({"type": "object", "title": "ChatTextPart", "required": ["type", "text"],
        "additionalProperties": false, "properties": {"type": text, "text": {"type": "string"}},
        "example": {"type": "text", "text": "Hello!"}});
    let parts = json!({"type": "array", "minItems": 1, "maxItems": 1000, "items": part});
    written(json!({"oneOf": [{"type": "string"}, parts], "example": "Hello!",
        "description": "What is said: a text, or parts that are put together."}))
}

fn nothing_in_it() -> Schema {
    written(json!({"type": ["array", "null"], "items": {"type": "object"}, "maxItems": 0, "example": [],
        "description": "An earlier answer may be sent back with an empty list here; more is refused."}))
}

fn no_tools() -> Schema {
    written(json!({"type": ["array", "null"], "items": {"type": "object"}, "maxItems": 0, "example": [],
        "description": "Tools cannot be called yet: an empty list is let through."}))
}

fn only_none() -> Schema {
    written(json!({"type": ["string", "null"], "enum": ["none", null], "example": "none",
        "description": "Tools cannot be called yet: only `none`."}))
}

fn only_text() -> Schema {
    written(json!({"type": ["array", "null"], "items": {"type": "string", "enum": ["text"]}, "minItems": 1,
        "maxItems": 1, "example": ["text"], "description": "The models here write text."}))
}

fn format_of_text() -> Schema {
    written(json!({"type": "string", "enum": ["text"], "example": "text", "description": "Only `text`."}))
}

fn service_tier() -> Schema {
    written(json!({"type": ["string", "null"], "enum": ["auto", "default", null], "example": "auto",
        "description": "There is one tier."}))
}

fn metadata() -> Schema {
    written(json!({"type": ["object", "null"], "additionalProperties": {"type": "string"},
        "example": {"job": "nightly"}, "description": "Accepted, without effect."}))
}

/// A whole answer.
#[derive(ToSchema)]
#[schema(example = json!({
    "id": "chatcmpl-4f1c5fd0a3c14c5c8d9f6f8c2b7e9a10",
    "object": "chat.completion",
    "created": 1_677_652_288,
    "model": "gpt-4o",
    "system_fingerprint": "fp_4c3f2a1b0d9e8f70",
    "choices": [{
        "index": 0,
        "message": {"role": "assistant", "content": "Hello there! How can I help you today?", "refusal": null},
        "logprobs": null,
        "finish_reason": "stop"
    }],
    "usage": {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21,
        "prompt_tokens_details": {"cached_tokens": 0}}
}))]
pub struct OpenAiChatCompletion {
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
    /// As many as were asked for by `n`.
    choices: Vec<ChatChoice>,
    usage: Usage,
}

/// A piece of an answer: the data of one event. After the last comes `[DONE]`; if something goes wrong on the way, an
/// event with `error` instead, and no `[DONE]`.
#[derive(ToSchema)]
#[schema(example = json!({
    "id": "chatcmpl-4f1c5fd0a3c14c5c8d9f6f8c2b7e9a10",
    "object": "chat.completion.chunk",
    "created": 1_694_268_190,
    "model": "gpt-4o",
    "system_fingerprint": "fp_4c3f2a1b0d9e8f70",
    "choices": [{"index": 0, "delta": {"content": "Hello"}, "logprobs": null, "finish_reason": null}]
}))]
pub struct OpenAiChatCompletionChunk {
    /// The same in all pieces of an answer.
    #[schema(example = "chatcmpl-4f1c5fd0a3c14c5c8d9f6f8c2b7e9a10")]
    id: String,
    /// Always `chat.completion.chunk`.
    #[schema(example = "chat.completion.chunk")]
    object: String,
    /// Seconds since 1970.
    #[schema(example = 1694268190)]
    created: u64,
    /// The model as it was asked for.
    #[schema(example = "gpt-4o")]
    model: String,
    /// Same fingerprint, same request and seed: same answer.
    #[schema(example = "fp_4c3f2a1b0d9e8f70")]
    system_fingerprint: String,
    /// One, or none in the piece that tells the usage.
    choices: Vec<ChunkChoice>,
    /// Only with `stream_options.include_usage`: in the last piece, and null in all others.
    usage: Option<Usage>,
}
