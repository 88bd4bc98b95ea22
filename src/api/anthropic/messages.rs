//! `POST /v1/messages`.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use crate::api::anthropic::thinking::{self, Thinking};
use crate::api::anthropic::types::{Message, StreamEvent};
use crate::api::anthropic::version::ProtocolVersion;
use crate::api::anthropic::writer::{Asked, MessageWriter};
use crate::api::anthropic::{cache_control, conversation, error_event, schema, tools};
use crate::api::inference::{self, Endpoint};
use crate::api::openai::fields::{Fields, ParameterError, string};
use crate::api::openai::sampling::{AnswerOptions, end_user};
use crate::auth::ModelUser;
use crate::generate::{GenerateRequest, Names, Prompt, Sampling, ToolUse};
use crate::http::{AnthropicError, AppState, Granted, JsonBody, sse};

const MAX_STOPS: usize = 16;
const MAX_STOP_BYTES: usize = 256;

/// Known to Anthropic's clients, refused by name.
const REFUSED: &[(&str, &str)] = &[
    ("container", "no code is run here"),
    ("context_management", "a conversation is never cut"),
    ("diagnostics", "the cache does not say what it kept"),
    ("fallbacks", "the model that is asked answers"),
    ("inference_geo", "it is computed where this server is"),
    ("mcp_servers", "tools are called by whoever asks"),
    ("user_profile_id", "use `metadata.user_id`"),
    ("max_tokens_to_sample", "it is called `max_tokens` here"),
    ("stop", "it is called `stop_sequences` here"),
];

const ENDPOINT: Endpoint = Endpoint { path: "/v1/messages", prompt: "messages", usual_max_tokens: None };

/// A request, read and checked.
#[derive(Debug, PartialEq)]
pub struct MessagesRequest {
    /// What is to be generated.
    pub generate: GenerateRequest,
    /// What the answer needs to know of it.
    pub asked: Asked,
    /// Send events rather than one answer.
    pub stream: bool,
}

/// Answers a conversation, as Anthropic does.
///
/// # Errors
/// In Anthropic's shape: for a wrong parameter, an unknown or busy model, a full queue.
#[utoipa::path(post, path = "/v1/messages", operation_id = "anthropicCreateMessage", tag = "anthropic",
    params(("anthropic-version" = Option<String>, Header, description = "The version of the protocol: `2023-06-01` or \
        `2026-10-21`; what is answered is the same in both", example = "2023-06-01")),
    request_body(content = schema::MessagesRequest, examples(
        ("whole" = (summary = "One answer", value = json!({"model": "claude-sonnet-4-5", "max_tokens": 1024,
            "system": "You are a helpful assistant.", "messages": [{"role": "user", "content": "Hello!"}]}))),
        ("streamed" = (summary = "Piece by piece", value = json!({"model": "claude-sonnet-4-5", "max_tokens": 1024,
            "stream": true, "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello!"}]}]}))))),
    responses((status = 200, description = "The answer; with `stream` as events, each of the name that is its `type`", content(
        (Message = "application/json"), (StreamEvent = "text/event-stream")))))]
pub async fn create(
    State(app): State<AppState>,
    Granted(user): Granted<ModelUser>,
    _version: ProtocolVersion,
    JsonBody(body): JsonBody,
) -> Result<Response, AnthropicError> {
    let MessagesRequest { generate, asked, stream } = MessagesRequest::read(body)?;
    let generation = inference::start(&app, &app.models(&user), vec![generate], ENDPOINT).await?;
    let writer = MessageWriter::new(asked);
    if !stream {
        return Ok(Json(inference::whole(generation, &writer).await?).into_response());
    }
    let interruption = generation.interruption().clone();
    let events = inference::written(inference::begun(generation).await?, writer);
    Ok(sse::named_events(&app, interruption, events, error_event))
}

impl MessagesRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// Names the member at fault.
    pub fn read(body: Value) -> Result<Self, ParameterError> {
        let mut fields = Fields::of(body, "")?;
        let model = string(fields.required("model")?, || "model".to_owned())?;
        let max_tokens = fields.small_integer("max_tokens", 0..=u32::MAX)?;
        let max_tokens = max_tokens.ok_or_else(|| ParameterError::missing("max_tokens".to_owned(), None))?;
        let question = Question::take(&mut fields, Some(max_tokens))?;
        let mut options = AnswerOptions {
            sampling: sampling(&mut fields)?,
            choices: 1,
            stop: stop(&mut fields)?,
            ..AnswerOptions::default()
        };
        let stream = fields.boolean("stream")?.unwrap_or(false);
        options.end_user = metadata(&mut fields)?;
        let tier = fields.string("service_tier")?;
        if tier.is_some_and(|tier| tier != "auto" && tier != "standard_only") {
            return Err(ParameterError::invalid("service_tier", "must be `auto` or `standard_only`"));
        }
        fields.refuse(REFUSED)?;
        fields.finish()?;
        let asked = Asked {
            model: model.clone(),
            stop: options.stop.clone(),
            max_tokens,
            display: question.thinking.display,
        };
        let generate = question.request(options, &model, Some(max_tokens));
        Ok(Self { generate, asked, stream })
    }
}

/// What answering and counting have in common: what the model is shown.
pub struct Question {
    prompt: Prompt,
    tools: ToolUse,
    thinking: Thinking,
}

impl Question {
    /// Takes it out of a body.
    ///
    /// # Errors
    /// Names the member at fault.
    pub fn take(fields: &mut Fields, max_tokens: Option<u32>) -> Result<Self, ParameterError> {
        let prompt = conversation::take(fields)?;
        let tools = tools::take(fields)?;
        let thinking = thinking::take(fields, max_tokens)?;
        cache_control(fields)?;
        if fields.string("speed")?.is_some_and(|speed| speed != "standard") {
            return Err(ParameterError::unsupported("speed", "there is one speed: `standard`"));
        }
        Ok(Self { prompt, tools, thinking })
    }

    /// A request for an answer to it.
    pub fn request(self, options: AnswerOptions, model: &str, max_tokens: Option<u32>) -> GenerateRequest {
        GenerateRequest {
            tools: self.tools,
            reasoning: self.thinking.reasoning,
            constraint: self.thinking.constraint,
            names: Names {
                constraint: self.thinking.format,
                tool_schema: "input_schema",
                effort: self.thinking.effort,
                budget: "thinking.budget_tokens",
                ..Names::default()
            },
            ..options.request(model, self.prompt, max_tokens)
        }
    }
}

fn sampling(fields: &mut Fields) -> Result<Sampling, ParameterError> {
    Ok(Sampling {
        temperature: fields.number("temperature", 0.0..=1.0)?,
        top_p: fields.number("top_p", 0.0..=1.0)?,
        top_k: fields.small_integer("top_k", 0..=u32::MAX)?,
        ..Sampling::default()
    })
}

fn stop(fields: &mut Fields) -> Result<Vec<String>, ParameterError> {
    let texts = fields.list("stop_sequences", MAX_STOPS)?.unwrap_or_default();
    let checked = |(number, text)| {
        let path = || format!("stop_sequences[{number}]");
        let text = string(text, path)?;
        if (1..=MAX_STOP_BYTES).contains(&text.len()) {
            return Ok(text);
        }
        let reason = format!("must have 1 to {MAX_STOP_BYTES} bytes, not {}", text.len());
        Err(ParameterError::invalid(path(), reason))
    };
    texts.into_iter().enumerate().map(checked).collect()
}

/// On whose behalf somebody asks: it is written down, and nothing here depends on it.
fn metadata(fields: &mut Fields) -> Result<Option<String>, ParameterError> {
    let Some(mut metadata) = fields.object("metadata")? else { return Ok(None) };
    let user = end_user(&mut metadata, "user_id")?;
    metadata.finish()?;
    Ok(user)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::error::Failure;

    fn least() -> Value {
        json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]})
    }

    #[test]
    fn what_is_left_out_is_the_models_own_business() {
        let MessagesRequest { generate, asked, stream } =
            MessagesRequest::read(least()).expect("it is enough");
        assert_eq!((generate.sampling, generate.stop.len()), (Sampling::default(), 0));
        assert_eq!((generate.max_new_tokens, generate.choices, stream), (Some(9), 1, false));
        assert_eq!((asked.model.as_str(), asked.max_tokens), ("m", 9));
    }

    #[test]
    fn each_member_is_honoured_or_refused_by_name() {
        for (name, value) in [
            ("max_tokens", Value::Null),
            ("max_tokens", json!("9")),
            ("temperature", json!(1.1)),
            ("top_p", json!(2)),
            ("top_k", json!(-1)),
            ("stop_sequences", json!("x")),
            ("stream", json!("yes")),
            ("service_tier", json!("priority")),
            ("speed", json!("fast")),
            ("metadata", json!({"name": "x"})),
            ("container", json!("x")),
            ("mcp_servers", json!([])),
            ("context_management", json!({})),
            ("inference_geo", json!("eu")),
            ("seed", json!(7)),
            ("n", json!(2)),
            ("logprobs", json!(true)),
        ] {
            let mut body = least();
            body[name] = value;
            let error = MessagesRequest::read(body.clone()).expect_err("it must be refused");
            assert!(error.param().is_some_and(|param| param.starts_with(name)), "{body}: {error}");
        }
    }
}
