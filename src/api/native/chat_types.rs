//! What comes out of chat under `/api/v1`: the members that the API specification shows, in its order, and those that only
//! come when they are asked for. What goes in is the same as for OpenAI's clients (`openai/schema/chat.rs`).

use serde::Serialize;
use utoipa::ToSchema;

use crate::api::openai::types::{Call, CallDelta, ChatLogprobs};
use crate::generate::Usage;

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
    pub logprobs: Option<ChatLogprobs>,
    /// Why it ended: `stop`, `length`, or `tool_calls`.
    #[schema(example = "stop")]
    pub finish_reason: &'static str,
}

/// What the assistant says.
#[derive(Debug, Serialize, ToSchema)]
pub struct AssistantMessage {
    /// Always `assistant`.
    #[schema(example = "assistant")]
    pub role: &'static str,
    /// The text; null where there are only calls.
    pub content: Option<String>,
    /// What the model thought before; left out if it thought nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// The functions it calls; left out if it calls none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<Call>,
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
    pub logprobs: Option<ChatLogprobs>,
    /// Why it ended: `stop`, `length`, `tool_calls`, or over a WebSocket `cancelled`; `null` before that.
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
    /// More of what the model thinks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// A call that begins, or more of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<Vec<CallDelta>>,
}
