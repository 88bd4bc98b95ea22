//! What the edge asks for, whatever protocol it came in by. Ours: no vendor's names.

use std::time::Instant;

use sconce_models::GenerationDefaults;

use crate::engine::{Priority, SamplingParams};
use crate::generate::{Constraint, Names, Reasoning, ToolUse, Verbosity};

/// What is to be continued.
#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    /// A conversation, rendered by the model's template: objects with `role`, `content`, …
    Chat {
        /// The messages, already checked.
        messages: Vec<serde_json::Value>,
        /// Allow-listed template variables.
        variables: serde_json::Map<String, serde_json::Value>,
        /// Put the header of the assistant's answer at the end; the usual.
        add_generation_prompt: bool,
        /// Continue the last assistant message instead of starting a new one.
        continue_final_message: bool,
    },
    /// Plain text.
    Text(String),
    /// Plain text with a gap, which the answer is to fill.
    Infill {
        /// What is before the gap.
        before: String,
        /// What is after it.
        after: String,
    },
    /// Token ids, taken as they are.
    Tokens(Vec<u32>),
}

/// How tokens are chosen, as far as the caller said. What is `None` is filled in from the model's own suggestions.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sampling {
    /// 0 takes the best token.
    pub temperature: Option<f32>,
    /// Nucleus; 1 keeps all.
    pub top_p: Option<f32>,
    /// Number of candidates; 0 keeps all.
    pub top_k: Option<u32>,
    /// 1 is off.
    pub repetition_penalty: Option<f32>,
    /// Candidates at least this probable relative to the best.
    pub min_p: f32,
    /// Locally typical sampling; `None` is off.
    pub typical_p: Option<f32>,
    /// Off at 0.
    pub presence_penalty: f32,
    /// Off at 0.
    pub frequency_penalty: f32,
    /// Added to logits: (token id, bias).
    pub logit_bias: Vec<(u32, f32)>,
    /// The same seed gives the same answer.
    pub seed: Option<u64>,
    /// Log-probabilities of the answer's tokens, with this many alternatives.
    pub logprobs: Option<u32>,
}

impl Sampling {
    /// The engine's parameters: the caller's word, else the model's, else neutral.
    pub fn resolve(self, suggested: &GenerationDefaults) -> SamplingParams {
        let neutral = SamplingParams::default();
        SamplingParams {
            temperature: self.temperature.or(suggested.temperature).unwrap_or(neutral.temperature),
            // A nucleus of 0 means the best token alone; the sampler wants a positive number.
            top_p: self.top_p.or(suggested.top_p).unwrap_or(neutral.top_p).max(f32::MIN_POSITIVE),
            top_k: self.top_k.or(suggested.top_k).unwrap_or(neutral.top_k),
            repetition_penalty: self
                .repetition_penalty
                .or(suggested.repetition_penalty)
                .unwrap_or(neutral.repetition_penalty),
            min_p: self.min_p,
            typical_p: self.typical_p.unwrap_or(neutral.typical_p),
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            logit_bias: self.logit_bias,
            seed: self.seed,
            logprobs: self.logprobs,
        }
    }
}

/// Whom a request is for, in its caller's words: written down, and of no effect.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Attribution {
    /// The caller's own user.
    pub end_user: Option<String>,
    /// What else is noted: texts by name.
    pub metadata: serde_json::Map<String, serde_json::Value>,
}

/// One request for text.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateRequest {
    /// The model as the client named it; answers repeat it.
    pub model: String,
    /// What is to be continued.
    pub prompt: Prompt,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// What the answer may be at all; none: anything.
    pub constraint: Option<Constraint>,
    /// Functions that the model may call.
    pub tools: ToolUse,
    /// How much the model thinks first.
    pub reasoning: Reasoning,
    /// How much the model says; none: as it does.
    pub verbosity: Option<Verbosity>,
    /// What the answer is thought to be: it comes sooner where it is, and is the same in any case.
    pub prediction: Option<String>,
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
    /// Tokens of prompt and answer together, at most; none: as many as the model can hold.
    pub context: Option<u32>,
    /// Log-probabilities of the prompt's tokens.
    pub prompt_logprobs: Option<u32>,
    /// Whom it is for.
    pub attribution: Attribution,
    /// What its caller calls what the model may yet refuse.
    pub names: Names,
    /// Whose request it is, opaque.
    pub tenant: u64,
    /// Who goes first.
    pub priority: Priority,
    /// When to give up.
    pub deadline: Option<Instant>,
}
