//! What Ollama's requests and answers look like, for the description of the API and for nothing else.
//!
//! Requests are read member by member and never become these types. What is always refused is not here.

#![allow(dead_code, reason = "only the description of the API is made from the fields")]

use std::borrow::Cow;

use serde_json::{Value, json};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;
use utoipa::{PartialSchema, ToSchema};

use crate::api::openai::schema::written;
use crate::http::openapi::joined;

/// A conversation, and how it is to be answered.
pub struct ChatRequest;

/// A prompt, and how it is to be answered.
pub struct GenerateRequest;

impl PartialSchema for ChatRequest {
    fn schema() -> RefOr<Schema> {
        let description = "A conversation, and how it is to be answered.";
        joined(description, Conversation::schema(), AnswerParameters::schema())
    }
}

impl PartialSchema for GenerateRequest {
    fn schema() -> RefOr<Schema> {
        joined("A prompt, and how it is to be answered.", Question::schema(), AnswerParameters::schema())
    }
}

impl ToSchema for ChatRequest {
    fn name() -> Cow<'static, str> {
        "OllamaChatRequest".into()
    }
}

impl ToSchema for GenerateRequest {
    fn name() -> Cow<'static, str> {
        "OllamaGenerateRequest".into()
    }
}

/// What only conversations have.
#[derive(ToSchema)]
struct Conversation {
    /// The name of a model, or another name for it; `:latest` may stand behind it.
    #[schema(example = "llama3.2")]
    model: String,
    #[schema(schema_with = messages)]
    messages: Option<Vec<Value>>,
    #[schema(schema_with = tools)]
    tools: Option<Vec<Value>>,
}

/// What only prompts have.
#[derive(ToSchema)]
struct Question {
    /// The name of a model, or another name for it; `:latest` may stand behind it.
    #[schema(example = "llama3.2")]
    model: String,
    /// What is to be answered. Left out: the model is loaded, or with `keep_alive` 0 unloaded.
    prompt: Option<String>,
    /// What stands behind the gap that the answer is to fill, where the model knows how.
    suffix: Option<String>,
    /// What the assistant is, or how it is to answer.
    system: Option<String>,
    /// Continue the prompt as it is, without the model's template.
    #[schema(default = false)]
    raw: Option<bool>,
}

/// How an answer is made.
#[derive(ToSchema)]
struct AnswerParameters {
    #[schema(schema_with = format)]
    format: Option<Value>,
    #[schema(schema_with = think)]
    think: Option<Value>,
    #[schema(schema_with = options)]
    options: Option<Value>,
    /// Send the answer piece by piece, in lines.
    #[schema(default = true)]
    stream: Option<bool>,
    /// Tell how likely each token was.
    #[schema(default = false)]
    logprobs: Option<bool>,
    /// Tell so many of the likeliest tokens in each place; needs `logprobs`.
    #[schema(minimum = 0, maximum = 20)]
    top_logprobs: Option<u32>,
    #[schema(schema_with = keep_alive)]
    keep_alive: Option<Value>,
    #[schema(schema_with = fits)]
    truncate: Option<bool>,
    #[schema(schema_with = fits)]
    shift: Option<bool>,
}

/// Texts to embed.
#[derive(ToSchema)]
#[schema(as = OllamaEmbedRequest)]
#[serde(deny_unknown_fields)]
pub struct EmbedRequest {
    /// The name of a model, or another name for it; `:latest` may stand behind it.
    #[schema(example = "all-minilm")]
    model: String,
    #[schema(schema_with = input)]
    input: Value,
    /// Only as many as the model's vectors have.
    #[schema(minimum = 1, maximum = 4294967295_u32)]
    dimensions: Option<u64>,
    /// Cut a text that is too long; `false`: refuse it.
    #[schema(default = true)]
    truncate: Option<bool>,
    #[schema(schema_with = without_effect)]
    options: Option<Value>,
    #[schema(schema_with = keep_alive)]
    keep_alive: Option<Value>,
}

/// A text to embed.
#[derive(ToSchema)]
#[schema(as = OllamaEmbeddingsRequest)]
#[serde(deny_unknown_fields)]
pub struct EmbeddingsRequest {
    /// The name of a model, or another name for it; `:latest` may stand behind it.
    #[schema(example = "all-minilm")]
    model: String,
    /// The text; an empty one has an empty vector.
    prompt: String,
    #[schema(schema_with = without_effect)]
    options: Option<Value>,
    #[schema(schema_with = keep_alive)]
    keep_alive: Option<Value>,
}

/// Which model.
#[derive(ToSchema)]
#[schema(as = OllamaShowRequest)]
#[serde(deny_unknown_fields)]
pub struct ShowRequest {
    /// The name of a model, or another name for it; `:latest` may stand behind it.
    #[schema(example = "llama3.2")]
    model: String,
    /// Without effect: all is said.
    verbose: Option<bool>,
}

/// An answer; in a stream the last line, and those before it have `done` false and no figures.
#[derive(ToSchema)]
#[schema(as = OllamaLine)]
pub struct Line {
    /// The model as it was asked for.
    model: String,
    /// When it was written.
    #[schema(example = "2025-02-19T00:00:00.000Z")]
    created_at: String,
    #[schema(schema_with = said)]
    message: Option<Value>,
    /// Of `/api/generate`: the text.
    #[schema(nullable = false)]
    response: Option<String>,
    /// Of `/api/generate`: what was thought.
    #[schema(nullable = false)]
    thinking: Option<String>,
    /// Whether it is complete.
    done: bool,
    /// Why it ended: `stop`, `length`, `load`, or `unload`.
    #[schema(nullable = false, example = "stop")]
    done_reason: Option<String>,
    /// Nanoseconds in all, as measured here.
    #[schema(nullable = false)]
    total_duration: Option<u64>,
    /// Nanoseconds until the model was there.
    #[schema(nullable = false)]
    load_duration: Option<u64>,
    /// Tokens of the prompt.
    #[schema(nullable = false)]
    prompt_eval_count: Option<u32>,
    /// Nanoseconds until the prompt had been run, waiting included.
    #[schema(nullable = false)]
    prompt_eval_duration: Option<u64>,
    /// Tokens of the answer.
    #[schema(nullable = false)]
    eval_count: Option<u32>,
    /// Nanoseconds of the answer.
    #[schema(nullable = false)]
    eval_duration: Option<u64>,
    #[schema(schema_with = logprobs)]
    logprobs: Option<Vec<Value>>,
}

/// Vectors.
#[derive(ToSchema)]
#[schema(as = OllamaEmbedded)]
pub struct Embedded {
    /// The model as it was asked for.
    model: String,
    /// One for each text.
    embeddings: Vec<Vec<f32>>,
    /// Nanoseconds in all.
    total_duration: u64,
    /// Nanoseconds until the model was there.
    load_duration: u64,
    /// Tokens of all texts.
    prompt_eval_count: u32,
}

/// A vector.
#[derive(ToSchema)]
#[schema(as = OllamaEmbeddedOne)]
pub struct EmbeddedOne {
    /// That of the text.
    embedding: Vec<f32>,
}

/// Models.
#[derive(ToSchema)]
#[schema(as = OllamaTags)]
pub struct Tags {
    models: Vec<Tag>,
}

/// A model.
#[derive(ToSchema)]
#[schema(as = OllamaTag)]
struct Tag {
    /// What to ask for.
    name: String,
    /// The same.
    model: String,
    /// When it was added to this server.
    modified_at: String,
    /// Bytes of its files; 0 where that is not known.
    size: u64,
    /// Tells one entry from another: of its name, not of its files.
    digest: String,
    details: Details,
}

/// Models that are loaded.
#[derive(ToSchema)]
#[schema(as = OllamaRunning)]
pub struct Running {
    models: Vec<RunningModel>,
}

/// A model that is loaded.
#[derive(ToSchema)]
#[schema(as = OllamaRunningModel)]
struct RunningModel {
    /// What to ask for.
    name: String,
    /// The same.
    model: String,
    /// Bytes of memory set aside for it.
    size: u64,
    /// The same: the memory is the device's.
    size_vram: u64,
    /// When it goes by itself: never.
    #[schema(example = "9999-12-31T23:59:59Z")]
    expires_at: String,
    /// Tells one entry from another: of its name, not of its files.
    digest: String,
    details: Details,
    /// Tokens of the longest context.
    #[schema(nullable = false)]
    context_length: Option<u64>,
}

/// What a model is; texts are empty where it is not known.
#[derive(ToSchema)]
#[schema(as = OllamaModelDetails)]
struct Details {
    parent_model: String,
    format: String,
    /// Its architecture.
    family: String,
    families: Vec<String>,
    parameter_size: String,
    quantization_level: String,
}

/// What is known of a model.
#[derive(ToSchema)]
#[schema(as = OllamaShown)]
pub struct Shown {
    /// One that would make this model of itself.
    #[schema(example = "FROM llama3.2\nPARAMETER temperature 0.7\n")]
    modelfile: String,
    /// What it does where a request says nothing, a line each.
    #[schema(example = "temperature                    0.7")]
    parameters: String,
    /// Its format for conversations, in its own words.
    template: String,
    /// The text or the name of its licence; empty where neither its files nor the catalogue say it.
    license: String,
    details: Details,
    #[schema(schema_with = information)]
    model_info: Value,
    /// `completion` or `embedding`; `tools`, `thinking`, and, once it was loaded, `insert`.
    capabilities: Vec<String>,
    /// When it was added to this server.
    modified_at: String,
}

/// A version.
#[derive(ToSchema)]
#[schema(as = OllamaVersion)]
pub struct Version {
    /// That of Ollama whose protocol this is.
    #[schema(example = "0.12.11")]
    version: String,
}

fn call() -> Value {
    json!({"type": "object", "required": ["function"], "additionalProperties": false, "properties": {
        "id": {"type": ["string", "null"]}, "type": {"type": ["string", "null"], "enum": ["function", null]},
        "function": {"type": "object", "required": ["name"], "additionalProperties": false, "properties": {
            "index": {"type": ["integer", "null"]}, "name": {"type": "string"}, "arguments": {"type": ["object", "null"]}}}}})
}

fn messages() -> Schema {
    let text = || json!({"type": ["string", "null"]});
    let message = json!({"type": "object", "required": ["role"], "additionalProperties": false, "properties": {
        "role": {"type": "string", "enum": ["system", "user", "assistant", "tool"]},
        "content": text(), "thinking": text(), "tool_name": text(), "tool_call_id": text(),
        "images": {"type": ["array", "null"], "maxItems": 0, "items": {}},
        "tool_calls": {"type": ["array", "null"], "maxItems": 512, "items": call()}}});
    written(json!({"type": ["array", "null"], "maxItems": 10_000, "items": message,
        "description": "The conversation so far; a last message of the assistant is continued. Left out: the model is loaded, or with `keep_alive` 0 unloaded.",
        "example": [{"role": "user", "content": "Hello!"}]}))
}

fn tools() -> Schema {
    let tool = json!({"type": "object", "required": ["function"], "additionalProperties": false, "properties": {
        "type": {"type": ["string", "null"], "enum": ["function", null]},
        "function": {"type": "object", "required": ["name"], "additionalProperties": false, "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 128}, "description": {"type": ["string", "null"]},
            "parameters": {"type": ["object", "null"]}}}}});
    written(json!({"type": ["array", "null"], "maxItems": 512, "items": tool,
        "description": "Functions that the model may call."}))
}

fn format() -> Schema {
    written(json!({"oneOf": [{"type": "null"}, {"type": "string", "enum": ["", "json"]}, {"type": "object"}],
        "description": "What the answer must be: `json`, or what a JSON schema admits."}))
}

fn think() -> Schema {
    let effort = json!({"type": "string", "enum": ["low", "medium", "high", "max"]});
    written(json!({"oneOf": [{"type": "null"}, {"type": "boolean"}, effort],
        "description": "Whether, or how much, the model thinks first. Left out: as it likes."}))
}

fn options() -> Schema {
    let number =
        |least: f64, most: f64| json!({"type": ["number", "null"], "minimum": least, "maximum": most});
    let text = json!({"type": "string", "minLength": 1, "maxLength": 256});
    written(
        json!({"type": ["object", "null"], "description": "How an answer is made. How a model is loaded is the server's \
            business: such options have no effect.",
        "example": {"temperature": 0.7, "num_predict": 128}, "properties": {
            "temperature": number(0.0, 2.0), "top_p": number(0.0, 1.0), "min_p": number(0.0, 1.0),
            "typical_p": number(0.01, 1.0), "repeat_penalty": number(0.01, 10.0),
            "presence_penalty": number(-2.0, 2.0), "frequency_penalty": number(-2.0, 2.0),
            "top_k": {"type": ["integer", "null"], "format": "int64", "minimum": 0, "maximum": u32::MAX},
            "seed": {"type": ["integer", "null"], "format": "int64"},
            "num_predict": {"type": ["integer", "null"], "format": "int64", "minimum": -2, "maximum": u32::MAX},
            "num_ctx": {"type": ["integer", "null"], "format": "int64", "minimum": 1, "maximum": u32::MAX,
                "description": "Most tokens of prompt and answer together; no more than the model's context."},
            "repeat_last_n": {"type": ["integer", "null"], "minimum": -1,
                "description": "Penalties look at the whole context (-1; 64, which is usual, means the same) or at nothing \
                    (0); anything else is taken only without a penalty."},
            "stop": {"oneOf": [{"type": "null"}, text, {"type": "array", "maxItems": 16, "items": text}]}}}),
    )
}

fn keep_alive() -> Schema {
    written(json!({"oneOf": [{"type": "null"}, {"type": "number"}, {"type": "string"}],
        "description": "A number of seconds, or a time such as `5m`. How long a model stays is the administrator's \
            to say: only 0 has an effect, where nothing is asked, and of one who manages the models: a model that nobody \
            uses goes."}))
}

fn fits() -> Schema {
    written(json!({"type": ["boolean", "null"],
        "description": "Without effect: what fits is not cut, and what does not is refused."}))
}

fn without_effect() -> Schema {
    written(json!({"type": ["object", "null"], "description": "Without effect."}))
}

fn input() -> Schema {
    let text = json!({"type": "string", "minLength": 1});
    written(json!({"oneOf": [text, {"type": "array", "maxItems": 2048, "items": text}],
        "description": "A text, or texts.", "example": ["Good morning", "Bonjour"]}))
}

fn said() -> Schema {
    let text = || json!({"type": "string"});
    written(json!({"type": "object", "description": "Of `/api/chat`: what the assistant says.",
        "required": ["role", "content"], "properties": {"role": text(), "content": text(), "thinking": text(),
            "tool_calls": {"type": "array", "items": call()}}}))
}

fn logprobs() -> Schema {
    let members = || {
        json!({"token": {"type": "string"}, "logprob": {"type": "number"},
        "bytes": {"type": "array", "items": {"type": "integer"}}})
    };
    let mut token = json!({"type": "object", "required": ["token", "logprob"], "properties": members()});
    token["properties"]["top_logprobs"] =
        json!({"type": "array", "items": {"type": "object", "properties": members()}});
    written(
        json!({"type": "array", "items": token, "description": "How likely the tokens were, if that was asked for."}),
    )
}

fn information() -> Schema {
    written(
        json!({"type": "object", "description": "The metadata of its file but for lists and long texts, and its shape as it is \
            served; empty while its files are not on this machine.",
        "example": {"general.architecture": "llama", "general.parameter_count": 1_235_814_432, "llama.context_length": 8192}}),
    )
}
