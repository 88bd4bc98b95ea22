//! OpenAI's protocol: request in, events out. Every parameter is honoured, or refused by its name; none is dropped.

pub mod chat;
pub mod completions;
pub(in crate::api) mod constraint;
pub mod embeddings;
mod fields;
mod messages;
pub mod models;
pub mod responses;
mod sampling;
pub mod schema;
mod tools;
pub(in crate::api) mod types;

use serde_json::Value;

use crate::http::{ApiError, OpenAiError};

/// An error within a stream.
fn error_event(error: ApiError) -> Value {
    OpenAiError::from(error).to_json()
}
