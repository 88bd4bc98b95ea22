//! OpenAI's protocol: request in, events out. Every parameter is honoured, or refused by its name; none is dropped.

pub mod batches;
mod capabilities;
pub mod chat;
pub mod completions;
pub(in crate::api) mod constraint;
pub mod embeddings;
pub(in crate::api) mod fields;
pub mod files;
pub mod line;
mod messages;
mod metadata;
pub mod models;
pub mod rerank;
pub mod responses;
pub(in crate::api) mod sampling;
pub mod schema;
mod service_tier;
pub mod tokenize;
mod tools;
pub(in crate::api) mod types;

use serde_json::Value;

use crate::http::{ApiError, OpenAiError};

/// An error within a stream.
fn error_event(error: ApiError) -> Value {
    OpenAiError::from(error).to_json()
}
