//! What an answer may be at all.

use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa::openapi::schema::Schema;

use super::written;

/// In which form to answer.
#[derive(ToSchema)]
#[schema(as = OpenAiResponseFormat)]
#[serde(deny_unknown_fields)]
pub(super) struct ResponseFormat {
    #[schema(schema_with = kinds)]
    r#type: String,
    /// With the type `json_schema`: the schema.
    json_schema: Option<JsonSchemaFormat>,
}

/// A schema, and what it is called.
#[derive(ToSchema)]
#[schema(as = OpenAiJsonSchemaFormat)]
#[serde(deny_unknown_fields)]
struct JsonSchemaFormat {
    /// 1 to 64 letters, digits, `_` and `-`.
    #[schema(min_length = 1, max_length = 64, example = "person")]
    name: String,
    /// What it is for.
    #[schema(example = "Somebody.")]
    description: Option<String>,
    /// Accepted, without effect: the answer is always held to the schema.
    #[schema(example = true)]
    strict: Option<bool>,
    #[schema(schema_with = schema)]
    schema: Option<Value>,
}

/// One of these, as vLLM has them.
#[derive(ToSchema)]
#[schema(as = OpenAiStructuredOutputs, example = json!({"choice": ["yes", "no"]}))]
#[serde(deny_unknown_fields)]
pub(super) struct StructuredOutputs {
    #[schema(schema_with = schema_or_text)]
    json: Option<Value>,
    #[schema(schema_with = regex)]
    regex: Option<String>,
    #[schema(schema_with = choice)]
    choice: Option<Vec<String>>,
    #[schema(schema_with = grammar)]
    grammar: Option<String>,
    /// Any JSON object.
    #[schema(default = false, example = false)]
    json_object: Option<bool>,
}

fn kinds() -> Schema {
    written(
        json!({"type": "string", "enum": ["text", "json_object", "json_schema"], "example": "json_schema",
        "description": "Text of any form, any JSON object, or JSON that a schema admits."}),
    )
}

fn schema() -> Schema {
    written(json!({"type": ["object", "null"], "additionalProperties": true,
        "example": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"],
            "additionalProperties": false},
        "description": "JSON Schema, draft 2020-12; left out: any JSON object. A keyword that cannot be honoured is \
            refused by its name."}))
}

pub(super) fn schema_or_text() -> Schema {
    let object = json!({"type": "object", "additionalProperties": true});
    written(json!({"oneOf": [{"type": "null"}, object, {"type": "string"}], "example": {"type": "object"},
        "description": "The answer is JSON that this schema admits; the schema itself, or its text."}))
}

pub(super) fn regex() -> Schema {
    written(json!({"type": ["string", "null"], "maxLength": 4096, "example": "[0-9]{4}",
        "description": "The answer matches this regular expression, in Rust's notation, from its beginning to its end."}))
}

pub(super) fn choice() -> Schema {
    written(json!({"type": ["array", "null"], "minItems": 1, "maxItems": 1024, "items": {"type": "string"},
        "example": ["yes", "no"], "description": "The answer is one of these texts."}))
}

pub(super) fn grammar() -> Schema {
    written(json!({"type": ["string", "null"], "maxLength": 65536, "example": "start: \"yes\" | \"no\"",
        "description": "The answer belongs to this context-free grammar, in Lark's notation; it begins at `start`."}))
}
