//! Models as OpenAI's clients list them, with what routers look for.

use serde_json::{Value, json};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;
use utoipa::{PartialSchema, ToSchema};

use super::written;

/// The models that the caller may use.
#[derive(ToSchema)]
pub struct OpenAiModels {
    /// Always `list`.
    #[schema(example = "list")]
    object: String,
    data: Vec<OpenAiModel>,
}

/// A model.
#[derive(ToSchema)]
#[schema(example = json!({
    "id": "gpt-4o", "object": "model", "created": 1_677_652_288, "owned_by": "sconce", "root": "gpt-4o", "parent": null,
    "max_model_len": 8192, "kind": "causal", "status": {"state": "ready"}
}))]
pub struct OpenAiModel {
    /// What to ask for.
    #[schema(example = "gpt-4o")]
    id: String,
    /// Always `model`.
    #[schema(example = "model")]
    object: String,
    /// Seconds since 1970.
    #[schema(example = 1677652288)]
    created: u64,
    /// Always `sconce`.
    #[schema(example = "sconce")]
    owned_by: String,
    /// The model itself; the same as `id`.
    #[schema(example = "gpt-4o")]
    root: String,
    #[schema(schema_with = parent)]
    parent: Value,
    /// Tokens of the longest context; null before that is known.
    #[schema(example = 8192)]
    max_model_len: Option<u64>,
    #[schema(schema_with = kind)]
    kind: Value,
    /// What has become of it on this replica.
    status: OpenAiModelStatus,
}

/// A model, and what it can do.
pub struct OpenAiModelDocument;

/// As a list has it, and one member more.
impl PartialSchema for OpenAiModelDocument {
    fn schema() -> RefOr<Schema> {
        let RefOr::T(Schema::Object(mut model)) = OpenAiModel::schema() else { return OpenAiModel::schema() };
        let (name, abilities) = ("capabilities".to_owned(), capabilities());
        if let (Some(Value::Object(example)), Schema::Object(own)) = (&mut model.example, &abilities) {
            example.extend(own.example.clone().map(|own| (name.clone(), own)));
        }
        model.description = Some("A model, and what it can do.".to_owned());
        model.required.push(name.clone());
        model.properties.insert(name, abilities.into());
        model.into()
    }
}

impl ToSchema for OpenAiModelDocument {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        OpenAiModel::schemas(schemas);
    }
}

fn capabilities() -> Schema {
    let names = json!({"type": "array", "items": {"type": "string"}});
    let number = json!({"type": ["integer", "null"], "format": "int64", "minimum": 0});
    let text = json!({"type": ["string", "null"]});
    let truth = json!({"type": ["boolean", "null"]});
    let open = json!({"type": ["object", "null"], "additionalProperties": true});
    written(json!({"type": ["object", "null"],
    "description": "What it can do; members are null before they are known, all of it where nothing is.",
    "example": {"context_length": 8192, "modalities": {"input": ["text"], "output": ["text"]}},
    "properties": {
        "context_length": number, "weights_bytes": number, "cache_bytes_per_token": number,
        "modalities": {"type": "object", "properties": {"input": names, "output": names}},
        "endpoints": names, "dialects": names, "tool_calls": text, "reasoning": text, "parameters": {"type": "object", "additionalProperties": names},
        "limits": open, "architecture": text, "quantisation": text, "chat_template": truth, "infill": truth,
        "embedding": open, "ranking": open, "self_test": open,
    }}))
}

/// What has become of a model on this replica.
#[derive(ToSchema)]
struct OpenAiModelStatus {
    #[schema(schema_with = state)]
    state: String,
    /// Why it failed, where it did.
    #[schema(nullable = false, example = "the files of this model are damaged")]
    reason: Option<String>,
    /// While it is downloaded: the file that is being fetched.
    #[schema(nullable = false, example = "model.gguf")]
    file: Option<String>,
    /// While it is downloaded: that file's number, from 1.
    #[schema(nullable = false, example = 1)]
    file_number: Option<u64>,
    /// While it is downloaded: files in all.
    #[schema(nullable = false, example = 4)]
    files: Option<u64>,
    /// While it is downloaded: bytes of all files fetched so far.
    #[schema(nullable = false, example = 73400320)]
    bytes: Option<u64>,
    /// While it is downloaded: bytes of all files, if known.
    #[schema(example = 144810464)]
    total_bytes: Option<u64>,
    /// While it is downloaded: how long it will take at its present pace, where that is no guess.
    #[schema(nullable = false, example = 12)]
    eta_seconds: Option<u64>,
}

fn parent() -> Schema {
    written(json!({"type": "null", "description": "Always null: no model here is an adapter of another."}))
}

fn kind() -> Schema {
    written(json!({"type": ["string", "null"], "enum": ["causal", "embedding", "cross_encoder", null],
        "description": "What it does: go on with text, embed it, compare two; null before that is known.",
        "example": "causal"}))
}

fn state() -> Schema {
    written(
        json!({"type": "string", "enum": ["absent", "downloading", "loading", "ready", "draining", "failed"],
        "description": "Whether it can be used: an absent model is loaded when it is asked for.", "example": "ready"}),
    )
}
