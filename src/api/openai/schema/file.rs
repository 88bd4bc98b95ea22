//! What files look like.

use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa::openapi::schema::Schema;

use super::written;

/// A file for batches.
#[derive(ToSchema)]
pub struct FileUpload {
    /// One request a line, each an object with `custom_id`, `method`, `url` and `body`.
    #[schema(value_type = String, format = Binary, example = "requests.jsonl")]
    file: Vec<u8>,
    #[schema(schema_with = purpose)]
    purpose: String,
    #[schema(rename = "expires_after[anchor]", schema_with = anchor)]
    anchor: Value,
    #[schema(rename = "expires_after[seconds]", schema_with = seconds)]
    seconds: Value,
}

fn purpose() -> Schema {
    written(
        json!({"type": "string", "enum": ["batch"], "example": "batch", "description": "What it is for."}),
    )
}

fn anchor() -> Schema {
    written(json!({"type": ["string", "null"], "enum": ["created_at", null], "example": "created_at",
        "description": "From when the seconds are counted; only with them."}))
}

fn seconds() -> Schema {
    written(
        json!({"type": ["integer", "null"], "format": "int64", "minimum": 3600, "maximum": 2_592_000, "example": 86_400,
        "description": "The file is deleted so long after the anchor; only with it."}),
    )
}

/// Files.
#[derive(ToSchema)]
pub struct OpenAiFiles {
    /// Always `list`.
    #[schema(example = "list")]
    object: String,
    data: Vec<OpenAiFile>,
    /// The id of the first.
    first_id: Option<String>,
    /// The id of the last: the next page is behind it.
    last_id: Option<String>,
    /// Whether there are more behind them.
    #[schema(example = false)]
    has_more: bool,
}

/// A file.
#[derive(ToSchema)]
pub struct OpenAiFile {
    #[schema(example = "file-0198c0ffee")]
    id: String,
    /// Always `file`.
    #[schema(example = "file")]
    object: String,
    /// Its length.
    #[schema(example = 2048)]
    bytes: u64,
    /// Seconds since 1970.
    #[schema(example = 1_711_471_533)]
    created_at: i64,
    /// It is deleted then, in seconds since 1970.
    #[schema(example = json!(null))]
    expires_at: Option<i64>,
    /// What its owner calls it.
    #[schema(example = "requests.jsonl")]
    filename: String,
    /// `batch` for what is read by batches, `batch_output` for what they write.
    #[schema(example = "batch")]
    purpose: String,
    /// Always `processed`.
    #[schema(example = "processed")]
    status: String,
    #[schema(schema_with = nothing)]
    status_details: Value,
}

fn nothing() -> Schema {
    written(json!({"type": "null", "description": "Always null."}))
}

/// That a file is deleted.
#[derive(ToSchema)]
pub struct OpenAiFileDeleted {
    #[schema(example = "file-0198c0ffee")]
    id: String,
    /// Always `file`.
    #[schema(example = "file")]
    object: String,
    /// Always true.
    #[schema(example = true)]
    deleted: bool,
}
