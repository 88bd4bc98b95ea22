//! What comes out, whatever protocol it leaves by.

use std::time::Duration;

use crate::engine::TokenLogprob;

/// Tokens of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of the prompt, counted once whatever the number of choices.
    pub prompt_tokens: u32,
    /// Of the prompt, found in the prefix cache.
    pub cached_tokens: u32,
    /// Of all answers, stop tokens included.
    pub completion_tokens: u32,
    /// Of those, thought before the answer.
    pub reasoning_tokens: u32,
    /// Of what the answer was said to be, tokens that were said, in their place or behind what is new.
    pub accepted_prediction_tokens: u32,
    /// The other tokens of that. They cost nothing.
    pub rejected_prediction_tokens: u32,
    /// How long they took.
    pub timings: Timings,
}

/// How long a request took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timings {
    /// From its arrival until the prompt had run, waiting included.
    pub prompt: Duration,
    /// From then until the last answer was complete.
    pub answer: Duration,
}

/// Why an answer ended, in the words of the protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// The model ended it, or a stop token did.
    Stop,
    /// A stop text did: this one of the request's, from 0.
    StopText(u32),
    /// The model called functions and waits for what they give.
    ToolCalls,
    /// A length limit.
    Length,
}

/// A token of the text, for `logprobs`.
#[derive(Debug, Clone, PartialEq)]
pub struct TextToken {
    /// Its id.
    pub id: u32,
    /// Its text on its own (lossy where it is a part of a character).
    pub text: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Log-probability and alternatives (as ids; `alternatives` has their texts in the same order). None for the
    /// first token of an echoed prompt, which nothing predicts.
    pub logprob: Option<TokenLogprob>,
    /// Text and bytes of each alternative.
    pub alternatives: Vec<(String, Vec<u8>)>,
}

/// One step of a generation.
#[derive(Debug, Clone, PartialEq)]
pub enum GenerationEvent {
    /// The prompt has been run.
    Started {
        /// The choices that come from this prompt.
        choices: std::ops::Range<u32>,
        /// Prompt tokens and how many were found in the cache.
        usage: Usage,
    },
    /// More text of a choice.
    Text {
        /// Which choice, from 0.
        choice: u32,
        /// May be empty when only `tokens` arrived.
        text: String,
        /// The tokens that made it, if log-probabilities were asked for.
        tokens: Vec<TextToken>,
    },
    /// More of what the model thinks before it answers.
    Reasoning {
        /// Which choice, from 0.
        choice: u32,
        /// May be empty when only `tokens` arrived.
        text: String,
        /// The tokens that made it, if log-probabilities were asked for.
        tokens: Vec<TextToken>,
    },
    /// The model begins to call a function.
    ToolCallBegun {
        /// Which choice, from 0.
        choice: u32,
        /// Which call of the choice, from 0. A call is whole when the next begins, or text comes, or the choice ends.
        call: u32,
        /// `call_…`.
        id: String,
        /// The function.
        name: String,
    },
    /// More of a call's arguments.
    ToolCallArguments {
        /// Which choice, from 0.
        choice: u32,
        /// Which call of the choice, from 0.
        call: u32,
        /// A piece of the text of a JSON object.
        text: String,
    },
    /// A choice is complete.
    Ended {
        /// Which choice, from 0.
        choice: u32,
        /// Why.
        reason: EndReason,
    },
    /// All choices are complete; the last event.
    Done {
        /// The final count.
        usage: Usage,
    },
}
