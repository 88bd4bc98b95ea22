//! `POST /api/generate`: one prompt, in a conversation of one message or as it is.

use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use crate::api::inference::Endpoint;
use crate::api::ollama::chat::{answer, fits, loaded};
use crate::api::ollama::messages::no_images;
use crate::api::ollama::options::AnswerParameters;
use crate::api::ollama::writer::{Kind, LineWriter};
use crate::api::ollama::{keep_alive, known_name, model, schema};
use crate::api::openai::fields::{Fields, ParameterError};
use crate::auth::ModelUser;
use crate::generate::{Prompt, ToolUse};
use crate::http::{AnyJsonBody, AppState, Granted, OllamaError};

const ENDPOINT: Endpoint = Endpoint { path: "/api/generate", prompt: "prompt", usual_max_tokens: None };

/// A request, read and checked.
#[derive(Debug, PartialEq)]
pub struct GenerateTextRequest {
    model: String,
    system: Option<String>,
    prompt: String,
    suffix: Option<String>,
    raw: bool,
    parameters: AnswerParameters,
    /// The model is to go.
    unload: bool,
}

/// Answers a prompt, as Ollama does: in lines, unless `stream` is false. Without a prompt the model is loaded.
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
    let begun = Instant::now();
    let request = GenerateTextRequest::read(body)?;
    let models = app.models(&user);
    let (lease, times) = loaded(&app, &models, &request.model, &request.parameters, begun).await?;
    let writer = LineWriter::new(Kind::Generate, &request.model, request.parameters.has_logprobs(), times);
    if request.prompt.is_empty() && request.suffix.is_none() {
        return Ok(Json(writer.loaded(request.unload)).into_response());
    }
    let is_plain = request.raw || lease.chat_template.is_none();
    let prompt = match request.suffix {
        Some(after) => Prompt::Infill { before: request.prompt, after },
        None if is_plain => text(request.system, request.prompt),
        None => chat(request.system, &request.prompt),
    };
    let stream = request.parameters.stream;
    let name = known_name(&models, &request.model);
    let generate = request.parameters.request(&name, prompt, ToolUse::default());
    // Held until the generation holds it: it must not be unloaded in between.
    let answer = answer(&app, &models, generate, ENDPOINT, writer, stream).await;
    drop(lease);
    Ok(answer?)
}

/// The prompt as it is, after the system prompt.
fn text(system: Option<String>, prompt: String) -> Prompt {
    Prompt::Text(system.map_or_else(|| prompt.clone(), |system| format!("{system}\n\n{prompt}")))
}

fn chat(system: Option<String>, prompt: &str) -> Prompt {
    let system = system.map(|system| json!({"role": "system", "content": system}));
    Prompt::Chat {
        messages: system.into_iter().chain([json!({"role": "user", "content": prompt})]).collect(),
        variables: Map::new(),
        add_generation_prompt: true,
        continue_final_message: false,
    }
}

impl GenerateTextRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// Names the member at fault.
    pub fn read(body: Value) -> Result<Self, ParameterError> {
        let mut fields = Fields::of(body, "")?;
        let model = model(&mut fields)?;
        let prompt = fields.string("prompt")?.unwrap_or_default();
        let system = fields.string("system")?.filter(|system| !system.is_empty());
        let raw = fields.boolean("raw")?.unwrap_or(false);
        if raw && system.is_some() {
            return Err(ParameterError::invalid("system", "is for the template, which `raw` leaves out"));
        }
        let parameters = AnswerParameters::take(&mut fields)?;
        let unload = keep_alive::take(&mut fields)?;
        fits(&mut fields)?;
        no_images(&mut fields)?;
        let suffix = fields.string("suffix")?.filter(|suffix| !suffix.is_empty());
        if suffix.is_some() && system.is_some() {
            return Err(ParameterError::invalid("system", "is for the template, which `suffix` leaves out"));
        }
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
        Ok(Self { model, system, prompt, suffix, raw, parameters, unload })
    }
}
