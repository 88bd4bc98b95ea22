//! What requests and answers below `/v1/` look like, for the description of the API and for nothing else.
//!
//! Requests are read member by member (`fields.rs`) and never become these types; a test keeps both in step. Every
//! parameter that can be sent is here with its bounds. What is always refused is not.

#![allow(dead_code, reason = "only the description of the API is made from the fields")]

mod batch;
mod chat;
mod completion;
mod constraint;
mod embedding;
mod file;
mod model;
mod ranking;
mod response;
mod stored_chat;
#[cfg(test)]
mod tests;
mod tokens;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa::openapi::schema::Schema;

pub use batch::{BatchRequest, OpenAiBatch, OpenAiBatches};
pub use chat::{ChatCompletionRequest, OpenAiChatCompletion, OpenAiChatCompletionChunk};
use constraint::{ResponseFormat, StructuredOutputs};

pub use completion::{CompletionRequest, OpenAiCompletion};
pub use embedding::{EmbeddingRequest, OpenAiEmbeddings};
pub use file::{FileUpload, OpenAiFile, OpenAiFileDeleted, OpenAiFiles};
pub use model::{OpenAiModel, OpenAiModelDocument, OpenAiModels};
pub use ranking::{RerankRequest, Reranked, ScoreRequest, Scored};
pub use response::{
    OpenAiDeletedResponse, OpenAiResponse, OpenAiResponseEvent, OpenAiResponseItems, OpenAiResponseTokens,
    ResponseQuestion, ResponseRequest,
};
pub use stored_chat::{
    ChatUpdate, OpenAiDeletedChat, OpenAiStoredChat, OpenAiStoredChats, OpenAiStoredMessages,
};
pub use tokens::{DetokenizeRequest, Detokenized, RenderedChat, TokenizeRequest, Tokenized};

/// How an answer is made; chat and plain completions share these.
#[derive(ToSchema)]
pub(super) struct AnswerParameters {
    /// Send the answer piece by piece, as server-sent events.
    #[schema(default = false, example = true)]
    stream: Option<bool>,
    /// Only with `stream`.
    stream_options: Option<StreamOptions>,
    /// How much chance there is in the choice of each token; 0 always takes the likeliest. Left out: the model's own.
    #[schema(minimum = 0, maximum = 2, example = 0.7)]
    temperature: Option<f32>,
    /// Choose among the likeliest tokens that have this probability together.
    #[schema(minimum = 0, maximum = 1, example = 0.9)]
    top_p: Option<f32>,
    /// Choose among so many tokens; 0 and -1 mean all.
    #[schema(minimum = -1, maximum = 4294967295_u32, example = 40)]
    top_k: Option<i64>,
    /// Choose among tokens that have at least this part of the likeliest one's probability.
    #[schema(minimum = 0, maximum = 1, default = 0, example = 0.05)]
    min_p: Option<f32>,
    /// Choose among tokens that are as surprising as is usual; less is fewer of them.
    #[schema(minimum = 0.01, maximum = 1, example = 0.95)]
    typical_p: Option<f32>,
    /// Above 0: speak of something new.
    #[schema(minimum = -2, maximum = 2, default = 0, example = 0.5)]
    presence_penalty: Option<f32>,
    /// Above 0: repeat less, the more something was said.
    #[schema(minimum = -2, maximum = 2, default = 0, example = 0.5)]
    frequency_penalty: Option<f32>,
    /// Above 1: repeat less of the prompt and of the answer.
    #[schema(minimum = 0.01, maximum = 10, example = 1.1)]
    repetition_penalty: Option<f32>,
    #[schema(schema_with = logit_bias)]
    logit_bias: Option<BTreeMap<String, f32>>,
    /// The same request with the same seed has the same answer.
    #[schema(example = 42)]
    seed: Option<i64>,
    /// Answers wanted.
    #[schema(minimum = 1, maximum = 64, default = 1, example = 1)]
    n: Option<u32>,
    /// Say no less than so many tokens.
    #[schema(minimum = 0, maximum = 4294967295_u32, default = 0, example = 1)]
    min_tokens: Option<u64>,
    #[schema(schema_with = stop)]
    stop: Option<Vec<String>>,
    /// The answer ends with any of these tokens.
    #[schema(max_items = 64, example = json!([2]))]
    stop_token_ids: Option<Vec<u32>>,
    /// In which form to answer.
    response_format: Option<ResponseFormat>,
    /// What the answer may be at all, by one of several means; not together with another constraint.
    structured_outputs: Option<StructuredOutputs>,
    #[schema(schema_with = constraint::schema_or_text)]
    guided_json: Option<Value>,
    #[schema(schema_with = constraint::regex)]
    guided_regex: Option<String>,
    #[schema(schema_with = constraint::choice)]
    guided_choice: Option<Vec<String>>,
    #[schema(schema_with = constraint::grammar)]
    guided_grammar: Option<String>,
    /// Go on past the end that the model would make.
    #[schema(default = false, example = false)]
    ignore_eos: Option<bool>,
    /// Leave the model's own marks out of the text.
    #[schema(default = true, example = true)]
    skip_special_tokens: Option<bool>,
    /// Whom the request is for; stands in the usage.
    #[schema(max_length = 512, example = "user-1234")]
    user: Option<String>,
}

/// What a stream says beside the answer.
#[derive(ToSchema)]
#[schema(as = ChatStreamOptions)]
#[serde(deny_unknown_fields)]
struct StreamOptions {
    /// End with a chunk without choices that tells the usage.
    #[schema(default = false, example = true)]
    include_usage: Option<bool>,
    #[schema(schema_with = only_false)]
    include_obfuscation: Option<bool>,
    #[schema(schema_with = only_false)]
    continuous_usage_stats: Option<bool>,
}

/// A schema that the macro has no words for.
pub(in crate::api) fn written(schema: Value) -> Schema {
    serde_json::from_value(schema).expect("the tests build the document from every schema here")
}

/// For parameters that may only have the value that changes nothing. (Makers of clients know no choice of truth values.)
fn only_false() -> Schema {
    written(json!({"type": ["boolean", "null"], "default": false, "example": false,
        "description": "Only `false`: nothing of this kind is ever sent."}))
}

fn logit_bias() -> Schema {
    written(json!({"type": ["object", "null"], "maxProperties": 1024, "example": {"50256": -100},
        "additionalProperties": {"type": "number", "format": "float", "minimum": -100, "maximum": 100},
        "description": "What is added to the score of a token, by its id: -100 forbids it, 100 forces it."}))
}

fn stop() -> Schema {
    let text = json!({"type": "string", "minLength": 1, "maxLength": 256});
    written(json!({"oneOf": [{"type": "null"}, text, {"type": "array", "maxItems": 16, "items": text}],
        "description": "The answer ends before any of these texts; each has 256 bytes at most.", "example": ["\n\n"]}))
}

/// A text, texts, the ids of tokens, or several lists of them.
fn texts_or_tokens(description: &str, example: Value, most: usize) -> Schema {
    let list = |items: Value| json!({"type": "array", "minItems": 1, "maxItems": most, "items": items});
    let tokens = json!({"type": "array", "minItems": 1,
        "items": {"type": "integer", "format": "int64", "minimum": 0, "maximum": u32::MAX}});
    let text = json!({"type": "string"});
    written(json!({"description": description, "example": example,
        "oneOf": [text, list(text.clone()), tokens, list(tokens.clone())]}))
}
