//! Text in, text out: the only door to the engine for the edge. (being written)

mod event;
mod request;

pub use event::{EndReason, GenerationEvent, TextToken, Usage};
pub use request::{GenerateRequest, Prompt};
