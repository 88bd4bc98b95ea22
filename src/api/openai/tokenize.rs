//! `POST /v1/tokenize`, `POST /v1/detokenize`, `POST /v1/chat/completions/render`: what a model would read, without
//! running it. In vLLM's shape; who may use a model may ask this of it.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::api::inference;
use crate::api::openai::chat::ChatRequest;
use crate::api::openai::fields::{Fields, ParameterError, string};
use crate::api::openai::sampling::token_ids;
use crate::api::openai::schema;
use crate::auth::ModelUser;
use crate::generate::GenerateRequest;
use crate::http::{ApiError, AppState, Granted, JsonBody, OpenAiError};
use crate::manager::ModelLease;

/// Most bytes of a text whose tokens are wanted: what is tokenised within moments.
pub const MAX_TEXT_BYTES: usize = 1 << 20;

/// Most tokens whose text is wanted.
pub const MAX_TOKENS: usize = 1 << 18;

/// A request, read and checked.
#[derive(Debug, PartialEq)]
pub struct TokenizeRequest {
    model: String,
    source: Source,
    /// Show each token's text too.
    with_texts: bool,
}

/// What is to be tokenised.
#[derive(Debug, PartialEq)]
enum Source {
    /// A text.
    Text {
        text: String,
        /// With what the tokenizer puts around texts.
        add_special_tokens: bool,
    },
    /// A conversation.
    Chat(Box<GenerateRequest>),
}

/// Tells the tokens of a text or of a conversation.
///
/// # Errors
/// In OpenAI's shape: for a wrong parameter, an unknown or busy model.
#[utoipa::path(post, path = "/v1/tokenize", operation_id = "tokenize", tag = "openai",
    request_body(content = schema::TokenizeRequest, example = json!({"model": "gpt-4o", "prompt": "Once upon a time"})),
    responses((status = 200, description = "The tokens", body = schema::Tokenized)))]
pub async fn tokenize(
    State(app): State<AppState>,
    Granted(user): Granted<ModelUser>,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, OpenAiError> {
    let TokenizeRequest { model, source, with_texts } = TokenizeRequest::read(body)?;
    inference::refuse_while_draining(&app)?;
    let lease = app.models(&user).lease(&model).await?;
    let ids = match source {
        Source::Text { text, add_special_tokens } => {
            let tokens = app.generator().tokens(&lease, text, add_special_tokens).await;
            tokens.map_err(|error| ApiError::from(error).or_param("prompt"))?
        }
        Source::Chat(request) => rendered(&app, &lease, *request).await?.1,
    };
    let mut answer = json!({
        "model": model,
        "count": ids.len(),
        "max_model_len": lease.spec.context_length,
        "tokens": ids,
    });
    if with_texts {
        answer["token_strs"] = texts(&lease, &ids);
    }
    Ok(Json(answer))
}

/// Each token's own text; lossy where it is a part of a character.
fn texts(lease: &ModelLease, ids: &[u32]) -> Value {
    let text = |id: &u32| match lease.tokenizer.token_bytes(*id) {
        Some(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        None => lease.tokenizer.name(*id).unwrap_or_default(),
    };
    ids.iter().map(text).collect()
}

/// Tells the text of tokens.
///
/// # Errors
/// In OpenAI's shape: for a wrong parameter, an unknown or busy model.
#[utoipa::path(post, path = "/v1/detokenize", operation_id = "detokenize", tag = "openai",
    request_body(content = schema::DetokenizeRequest, example = json!({"model": "gpt-4o", "tokens": [40, 41, 42]})),
    responses((status = 200, description = "The text", body = schema::Detokenized)))]
pub async fn detokenize(
    State(app): State<AppState>,
    Granted(user): Granted<ModelUser>,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, OpenAiError> {
    let DetokenizeRequest { model, tokens } = DetokenizeRequest::read(body)?;
    inference::refuse_while_draining(&app)?;
    let lease = app.models(&user).lease(&model).await?;
    let text = app.generator().text(&lease, tokens).await?;
    Ok(Json(json!({"model": model, "prompt": text})))
}

/// Shows the prompt that a conversation becomes: the text that the model's template makes of it, and its tokens.
///
/// # Errors
/// In OpenAI's shape: for a wrong parameter, an unknown or busy model, a conversation that does not fit.
#[utoipa::path(post, path = "/v1/chat/completions/render", operation_id = "openaiRenderChatCompletion", tag = "openai",
    request_body(content = schema::ChatCompletionRequest, example = json!({"model": "gpt-4o",
        "messages": [{"role": "user", "content": "Hello!"}]})),
    responses((status = 200, description = "The prompt; nothing is generated", body = schema::RenderedChat)))]
pub async fn render(
    State(app): State<AppState>,
    Granted(user): Granted<ModelUser>,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, OpenAiError> {
    let ChatRequest { generate, .. } = ChatRequest::read(body)?;
    inference::refuse_while_draining(&app)?;
    let lease = app.models(&user).lease(&generate.model).await?;
    let model = generate.model.clone();
    let (prompt, ids) = rendered(&app, &lease, generate).await?;
    Ok(Json(json!({
        "object": "chat.completion.render",
        "model": model,
        "prompt": prompt,
        "count": ids.len(),
        "max_model_len": lease.spec.context_length,
        "token_ids": ids,
    })))
}

async fn rendered(
    app: &AppState,
    lease: &ModelLease,
    request: GenerateRequest,
) -> Result<(String, Vec<u32>), ApiError> {
    let rendered = app.generator().rendered(lease, request).await;
    rendered.map_err(|error| ApiError::from(error).or_param("messages"))
}

impl TokenizeRequest {
    /// Reads a body: with `messages` that of a chat completion, of which what does not concern the prompt is checked and
    /// has no effect; otherwise a text.
    ///
    /// # Errors
    /// Names the parameter at fault.
    pub fn read(body: Value) -> Result<Self, ParameterError> {
        let mut fields = Fields::of(body, "")?;
        let with_texts = fields.boolean("return_token_strs")?.unwrap_or(false);
        if fields.has("messages") {
            let chat = ChatRequest::read(Value::Object(fields.into_members()))?;
            let model = chat.generate.model.clone();
            return Ok(Self { model, source: Source::Chat(Box::new(chat.generate)), with_texts });
        }
        let model = string(fields.required("model")?, || "model".to_owned())?;
        let text = string(fields.required("prompt")?, || "prompt".to_owned())?;
        if text.len() > MAX_TEXT_BYTES {
            let reason = format!("must have at most {MAX_TEXT_BYTES} bytes, not {}", text.len());
            return Err(ParameterError::invalid("prompt", reason));
        }
        let add_special_tokens = fields.boolean("add_special_tokens")?.unwrap_or(true);
        fields.finish()?;
        Ok(Self { model, source: Source::Text { text, add_special_tokens }, with_texts })
    }
}

/// A request, read and checked.
#[derive(Debug, PartialEq)]
pub struct DetokenizeRequest {
    model: String,
    tokens: Vec<u32>,
}

impl DetokenizeRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// Names the parameter at fault.
    pub fn read(body: Value) -> Result<Self, ParameterError> {
        let mut fields = Fields::of(body, "")?;
        let model = string(fields.required("model")?, || "model".to_owned())?;
        let tokens = match fields.required("tokens")? {
            Value::Array(tokens) if tokens.len() <= MAX_TOKENS => token_ids(&tokens, "tokens")?,
            _ => {
                let reason = format!("must be an array of at most {MAX_TOKENS} token ids");
                return Err(ParameterError::invalid("tokens", reason));
            }
        };
        fields.finish()?;
        Ok(Self { model, tokens })
    }
}
