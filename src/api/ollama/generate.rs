//! `POST /api/generate`: one prompt, in a conversation of one message or as it is.

use axum::extract::State;
use axum::response::Response;
use serde_json::Value;

use crate::api::inference::Endpoint;
use crate::api::ollama::answer::answer;
use crate::api::ollama::messages::no_images;
use crate::api::ollama::request::{Content, Request};
use crate::api::ollama::schema;
use crate::api::ollama::writer::Kind;
use crate::api::openai::fields::{Fields, ParameterError};
use crate::auth::ModelUser;
use crate::http::{AnyJsonBody, AppState, Granted, OllamaError};

const ENDPOINT: Endpoint = Endpoint { path: "/api/generate", prompt: "prompt", usual_max_tokens: None };

/// Answers a prompt, as Ollama does: in lines, unless `stream` is false. Without a prompt the model is loaded, or unloaded
/// if `keep_alive` is 0.
///
/// # Errors
/// In Ollama's shape: for a wrong parameter, an unknown or busy model, a full queue.
#[utoipa::path(post, path = "/api/generate", operation_id = "ollamaGenerate", tag = "ollama",
    request_body(content = schema::GenerateRequest, example = json!({"model": "llama3.2", "prompt": "Why is the sky blue?"})),
    responses((status = 200, description = "The answer; with `stream` in lines, one JSON object each", content(
        (schema::Line = "application/json"), (String = "application/x-ndjson")))))]
pub async fn create(
    State(app): State<AppState>,
    Granted(user): Granted<ModelUser>,
    AnyJsonBody(body): AnyJsonBody,
) -> Result<Response, OllamaError> {
    Ok(answer(&app, &user, read(body)?, (Kind::Generate, ENDPOINT)).await?)
}

/// Reads a body.
fn read(body: Value) -> Result<Request, ParameterError> {
    let mut fields = Fields::of(body, "")?;
    let mut request = Request::take(&mut fields)?;
    let prompt = fields.string("prompt")?.unwrap_or_default();
    let system = fields.string("system")?.filter(|system| !system.is_empty());
    let raw = fields.boolean("raw")?.unwrap_or(false);
    let suffix = fields.string("suffix")?.filter(|suffix| !suffix.is_empty());
    let leaves_template_out = if suffix.is_some() { Some("suffix") } else { raw.then_some("raw") };
    if let Some(name) = leaves_template_out.filter(|_| system.is_some()) {
        let reason = format!("is for the template, which `{name}` leaves out");
        return Err(ParameterError::invalid("system", reason));
    }
    no_images(&mut fields)?;
    if fields.string("template")?.is_some_and(|text| !text.is_empty()) {
        return Err(ParameterError::unsupported("template", "the model's own template is used"));
    }
    if fields.list("context", usize::MAX)?.is_some_and(|context| !context.is_empty()) {
        let reason = "send the conversation to /api/chat; what begins alike is found in the cache";
        return Err(ParameterError::unsupported("context", reason));
    }
    fields.refuse(&[
        ("width", "the models here write text"),
        ("height", "the models here write text"),
        ("steps", "the models here write text"),
    ])?;
    fields.finish()?;
    request.content = match suffix {
        Some(after) => Some(Content::Gap { before: prompt, after }),
        None if prompt.is_empty() => None,
        None => Some(Content::Prompt { system, prompt, raw }),
    };
    Ok(request)
}
