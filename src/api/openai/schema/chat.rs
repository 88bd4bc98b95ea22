//! Conversations: the request, the answer, a piece of one.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;
use utoipa::{PartialSchema, ToSchema};

use super::{AnswerParameters, written};
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
    /// Functions that the model may call.
    #[schema(max_items = 128)]
    tools: Option<Vec<ChatTool>>,
    #[schema(schema_with = tool_choice)]
    tool_choice: Option<Value>,
    /// Let one answer hold several calls.
    #[schema(default = true, example = false)]
    parallel_tool_calls: Option<bool>,
    /// The older name of `tools`; the answer comes in the older words too, and has one call at most.
    #[schema(max_items = 128)]
    functions: Option<Vec<ChatFunction>>,
    #[schema(schema_with = function_call)]
    function_call: Option<Value>,
    #[schema(schema_with = verbosity)]
    verbosity: Option<String>,
    #[schema(schema_with = prediction)]
    prediction: Option<Value>,
    #[schema(schema_with = reasoning_effort)]
    reasoning_effort: Option<String>,
    /// Think no longer than so many tokens: then the thought is ended for the model, and it answers. Refused for a model that
    /// does not think.
    #[schema(minimum = 0, maximum = 4294967295_u32, example = 256)]
    thinking_budget: Option<u64>,
    /// Another name of `thinking_budget`; where both are sent they must be equal.
    #[schema(minimum = 0, maximum = 4294967295_u32, example = 256)]
    thinking_token_budget: Option<u64>,
    #[schema(schema_with = only_text)]
    modalities: Option<Vec<String>>,
    /// Keep the answer with its `metadata`, so that it can be listed and shown again.
    #[schema(default = false, example = false)]
    store: Option<bool>,
    #[schema(schema_with = service_tier)]
    service_tier: Option<String>,
    #[schema(schema_with = metadata)]
    metadata: Option<BTreeMap<String, String>>,
    /// Whom the request is for; stands in the usage. Goes before `user`.
    #[schema(max_length = 512, example = "user-1234")]
    safety_identifier: Option<String>,
    /// Accepted, without effect: the cache finds by itself what begins alike.
    #[schema(example = "my-prompts")]
    prompt_cache_key: Option<String>,
}

/// A message of a conversation.
#[derive(ToSchema)]
#[schema(example = json!({"role": "assistant", "content": "Let me look.", "name": "ada", "refusal": null,
    "reasoning_content": "That needs a look.", "annotations": [],
    "tool_calls": [{"id": "call_1", "type": "function", "index": 0,
        "function": {"name": "weather", "arguments": "{\"city\": \"Oslo\"}"}}]}))]
#[serde(deny_unknown_fields)]
struct ChatMessage {
    /// Who says it. `developer` is the newer name of `system`, `function` the older one of `tool`.
    role: ChatRole,
    /// What is said: a text, or parts that are put together. May be null beside calls.
    #[schema(schema_with = content)]
    content: Option<String>,
    /// Which call this is the result of; with the role `tool`.
    #[schema(example = "call_1")]
    tool_call_id: Option<String>,
    /// The functions that the assistant called.
    #[schema(max_items = 128)]
    tool_calls: Option<Vec<MessageToolCall>>,
    /// The older form of `tool_calls`.
    function_call: Option<MessageFunctionCall>,
    /// What the assistant would not do: shown to the model where there is no content.
    #[schema(example = "I cannot help with that.")]
    refusal: Option<String>,
    /// Who of those with this role says it, for templates that tell them apart.
    #[schema(example = "ada")]
    name: Option<String>,
    /// What the assistant thought before, for templates that show it.
    #[schema(example = "The user greets me.")]
    reasoning_content: Option<String>,
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
    Tool,
    Function,
}

/// A call that the assistant made.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
struct MessageToolCall {
    /// What its result refers to.
    #[schema(example = "call_1")]
    id: String,
    /// `function`.
    #[schema(example = "function")]
    r#type: Option<String>,
    /// Which call it was; without effect.
    #[schema(example = 0)]
    index: Option<u32>,
    /// What was called, and with what.
    function: MessageFunctionCall,
}

/// What was called, and with what.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
struct MessageFunctionCall {
    /// The function.
    #[schema(example = "weather")]
    name: String,
    /// Its arguments: the text of a JSON object.
    #[schema(example = "{\"city\": \"Oslo\"}")]
    arguments: Option<String>,
}

/// A tool that the model may call: functions are the only kind.
#[derive(ToSchema)]
#[schema(example = json!({"type": "function", "function": {"name": "weather", "description": "The weather in a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": false}}))]
#[serde(deny_unknown_fields)]
struct ChatTool {
    /// `function`.
    #[schema(example = "function")]
    r#type: String,
    /// The function.
    function: ChatFunction,
}

/// A function that the model may call.
#[derive(ToSchema)]
#[schema(example = json!({"name": "weather", "description": "The weather in a city", "strict": false,
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}))]
#[serde(deny_unknown_fields)]
struct ChatFunction {
    /// What it is called by.
    #[schema(min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9_.-]+$", example = "weather")]
    name: String,
    /// What it is for, in words for the model.
    #[schema(example = "The weather in a city")]
    description: Option<String>,
    /// JSON Schema of its arguments, an object.
    #[schema(value_type = Option<Object>)]
    parameters: Option<Value>,
    /// Hold the arguments to the schema while they are made.
    #[schema(default = false, example = true)]
    strict: Option<bool>,
}

/// Variables of the model's own template.
#[derive(ToSchema)]
#[schema(as = ChatTemplateVariables)]
#[serde(deny_unknown_fields)]
struct TemplateVariables {
    /// Let a model think that can.
    #[schema(example = false)]
    enable_thinking: Option<bool>,
    /// The same, by the name that some models' templates have for it.
    #[schema(example = false)]
    thinking: Option<bool>,
}

fn content() -> Schema {
    let text = json!({"type": "string", "enum": ["text"]});
    let part = json!({"type": "object", "title": "ChatTextPart", "required": ["type", "text"],
        "additionalProperties": false, "properties": {"type": text, "text": {"type": "string"}},
        "example": {"type": "text", "text": "Hello!"}});
    let parts = json!({"type": "array", "minItems": 1, "maxItems": 1000, "items": part});
    written(json!({"oneOf": [{"type": "null"}, {"type": "string"}, parts], "example": "Hello!",
        "description": "What is said: a text, or parts that are put together."}))
}

fn nothing_in_it() -> Schema {
    written(json!({"type": ["array", "null"], "items": {"type": "object"}, "maxItems": 0, "example": [],
        "description": "An earlier answer may be sent back with an empty list here; more is refused."}))
}

fn tool_choice() -> Schema {
    let function = json!({"type": "object", "title": "ChatNamedTool", "required": ["type", "function"],
        "additionalProperties": false, "properties": {"type": {"type": "string", "enum": ["function"]},
            "function": {"type": "object", "required": ["name"], "additionalProperties": false,
                "properties": {"name": {"type": "string"}}}},
        "example": {"type": "function", "function": {"name": "weather"}}});
    let allowed = json!({"type": "object", "title": "ChatAllowedTools", "required": ["type", "allowed_tools"],
        "additionalProperties": false, "properties": {"type": {"type": "string", "enum": ["allowed_tools"]},
            "allowed_tools": {"type": "object", "required": ["mode", "tools"], "additionalProperties": false,
                "properties": {"mode": {"type": "string", "enum": ["auto", "required"]},
                    "tools": {"type": "array", "minItems": 1, "maxItems": 128, "items": function}}}}});
    written(
        json!({"example": "auto", "description": "How free the model is to call: `none`, `auto` (as it likes), \
        `required` (at least one), one function by its name, or some of them.",
        "oneOf": [{"type": "null"}, {"type": "string", "enum": ["none", "auto", "required"]}, function, allowed]}),
    )
}

fn function_call() -> Schema {
    let named = json!({"type": "object", "title": "ChatNamedFunction", "required": ["name"],
        "additionalProperties": false, "properties": {"name": {"type": "string"}}});
    written(json!({"example": "auto", "description": "The older name of `tool_choice`, for `functions`.",
        "oneOf": [{"type": "null"}, {"type": "string", "enum": ["none", "auto"]}, named]}))
}

fn reasoning_effort() -> Schema {
    written(json!({"type": ["string", "null"], "example": "low",
        "enum": ["none", "minimal", "low", "medium", "high", "xhigh", null],
        "description": "How much the model is to think before it answers: `none` not at all, the others as finely as its \
            template tells them apart. Refused for a model that does not think."}))
}

fn verbosity() -> Schema {
    written(json!({"type": ["string", "null"], "example": "medium", "enum": ["low", "medium", "high", null],
        "description": "How much the model is to say: `medium` is the usual; the others are refused for a model whose \
            template knows of no `verbosity`."}))
}

fn prediction() -> Schema {
    let part = json!({"type": "object", "title": "PredictionPart", "required": ["type", "text"],
        "additionalProperties": false,
        "properties": {"type": {"type": "string", "enum": ["text"]}, "text": {"type": "string"}}});
    let content = json!({"oneOf": [{"type": "string"}, {"type": "array", "minItems": 1, "maxItems": 1000, "items": part}]});
    written(
        json!({"type": ["object", "null"], "required": ["type", "content"], "additionalProperties": false,
        "properties": {"type": {"type": "string", "enum": ["content"]}, "content": content},
        "example": {"type": "content", "content": "fn main() {}"},
        "description": "What the answer is thought to be, say the text that is to be changed a little: where it is, the \
            answer comes sooner. It is the same in any case. Not together with `n` above 1; at most as many tokens as the \
            model's context."}),
    )
}

fn only_text() -> Schema {
    written(json!({"type": ["array", "null"], "items": {"type": "string", "enum": ["text"]}, "minItems": 1,
        "maxItems": 1, "example": ["text"], "description": "The models here write text."}))
}

fn service_tier() -> Schema {
    written(json!({"type": ["string", "null"], "enum": ["auto", "default", "flex", "priority", null],
        "example": "auto", "description": "Who goes first where not all can: `flex` after all others, `priority` before \
            them, which needs the permission `models:manage`."}))
}

fn metadata() -> Schema {
    written(json!({"type": ["object", "null"], "maxProperties": 16,
        "additionalProperties": {"type": "string", "maxLength": 512}, "example": {"job": "nightly"},
        "description": "What the caller notes of the request; stands in the usage, and beside an answer that is stored."}))
}

/// A whole answer.
#[derive(ToSchema)]
#[schema(example = json!({
    "id": "chatcmpl-4f1c5fd0a3c14c5c8d9f6f8c2b7e9a10",
    "object": "chat.completion",
    "created": 1_677_652_288,
    "model": "gpt-4o",
    "system_fingerprint": "fp_4c3f2a1b0d9e8f70",
    "service_tier": "default",
    "choices": [{
        "index": 0,
        "message": {"role": "assistant", "content": "Hello there! How can I help you today?", "refusal": null},
        "logprobs": null,
        "finish_reason": "stop"
    }],
    "usage": {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21,
        "prompt_tokens_details": {"cached_tokens": 0}, "completion_tokens_details": {"reasoning_tokens": 0,
            "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0},
        "timings": {"prompt_ms": 21.5, "prompt_per_second": 418.6, "predicted_ms": 250.0, "predicted_per_second": 48.0}}
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
    /// Who went first where not all could: `default`, `flex` or `priority`.
    #[schema(example = "default")]
    service_tier: String,
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
    "service_tier": "default",
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
    /// Who went first where not all could: `default`, `flex` or `priority`.
    #[schema(example = "default")]
    service_tier: String,
    /// One, or none in the piece that tells the usage.
    choices: Vec<ChunkChoice>,
    /// Only with `stream_options.include_usage`: in the last piece, and null in all others.
    usage: Option<Usage>,
}
