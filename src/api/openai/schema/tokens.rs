//! What a model would read: requests and answers.

use serde_json::json;
use utoipa::ToSchema;
use utoipa::openapi::schema::Schema;

use super::written;
use crate::api::openai::tokenize::MAX_TOKENS;

/// A text whose tokens are wanted. With `messages` in place of `prompt` it is a request of `/v1/chat/completions`, whose
/// other members may be there too.
#[derive(ToSchema)]
pub struct TokenizeRequest {
    /// The name of a model, or another name for it.
    #[schema(example = "gpt-4o")]
    model: String,
    /// The text; one mebibyte at most.
    #[schema(example = "Once upon a time")]
    prompt: String,
    /// With the tokens that the model's tokenizer puts around a text.
    #[schema(default = true, example = false)]
    add_special_tokens: Option<bool>,
    /// Show each token's text too.
    #[schema(default = false, example = true)]
    return_token_strs: Option<bool>,
}

/// Tokens.
#[derive(ToSchema)]
pub struct Tokenized {
    /// The model as it was asked for.
    #[schema(example = "gpt-4o")]
    model: String,
    /// How many there are.
    #[schema(example = 4)]
    count: u64,
    /// Tokens of the model's longest context.
    #[schema(example = 8192)]
    max_model_len: u64,
    /// Their ids.
    #[schema(example = json!([40, 41, 42]))]
    tokens: Vec<u32>,
    /// Their texts, if those were asked for.
    #[schema(nullable = false, example = json!(["Once", " upon", " a"]))]
    token_strs: Option<Vec<String>>,
}

/// Tokens whose text is wanted.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DetokenizeRequest {
    /// The name of a model, or another name for it.
    #[schema(example = "gpt-4o")]
    model: String,
    #[schema(schema_with = ids)]
    tokens: Vec<u32>,
}

fn ids() -> Schema {
    written(json!({"type": "array", "maxItems": MAX_TOKENS, "example": [40, 41, 42],
        "items": {"type": "integer", "format": "int64", "minimum": 0, "maximum": u32::MAX},
        "description": "The ids of the tokens."}))
}

/// The text of tokens.
#[derive(ToSchema)]
pub struct Detokenized {
    /// The model as it was asked for.
    #[schema(example = "gpt-4o")]
    model: String,
    /// The text, special tokens included.
    #[schema(example = "Once upon a time")]
    prompt: String,
}

/// The prompt of a conversation.
#[derive(ToSchema)]
pub struct RenderedChat {
    /// Always `chat.completion.render`.
    #[schema(example = "chat.completion.render")]
    object: String,
    /// The model as it was asked for.
    #[schema(example = "gpt-4o")]
    model: String,
    /// What the model's template makes of the conversation.
    #[schema(example = "<|im_start|>user\nHello!<|im_end|>\n<|im_start|>assistant\n")]
    prompt: String,
    /// How many tokens that is.
    #[schema(example = 9)]
    count: u64,
    /// Tokens of the model's longest context.
    #[schema(example = 8192)]
    max_model_len: u64,
    /// Their ids.
    #[schema(example = json!([1, 2, 3]))]
    token_ids: Vec<u32>,
}
