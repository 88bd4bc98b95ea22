//! Token ids in, token ids out: one OS thread per loaded model runs a continuous batch over a paged cache.
//!
//! This room knows no text, no users and no HTTP. [`Engine::spawn`] takes a model and gives an [`EngineHandle`];
//! [`EngineHandle::submit`] gives a [`TokenStream`]; dropping that stream is the cancel message.

//!
//! ```text
//! handle ── Submission ──▶ worker: accept → scheduler.plan → Model::forward → scheduler.commit ──▶ TokenStream
//!                                           │ admission, fairness            │ sampler
//!                                           │ blocks, prefix, lookup         │ sequence
//! ```
//!
//! The same request has the same answer whatever else runs: a token depends on its own sequence's logits and on (seed,
//! choice, position), so chunks, prefix hits, batches, preemptions and guesses change only when it comes.

mod blocks;
mod drain;
mod embedder;
mod error;
mod fairness;
mod grammar;
mod handle;
mod lookup;
mod masks;
mod pace;
mod prefix;
mod request;
pub mod sampler;
mod scheduler;
mod sequence;
mod stats;
mod step_cost;
mod tab;
mod worker;

pub use embedder::EmbedderHandle;
pub use error::EngineError;
pub use grammar::{Guide, Next};
pub use handle::{Engine, EngineHandle, TokenStream};
pub use lookup::Foreseen;
pub use request::{
    EngineLimits, FinishReason, Priority, PromptLogprob, SamplingParams, SequenceRequest, Speculation,
    ThoughtLimit, TokenEvent, TokenLogprob,
};
pub use stats::EngineStats;
pub use tab::{Bill, Spent};
