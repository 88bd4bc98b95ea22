//! From a request to its answer, whole or in lines. One for both ways of generating: what they differ in is a [`Kind`].

use std::time::Instant;

use axum::Json;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;

use crate::api::inference::{self, Endpoint, Writer};
use crate::api::ollama::options::AnswerParameters;
use crate::api::ollama::request::Request;
use crate::api::ollama::times::Times;
use crate::api::ollama::writer::{Kind, LineWriter};
use crate::api::ollama::{error_line, keep_alive, known_name};
use crate::auth::ModelUser;
use crate::error::Code;
use crate::generate::{Answer, GenerateRequest};
use crate::http::state::Models;
use crate::http::{ApiError, AppState, ndjson};
use crate::manager::ModelLease;

/// Answers; a request without content has its model loaded, or unloaded if it is to go.
///
/// # Errors
/// For a model that cannot be had, or is to go and does not, a context that it has not, a request that does not suit it, and
/// a full queue.
pub async fn answer(
    app: &AppState,
    user: &ModelUser,
    request: Request,
    (kind, endpoint): (Kind, Endpoint),
) -> Result<Response, ApiError> {
    let begun = Instant::now();
    let models = app.models(user);
    let name = known_name(&models, &request.model);
    if request.content.is_none() && request.unload {
        keep_alive::unload(app, user, &models.named(&name).await?.id).await?;
        let writer = LineWriter::new(kind, &request.model, false, Times::loaded_since(begun));
        return Ok(Json(writer.loaded(true)).into_response());
    }
    let lease = loaded(app, &models, &name, &request.parameters).await?;
    let has_logprobs = request.parameters.has_logprobs();
    let writer = LineWriter::new(kind, &request.model, has_logprobs, Times::loaded_since(begun));
    let Some(content) = request.content else { return Ok(Json(writer.loaded(false)).into_response()) };
    let stream = request.parameters.stream;
    let prompt = content.prompt(lease.chat_template.is_some());
    let generate = request.parameters.request(&name, prompt, request.tools);
    // Held until the generation holds it: it must not be unloaded in between.
    let answer = generated(app, &models, generate, endpoint, (writer, stream)).await;
    drop(lease);
    answer
}

async fn loaded(
    app: &AppState,
    models: &Models<'_>,
    name: &str,
    parameters: &AnswerParameters,
) -> Result<ModelLease, ApiError> {
    inference::refuse_while_draining(app)?;
    let lease = models.lease(name).await?;
    let most = lease.spec.context_length;
    if let Some(context) = parameters.context.filter(|context| *context as usize > most) {
        let message = format!("`options.num_ctx` must be at most {most} for this model, not {context}");
        return Err(ApiError::new(Code::OutOfRange, message).or_param("options.num_ctx"));
    }
    Ok(lease)
}

async fn generated(
    app: &AppState,
    models: &Models<'_>,
    generate: GenerateRequest,
    endpoint: Endpoint,
    (mut writer, stream): (LineWriter, bool),
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
