//! `POST /v1/embeddings`.

use axum::Json;
use axum::extract::State;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::api::inference;
use crate::api::openai::fields::{Fields, ParameterError, string};
use crate::api::openai::sampling::{end_user, token_ids};
use crate::api::openai::schema;
use crate::auth::ModelUser;
use crate::engine::EngineError;
use crate::generate::{Attribution, EmbedInput, EmbedOptions, PromptChoice};
use crate::http::state::Models;
use crate::http::{ApiError, AppState, Granted, JsonBody, OpenAiError};
use crate::usage::Outcome;

/// Its URL.
pub const PATH: &str = "/v1/embeddings";

/// Most inputs of one request, as at OpenAI.
pub const MAX_INPUTS: usize = 2048;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Encoding {
    Float,
    Base64,
}

/// A request, read and checked.
#[derive(Debug, PartialEq)]
pub struct EmbeddingRequest {
    model: String,
    inputs: Vec<EmbedInput>,
    encoding: Encoding,
    options: EmbedOptions,
    end_user: Option<String>,
}

/// Embeds texts.
///
/// # Errors
/// In OpenAI's shape: for a wrong parameter, an unknown or busy model, a full queue.
#[utoipa::path(post, path = "/v1/embeddings", operation_id = "openaiCreateEmbedding", tag = "openai",
    request_body(content = schema::EmbeddingRequest,
        example = json!({"model": "text-embedding-3-small", "input": ["Good morning", "Bonjour"]})),
    responses((status = 200, description = "The vectors, in the order of the texts", body = schema::OpenAiEmbeddings)))]
pub async fn create(
    State(app): State<AppState>,
    Granted(user): Granted<ModelUser>,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, OpenAiError> {
    Ok(Json(whole(&app, &app.models(&user), body).await?))
}

/// The same for whoever uses these models.
///
/// # Errors
/// As [`create`].
pub async fn whole(app: &AppState, models: &Models<'_>, body: Value) -> Result<Value, ApiError> {
    let request = EmbeddingRequest::read(body)?;
    inference::refuse_while_draining(app)?;
    let lease = models.lease(&request.model).await?;
    let mut record = models.record(&lease.id, &request.model, PATH)?;
    record.attribute(Attribution { end_user: request.end_user, ..Attribution::default() });
    let interruption = record.interruption().clone();
    let embedding = app.generator().embed(&lease, request.inputs, &request.options, record.account());
    let deadline = models.deadline();
    let too_late = async {
        match deadline {
            Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
            None => std::future::pending().await,
        }
    };
    let embedding = tokio::select! {
        biased;
        embedding = embedding => embedding,
        () = too_late => Err(EngineError::DeadlineExceeded.into()),
        error = interruption.happened() => return Err(error),
    };
    let embeddings = embedding.map_err(|error| {
        record.failed(&error);
        ApiError::from(error).or_param("input")
    })?;
    record.ended(Outcome::Stop);
    let data = embeddings.vectors.iter().enumerate();
    let data: Vec<Value> = data
        .map(|(index, vector)| {
            json!({"object": "embedding", "index": index, "embedding": encoded(vector, request.encoding)})
        })
        .collect();
    let tokens = embeddings.prompt_tokens;
    Ok(json!({
        "object": "list",
        "data": data,
        "model": request.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }))
}

fn encoded(vector: &[f32], encoding: Encoding) -> Value {
    match encoding {
        Encoding::Float => json!(vector),
        Encoding::Base64 => {
            let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
            json!(STANDARD.encode(bytes))
        }
    }
}

impl EmbeddingRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// Names the parameter at fault.
    pub fn read(body: Value) -> Result<Self, ParameterError> {
        let mut fields = Fields::of(body, "")?;
        let model = string(fields.required("model")?, || "model".to_owned())?;
        let inputs = inputs(fields.required("input")?)?;
        let encoding = match fields.string("encoding_format")?.as_deref() {
            None | Some("float") => Encoding::Float,
            Some("base64") => Encoding::Base64,
            Some(_) => return Err(ParameterError::invalid("encoding_format", "must be `float` or `base64`")),
        };
        let dimensions = fields.small_integer("dimensions", 1..=u32::MAX)?;
        let options = EmbedOptions {
            prompt: prompt(&mut fields)?,
            dimensions: dimensions.map(|size| size as usize),
            truncate: false,
        };
        let end_user = end_user(&mut fields, "user")?;
        fields.refuse(&[("truncate_prompt_tokens", "an input is never cut")])?;
        fields.finish()?;
        Ok(Self { model, inputs, encoding, options, end_user })
    }
}

/// What an input may be for, and by which names models know that.
const PURPOSES: [(&[&str], &[&str]); 2] = [
    (&["query", "search_query"], &["query", "search_query", "s2p_query"]),
    (&["document", "passage", "search_document"], &["document", "passage", "search_document"]),
];

/// Which of the model's prompts stands before each text.
fn prompt(fields: &mut Fields) -> Result<Option<PromptChoice>, ParameterError> {
    let (name, purpose) = (fields.string("prompt_name")?, fields.string("input_type")?);
    match (name, purpose) {
        (None, None) => Ok(None),
        (Some(name), None) => Ok(Some(PromptChoice::Named(name))),
        (Some(_), Some(_)) => {
            Err(ParameterError::invalid("input_type", "cannot be used together with `prompt_name`"))
        }
        (None, Some(purpose)) => {
            let known = PURPOSES.iter().find(|(words, _)| words.contains(&purpose.as_str()));
            let choice = known.map(|(_, names)| PromptChoice::For("input_type", names));
            choice.map(Some).ok_or_else(|| {
                ParameterError::invalid("input_type", "must be `query` or `document`; see also `prompt_name`")
            })
        }
    }
}

fn inputs(input: Value) -> Result<Vec<EmbedInput>, ParameterError> {
    let wrong = || {
        let reason =
            "must be a string, an array of strings, an array of token ids, or an array of such arrays";
        ParameterError::invalid("input", reason)
    };
    let values = match input {
        text @ Value::String(_) => vec![text],
        Value::Array(values) if values.first().is_some_and(Value::is_number) => vec![Value::Array(values)],
        Value::Array(values) => values,
        _ => return Err(wrong()),
    };
    if !(1..=MAX_INPUTS).contains(&values.len()) {
        let reason = format!("must have 1 to {MAX_INPUTS} elements, not {}", values.len());
        return Err(ParameterError::invalid("input", reason));
    }
    let input = |value| match value {
        Value::String(text) if text.is_empty() => {
            Err(ParameterError::invalid("input", "must not be an empty string"))
        }
        Value::String(text) => Ok(EmbedInput::Text(text)),
        Value::Array(ids) if ids.is_empty() => {
            Err(ParameterError::invalid("input", "must not be an empty array"))
        }
        Value::Array(ids) => Ok(EmbedInput::Tokens(token_ids(&ids, "input")?)),
        _ => Err(wrong()),
    };
    values.into_iter().map(input).collect()
}
