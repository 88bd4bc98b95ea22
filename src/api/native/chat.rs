//! `POST /api/v1/chat/completions`: the same conversation as OpenAI's, answered in the envelope, with exactly the members
//! that the API specification shows.
//!
//! Not the reading of requests, which is `openai/chat.rs`: both take the same parameters. What is not in the
//! specification is left out unless it was asked for (`logprobs`, `stream_options.include_usage`).

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::api::inference::{self, Endpoint, Writer};
use crate::api::native::chat_types::{
    AssistantMessage, ChatCompletion, ChatCompletionChoice, ChatCompletionChunk, ChatCompletionChunkChoice,
    ChatDelta, TokenUsage,
};
use crate::api::openai::chat::ChatRequest;
use crate::api::openai::schema::ChatCompletionRequest;
use crate::api::openai::types::{Call, CallDelta, ChatLogprobs, finish_reason};
use crate::auth::ModelUser;
use crate::generate::{Answer, GenerationEvent, TextToken};
use crate::http::{AppState, Envelope, EnvelopeError, Granted, JsonBody, sse};

const ENDPOINT: Endpoint =
    Endpoint { path: "/api/v1/chat/completions", prompt: "messages", usual_max_tokens: None };

/// Answers a conversation.
///
/// With `stream` the answer comes as server-sent events, one piece each, and `[DONE]` after the last. An error after the
/// first byte is an event `{"error": {"code", "message", "data"}}`, and nothing comes after it.
///
/// # Errors
/// In the envelope: for a wrong parameter, an unknown or busy model, a full queue.
#[utoipa::path(post, path = "/api/v1/chat/completions", operation_id = "createChatCompletion", tag = "chat",
    request_body(content = ChatCompletionRequest, examples(
        ("whole" = (summary = "One answer", value = json!({"model": "gpt-4o", "messages": [
            {"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": "Hello!"}],
            "stream": false, "temperature": 0.7, "max_tokens": 1024}))),
        ("streamed" = (summary = "Piece by piece", value = json!({"model": "gpt-4o", "messages": [
            {"role": "user", "content": "Hello!"}], "stream": true}))))),
    responses((status = 200, description = "The answer: one, or with `stream` pieces as events and `[DONE]` after the last",
        content((Envelope<ChatCompletion> = "application/json"), (ChatCompletionChunk = "text/event-stream",
            example = "\
                data: {\"id\":\"chatcmpl-xxx\",\"object\":\"chat.completion.chunk\",\"created\":1694268190,\"model\":\"gpt-4o\",\
                \"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n\
                data: {\"id\":\"chatcmpl-xxx\",\"object\":\"chat.completion.chunk\",\"created\":1694268190,\"model\":\"gpt-4o\",\
                \"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello\"},\"finish_reason\":null}]}\n\n\
                data: {\"id\":\"chatcmpl-xxx\",\"object\":\"chat.completion.chunk\",\"created\":1694268190,\"model\":\"gpt-4o\",\
                \"choices\":[{\"index\":0,\"delta\":{\"content\":\"!\"},\"finish_reason\":null}]}\n\n\
                data: [DONE]\n\n")))))]
pub async fn create(
    State(app): State<AppState>,
    Granted(user): Granted<ModelUser>,
    JsonBody(body): JsonBody,
) -> Result<Response, EnvelopeError> {
    let request = ChatRequest::read(body)?;
    request.refuse_store()?;
    let ChatRequest { generate, stream, .. } = request;
    let writer =
        NativeWriter::new(&generate.model, generate.sampling.logprobs.is_some(), stream.include_usage);
    let generation = inference::start(&app, &app.models(&user), vec![generate], ENDPOINT).await?;
    if stream.stream {
        return Ok(inference::events(&app, generation, writer, sse::envelope_error).await?);
    }
    Ok(Envelope::of(inference::whole(generation, &writer).await?).into_response())
}

/// Writes events and answers.
pub(super) struct NativeWriter {
    id: String,
    created: u64,
    model: String,
    logprobs: bool,
    include_usage: bool,
}

impl NativeWriter {
    /// For an answer that begins now.
    pub(super) fn new(model: &str, logprobs: bool, include_usage: bool) -> Self {
        let (id, created) = (inference::id("chatcmpl"), inference::now());
        Self { id, created, model: model.to_owned(), logprobs, include_usage }
    }

    /// The answer's id.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// A piece of the answer.
    pub(super) fn chunk(&self, choices: Vec<ChatCompletionChunkChoice>, usage: Option<TokenUsage>) -> Value {
        json!(ChatCompletionChunk {
            id: self.id.clone(),
            object: "chat.completion.chunk",
            created: self.created,
            model: self.model.clone(),
            choices,
            usage,
        })
    }

    fn one(&self, index: u32, delta: ChatDelta, logprobs: Option<ChatLogprobs>) -> Value {
        self.chunk(vec![ChatCompletionChunkChoice { index, delta, logprobs, finish_reason: None }], None)
    }

    fn first(&self, index: u32) -> Value {
        self.one(
            index,
            ChatDelta { role: Some("assistant"), content: Some(String::new()), ..ChatDelta::default() },
            None,
        )
    }

    fn call(&self, index: u32, delta: CallDelta) -> Value {
        self.one(index, ChatDelta { tool_calls: Some(vec![delta]), ..ChatDelta::default() }, None)
    }

    fn logprobs(&self, tokens: Vec<TextToken>) -> Option<ChatLogprobs> {
        self.logprobs.then(|| tokens.into())
    }
}

/// The end of one choice.
pub(super) fn ended(index: u32, reason: &'static str) -> ChatCompletionChunkChoice {
    let delta = ChatDelta::default();
    ChatCompletionChunkChoice { index, delta, logprobs: None, finish_reason: Some(reason) }
}

impl Writer for NativeWriter {
    fn answer(&self, answer: Answer) -> Value {
        let choices = answer.choices.into_iter().enumerate().map(|(index, choice)| ChatCompletionChoice {
            index,
            message: AssistantMessage {
                role: "assistant",
                content: Some(choice.text).filter(|text| choice.tool_calls.is_empty() || !text.is_empty()),
                reasoning_content: Some(choice.reasoning).filter(|thought| !thought.is_empty()),
                tool_calls: choice.tool_calls.into_iter().map(Call::from).collect(),
            },
            logprobs: self.logprobs(choice.tokens),
            finish_reason: choice.reason.map_or("stop", finish_reason),
        });
        json!(ChatCompletion {
            id: self.id.clone(),
            object: "chat.completion",
            created: self.created,
            model: self.model.clone(),
            choices: choices.collect(),
            usage: answer.usage.into(),
        })
    }

    fn chunks(&mut self, event: GenerationEvent) -> Vec<Value> {
        match event {
            GenerationEvent::Started { choices, .. } => choices.map(|choice| self.first(choice)).collect(),
            GenerationEvent::Text { choice, text, tokens } => {
                let delta = ChatDelta { content: Some(text), ..ChatDelta::default() };
                vec![self.one(choice, delta, self.logprobs(tokens))]
            }
            GenerationEvent::Reasoning { choice, text, .. } => {
                let delta = ChatDelta { reasoning_content: Some(text), ..ChatDelta::default() };
                vec![self.one(choice, delta, None)]
            }
            GenerationEvent::ToolCallBegun { choice, call, id, name } => {
                vec![self.call(choice, CallDelta::begun(call, id, name))]
            }
            GenerationEvent::ToolCallArguments { choice, call, text } => {
                vec![self.call(choice, CallDelta::more(call, text))]
            }
            GenerationEvent::Ended { choice, reason } => {
                vec![self.chunk(vec![ended(choice, finish_reason(reason))], None)]
            }
            GenerationEvent::Done { usage } if self.include_usage => {
                vec![self.chunk(Vec::new(), Some(usage.into()))]
            }
            GenerationEvent::Done { .. } => Vec::new(),
        }
    }
}
