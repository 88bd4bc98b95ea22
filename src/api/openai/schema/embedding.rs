//! Vectors for texts: the request and the answer.

use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa::openapi::schema::Schema;

use super::{texts_or_tokens, written};
use crate::api::openai::embeddings::MAX_INPUTS;

/// Texts, and how their vectors are to be sent. `null` is the same as leaving out.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EmbeddingRequest {
    /// The name of an embedding model, or another name for it.
    #[schema(example = "text-embedding-3-small")]
    model: String,
    #[schema(schema_with = input)]
    input: String,
    #[schema(schema_with = encoding_format)]
    encoding_format: Option<String>,
    /// How long the vectors are to be: as long as the model's are, or as its files say that they may be cut.
    #[schema(minimum = 1, maximum = 4294967295_u32, example = 384)]
    dimensions: Option<u64>,
    /// Which of the model's own prompts is put before each text; its document names them.
    #[schema(example = "query")]
    prompt_name: Option<String>,
    #[schema(schema_with = input_type)]
    input_type: Option<String>,
    /// Who asks on whose behalf; accepted, without effect.
    #[schema(example = "user-1234")]
    user: Option<String>,
}

fn input() -> Schema {
    let description =
        "What to embed: a text, texts, the ids of tokens, or several lists of ids; none of them empty.";
    texts_or_tokens(description, json!(["Good morning", "Bonjour"]), MAX_INPUTS)
}

fn encoding_format() -> Schema {
    written(json!({"type": ["string", "null"], "enum": ["float", "base64", null], "example": "float",
        "default": "float", "description": "Numbers, or base64 of 32-bit little-endian floats."}))
}

fn input_type() -> Schema {
    written(json!({"type": ["string", "null"], "example": "query",
        "enum": ["query", "search_query", "document", "passage", "search_document", null],
        "description": "What the texts are for: the model's own prompt for that is put before each."}))
}

/// Vectors, in the order of the texts.
#[derive(ToSchema)]
#[schema(example = json!({
    "object": "list",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.0123, -0.0456]}],
    "model": "text-embedding-3-small",
    "usage": {"prompt_tokens": 5, "total_tokens": 5}
}))]
pub struct OpenAiEmbeddings {
    /// Always `list`.
    #[schema(example = "list")]
    object: String,
    data: Vec<OpenAiEmbedding>,
    /// The model as it was asked for.
    #[schema(example = "text-embedding-3-small")]
    model: String,
    usage: OpenAiEmbeddingUsage,
}

/// One vector.
#[derive(ToSchema)]
struct OpenAiEmbedding {
    /// Always `embedding`.
    #[schema(example = "embedding")]
    object: String,
    /// Which of the texts it belongs to, from 0.
    index: u64,
    #[schema(schema_with = vector)]
    embedding: Value,
}

fn vector() -> Schema {
    let numbers = json!({"type": "array", "items": {"type": "number", "format": "float"}});
    written(json!({"oneOf": [numbers, {"type": "string", "format": "byte"}], "example": [0.0123, -0.0456],
        "description": "Numbers, or text if base64 was asked for."}))
}

/// What was read.
#[derive(ToSchema)]
pub(super) struct OpenAiEmbeddingUsage {
    /// Tokens of all texts.
    #[schema(example = 5)]
    prompt_tokens: u32,
    /// The same.
    #[schema(example = 5)]
    total_tokens: u32,
}
