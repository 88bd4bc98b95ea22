//! `POST /api/chat`.

use axum::extract::State;
use axum::response::Response;
use serde_json::Value;

use crate::api::inference::Endpoint;
use crate::api::ollama::answer::answer;
use crate::api::ollama::request::{Content, Request};
use crate::api::ollama::writer::Kind;
use crate::api::ollama::{messages, schema};
use crate::api::openai::fields::{Fields, ParameterError};
use crate::auth::ModelUser;
use crate::http::{AnyJsonBody, AppState, Granted, OllamaError};

const ENDPOINT: Endpoint = Endpoint { path: "/api/chat", prompt: "messages", usual_max_tokens: None };

/// Answers a conversation, as Ollama does: in lines, unless `stream` is false. Without messages the model is loaded, or
/// unloaded if `keep_alive` is 0.
///
/// # Errors
/// In Ollama's shape: for a wrong parameter, an unknown or busy model, a full queue.
#[utoipa::path(post, path = "/api/chat", operation_id = "ollamaChat", tag = "ollama",
    request_body(content = schema::ChatRequest, example = json!({"model": "llama3.2",
        "messages": [{"role": "user", "content": "Hello!"}]})),
    responses((status = 200, description = "The answer; with `stream` in lines, one JSON object each", content(
        (schema::Line = "application/json"), (String = "application/x-ndjson")))))]
pub async fn create(
    State(app): State<AppState>,
    Granted(user): Granted<ModelUser>,
    AnyJsonBody(body): AnyJsonBody,
) -> Result<Response, OllamaError> {
    Ok(answer(&app, &user, read(body)?, (Kind::Chat, ENDPOINT)).await?)
}

/// Reads a body.
fn read(body: Value) -> Result<Request, ParameterError> {
    let mut fields = Fields::of(body, "")?;
    let mut request = Request::take(&mut fields)?;
    let messages = messages::take(&mut fields)?;
    request.tools = messages::tools(&mut fields)?;
    request.content = (!messages.is_empty()).then_some(Content::Messages(messages));
    fields.refuse(&[("template", "the model's own template is used")])?;
    fields.finish()?;
    Ok(request)
}
