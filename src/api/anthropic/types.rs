//! What goes out, in Anthropic's shapes. Requests are read member by member, so they have no types here.

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::generate::{EndReason, Usage};

/// A whole answer; in a stream, what is known of it at its beginning.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = AnthropicMessage)]
pub struct Message {
    /// `msg_…`
    #[schema(example = "msg_5f0c5a2e8d1b4c6f9a7e3d2b1c0f4e6a")]
    pub id: String,
    /// Always `message`.
    #[schema(example = "message")]
    pub r#type: &'static str,
    /// Always `assistant`.
    #[schema(example = "assistant")]
    pub role: &'static str,
    /// What was thought, said and called, in this order.
    pub content: Vec<Block>,
    /// The model as it was asked for.
    #[schema(example = "claude-sonnet-4-5")]
    pub model: String,
    /// Why it ended: `end_turn`, `max_tokens`, `stop_sequence`, `tool_use`, or `model_context_window_exceeded`.
    #[schema(example = "end_turn")]
    pub stop_reason: Option<&'static str>,
    /// Which of the `stop_sequences` ended it.
    pub stop_sequence: Option<String>,
    /// Tokens of the request.
    pub usage: MessageUsage,
}

/// A part of an answer.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = AnthropicBlock)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Block {
    /// What the model thought first.
    Thinking {
        /// The thought; empty where it was asked to be omitted.
        thinking: String,
        /// A digest of the thought.
        signature: String,
    },
    /// What it said.
    Text {
        /// The text.
        text: String,
    },
    /// A function that it calls.
    ToolUse {
        /// What the result refers to.
        id: String,
        /// The function.
        name: String,
        /// Its arguments: an object.
        #[schema(value_type = Value)]
        input: Map<String, Value>,
    },
}

/// Tokens of a request.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[schema(as = AnthropicUsage)]
pub struct MessageUsage {
    /// Of the prompt, without those found in the cache.
    #[schema(example = 9)]
    input_tokens: u32,
    /// Always 0: the cache keeps what it can by itself, and nobody pays for it.
    #[schema(example = 0)]
    cache_creation_input_tokens: u32,
    /// Of the prompt, found in the cache.
    #[schema(example = 0)]
    cache_read_input_tokens: u32,
    /// Of the answer so far, thoughts included.
    #[schema(example = 12)]
    output_tokens: u32,
    /// Which of them were thoughts, if any were.
    #[serde(skip_serializing_if = "Option::is_none")]
    output_tokens_details: Option<OutputTokensDetails>,
    /// Always `standard`.
    #[schema(example = "standard")]
    service_tier: &'static str,
}

/// Which tokens of an answer were what.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[schema(as = AnthropicOutputTokensDetails)]
struct OutputTokensDetails {
    /// Thought before the answer.
    #[schema(example = 7)]
    thinking_tokens: u32,
}

impl From<Usage> for MessageUsage {
    fn from(usage: Usage) -> Self {
        let thought = usage.reasoning_tokens;
        Self {
            input_tokens: usage.prompt_tokens.saturating_sub(usage.cached_tokens),
            cache_creation_input_tokens: 0,
            cache_read_input_tokens: usage.cached_tokens,
            output_tokens: usage.completion_tokens,
            output_tokens_details: (thought > 0).then_some(OutputTokensDetails { thinking_tokens: thought }),
            service_tier: "standard",
        }
    }
}

/// One event of a stream.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = AnthropicEvent)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// The prompt has been run.
    MessageStart {
        /// The answer, still empty.
        message: Message,
    },
    /// A part begins.
    ContentBlockStart {
        /// Its number, from 0.
        index: u32,
        /// The part, still empty.
        content_block: Block,
    },
    /// Nothing, once, after the first part began.
    Ping,
    /// More of a part.
    ContentBlockDelta {
        /// Its number, from 0.
        index: u32,
        /// What is new.
        delta: BlockDelta,
    },
    /// A part is complete.
    ContentBlockStop {
        /// Its number, from 0.
        index: u32,
    },
    /// The answer is complete.
    MessageDelta {
        /// Why it ended.
        delta: Ended,
        /// All tokens of the request.
        usage: MessageUsage,
    },
    /// The last event.
    MessageStop,
}

/// What is new of a part.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = AnthropicBlockDelta)]
#[serde(tag = "type")]
pub enum BlockDelta {
    /// More text.
    #[serde(rename = "text_delta")]
    Text {
        /// The text.
        text: String,
    },
    /// More of a thought.
    #[serde(rename = "thinking_delta")]
    Thinking {
        /// The thought.
        thinking: String,
    },
    /// After the last of a thought.
    #[serde(rename = "signature_delta")]
    Signature {
        /// A digest of the thought.
        signature: String,
    },
    /// More of a call's arguments.
    #[serde(rename = "input_json_delta")]
    InputJson {
        /// A piece of the text of a JSON object.
        partial_json: String,
    },
}

/// Why an answer ended.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
#[schema(as = AnthropicEnd)]
pub struct Ended {
    /// As in a whole answer.
    #[schema(example = "end_turn")]
    pub stop_reason: Option<&'static str>,
    /// As in a whole answer.
    pub stop_sequence: Option<String>,
}

impl Ended {
    /// In Anthropic's words. `stop` are the request's stop sequences; `is_full` says that the context had no more room.
    pub fn of(reason: EndReason, stop: &[String], is_full: bool) -> Self {
        let mut stop_sequence = None;
        let stop_reason = match reason {
            EndReason::Stop => "end_turn",
            EndReason::StopText(number) => {
                stop_sequence = stop.get(number as usize).cloned();
                "stop_sequence"
            }
            EndReason::ToolCalls => "tool_use",
            EndReason::Length if is_full => "model_context_window_exceeded",
            EndReason::Length => "max_tokens",
        };
        Self { stop_reason: Some(stop_reason), stop_sequence }
    }
}

/// An error, in the middle of a stream.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AnthropicErrorEvent)]
#[allow(dead_code, reason = "only described: errors are written by `AnthropicError`")]
pub struct ErrorEvent {
    /// Always `error`.
    #[schema(example = "error")]
    r#type: &'static str,
    /// What went wrong.
    error: ErrorDetail,
    /// Finds the request in the log.
    request_id: String,
}

/// What went wrong.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AnthropicErrorEventDetail)]
#[allow(dead_code, reason = "only described")]
struct ErrorDetail {
    /// Its kind.
    #[schema(example = "overloaded_error")]
    r#type: &'static str,
    /// For people.
    message: String,
}

/// What comes in a stream: the events of an answer, or an error after which nothing comes.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AnthropicStreamEvent)]
#[serde(untagged)]
#[allow(dead_code, reason = "only described")]
pub enum StreamEvent {
    /// Of an answer.
    Event(Event),
    /// The end before its time.
    Error(ErrorEvent),
}
