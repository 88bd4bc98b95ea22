//! Texts without a conversation: the request and the answer.

use serde_json::json;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;
use utoipa::{PartialSchema, ToSchema};

use super::{AnswerParameters, texts_or_tokens};
use crate::api::openai::completions::MAX_PROMPTS;
use crate::api::openai::types::{TextChoice, Usage};
use crate::http::openapi::joined;

/// Texts to go on with, and how.
pub struct CompletionRequest;

impl PartialSchema for CompletionRequest {
    fn schema() -> RefOr<Schema> {
        let description = "Texts to go on with, and how. `null` is the same as leaving out.";
        joined(description, CompletionParameters::schema(), AnswerParameters::schema())
    }
}

impl ToSchema for CompletionRequest {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        CompletionParameters::schemas(schemas);
        AnswerParameters::schemas(schemas);
    }
}

/// What only texts without a conversation have.
#[derive(ToSchema)]
struct CompletionParameters {
    /// The name of a model, or another name for it.
    #[schema(example = "gpt-4o")]
    model: String,
    #[schema(schema_with = prompt)]
    prompt: String,
    /// Say no more than so many tokens. Left out: 16, or what the model is limited to where that is less.
    #[schema(minimum = 0, maximum = 4294967295_u32, example = 64)]
    max_tokens: Option<u64>,
    /// Begin the answer with the prompt.
    #[schema(default = false, example = false)]
    echo: Option<bool>,
    /// Tell how likely each token was, and so many of the likeliest in its place.
    #[schema(minimum = 0, maximum = 5, example = 2)]
    logprobs: Option<u32>,
    /// Make so many answers, and show the `n` whose tokens were the likeliest in the mean; not with `stream`.
    #[schema(minimum = 1, maximum = 64, example = 1)]
    best_of: Option<u32>,
    /// Fill the gap between the prompt and this text; for models that were trained to.
    #[schema(example = "The end.")]
    suffix: Option<String>,
    /// Tell how likely each token of the prompt was, and so many of the likeliest in its place.
    #[schema(minimum = 0, maximum = 20, example = 1)]
    prompt_logprobs: Option<u32>,
}

fn prompt() -> Schema {
    let description = "What to go on with: a text, texts, the ids of tokens, or several lists of ids.";
    texts_or_tokens(description, json!("Once upon a time"), MAX_PROMPTS)
}

/// A whole answer, or the data of one event of a stream: after the last comes `[DONE]`.
#[derive(ToSchema)]
#[schema(example = json!({
    "id": "cmpl-4f1c5fd0a3c14c5c8d9f6f8c2b7e9a10",
    "object": "text_completion",
    "created": 1_677_652_288,
    "model": "gpt-4o",
    "system_fingerprint": "fp_4c3f2a1b0d9e8f70",
    "choices": [{"index": 0, "text": ", in a land far away", "logprobs": null, "finish_reason": "length"}],
    "usage": {"prompt_tokens": 4, "completion_tokens": 6, "total_tokens": 10,
        "prompt_tokens_details": {"cached_tokens": 0}, "completion_tokens_details": {"reasoning_tokens": 0,
            "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0},
        "timings": {"prompt_ms": 21.5, "prompt_per_second": 418.6, "predicted_ms": 250.0, "predicted_per_second": 48.0}}
}))]
pub struct OpenAiCompletion {
    /// Names this answer; the same in all pieces of it.
    #[schema(example = "cmpl-4f1c5fd0a3c14c5c8d9f6f8c2b7e9a10")]
    id: String,
    /// Always `text_completion`.
    #[schema(example = "text_completion")]
    object: String,
    /// Seconds since 1970.
    #[schema(example = 1677652288)]
    created: u64,
    /// The model as it was asked for.
    #[schema(example = "gpt-4o")]
    model: String,
    /// Same fingerprint, same request and seed: same answer.
    #[schema(example = "fp_4c3f2a1b0d9e8f70")]
    system_fingerprint: String,
    /// For each prompt as many as were asked for by `n`.
    choices: Vec<TextChoice>,
    /// In a stream only with `stream_options.include_usage`: in the last piece, and null in all others.
    usage: Option<Usage>,
}
