//! What goes in and out of chat under `/api/v1`: the members that the API specification shows, in its order, and those
//! that only come when they are asked for.
//!
//! Requests are read member by member (`openai/chat.rs`); [`ChatCompletionRequest`] only describes them. A test reads
//! every member it names.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::api::openai::types::ChatLogprobs;
use crate::generate::Usage;

/// A conversation to be continued. What is not known here is refused by its name; what is `null` is as if it were not
/// there.
#[derive(Debug, ToSchema)]
#[schema(example = json!({
    "model": "gpt-4o",
    "messages": [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Hello!"}
    ],
    "stream": false,
    "temperature": 0.7,
    "max_tokens": 1024
}))]
pub struct ChatCompletionRequest {
    /// The model's id, or another name for it. The answer repeats it.
    #[schema(example = "gpt-4o")]
    pub model: String,
    /// The conversation, oldest first.
    #[schema(min_items = 1, max_items = 10000)]
    pub messages: Vec<ChatMessage>,
    /// Send the answer in pieces, as it is made.
    #[schema(default = false, example = false)]
    pub stream: Option<bool>,
    /// How streams are sent.
    pub stream_options: Option<ChatStreamOptions>,
    /// 0 takes the likeliest token each time; more is more varied. Without it, what the model suggests.
    #[schema(minimum = 0.0, maximum = 2.0, example = 0.7)]
    pub temperature: Option<f32>,
    /// Only the likeliest tokens that have this probability together.
    #[schema(minimum = 0.0, maximum = 1.0)]
    pub top_p: Option<f32>,
    /// Only so many of the likeliest tokens; 0 for all.
    #[schema(minimum = -1)]
    pub top_k: Option<i64>,
    /// Only tokens that are at least this probable, relative to the likeliest.
    #[schema(minimum = 0.0, maximum = 1.0)]
    pub min_p: Option<f32>,
    /// Most tokens of an answer; without it, as many as the context leaves.
    #[schema(minimum = 1, example = 1024)]
    pub max_tokens: Option<u32>,
    /// The newer name of `max_tokens`.
    #[schema(minimum = 1)]
    pub max_completion_tokens: Option<u32>,
    /// Answers to the same conversation.
    #[schema(minimum = 1, maximum = 64, default = 1)]
    pub n: Option<u32>,
    /// A text, or up to 16, that end an answer; not shown.
    #[schema(value_type = Option<Vec<String>>)]
    pub stop: Option<Value>,
    /// The same seed gives the same answer.
    #[schema(minimum = 0)]
    pub seed: Option<u64>,
    /// Taken off what is in the answer already.
    #[schema(minimum = -2.0, maximum = 2.0)]
    pub presence_penalty: Option<f32>,
    /// Taken off for each time that it is in the answer already.
    #[schema(minimum = -2.0, maximum = 2.0)]
    pub frequency_penalty: Option<f32>,
    /// Above 1, what was said before becomes less likely.
    #[schema(minimum = 0.01, maximum = 10.0)]
    pub repetition_penalty: Option<f32>,
    /// Token ids, and what is added to their logits.
    #[schema(value_type = Option<Object>)]
    pub logit_bias: Option<Value>,
    /// Tell how probable each token was.
    #[schema(default = false)]
    pub logprobs: Option<bool>,
    /// So many alternatives to each token, with their probability.
    #[schema(minimum = 0, maximum = 20)]
    pub top_logprobs: Option<u32>,
    /// Whose request it is, in the client's words; without effect.
    pub user: Option<String>,
}

/// One message of a conversation.
#[derive(Debug, ToSchema)]
pub struct ChatMessage {
    /// `system` (or `developer`), `user` or `assistant`.
    #[schema(example = "user")]
    pub role: String,
    /// What was said.
    #[schema(example = "Hello!")]
    pub content: String,
    /// Who said it, where several have the same role.
    pub name: Option<String>,
}

/// How streams are sent.
#[derive(Debug, ToSchema)]
pub struct ChatStreamOptions {
    /// End with a piece that tells the usage.
    #[schema(default = false)]
    pub include_usage: Option<bool>,
}

/// A whole answer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": "chatcmpl-5f0c5a2e8d1b4c6f9a7e3d2b1c0f4e6a",
    "object": "chat.completion",
    "created": 1_677_652_288,
    "model": "gpt-4o",
    "choices": [{
        "index": 0,
        "message": {"role": "assistant", "content": "Hello there! How can I help you today?"},
        "finish_reason": "stop"
    }],
    "usage": {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21}
}))]
pub struct ChatCompletion {
    /// `chatcmpl-…`
    pub id: String,
    /// `chat.completion`
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// The model as it was asked for.
    pub model: String,
    /// One for each answer that was wanted.
    pub choices: Vec<ChatCompletionChoice>,
    /// Tokens of the prompt and of all answers.
    pub usage: TokenUsage,
}

/// One answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatCompletionChoice {
    /// Its number, from 0.
    pub index: usize,
    /// What the assistant says.
    pub message: AssistantMessage,
    /// How probable its tokens were, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub logprobs: Option<ChatLogprobs>,
    /// Why it ended: `stop` or `length`.
    #[schema(example = "stop")]
    pub finish_reason: &'static str,
}

/// What the assistant says.
#[derive(Debug, Serialize, ToSchema)]
pub struct AssistantMessage {
    /// Always `assistant`.
    #[schema(example = "assistant")]
    pub role: &'static str,
    /// The text.
    pub content: String,
}

/// Tokens of a request.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub struct TokenUsage {
    /// Of the prompt.
    #[schema(example = 9)]
    pub prompt_tokens: u32,
    /// Of all answers.
    #[schema(example = 12)]
    pub completion_tokens: u32,
    /// Both.
    #[schema(example = 21)]
    pub total_tokens: u32,
}

impl From<Usage> for TokenUsage {
    fn from(usage: Usage) -> Self {
        Self {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            total_tokens: usage.prompt_tokens.saturating_add(usage.completion_tokens),
        }
    }
}

/// A piece of an answer: one event of a stream, one message of a WebSocket.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": "chatcmpl-5f0c5a2e8d1b4c6f9a7e3d2b1c0f4e6a",
    "object": "chat.completion.chunk",
    "created": 1_694_268_190,
    "model": "gpt-4o",
    "choices": [{"index": 0, "delta": {"content": "Hello"}, "finish_reason": null}]
}))]
pub struct ChatCompletionChunk {
    /// The same in all pieces of one answer.
    pub id: String,
    /// `chat.completion.chunk`
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// The model as it was asked for.
    pub model: String,
    /// What is new. Empty in a piece that only tells the usage.
    pub choices: Vec<ChatCompletionChunkChoice>,
    /// Tokens of the prompt and of all answers: on the last message of an answer over a WebSocket, and on the last event
    /// of a stream if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<TokenUsage>,
}

/// What is new of one answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatCompletionChunkChoice {
    /// Its number, from 0.
    pub index: u32,
    /// What is new. The first has the role, the last has nothing.
    pub delta: ChatDelta,
    /// How probable the new tokens were, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub logprobs: Option<ChatLogprobs>,
    /// Why it ended: `stop`, `length`, or over a WebSocket `cancelled`; `null` before that.
    pub finish_reason: Option<&'static str>,
}

/// New text.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct ChatDelta {
    /// `assistant`, in the first piece.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'static str>,
    /// More text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}
