//! What batches look like.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa::openapi::schema::Schema;

use super::written;

/// Requests to be done while nobody waits for them.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchRequest {
    /// A file that was uploaded for batches: one request a line.
    #[schema(example = "file-0198c0ffee")]
    input_file_id: String,
    #[schema(schema_with = endpoint)]
    endpoint: String,
    /// How long it may take: a number of hours up to 168.
    #[schema(pattern = "^[1-9][0-9]?h$", example = "24h")]
    completion_window: String,
    #[schema(schema_with = metadata)]
    metadata: Option<BTreeMap<String, String>>,
    /// When what it writes is deleted; left out: when its owner says so.
    output_expires_after: Option<OutputExpiry>,
}

/// When what a batch writes is deleted.
#[derive(ToSchema)]
#[schema(as = BatchOutputExpiry)]
#[serde(deny_unknown_fields)]
struct OutputExpiry {
    #[schema(schema_with = anchor)]
    anchor: String,
    /// So long after that.
    #[schema(minimum = 3600, maximum = 2_592_000, example = 86_400)]
    seconds: u64,
}

fn anchor() -> Schema {
    written(json!({"type": "string", "enum": ["created_at"], "example": "created_at",
        "description": "From when the seconds are counted."}))
}

fn endpoint() -> Schema {
    written(
        json!({"type": "string", "enum": ["/v1/chat/completions", "/v1/responses", "/v1/completions", "/v1/embeddings"],
        "example": "/v1/chat/completions", "description": "The URL that all its requests are for."}),
    )
}

fn metadata() -> Schema {
    written(json!({"type": ["object", "null"], "maxProperties": 16, "example": {"run": "nightly"},
        "additionalProperties": {"type": "string", "maxLength": 512},
        "description": "Notes of the owner's; their names have 64 characters at most."}))
}

/// Batches.
#[derive(ToSchema)]
pub struct OpenAiBatches {
    /// Always `list`.
    #[schema(example = "list")]
    object: String,
    data: Vec<OpenAiBatch>,
    /// The id of the first.
    first_id: Option<String>,
    /// The id of the last: the next page is behind it.
    last_id: Option<String>,
    /// Whether there are more behind them.
    #[schema(example = false)]
    has_more: bool,
}

/// A batch. All times are seconds since 1970; of what has not happened they are null.
#[derive(ToSchema)]
pub struct OpenAiBatch {
    #[schema(example = "batch_0198c0ffee")]
    id: String,
    /// Always `batch`.
    #[schema(example = "batch")]
    object: String,
    #[schema(schema_with = endpoint)]
    endpoint: String,
    /// The model that its requests ask for, once that is known; null where they ask for several.
    #[schema(example = "gpt-4o")]
    model: Option<String>,
    /// What is wrong with it, where it failed.
    errors: Option<BatchErrors>,
    #[schema(example = "file-0198c0ffee")]
    input_file_id: String,
    /// As it was asked for.
    #[schema(example = "24h")]
    completion_window: String,
    #[schema(schema_with = status)]
    status: String,
    /// The answers, once it is over.
    output_file_id: Option<String>,
    /// The requests that were refused or not done, once it is over.
    error_file_id: Option<String>,
    #[schema(example = 1_711_471_533)]
    created_at: i64,
    in_progress_at: Option<i64>,
    #[schema(example = 1_711_557_933)]
    expires_at: i64,
    finalizing_at: Option<i64>,
    completed_at: Option<i64>,
    failed_at: Option<i64>,
    expired_at: Option<i64>,
    cancelling_at: Option<i64>,
    cancelled_at: Option<i64>,
    request_counts: BatchCounts,
    /// What its requests used until now; null of a batch that was made before this was counted.
    usage: Option<BatchUsage>,
    #[schema(schema_with = metadata)]
    metadata: Value,
}

fn status() -> Schema {
    written(json!({"type": "string", "example": "in_progress", "description": "How far it is.",
        "enum": ["validating", "in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled"]}))
}

/// What is wrong with a batch.
#[derive(ToSchema)]
struct BatchErrors {
    /// Always `list`.
    #[schema(example = "list")]
    object: String,
    data: Vec<BatchErrorItem>,
}

/// One thing that is wrong with a batch.
#[derive(ToSchema)]
struct BatchErrorItem {
    /// For programs.
    #[schema(example = "duplicate_custom_id")]
    code: String,
    /// For people.
    #[schema(example = "`custom_id` is that of another line")]
    message: String,
    /// The member at fault.
    #[schema(example = "custom_id")]
    param: Option<String>,
    /// The number of the line at fault, from 1.
    #[schema(example = 7)]
    line: Option<i64>,
}

/// How many requests of a batch there are, and what became of them.
#[derive(ToSchema)]
struct BatchCounts {
    #[schema(example = 500)]
    total: u64,
    /// Answered.
    #[schema(example = 499)]
    completed: u64,
    /// Refused.
    #[schema(example = 1)]
    failed: u64,
}

/// What the requests of a batch used.
#[derive(ToSchema)]
struct BatchUsage {
    /// Tokens of all prompts.
    #[schema(example = 4500)]
    input_tokens: u64,
    input_tokens_details: BatchInputDetails,
    /// Tokens that were generated.
    #[schema(example = 12_000)]
    output_tokens: u64,
    output_tokens_details: BatchOutputDetails,
    /// The sum of both.
    #[schema(example = 16_500)]
    total_tokens: u64,
}

/// What the tokens of a batch's prompts are.
#[derive(ToSchema)]
struct BatchInputDetails {
    /// Found in the cache.
    #[schema(example = 900)]
    cached_tokens: u64,
}

/// What the generated tokens of a batch are.
#[derive(ToSchema)]
struct BatchOutputDetails {
    /// Thoughts.
    #[schema(example = 0)]
    reasoning_tokens: u64,
}
