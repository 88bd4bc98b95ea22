//! Token ids in, token ids out: one OS thread per loaded model runs a continuous batch over a paged cache.
//!
//! This room knows no text, no users and no HTTP. [`Engine::spawn`] takes a model and gives an [`EngineHandle`];
//! [`EngineHandle::submit`] gives a [`TokenStream`]; dropping that stream is the cancel message.

mod embedder;
mod error;
mod handle;
mod request;
mod stats;

pub use embedder::EmbedderHandle;
pub use error::EngineError;
pub use handle::{Engine, EngineHandle, TokenStream};
pub use request::{
    EngineLimits, FinishReason, Priority, SamplingParams, SequenceRequest, TokenEvent, TokenLogprob,
};
pub use stats::EngineStats;
