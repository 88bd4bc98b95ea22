//! `/v1/responses`: the request, the answer, an event, the items.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa::openapi::schema::Schema;

use super::{only_false, written};

/// A question, and how it is to be answered. `null` is the same as leaving out.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResponseRequest {
    /// The name of a model, or another name for it.
    #[schema(example = "gpt-4o")]
    model: String,
    #[schema(schema_with = input)]
    input: String,
    /// What the model is told first. It is not carried on to answers that go on from this one.
    #[schema(example = "Be brief.")]
    instructions: Option<String>,
    /// Go on from an answer that was kept: what it answered and said comes before `input`.
    #[schema(example = "resp_0198c0ffee")]
    previous_response_id: Option<String>,
    /// Keep the answer, so that it can be shown again and gone on from. Left out: as the server is set up, usually kept.
    #[schema(example = true)]
    store: Option<bool>,
    /// Go on though the client leaves: the answer is fetched, followed or cancelled by its id. It must be kept.
    #[schema(default = false, example = false)]
    background: Option<bool>,
    /// Tell each step as a server-sent event.
    #[schema(default = false, example = true)]
    stream: Option<bool>,
    /// Only with `stream`.
    stream_options: Option<ResponseStreamOptions>,
    /// Make no more than so many tokens, thoughts included. Left out: as many as the context has room for.
    #[schema(minimum = 1, maximum = 4294967295_u32, example = 1024)]
    max_output_tokens: Option<u64>,
    /// How much chance there is in the choice of each token; 0 always takes the likeliest. Left out: the model's own.
    #[schema(minimum = 0, maximum = 2, example = 0.7)]
    temperature: Option<f32>,
    /// Choose among the likeliest tokens that have this probability together.
    #[schema(minimum = 0, maximum = 1, example = 0.9)]
    top_p: Option<f32>,
    /// Tell how likely each token was, and so many of the likeliest in each place.
    #[schema(minimum = 0, maximum = 20, default = 0, example = 2)]
    top_logprobs: Option<u32>,
    #[schema(schema_with = include)]
    include: Option<Vec<String>>,
    #[schema(schema_with = tools)]
    tools: Option<Vec<Value>>,
    #[schema(schema_with = tool_choice)]
    tool_choice: Option<String>,
    /// Several functions may be called at once.
    #[schema(default = true, example = true)]
    parallel_tool_calls: Option<bool>,
    /// Bounds the tools that a server runs: there are none, so that it always holds.
    #[schema(minimum = 1, maximum = 4294967295_u32, example = 8)]
    max_tool_calls: Option<u64>,
    /// How much is thought, and how thoughts are shown.
    reasoning: Option<ResponseReasoning>,
    /// In which form to answer.
    text: Option<ResponseText>,
    #[schema(schema_with = truncation)]
    truncation: Option<String>,
    #[schema(schema_with = metadata)]
    metadata: Option<BTreeMap<String, String>>,
    #[schema(schema_with = service_tier)]
    service_tier: Option<String>,
    /// Who asks on whose behalf; shown again, without other effect.
    #[schema(example = "user-1234")]
    user: Option<String>,
    /// The newer name of `user`; shown again, without other effect.
    #[schema(max_length = 64, example = "user-1234")]
    safety_identifier: Option<String>,
    /// Shown again, without other effect: the cache finds by itself what begins alike.
    #[schema(max_length = 512, example = "my-prompts")]
    prompt_cache_key: Option<String>,
}

/// A question whose tokens are to be counted. `null` is the same as leaving out.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResponseQuestion {
    /// The name of a model, or another name for it.
    #[schema(example = "gpt-4o")]
    model: String,
    #[schema(schema_with = input)]
    input: String,
    /// What the model is told first.
    #[schema(example = "Be brief.")]
    instructions: Option<String>,
    /// Go on from an answer that was kept.
    #[schema(example = "resp_0198c0ffee")]
    previous_response_id: Option<String>,
    #[schema(schema_with = tools)]
    tools: Option<Vec<Value>>,
    #[schema(schema_with = tool_choice)]
    tool_choice: Option<String>,
    /// Several functions may be called at once.
    #[schema(default = true, example = true)]
    parallel_tool_calls: Option<bool>,
    /// Bounds the tools that a server runs: there are none, so that it always holds.
    #[schema(minimum = 1, maximum = 4294967295_u32, example = 8)]
    max_tool_calls: Option<u64>,
    /// How much is thought.
    reasoning: Option<ResponseReasoning>,
    /// In which form to answer.
    text: Option<ResponseText>,
    #[schema(schema_with = truncation)]
    truncation: Option<String>,
}

/// How many tokens a question has.
#[derive(ToSchema)]
pub struct OpenAiResponseTokens {
    /// Always `response.input_tokens`.
    #[schema(example = "response.input_tokens")]
    object: String,
    /// Of instructions, tools, what came before and what is new, as the model is shown them.
    #[schema(example = 11)]
    input_tokens: u64,
}

/// What a stream says beside the answer.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
struct ResponseStreamOptions {
    #[schema(schema_with = only_false)]
    include_obfuscation: Option<bool>,
}

/// How much is thought, and how thoughts are shown.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
struct ResponseReasoning {
    /// How much, by a model that can think.
    #[schema(schema_with = effort)]
    effort: Option<String>,
    /// Show thoughts as a summary (whole: they are not shortened). Left out: as what they are.
    #[schema(schema_with = summary)]
    summary: Option<String>,
    #[schema(schema_with = context)]
    context: Option<String>,
    #[schema(schema_with = mode)]
    mode: Option<String>,
}

/// In which form to answer.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
struct ResponseText {
    #[schema(schema_with = format)]
    format: Option<String>,
    #[schema(schema_with = verbosity)]
    verbosity: Option<String>,
}

fn input() -> Schema {
    let items = json!({"type": "array", "minItems": 1, "maxItems": 10000, "items": {"type": "object",
        "title": "ResponseInputItem", "properties": {"type": {"type": ["string", "null"]}},
        "example": {"type": "message", "role": "user", "content": "Hello!"}}});
    written(json!({"oneOf": [{"type": "string"}, items], "example": "Hello!",
        "description": "What is asked: a text, or items. An item is a message (`role`, `content`), what the model thought \
            (`reasoning`), a function it called (`function_call`) or what that gave (`function_call_output`). An \
            `item_reference` with the `id` that this server gave to an item, asked or answered, stands for that item as long \
            as the answer that first had it is kept."}))
}

fn include() -> Schema {
    written(json!({"type": ["array", "null"], "maxItems": 16, "example": ["message.output_text.logprobs"],
        "items": {"type": "string", "enum": ["message.output_text.logprobs", "reasoning.encrypted_content"]},
        "description": "What else is in the answer: log-probabilities; thoughts in a form that is carried from request to \
            request without being looked at."}))
}

fn tools() -> Schema {
    written(json!({"type": ["array", "null"], "items": {"type": "object"}, "maxItems": 0, "example": [],
        "description": "Functions cannot be called yet: an empty list is let through."}))
}

fn tool_choice() -> Schema {
    written(
        json!({"oneOf": [{"type": "null"}, {"type": "string", "enum": ["none", "auto"]}, {"type": "object",
        "title": "ResponseToolChoice", "required": ["type"], "properties": {"type": {"type": "string"}},
        "example": {"type": "function", "name": "weather"}}], "example": "auto", "default": "auto",
        "description": "How free the model is to call: `none`, `auto`, `required`, one function by its name, or \
            `allowed_tools` with a `mode`."}),
    )
}

fn choice_of(names: &[&str], description: &str) -> Schema {
    let all: Vec<Value> = names.iter().map(|name| json!(name)).chain([Value::Null]).collect();
    written(json!({"type": ["string", "null"], "enum": all, "example": names[0], "description": description}))
}

fn effort() -> Schema {
    choice_of(
        &["medium", "none", "minimal", "low", "high", "xhigh", "max"],
        "How much, by a model that can think.",
    )
}

fn summary() -> Schema {
    choice_of(&["auto", "detailed"], "Show thoughts as a summary (whole). Left out: as what they are.")
}

fn context() -> Schema {
    choice_of(&["auto"], "Earlier thoughts are shown to the model as its template does.")
}

fn mode() -> Schema {
    choice_of(&["standard"], "There is one mode.")
}

fn verbosity() -> Schema {
    let description = "How much the model is to say: `medium` is the usual; the others are refused for a model whose \
        template knows of no `verbosity`.";
    choice_of(&["low", "medium", "high"], description)
}

fn truncation() -> Schema {
    let description = "What becomes of a conversation that does not fit the model's context: refused with `disabled`, the \
        usual; with `auto` its oldest turns go until there is room for `max_output_tokens` (at most half of the context; an \
        eighth where it is not said). What system and developer say stays, and so does the last turn.";
    choice_of(&["disabled", "auto"], description)
}

fn service_tier() -> Schema {
    let description = "Who goes first where not all can: `flex` after all others, `priority` before them, which needs the \
        permission `models:manage`. What is made in the background comes after all others in any case.";
    choice_of(&["auto", "default", "flex", "priority"], description)
}

fn format() -> Schema {
    written(json!({"type": ["object", "null"], "required": ["type"], "example": {"type": "text"},
        "properties": {"type": {"type": "string", "enum": ["text", "json_object", "json_schema"]}},
        "description": "`text`; `json_object`: any object; `json_schema` with `name` and `schema`: what the schema admits."}))
}

fn metadata() -> Schema {
    written(json!({"type": ["object", "null"], "maxProperties": 16, "example": {"job": "nightly"},
        "additionalProperties": {"type": "string", "maxLength": 512},
        "description": "Shown again, without other effect. Keys have 1 to 64 characters."}))
}

/// An answer, as far as it is made.
#[derive(ToSchema)]
#[schema(example = json!({
    "id": "resp_0198c0ffee0198c0ffee0198c0ffee01",
    "object": "response",
    "created_at": 1_741_476_542,
    "status": "completed",
    "model": "gpt-4o",
    "output": [{"id": "msg_0198c0ffee", "type": "message", "status": "completed", "role": "assistant",
        "content": [{"type": "output_text", "text": "Hello there!", "annotations": [], "logprobs": []}]}],
    "error": null,
    "usage": {"input_tokens": 9, "input_tokens_details": {"cache_write_tokens": 0, "cached_tokens": 0},
        "output_tokens": 12, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 21}
}))]
pub struct OpenAiResponse {
    /// Names this answer.
    #[schema(example = "resp_0198c0ffee0198c0ffee0198c0ffee01")]
    id: String,
    /// Always `response`.
    #[schema(example = "response")]
    object: String,
    /// Seconds since 1970.
    #[schema(example = 1741476542)]
    created_at: u64,
    /// `queued`, `in_progress`, `completed`, `incomplete`, `failed` or `cancelled`.
    #[schema(example = "completed")]
    status: String,
    /// The model as it was asked for.
    #[schema(example = "gpt-4o")]
    model: String,
    /// What the model thought, said and called: items.
    #[schema(schema_with = objects)]
    output: Vec<Value>,
    /// Why it failed; null if it did not.
    #[schema(schema_with = object_or_null)]
    error: Option<Value>,
    /// Tokens; null until it is over.
    #[schema(schema_with = object_or_null)]
    usage: Option<Value>,
}

fn objects() -> Schema {
    written(json!({"type": "array", "items": {"type": "object"}, "example": [],
        "description": "Items: `message`, `reasoning`, `function_call`, `function_call_output`."}))
}

fn object_or_null() -> Schema {
    written(json!({"type": ["object", "null"], "example": null, "description": "Null while there is none."}))
}

/// A step of an answer: the data of one event, whose name is its `type`.
#[derive(ToSchema)]
#[schema(example = json!({"type": "response.output_text.delta", "sequence_number": 4, "item_id": "msg_0198c0ffee",
    "output_index": 0, "content_index": 0, "delta": "Hello", "logprobs": []}))]
pub struct OpenAiResponseEvent {
    /// What happened.
    #[schema(example = "response.output_text.delta")]
    r#type: String,
    /// Its number in the stream, from 0.
    #[schema(example = 4)]
    sequence_number: u64,
}

/// What is said of an answer that was deleted.
#[derive(ToSchema)]
pub struct OpenAiDeletedResponse {
    /// Named it.
    #[schema(example = "resp_0198c0ffee0198c0ffee0198c0ffee01")]
    id: String,
    /// Always `response`.
    #[schema(example = "response")]
    object: String,
    /// Always true.
    #[schema(example = true)]
    deleted: bool,
}

/// One page of items.
#[derive(ToSchema)]
pub struct OpenAiResponseItems {
    /// Always `list`.
    #[schema(example = "list")]
    object: String,
    /// The items.
    #[schema(schema_with = objects)]
    data: Vec<Value>,
    /// The id of the first; null if there is none.
    #[schema(example = "msg_0198c0ffee")]
    first_id: Option<String>,
    /// The id of the last; null if there is none.
    #[schema(example = "msg_0198c0ffee")]
    last_id: Option<String>,
    /// There are more after these.
    #[schema(example = false)]
    has_more: bool,
}
