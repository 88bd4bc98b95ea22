//! Anthropic's protocol: request in, events out. Every member is honoured, or refused by its name; none is dropped.
//!
//! A conversation is put into OpenAI's chat shape here, which is the one that models' templates know (`conversation.rs`).

mod conversation;
pub(in crate::api) mod count;
pub(in crate::api) mod messages;
pub(in crate::api) mod models;
mod schema;
mod thinking;
mod tools;
mod types;
pub(in crate::api) mod version;
mod writer;

use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::openai::fields::{Fields, ParameterError, string};
use crate::http::{AnthropicError, ApiError, AppState};

/// The URLs of this room. Models are listed at the URL that OpenAI's clients ask, too.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(messages::create)).routes(routes!(count::count))
}

/// An error within a stream.
fn error_event(error: ApiError) -> Value {
    AnthropicError::from(error).to_json()
}

/// `cache_control`, wherever it may stand: checked, and without effect. The cache finds by itself what begins alike.
fn cache_control(fields: &mut Fields) -> Result<(), ParameterError> {
    let Some(mut control) = fields.object("cache_control")? else { return Ok(()) };
    let kind = string(control.required("type")?, || control.path("type"))?;
    if kind != "ephemeral" {
        return Err(ParameterError::invalid(control.path("type"), "must be `ephemeral`"));
    }
    if control.string("ttl")?.is_some_and(|ttl| ttl != "5m" && ttl != "1h") {
        return Err(ParameterError::invalid(control.path("ttl"), "must be `5m` or `1h`"));
    }
    control.finish()
}

/// A name that somebody sent, short enough to be said again.
fn short(name: &str) -> String {
    name.chars().take(32).collect()
}
