//! What requests below `/v1/messages` look like, for the description of the API and for nothing else.
//!
//! Requests are read member by member and never become these types; a test keeps both in step. What is always refused is
//! not here.

#![allow(dead_code, reason = "only the description of the API is made from the fields")]

use serde_json::{Value, json};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;
use utoipa::{PartialSchema, ToSchema};

use crate::api::openai::schema::written;
use crate::http::openapi::joined;

/// A conversation, and how it is to be answered.
pub struct MessagesRequest;

impl PartialSchema for MessagesRequest {
    fn schema() -> RefOr<Schema> {
        let description = "A conversation, and how it is to be answered. `null` is the same as leaving out.";
        joined(description, Question::schema(), AnswerParameters::schema())
    }
}

impl ToSchema for MessagesRequest {
    fn name() -> std::borrow::Cow<'static, str> {
        "AnthropicMessagesRequest".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        Question::schemas(schemas);
        AnswerParameters::schemas(schemas);
    }
}

/// A conversation that is to be counted.
pub struct CountTokensRequest;

impl PartialSchema for CountTokensRequest {
    fn schema() -> RefOr<Schema> {
        joined(
            "A conversation that is to be counted.",
            Question::schema(),
            RefOr::T(written(json!({"type": "object"}))),
        )
    }
}

impl ToSchema for CountTokensRequest {
    fn name() -> std::borrow::Cow<'static, str> {
        "AnthropicCountTokensRequest".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        Question::schemas(schemas);
    }
}

/// What the model is shown.
#[derive(ToSchema)]
struct Question {
    /// The name of a model, or another name for it.
    #[schema(example = "claude-sonnet-4-5")]
    model: String,
    #[schema(schema_with = messages)]
    messages: Vec<Value>,
    #[schema(schema_with = system)]
    system: Option<String>,
    #[schema(schema_with = tools)]
    tools: Option<Vec<Value>>,
    #[schema(schema_with = tool_choice)]
    tool_choice: Option<Value>,
    #[schema(schema_with = thinking)]
    thinking: Option<Value>,
    #[schema(schema_with = output_config)]
    output_config: Option<Value>,
    #[schema(schema_with = output_format)]
    output_format: Option<Value>,
    #[schema(schema_with = cache_control)]
    cache_control: Option<Value>,
    #[schema(schema_with = speed)]
    speed: Option<String>,
}

/// How an answer is made.
#[derive(ToSchema)]
struct AnswerParameters {
    /// Say no more than so many tokens, thoughts included.
    #[schema(minimum = 0, maximum = 4294967295_u32, example = 1024)]
    max_tokens: u64,
    /// Send the answer piece by piece, as server-sent events.
    #[schema(default = false, example = true)]
    stream: Option<bool>,
    /// How much chance there is in the choice of each token; 0 always takes the likeliest. Left out: the model's own.
    #[schema(minimum = 0, maximum = 1, example = 0.7)]
    temperature: Option<f32>,
    /// Choose among the likeliest tokens that have this probability together.
    #[schema(minimum = 0, maximum = 1, example = 0.9)]
    top_p: Option<f32>,
    /// Choose among so many tokens; 0 means all.
    #[schema(minimum = 0, maximum = 4294967295_u32, example = 40)]
    top_k: Option<u64>,
    #[schema(schema_with = stop_sequences)]
    stop_sequences: Option<Vec<String>>,
    #[schema(schema_with = metadata)]
    metadata: Option<Value>,
    #[schema(schema_with = service_tier)]
    service_tier: Option<String>,
}

fn control() -> Value {
    json!({"type": ["object", "null"], "required": ["type"], "additionalProperties": false,
        "description": "Without effect: the cache finds by itself what begins alike.",
        "example": {"type": "ephemeral"}, "properties": {
            "type": {"type": "string", "enum": ["ephemeral"]},
            "ttl": {"type": ["string", "null"], "enum": ["5m", "1h", null]}}})
}

fn cache_control() -> Schema {
    written(control())
}

/// A block of any kind; which members belong to which kind is said in words.
fn block() -> Value {
    let text = |description: &str| json!({"type": ["string", "null"], "description": description});
    json!({"type": "object", "required": ["type"], "additionalProperties": false, "properties": {
        "type": {"type": "string", "enum": ["text", "thinking", "redacted_thinking", "tool_use", "tool_result"]},
        "text": text("Of `text`: what is said."),
        "citations": {"type": ["array", "null"], "maxItems": 0, "items": {}, "description": "Of `text`: none."},
        "thinking": text("Of `thinking`: what the assistant thought before."),
        "signature": text("Of `thinking`: without effect."),
        "data": text("Of `redacted_thinking`: without effect; nobody here can read it."),
        "id": text("Of `tool_use`: what the result refers to."),
        "name": text("Of `tool_use`: the function."),
        "input": {"type": ["object", "null"], "description": "Of `tool_use`: the arguments."},
        "caller": {"type": ["object", "null"], "additionalProperties": false, "required": ["type"],
            "properties": {"type": {"type": "string", "enum": ["direct"]}}, "description": "Of `tool_use`: the model."},
        "tool_use_id": text("Of `tool_result`: which call gave it."),
        "content": {"description": "Of `tool_result`: a text, or blocks of text.", "oneOf": [{"type": "null"},
            {"type": "string"}, {"type": "array", "minItems": 1, "maxItems": 1000, "items": text_block()}]},
        "is_error": {"type": ["boolean", "null"], "description": "Of `tool_result`: the call failed."},
        "cache_control": control()}})
}

fn text_block() -> Value {
    json!({"type": "object", "required": ["type", "text"], "additionalProperties": false, "properties": {
        "type": {"type": "string", "enum": ["text"]},
        "text": {"type": "string"},
        "citations": {"type": ["array", "null"], "maxItems": 0, "items": {}},
        "cache_control": control()}})
}

fn messages() -> Schema {
    let blocks = json!({"type": "array", "minItems": 1, "maxItems": 1000, "items": block()});
    let message = json!({"type": "object", "required": ["role", "content"], "additionalProperties": false, "properties": {
        "role": {"type": "string", "enum": ["user", "assistant", "system"]},
        "content": {"oneOf": [{"type": "string"}, blocks]}}, "example": {"role": "user", "content": "Hello!"}});
    written(json!({"type": "array", "minItems": 1, "items": message,
        "description": "The conversation so far, 10,000 messages at most. Messages of one role that follow each other become one; a last one of the \
            assistant is continued.",
        "example": [
            {"role": "user", "content": "Weather in Paris?"},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "I must look.", "signature": ""},
                {"type": "redacted_thinking", "data": ""},
                {"type": "text", "text": "Let me see.", "cache_control": {"type": "ephemeral", "ttl": "5m"}},
                {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}, "caller": {"type": "direct"}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "Rain."}]}]}))
}

fn system() -> Schema {
    let blocks = json!({"type": "array", "minItems": 1, "items": text_block()});
    written(json!({"oneOf": [{"type": "null"}, {"type": "string"}, blocks],
        "description": "What the assistant is, or how it is to answer: a text, or at most 1,000 blocks that are put together.",
        "example": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]}))
}

fn tools() -> Schema {
    let tool = json!({"type": "object", "required": ["name", "input_schema"], "additionalProperties": false,
        "properties": {
            "type": {"type": "string", "enum": ["custom"]},
            "name": {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,128}$"},
            "description": {"type": ["string", "null"]},
            "input_schema": {"type": "object", "description": "JSON Schema of the arguments, an object."},
            "strict": {"type": ["boolean", "null"], "default": false, "description": "Hold the arguments to the schema."},
            "defer_loading": {"type": ["boolean", "null"], "description": "Only `false`."},
            "eager_input_streaming": {"type": ["boolean", "null"], "description": "Only `true`."},
            "allowed_callers": {"type": ["array", "null"], "minItems": 1, "maxItems": 1, "items": {"type": "string", "enum": ["direct"]}},
            "cache_control": control()}});
    written(
        json!({"type": ["array", "null"], "items": tool, "description": "Functions that the model may call; 512 at most.",
        "example": [{"name": "weather", "description": "Tells the weather in a city.", "input_schema": {"type": "object",
            "properties": {"city": {"type": "string"}}, "required": ["city"]}}]}),
    )
}

fn tool_choice() -> Schema {
    written(
        json!({"type": ["object", "null"], "required": ["type"], "additionalProperties": false, "properties": {
            "type": {"type": "string", "enum": ["auto", "any", "tool", "none"]},
            "name": {"type": ["string", "null"], "description": "With `tool`: which."},
            "disable_parallel_tool_use": {"type": ["boolean", "null"], "description": "At most one call in an answer."}},
        "description": "How free the model is to call: as it likes, at least once, this one, not at all.",
        "example": {"type": "auto"}}),
    )
}

fn thinking() -> Schema {
    written(
        json!({"type": ["object", "null"], "required": ["type"], "additionalProperties": false, "properties": {
            "type": {"type": "string", "enum": ["enabled", "adaptive", "disabled"]},
            "budget_tokens": {"type": ["integer", "null"], "format": "int64", "minimum": 1, "maximum": u32::MAX,
                "description": "With `enabled`: most tokens of thought, less than `max_tokens`."},
            "display": {"type": ["string", "null"], "enum": ["summarized", "omitted", null],
                "description": "`omitted`: say only that there was a thought."}},
        "description": "Whether the model thinks first. Left out: as it likes.",
        "example": {"type": "adaptive", "display": "summarized"}}),
    )
}

fn json_schema() -> Value {
    json!({"type": ["object", "null"], "required": ["type", "schema"], "additionalProperties": false, "properties": {
        "type": {"type": "string", "enum": ["json_schema"]}, "schema": {"type": "object"}}})
}

fn output_config() -> Schema {
    written(json!({"type": ["object", "null"], "additionalProperties": false, "properties": {
            "effort": {"type": ["string", "null"], "enum": ["low", "medium", "high", "xhigh", "max", null]},
            "format": json_schema()},
        "description": "How much the model thinks, and what its answer may be.",
        "example": {"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object"}}}}))
}

fn output_format() -> Schema {
    let mut format = json_schema();
    format["description"] = "The older name of `output_config.format`.".into();
    format["example"] = json!({"type": "json_schema", "schema": {"type": "object"}});
    written(format)
}

fn speed() -> Schema {
    written(
        json!({"type": ["string", "null"], "enum": ["standard", null], "description": "There is one speed."}),
    )
}

fn stop_sequences() -> Schema {
    written(json!({"type": ["array", "null"], "maxItems": 16, "example": ["\n\n"],
        "items": {"type": "string", "minLength": 1, "maxLength": 256},
        "description": "The answer ends before any of these texts; each has 256 bytes at most."}))
}

fn metadata() -> Schema {
    written(json!({"type": ["object", "null"], "additionalProperties": false, "example": {"user_id": "u-1"},
        "properties": {"user_id": {"type": ["string", "null"]}},
        "description": "On whose behalf somebody asks; without effect."}))
}

fn service_tier() -> Schema {
    written(json!({"type": ["string", "null"], "enum": ["auto", "standard_only", null],
        "description": "There is one tier."}))
}
