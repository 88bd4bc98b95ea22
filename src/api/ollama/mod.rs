//! Ollama's protocol, for tools that speak no other: request in, events out. Every member is honoured, or refused by its
//! name; how a model is loaded and how long it stays is the server's business and has no effect.
//!
//! Whether it is spoken at all is a setting. What of Ollama changes models is not here (`http/layers.rs` says what to use).

mod answer;
mod chat;
mod description;
mod embed;
mod generate;
mod keep_alive;
mod messages;
mod models;
mod options;
mod request;
mod schema;
mod times;
mod writer;

use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::openai::fields::{Fields, ParameterError, string};
use crate::http::state::Models;
use crate::http::{ApiError, AppState, OllamaError};
use crate::manager::ModelStatus;

/// The URLs of this room.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(models::root))
        .routes(routes!(chat::create))
        .routes(routes!(generate::create))
        .routes(routes!(embed::create))
        .routes(routes!(embed::create_one))
        .routes(routes!(models::tags))
        .routes(routes!(models::running))
        .routes(routes!(models::show))
        .routes(routes!(models::version))
}

/// An error within a stream.
fn error_line(error: ApiError) -> Value {
    OllamaError::from(error).to_json()
}

/// The tag that Ollama puts behind a name that has none.
const TAG: &str = ":latest";

/// The name of a model as it is known here: Ollama's clients may put its usual tag behind it.
fn known_name(models: &Models<'_>, asked: &str) -> String {
    let Some(plain) = asked.strip_suffix(TAG) else { return asked.to_owned() };
    let is_asked_for =
        |model: &ModelStatus| model.id == asked || model.aliases.iter().any(|alias| alias == asked);
    let name = if models.list().iter().any(is_asked_for) { asked } else { plain };
    name.to_owned()
}

/// `model`.
fn model(fields: &mut Fields) -> Result<String, ParameterError> {
    string(fields.required("model")?, || fields.path("model"))
}
