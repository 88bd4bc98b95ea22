//! `POST /api/embed`, and `POST /api/embeddings`, which is older.

use std::time::Instant;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::api::inference;
use crate::api::ollama::times::Times;
use crate::api::ollama::{keep_alive, known_name, model, schema};
use crate::api::openai::embeddings::MAX_INPUTS;
use crate::api::openai::fields::{Fields, ParameterError, string};
use crate::auth::ModelUser;
use crate::engine::EngineError;
use crate::generate::{EmbedInput, EmbedOptions, Embeddings};
use crate::http::{AnyJsonBody, ApiError, AppState, Granted, OllamaError};
use crate::usage::Outcome;

/// A request, read and checked.
#[derive(Debug, PartialEq)]
pub struct EmbedRequest {
    model: String,
    texts: Vec<String>,
    dimensions: Option<u32>,
    /// A text that is too long is cut.
    truncate: bool,
}

/// Embeds texts.
///
/// # Errors
/// In Ollama's shape: for a wrong parameter, an unknown or busy model, a full queue.
#[utoipa::path(post, path = "/api/embed", operation_id = "ollamaEmbed", tag = "ollama",
    request_body(content = schema::EmbedRequest, example = json!({"model": "all-minilm", "input": ["Good morning", "Bonjour"]})),
    responses((status = 200, description = "The vectors, in the order of the texts", body = schema::Embedded)))]
pub async fn create(
    State(app): State<AppState>,
    Granted(user): Granted<ModelUser>,
    AnyJsonBody(body): AnyJsonBody,
) -> Result<Json<Value>, OllamaError> {
    let request = EmbedRequest::read(body)?;
    let model = request.model.clone();
    let (embedded, times) = embed(&app, &user, request, "/api/embed", "input").await?;
    Ok(Json(json!({
        "model": model,
        "embeddings": embedded.vectors,
        "total_duration": times.total(),
        "load_duration": times.load(),
        "prompt_eval_count": embedded.prompt_tokens,
    })))
}

/// Embeds one text.
///
/// # Errors
/// As [`create`].
#[utoipa::path(post, path = "/api/embeddings", operation_id = "ollamaEmbeddings", tag = "ollama",
    request_body(content = schema::EmbeddingsRequest, example = json!({"model": "all-minilm", "prompt": "Good morning"})),
    responses((status = 200, description = "The vector", body = schema::EmbeddedOne)))]
pub async fn create_one(
    State(app): State<AppState>,
    Granted(user): Granted<ModelUser>,
    AnyJsonBody(body): AnyJsonBody,
) -> Result<Json<Value>, OllamaError> {
    let request = EmbedRequest::read_one(body)?;
    let (embedded, _) = embed(&app, &user, request, "/api/embeddings", "prompt").await?;
    Ok(Json(json!({"embedding": embedded.vectors.into_iter().next().unwrap_or_default()})))
}

async fn embed(
    app: &AppState,
    user: &ModelUser,
    request: EmbedRequest,
    path: &'static str,
    field: &'static str,
) -> Result<(Embeddings, Times), ApiError> {
    let begun = Instant::now();
    inference::refuse_while_draining(app)?;
    let models = app.models(user);
    let lease = models.lease(&known_name(&models, &request.model)).await?;
    let times = Times::loaded_since(begun);
    let options = EmbedOptions {
        dimensions: request.dimensions.map(|wanted| wanted as usize),
        truncate: request.truncate,
        ..Default::default()
    };
    let mut record = models.record(&lease.id, &request.model, path)?;
    if request.texts.is_empty() {
        return Ok((Embeddings { vectors: Vec::new(), prompt_tokens: 0 }, times));
    }
    let interruption = record.interruption().clone();
    let inputs = request.texts.into_iter().map(EmbedInput::Text).collect();
    let embedding = app.generator().embed(&lease, inputs, &options, record.account());
    let embedding = tokio::select! {
        biased;
        embedding = embedding => embedding,
        () = tokio::time::sleep_until(app.deadline().into()) => Err(EngineError::DeadlineExceeded.into()),
        error = interruption.happened() => return Err(error),
    };
    let embedded = embedding.map_err(|error| {
        record.failed(&error);
        ApiError::from(error).or_param(field)
    })?;
    record.ended(Outcome::Stop);
    Ok((embedded, times))
}

impl EmbedRequest {
    /// Reads a body of the newer kind.
    ///
    /// # Errors
    /// Names the member at fault.
    pub fn read(body: Value) -> Result<Self, ParameterError> {
        let mut fields = Fields::of(body, "")?;
        let model = model(&mut fields)?;
        let texts = match fields.required("input")? {
            text @ Value::String(_) => vec![text],
            Value::Array(texts) if texts.len() <= MAX_INPUTS => texts,
            Value::Array(texts) => {
                let reason = format!("must have at most {MAX_INPUTS} elements, not {}", texts.len());
                return Err(ParameterError::invalid("input", reason));
            }
            _ => return Err(ParameterError::invalid("input", "must be a string or an array of strings")),
        };
        let texts = texts.into_iter().map(|text| not_empty(string(text, || "input".to_owned())?, "input"));
        let texts = texts.collect::<Result<_, _>>()?;
        let dimensions = fields.small_integer("dimensions", 1..=u32::MAX)?;
        let truncate = fields.boolean("truncate")?.unwrap_or(true);
        finish(fields)?;
        Ok(Self { model, texts, dimensions, truncate })
    }

    /// Reads a body of the older kind.
    ///
    /// # Errors
    /// Names the member at fault.
    pub fn read_one(body: Value) -> Result<Self, ParameterError> {
        let mut fields = Fields::of(body, "")?;
        let model = model(&mut fields)?;
        let prompt = string(fields.required("prompt")?, || "prompt".to_owned())?;
        // An empty one has no vector.
        let texts = if prompt.is_empty() { Vec::new() } else { vec![prompt] };
        finish(fields)?;
        Ok(Self { model, texts, dimensions: None, truncate: true })
    }
}

fn not_empty(text: String, path: &str) -> Result<String, ParameterError> {
    if text.is_empty() {
        return Err(ParameterError::invalid(path, "must not be an empty string"));
    }
    Ok(text)
}

/// What both kinds end with: options are about loading and sampling, and change no vector.
fn finish(mut fields: Fields) -> Result<(), ParameterError> {
    keep_alive::take(&mut fields)?;
    drop(fields.object("options")?);
    fields.finish()
}
