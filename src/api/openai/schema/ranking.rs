//! Documents ranked and pairs scored: requests and answers.

use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa::openapi::schema::Schema;

use super::embedding::OpenAiEmbeddingUsage;
use super::written;
use crate::api::openai::rerank::MAX_DOCUMENTS;

/// A question and the documents that may answer it. `null` is the same as leaving out.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RerankRequest {
    /// The name of a model that scores pairs of texts, or another name for it.
    #[schema(example = "bge-reranker")]
    model: String,
    /// What is looked for.
    #[schema(example = "What is the capital of France?")]
    query: String,
    #[schema(schema_with = documents)]
    documents: Vec<String>,
    /// Show so many of the best; left out: all.
    #[schema(minimum = 1, maximum = 4294967295_u32, example = 3)]
    top_n: Option<u64>,
    /// Show the documents too.
    #[schema(default = false, example = true)]
    return_documents: Option<bool>,
    /// Read so many tokens of each document; left out: all of them, and one that is too long is refused.
    #[schema(minimum = 1, maximum = 4294967295_u32, example = 512)]
    max_tokens_per_doc: Option<u64>,
    /// Who asks on whose behalf; accepted, without effect.
    #[schema(example = "user-1234")]
    user: Option<String>,
}

fn documents() -> Schema {
    let text = json!({"type": "string", "minLength": 1});
    let object = json!({"type": "object", "required": ["text"], "properties": {"text": text}});
    written(json!({"type": "array", "minItems": 1, "maxItems": MAX_DOCUMENTS,
        "items": {"oneOf": [text, object], "example": "Paris is France's capital."}, "example": ["Paris is France's capital.", {"text": "Berlin is large."}],
        "description": "Texts, or objects with `text`; other members of an object are shown again with it."}))
}

/// Documents, best first.
#[derive(ToSchema)]
#[schema(example = json!({
    "id": "rerank-4f1c5fd0a3c14c5c8d9f6f8c2b7e9a10", "object": "list", "model": "bge-reranker",
    "results": [{"index": 0, "relevance_score": 0.98}], "usage": {"prompt_tokens": 21, "total_tokens": 21}
}))]
pub struct Reranked {
    /// Names this answer.
    #[schema(example = "rerank-4f1c5fd0a3c14c5c8d9f6f8c2b7e9a10")]
    id: String,
    /// Always `list`.
    #[schema(example = "list")]
    object: String,
    /// The model as it was asked for.
    #[schema(example = "bge-reranker")]
    model: String,
    results: Vec<RankedDocument>,
    usage: OpenAiEmbeddingUsage,
}

/// A document's place.
#[derive(ToSchema)]
struct RankedDocument {
    /// Which of the documents it is, from 0.
    index: u64,
    /// How well it answers the question; mostly between 0 and 1, as the model's files say.
    #[schema(example = 0.98)]
    relevance_score: f32,
    #[schema(schema_with = document)]
    document: Option<Value>,
}

fn document() -> Schema {
    written(json!({"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}},
        "description": "The document itself, with `return_documents`.", "example": {"text": "Paris is France's capital."}}))
}

/// Pairs of texts: `text_1` and `text_2`, or `queries` and `documents`. `null` is the same as leaving out.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScoreRequest {
    /// The name of a model that scores pairs of texts, or another name for it.
    #[schema(example = "bge-reranker")]
    model: String,
    #[schema(schema_with = first)]
    text_1: Option<String>,
    #[schema(schema_with = second)]
    text_2: Option<String>,
    #[schema(schema_with = first)]
    queries: Option<String>,
    #[schema(schema_with = second)]
    documents: Option<String>,
    /// Who asks on whose behalf; accepted, without effect.
    #[schema(example = "user-1234")]
    user: Option<String>,
}

fn texts(description: &str, example: &str) -> Schema {
    let text = json!({"type": "string", "minLength": 1});
    let list = json!({"type": "array", "minItems": 1, "maxItems": MAX_DOCUMENTS, "items": text});
    written(json!({"oneOf": [{"type": "null"}, text, list], "description": description, "example": example}))
}

fn first() -> Schema {
    texts("A text for all pairs, or one for each.", "What is the capital of France?")
}

fn second() -> Schema {
    texts("A text, or as many as there are pairs.", "Paris is France's capital.")
}

/// Scores, in the order of the pairs.
#[derive(ToSchema)]
#[schema(example = json!({
    "id": "score-4f1c5fd0a3c14c5c8d9f6f8c2b7e9a10", "object": "list", "created": 1_677_652_288,
    "model": "bge-reranker", "data": [{"index": 0, "object": "score", "score": 0.98}],
    "usage": {"prompt_tokens": 21, "total_tokens": 21}
}))]
pub struct Scored {
    /// Names this answer.
    #[schema(example = "score-4f1c5fd0a3c14c5c8d9f6f8c2b7e9a10")]
    id: String,
    /// Always `list`.
    #[schema(example = "list")]
    object: String,
    /// Seconds since 1970.
    #[schema(example = 1677652288)]
    created: u64,
    /// The model as it was asked for.
    #[schema(example = "bge-reranker")]
    model: String,
    data: Vec<Score>,
    usage: OpenAiEmbeddingUsage,
}

/// A pair's score.
#[derive(ToSchema)]
#[schema(as = PairScore)]
struct Score {
    /// Which of the pairs it belongs to, from 0.
    index: u64,
    /// Always `score`.
    #[schema(example = "score")]
    object: String,
    /// How well the second text answers the first.
    #[schema(example = 0.98)]
    score: f32,
}
