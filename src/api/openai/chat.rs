//! `POST /v1/chat/completions`.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use crate::api::inference::{self, Endpoint, Writer};
use crate::api::openai::fields::{Fields, ParameterError, string};
use crate::api::openai::sampling::{AnswerOptions, StreamOptions};
use crate::api::openai::types::{
    ChatChoice, ChatLogprobs, ChunkChoice, Delta, Envelope, Head, Message, finish_reason,
};
use crate::api::openai::{error_event, messages, schema};
use crate::auth::ModelUser;
use crate::generate::{Answer, GenerateRequest, GenerationEvent, Prompt, TextToken};
use crate::http::{AppState, Granted, JsonBody, OpenAiError};

/// Known to OpenAI's clients, refused by name.
const REFUSED: &[(&str, &str)] = &[
    ("tools", "tools cannot be called yet"),
    ("functions", "tools cannot be called yet"),
    ("parallel_tool_calls", "tools cannot be called yet"),
    ("reasoning_effort", "how much a model thinks cannot be set"),
    ("verbosity", "how much a model says cannot be set"),
    ("prediction", "answers are not predicted"),
    ("audio", "the models here write text"),
    ("web_search_options", "nothing is looked up"),
    ("prompt_cache_retention", "the cache keeps what it can"),
    ("moderation", "answers are not moderated"),
    ("echo", "use /v1/completions, or `continue_final_message`"),
    ("documents", "put them into a message"),
    ("chat_template", "the model's own template is used"),
    ("add_special_tokens", "the template says which there are"),
];

/// Accepted, and without effect: they say whose request it is or hint at billing and caching.
const WITHOUT_EFFECT: &[&str] = &["metadata", "safety_identifier", "prompt_cache_key"];

/// A request, read and checked.
#[derive(Debug, PartialEq)]
pub struct ChatRequest {
    /// What is to be generated.
    pub generate: GenerateRequest,
    /// How it is to be sent.
    pub stream: StreamOptions,
}

const ENDPOINT: Endpoint =
    Endpoint { path: "/v1/chat/completions", prompt: "messages", usual_max_tokens: None };

/// Answers a conversation.
///
/// # Errors
/// In OpenAI's shape: for a wrong parameter, an unknown or busy model, a full queue.
#[utoipa::path(post, path = "/v1/chat/completions", operation_id = "openaiCreateChatCompletion", tag = "openai",
    request_body(content = schema::ChatCompletionRequest, examples(
        ("whole" = (summary = "One answer", value = json!({"model": "gpt-4o", "stream": false, "temperature": 0.7,
            "max_tokens": 1024, "messages": [{"role": "system", "content": "You are a helpful assistant."},
                {"role": "user", "content": "Hello!"}]}))),
        ("streamed" = (summary = "Piece by piece", value = json!({"model": "gpt-4o", "stream": true,
            "stream_options": {"include_usage": true}, "messages": [{"role": "user", "content": "Hello!"}]}))))),
    responses((status = 200, description = "The answer; with `stream` as events, and `[DONE]` after the last", content(
        (schema::OpenAiChatCompletion = "application/json"),
        (schema::OpenAiChatCompletionChunk = "text/event-stream")))))]
pub async fn create(
    State(app): State<AppState>,
    Granted(user): Granted<ModelUser>,
    JsonBody(body): JsonBody,
) -> Result<Response, OpenAiError> {
    let ChatRequest { generate, stream } = ChatRequest::read(body)?;
    let object = if stream.stream { "chat.completion.chunk" } else { "chat.completion" };
    let (model, logprobs) = (generate.model.clone(), generate.sampling.logprobs.is_some());
    let generation = inference::start(&app, &app.models(&user), vec![generate], ENDPOINT).await?;
    let head = Head::new("chatcmpl", object, model, generation.fingerprint());
    let writer = ChatWriter { head, logprobs, include_usage: stream.include_usage };
    if stream.stream {
        return Ok(inference::events(&app, generation, writer, error_event).await?);
    }
    Ok(Json(inference::whole(generation, &writer).await?).into_response())
}

impl ChatRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// Names the parameter at fault.
    pub fn read(body: Value) -> Result<Self, ParameterError> {
        let mut fields = Fields::of(body, "")?;
        let model = string(fields.required("model")?, || "model".to_owned())?;
        let prompt = prompt(&mut fields)?;
        let stream = StreamOptions::take(&mut fields)?;
        let mut options = AnswerOptions::take(&mut fields)?;
        options.sampling.logprobs = logprobs(&mut fields)?;
        let max_new_tokens = max_tokens(&mut fields)?;
        check_fixed_values(&mut fields)?;
        fields.accept(WITHOUT_EFFECT);
        fields.refuse(REFUSED)?;
        fields.finish()?;
        Ok(Self { generate: options.request(&model, prompt, max_new_tokens), stream })
    }
}

fn prompt(fields: &mut Fields) -> Result<Prompt, ParameterError> {
    let messages = messages::take(fields)?;
    let continue_final_message = fields.boolean("continue_final_message")?.unwrap_or(false);
    let header = fields.boolean("add_generation_prompt")?;
    if continue_final_message && header == Some(true) {
        let reason = "cannot be true together with `continue_final_message`";
        return Err(ParameterError::invalid("add_generation_prompt", reason));
    }
    if continue_final_message && messages.last().is_none_or(|last| last["role"] != "assistant") {
        let reason = "needs a last message with the role `assistant`";
        return Err(ParameterError::invalid("continue_final_message", reason));
    }
    Ok(Prompt::Chat {
        messages,
        variables: template_variables(fields)?,
        add_generation_prompt: header.unwrap_or(true),
        continue_final_message,
    })
}

/// Only variables that are known to be harmless reach a template.
fn template_variables(fields: &mut Fields) -> Result<Map<String, Value>, ParameterError> {
    let mut variables = Map::new();
    let Some(mut given) = fields.object("chat_template_kwargs")? else { return Ok(variables) };
    if let Some(thinking) = given.boolean("enable_thinking")? {
        variables.insert("enable_thinking".to_owned(), json!(thinking));
    }
    given.finish()?;
    Ok(variables)
}

fn logprobs(fields: &mut Fields) -> Result<Option<u32>, ParameterError> {
    let wanted = fields.boolean("logprobs")?.unwrap_or(false);
    let alternatives = fields.small_integer("top_logprobs", 0..=20)?;
    match (wanted, alternatives) {
        (false, Some(_)) => Err(ParameterError::invalid("top_logprobs", "needs `logprobs` to be true")),
        (false, None) => Ok(None),
        (true, alternatives) => Ok(Some(alternatives.unwrap_or(0))),
    }
}

fn max_tokens(fields: &mut Fields) -> Result<Option<u32>, ParameterError> {
    let newer = fields.small_integer("max_completion_tokens", 1..=u32::MAX)?;
    let older = fields.small_integer("max_tokens", 1..=u32::MAX)?;
    if newer.is_some() && older.is_some() && newer != older {
        return Err(ParameterError::invalid(
            "max_tokens",
            "differs from `max_completion_tokens`; send one of them",
        ));
    }
    Ok(newer.or(older))
}

/// Parameters that may have only the value that changes nothing.
fn check_fixed_values(fields: &mut Fields) -> Result<(), ParameterError> {
    for (name, fixed, reason) in [
        ("tools", json!([]), "tools cannot be called yet"),
        ("tool_choice", json!("none"), "tools cannot be called yet"),
        ("function_call", json!("none"), "tools cannot be called yet"),
        ("store", json!(false), "answers are not stored"),
        ("modalities", json!(["text"]), "the models here write text"),
    ] {
        if fields.take(name).is_some_and(|value| value != fixed) {
            return Err(ParameterError::unsupported(name, reason));
        }
    }
    let tier = fields.string("service_tier")?;
    if tier.is_some_and(|tier| tier != "auto" && tier != "default") {
        return Err(ParameterError::unsupported("service_tier", "there is one tier: `auto` or `default`"));
    }
    if let Some(mut format) = fields.object("response_format")? {
        let kind = string(format.required("type")?, || format.path("type"))?;
        if kind != "text" {
            return Err(ParameterError::unsupported(
                format.path("type"),
                "answers cannot be constrained yet",
            ));
        }
        format.finish()?;
    }
    Ok(())
}

/// Writes events and answers.
struct ChatWriter {
    head: Head,
    logprobs: bool,
    include_usage: bool,
}

impl Writer for ChatWriter {
    fn answer(&self, answer: Answer) -> Value {
        let choices = answer.choices.into_iter().enumerate().map(|(index, choice)| ChatChoice {
            index,
            message: Message { role: "assistant", content: choice.text, refusal: None },
            logprobs: self.logprobs(choice.tokens),
            finish_reason: choice.reason.map_or("stop", finish_reason),
        });
        let usage = Some(Some(answer.usage.into()));
        json!(Envelope { head: &self.head, choices: choices.collect(), usage })
    }

    fn chunks(&mut self, event: GenerationEvent) -> Vec<Value> {
        match event {
            GenerationEvent::Started { choices, .. } => choices.map(|choice| self.first(choice)).collect(),
            GenerationEvent::Text { choice, text, tokens } => {
                let delta = Delta { content: Some(text), ..Delta::default() };
                vec![self.chunk(choice, delta, self.logprobs(tokens), None)]
            }
            GenerationEvent::Reasoning { .. }
            | GenerationEvent::ToolCallBegun { .. }
            | GenerationEvent::ToolCallArguments { .. } => Vec::new(),
            GenerationEvent::Ended { choice, reason } => {
                vec![self.chunk(choice, Delta::default(), None, Some(finish_reason(reason)))]
            }
            GenerationEvent::Done { usage } if self.include_usage => {
                let choices = Vec::<ChunkChoice>::new();
                vec![json!(Envelope { head: &self.head, choices, usage: Some(Some(usage.into())) })]
            }
            GenerationEvent::Done { .. } => Vec::new(),
        }
    }
}

impl ChatWriter {
    fn first(&self, choice: u32) -> Value {
        let delta = Delta { role: Some("assistant"), content: Some(String::new()), refusal: Some(None) };
        self.chunk(choice, delta, None, None)
    }

    fn chunk(
        &self,
        index: u32,
        delta: Delta,
        logprobs: Option<ChatLogprobs>,
        finish_reason: Option<&'static str>,
    ) -> Value {
        let choices = vec![ChunkChoice { index, delta, logprobs, finish_reason }];
        // Where a usage chunk is to come, the others say that they have none.
        let usage = self.include_usage.then_some(None);
        json!(Envelope { head: &self.head, choices, usage })
    }

    fn logprobs(&self, tokens: Vec<TextToken>) -> Option<ChatLogprobs> {
        self.logprobs.then(|| tokens.into())
    }
}
