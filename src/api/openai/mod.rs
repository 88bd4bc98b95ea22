//! OpenAI's protocol: request in, events out. Every parameter is honoured, or refused by its name; none is dropped.

pub mod chat;
pub mod completions;
pub mod embeddings;
mod fields;
mod messages;
pub mod models;
mod sampling;
pub mod schema;
mod start;
mod types;
