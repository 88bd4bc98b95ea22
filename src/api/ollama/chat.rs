//! `POST /api/chat`.

use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use serde_json::{Map, Value};

use crate::api::inference::{self, Endpoint, Writer};
use crate::api::ollama::options::AnswerParameters;
use crate::api::ollama::times::Times;
use crate::api::ollama::writer::{Kind, LineWriter};
use crate::api::ollama::{error_line, keep_alive, known_name, messages, model, schema};
use crate::api::openai::fields::{Fields, ParameterError};
use crate::auth::ModelUser;
use crate::error::Code;
use crate::generate::{Answer, GenerateRequest, Prompt, ToolUse};
use crate::http::state::Models;
use crate::http::{AnyJsonBody, ApiError, AppState, Granted, OllamaError, ndjson};
use crate::manager::ModelLease;

const ENDPOINT: Endpoint = Endpoint { path: "/api/chat", prompt: "messages", usual_max_tokens: None };

/// A request, read and checked.
#[derive(Debug, PartialEq)]
pub struct ChatRequest {
    model: String,
    messages: Vec<Value>,
    tools: ToolUse,
    parameters: AnswerParameters,
    /// The model is to go.
    unload: bool,
}

/// Answers a conversation, as Ollama does: in lines, unless `stream` is false. Without messages the model is loaded.
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
    let begun = Instant::now();
    let request = ChatRequest::read(body)?;
    let models = app.models(&user);
    let (lease, times) = loaded(&app, &models, &request.model, &request.parameters, begun).await?;
    let writer = LineWriter::new(Kind::Chat, &request.model, request.parameters.has_logprobs(), times);
    if request.messages.is_empty() {
        return Ok(Json(writer.loaded(request.unload)).into_response());
    }
    let prompt = Prompt::Chat {
        continue_final_message: request.messages.last().is_some_and(|last| last["role"] == "assistant"),
        messages: request.messages,
        variables: Map::new(),
        add_generation_prompt: true,
    };
    let stream = request.parameters.stream;
    let name = known_name(&models, &request.model);
    let generate = request.parameters.request(&name, prompt, request.tools);
    // Held until the generation holds it: it must not be unloaded in between.
    let answer = answer(&app, &models, generate, ENDPOINT, writer, stream).await;
    drop(lease);
    Ok(answer?)
}

/// The model, ready to work, and how long that took.
///
/// # Errors
/// For a model that cannot be had, and for a context that it has not.
pub async fn loaded(
    app: &AppState,
    models: &Models<'_>,
    asked: &str,
    parameters: &AnswerParameters,
    begun: Instant,
) -> Result<(ModelLease, Times), ApiError> {
    inference::refuse_while_draining(app)?;
    let lease = models.lease(&known_name(models, asked)).await?;
    let most = lease.spec.context_length;
    if let Some(context) = parameters.context.filter(|context| *context as usize > most) {
        let message = format!("`options.num_ctx` must be at most {most} for this model, not {context}");
        return Err(ApiError::new(Code::OutOfRange, message).or_param("options.num_ctx"));
    }
    Ok((lease, Times::loaded_since(begun)))
}

/// Generates, and answers whole or in lines.
///
/// # Errors
/// As [`inference::start`], and the generation's.
pub async fn answer(
    app: &AppState,
    models: &Models<'_>,
    generate: GenerateRequest,
    endpoint: Endpoint,
    mut writer: LineWriter,
    stream: bool,
) -> Result<Response, ApiError> {
    let generation = inference::start(app, models, vec![generate], endpoint).await?;
    if stream {
        let interruption = generation.interruption().clone();
        let lines = inference::written(inference::begun(generation).await?, writer);
        return Ok(ndjson::lines(app, interruption, lines, error_line));
    }
    let events = generation.watched().inspect(|event| {
        if let Ok(event) = event {
            writer.note(event);
        }
    });
    let answer = Answer::collect(events).await?;
    Ok(Json(writer.answer(answer)).into_response())
}

impl ChatRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// Names the member at fault.
    pub fn read(body: Value) -> Result<Self, ParameterError> {
        let mut fields = Fields::of(body, "")?;
        let model = model(&mut fields)?;
        let messages = messages::take(&mut fields)?;
        let tools = messages::tools(&mut fields)?;
        let parameters = AnswerParameters::take(&mut fields)?;
        let unload = keep_alive::take(&mut fields)?;
        fits(&mut fields)?;
        fields.refuse(&[("template", "the model's own template is used")])?;
        fields.finish()?;
        Ok(Self { model, messages, tools, parameters, unload })
    }
}

/// `truncate` and `shift`: what fits is not cut whatever they say, and what does not is refused.
///
/// # Errors
/// For what is neither true nor false.
pub fn fits(fields: &mut Fields) -> Result<(), ParameterError> {
    fields.boolean("truncate")?;
    fields.boolean("shift").map(drop)
}
