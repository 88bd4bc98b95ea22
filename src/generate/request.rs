//! What the edge asks for, whatever protocol it came in by. Ours: no vendor's names.

use std::time::Instant;

use crate::engine::{Priority, SamplingParams};

/// What is to be continued.
#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    /// A conversation, rendered by the model's template: objects with `role`, `content`, …
    Chat {
        /// The messages, already checked.
        messages: Vec<serde_json::Value>,
        /// Tool definitions, passed to the template.
        tools: Vec<serde_json::Value>,
        /// Allow-listed template variables.
        variables: serde_json::Map<String, serde_json::Value>,
        /// Continue the last assistant message instead of starting a new one.
        continue_final_message: bool,
    },
    /// Plain text.
    Text(String),
    /// Token ids, taken as they are.
    Tokens(Vec<u32>),
}

/// One request for text.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateRequest {
    /// The model as the client named it; answers repeat it.
    pub model: String,
    /// What is to be continued.
    pub prompt: Prompt,
    /// How tokens are chosen.
    pub sampling: SamplingParams,
    /// Answers wanted.
    pub choices: u32,
    /// Most tokens per answer; none: as many as the context allows.
    pub max_new_tokens: Option<u32>,
    /// End tokens are not looked at before this many tokens.
    pub min_new_tokens: u32,
    /// Texts that end an answer; not shown.
    pub stop: Vec<String>,
    /// Tokens that end an answer, beside the model's own.
    pub stop_token_ids: Vec<u32>,
    /// Go on past the model's end tokens.
    pub ignore_end: bool,
    /// Special tokens appear in the text.
    pub show_special_tokens: bool,
    /// Put the prompt's text (and its log-probabilities) before the answer.
    pub echo: bool,
    /// Log-probabilities of the prompt's tokens.
    pub prompt_logprobs: Option<u32>,
    /// Whose request it is, opaque.
    pub tenant: u64,
    /// Who goes first.
    pub priority: Priority,
    /// When to give up.
    pub deadline: Option<Instant>,
}
