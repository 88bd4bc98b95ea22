//! Text in, text out: the only door to the engine for the edge.
//!
//! [`Generator::start`] takes a leased model and a [`GenerateRequest`] and gives a [`Generation`]: a stream of
//! [`GenerationEvent`]. Dropping it stops the engine. This room knows no protocol and no HTTP.

mod account;
mod answer;
mod batch;
mod embed;
mod error;
mod event;
mod generation;
mod generator;
mod meter;
mod prompt;
mod request;
mod text;

pub use crate::engine::{Priority, SamplingParams, TokenLogprob};
pub use account::Account;
pub use answer::{Answer, AnswerChoice};
pub use batch::GenerationBatch;
pub use embed::{EmbedInput, Embeddings};
pub use error::GenerateError;
pub use event::{EndReason, GenerationEvent, TextToken, Usage};
pub use generation::Generation;
pub use generator::Generator;
pub use request::{GenerateRequest, Prompt, Sampling};
