//! `POST /v1/messages/count_tokens`: how long a conversation is for a model. Nothing is generated, nothing is billed.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::api::anthropic::messages::Question;
use crate::api::anthropic::schema;
use crate::api::anthropic::version::ProtocolVersion;
use crate::api::inference;
use crate::api::openai::fields::{Fields, ParameterError, string};
use crate::api::openai::sampling::AnswerOptions;
use crate::auth::ModelUser;
use crate::generate::GenerateRequest;
use crate::http::{AnthropicError, ApiError, AppState, Granted, JsonBody};

/// How long a conversation is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AnthropicTokenCount)]
pub struct TokenCount {
    /// Tokens of messages, system prompt and tools, with all that the model's template puts round them.
    #[schema(example = 14)]
    input_tokens: usize,
}

/// A request, read and checked.
#[derive(Debug, PartialEq)]
pub struct CountRequest(pub GenerateRequest);

/// Counts the tokens of a conversation, as a request with the same members would be counted.
///
/// # Errors
/// In Anthropic's shape: for a wrong parameter, an unknown or busy model.
#[utoipa::path(post, path = "/v1/messages/count_tokens", operation_id = "anthropicCountTokens", tag = "anthropic",
    params(("anthropic-version" = Option<String>, Header, description = "The version of the protocol: `2023-06-01` or \
        `2026-10-21`; what is answered is the same in both", example = "2023-06-01")),
    request_body(content = schema::CountTokensRequest, example = json!({"model": "claude-sonnet-4-5",
        "messages": [{"role": "user", "content": "Hello!"}]})),
    responses((status = 200, description = "The number", body = TokenCount)))]
pub async fn count(
    State(app): State<AppState>,
    Granted(user): Granted<ModelUser>,
    _version: ProtocolVersion,
    JsonBody(body): JsonBody,
) -> Result<Json<TokenCount>, AnthropicError> {
    let CountRequest(request) = CountRequest::read(body)?;
    inference::refuse_while_draining(&app)?;
    let lease = app.models(&user).lease(&request.model).await?;
    let counted = app.generator().prompt_tokens(&lease, request).await;
    let input_tokens = counted.map_err(|error| ApiError::from(error).or_param("messages"))?;
    Ok(Json(TokenCount { input_tokens }))
}

impl CountRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// Names the member at fault.
    pub fn read(body: Value) -> Result<Self, ParameterError> {
        let mut fields = Fields::of(body, "")?;
        let model = string(fields.required("model")?, || "model".to_owned())?;
        let question = Question::take(&mut fields, None)?;
        fields.refuse(&[
            ("max_tokens", "nothing is generated here"),
            ("context_management", "a conversation is never cut"),
            ("mcp_servers", "tools are called by whoever asks"),
        ])?;
        fields.finish()?;
        Ok(Self(question.request(AnswerOptions::default(), &model, None)))
    }
}
