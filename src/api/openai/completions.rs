//! `POST /v1/completions`: the older endpoint, for text without a conversation; evaluations live on it.

use std::collections::HashMap;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::api::inference::{self, Endpoint, Writer};
use crate::api::openai::error_event;
use crate::api::openai::fields::{Fields, ParameterError, string};
use crate::api::openai::sampling::{AnswerOptions, MAX_CHOICES, StreamOptions, token_ids};
use crate::api::openai::schema;
use crate::api::openai::types::{Envelope, Head, TextChoice, TextLogprobs, finish_reason};
use crate::auth::ModelUser;
use crate::generate::{Answer, GenerateRequest, GenerationEvent, Prompt, TextToken};
use crate::http::{AppState, Granted, JsonBody, OpenAiError};

const ENDPOINT: Endpoint =
    Endpoint { path: "/v1/completions", prompt: "prompt", usual_max_tokens: Some(DEFAULT_MAX_TOKENS) };

/// OpenAI's own default.
const DEFAULT_MAX_TOKENS: u32 = 16;

/// Most prompts of one request.
pub const MAX_PROMPTS: usize = 128;

/// A request, read and checked: one [`GenerateRequest`] for each prompt.
#[derive(Debug, PartialEq)]
pub struct CompletionRequest {
    generate: Vec<GenerateRequest>,
    stream: StreamOptions,
}

/// Continues texts.
///
/// # Errors
/// In OpenAI's shape: for a wrong parameter, an unknown or busy model, a full queue.
#[utoipa::path(post, path = "/v1/completions", operation_id = "openaiCreateCompletion", tag = "openai",
    request_body(content = schema::CompletionRequest, examples(
        ("whole" = (summary = "One answer", value = json!({"model": "gpt-4o", "prompt": "Once upon a time", "max_tokens": 64}))),
        ("streamed" = (summary = "Piece by piece", value = json!({"model": "gpt-4o", "prompt": ["One", "Two"],
            "stream": true, "stream_options": {"include_usage": true}}))))),
    responses((status = 200, description = "The answer; with `stream` as events, and `[DONE]` after the last", content(
        (schema::OpenAiCompletion = "application/json"), (schema::OpenAiCompletion = "text/event-stream")))))]
pub async fn create(
    State(app): State<AppState>,
    Granted(user): Granted<ModelUser>,
    JsonBody(body): JsonBody,
) -> Result<Response, OpenAiError> {
    let CompletionRequest { generate, stream } = CompletionRequest::read(body)?;
    let (model, logprobs) = match generate.first() {
        Some(first) => (first.model.clone(), first.sampling.logprobs),
        None => (String::new(), None),
    };
    let generation = inference::start(&app, &app.models(&user), generate, ENDPOINT).await?;
    let head = Head::new("cmpl", "text_completion", model, generation.fingerprint());
    let writer = TextWriter { head, logprobs, include_usage: stream.include_usage, offsets: HashMap::new() };
    if stream.stream {
        return Ok(inference::events(&app, generation, writer, error_event).await?);
    }
    Ok(Json(inference::whole(generation, &writer).await?).into_response())
}

impl CompletionRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// Names the parameter at fault.
    pub fn read(body: Value) -> Result<Self, ParameterError> {
        let mut fields = Fields::of(body, "")?;
        let model = string(fields.required("model")?, || "model".to_owned())?;
        let prompts = prompts(&mut fields)?;
        let stream = StreamOptions::take(&mut fields)?;
        let best_of = fields.small_integer("best_of", 1..=MAX_CHOICES)?;
        let mut options = AnswerOptions::take(&mut fields)?;
        if best_of.is_some_and(|best_of| best_of != options.choices) {
            let reason = "answers are not ranked; it may only equal `n`";
            return Err(ParameterError::unsupported("best_of", reason));
        }
        options.sampling.logprobs = fields.small_integer("logprobs", 0..=5)?;
        let echo = fields.boolean("echo")?.unwrap_or(false);
        let max_new_tokens = fields.small_integer("max_tokens", 0..=u32::MAX)?;
        fields.refuse(&[
            ("suffix", "the models here continue a text, they do not fill it in"),
            ("max_completion_tokens", "it is called `max_tokens` here"),
            ("messages", "use /v1/chat/completions"),
            ("top_logprobs", "it is called `logprobs` here"),
            ("add_special_tokens", "send token ids to choose them yourself"),
        ])?;
        fields.finish()?;
        let prompt_logprobs = options.sampling.logprobs.filter(|_| echo);
        let request = |prompt| GenerateRequest {
            echo,
            prompt_logprobs,
            ..options.clone().request(&model, prompt, max_new_tokens)
        };
        Ok(Self { generate: prompts.into_iter().map(request).collect(), stream })
    }
}

fn prompts(fields: &mut Fields) -> Result<Vec<Prompt>, ParameterError> {
    let wrong = || {
        let reason =
            "must be a string, an array of strings, an array of token ids, or an array of such arrays";
        ParameterError::invalid("prompt", reason)
    };
    let values = match fields.required("prompt")? {
        Value::String(text) => return Ok(vec![Prompt::Text(text)]),
        Value::Array(values) => values,
        _ => return Err(wrong()),
    };
    if values.first().is_some_and(Value::is_number) {
        return Ok(vec![Prompt::Tokens(token_ids(&values, "prompt")?)]);
    }
    if !(1..=MAX_PROMPTS).contains(&values.len()) {
        let reason = format!("must have 1 to {MAX_PROMPTS} prompts, not {}", values.len());
        return Err(ParameterError::invalid("prompt", reason));
    }
    let prompt = |value| match value {
        Value::String(text) => Ok(Prompt::Text(text)),
        Value::Array(ids) => Ok(Prompt::Tokens(token_ids(&ids, "prompt")?)),
        _ => Err(wrong()),
    };
    values.into_iter().map(prompt).collect()
}

/// Writes events and answers.
struct TextWriter {
    head: Head,
    logprobs: Option<u32>,
    include_usage: bool,
    /// Characters of each choice sent so far.
    offsets: HashMap<u32, usize>,
}

impl Writer for TextWriter {
    fn answer(&self, answer: Answer) -> Value {
        let choices = answer.choices.into_iter().enumerate().map(|(index, choice)| TextChoice {
            index,
            text: choice.text,
            logprobs: self.logprobs.map(|top| TextLogprobs::new(choice.tokens, 0, top > 0).0),
            finish_reason: choice.reason.map(finish_reason),
        });
        let usage = Some(Some(answer.usage.into()));
        json!(Envelope { head: &self.head, choices: choices.collect(), usage })
    }

    fn chunks(&mut self, event: GenerationEvent) -> Vec<Value> {
        match event {
            GenerationEvent::Started { .. } => Vec::new(),
            GenerationEvent::Text { choice, text, tokens } => {
                let logprobs = self.logprobs(choice, tokens);
                vec![self.chunk(choice, text, logprobs, None)]
            }
            // Plain text has no parts.
            GenerationEvent::Reasoning { .. }
            | GenerationEvent::ToolCallBegun { .. }
            | GenerationEvent::ToolCallArguments { .. } => Vec::new(),
            GenerationEvent::Ended { choice, reason } => {
                vec![self.chunk(choice, String::new(), None, Some(finish_reason(reason)))]
            }
            GenerationEvent::Done { usage } if self.include_usage => {
                let choices = Vec::<TextChoice>::new();
                vec![json!(Envelope { head: &self.head, choices, usage: Some(Some(usage.into())) })]
            }
            GenerationEvent::Done { .. } => Vec::new(),
        }
    }
}

impl TextWriter {
    fn chunk(
        &self,
        choice: u32,
        text: String,
        logprobs: Option<TextLogprobs>,
        finish_reason: Option<&'static str>,
    ) -> Value {
        let choices = vec![TextChoice { index: choice as usize, text, logprobs, finish_reason }];
        json!(Envelope { head: &self.head, choices, usage: self.include_usage.then_some(None) })
    }

    fn logprobs(&mut self, choice: u32, tokens: Vec<TextToken>) -> Option<TextLogprobs> {
        let top = self.logprobs?;
        let offset = self.offsets.entry(choice).or_default();
        let (logprobs, next) = TextLogprobs::new(tokens, *offset, top > 0);
        *offset = next;
        Some(logprobs)
    }
}
