//! Text in, text out: the only door to the engine for the edge.
//!
//! [`Generator::start`] takes a leased model and a [`GenerateRequest`] and gives a [`Generation`]: a stream of
//! [`GenerationEvent`]. Dropping it stops the engine. This room knows no protocol and no HTTP.

mod account;
mod answer;
mod batch;
mod compilers;
mod constraint;
mod conversation;
mod embed;
mod error;
mod event;
mod form;
pub mod format;
mod generation;
mod generator;
mod meter;
mod names;
mod prompt;
mod reasoning;
mod request;
mod score;
mod stops;
mod text;
mod tools;

pub use crate::engine::{Priority, SamplingParams, TokenLogprob};
pub use account::Account;
pub use answer::{Answer, AnswerChoice, CollectedAnswer};
pub use batch::GenerationBatch;
pub use constraint::Constraint;
pub use embed::{EmbedInput, EmbedOptions, Embeddings, PromptChoice};
pub use error::GenerateError;
pub use event::{EndReason, GenerationEvent, TextToken, Timings, Usage};
pub use generation::Generation;
pub use generator::Generator;
pub use names::Names;
pub use reasoning::{Effort, Reasoning, Verbosity};
pub use request::{Attribution, GenerateRequest, Prompt, Sampling};
pub use score::{Scores, TextPair};
pub use tools::{Tool, ToolCall, ToolChoice, ToolUse};
