//! `POST /v1/chat/completions`; what is kept of it is in `chat/stored.rs`.

mod keeping;
pub mod stored;
mod writer;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use crate::api::inference::{self, Endpoint};
use crate::api::openai::chat::keeping::{Asked, Keeping};
use crate::api::openai::chat::writer::ChatWriter;
use crate::api::openai::fields::{Fields, ParameterError, string};
use crate::api::openai::sampling::{AnswerOptions, StreamOptions, end_user};
use crate::api::openai::tools::{self, Tools};
use crate::api::openai::types::Head;
use crate::api::openai::{error_event, messages, metadata, schema, service_tier};
use crate::auth::ModelUser;
use crate::generate::{Effort, GenerateRequest, Prompt, Reasoning, ToolChoice, Verbosity};
use crate::http::metered::Metered;
use crate::http::state::Models;
use crate::http::{ApiError, AppState, Granted, JsonBody, OpenAiError, sse};

/// Known to OpenAI's clients, refused by name.
const REFUSED: &[(&str, &str)] = &[
    ("audio", "the models here write text"),
    ("web_search_options", "nothing is looked up"),
    ("prompt_cache_options", "the cache keeps what it can"),
    ("prompt_cache_retention", "the cache keeps what it can"),
    ("moderation", "answers are not moderated"),
    ("echo", "use /v1/completions, or `continue_final_message`"),
    ("documents", "put them into a message"),
    ("chat_template", "the model's own template is used"),
    ("add_special_tokens", "the template says which there are"),
];

/// Accepted, and without effect: a hint at what is cached anyway.
const WITHOUT_EFFECT: &[&str] = &["prompt_cache_key"];

/// A request, read and checked.
#[derive(Debug, PartialEq)]
pub struct ChatRequest {
    /// What is to be generated.
    pub generate: GenerateRequest,
    /// How it is to be sent.
    pub stream: StreamOptions,
    /// Calls are told in the older words.
    pub legacy: bool,
    /// What is kept of the question, where the answer is to be kept.
    store: Option<Asked>,
}

/// Its URL.
pub const PATH: &str = "/v1/chat/completions";

const ENDPOINT: Endpoint = Endpoint { path: PATH, prompt: "messages", usual_max_tokens: None };

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
    let request = ChatRequest::read(body)?;
    let stream = request.stream;
    let id = inference::id("chatcmpl");
    let (generation, writer, keeping) = begin(&app, &user, &app.models(&user), id, request).await?;
    match keeping {
        None if stream.stream => Ok(inference::events(&app, generation, writer, error_event).await?),
        Some(keeping) if stream.stream => {
            let interruption = generation.interruption().clone();
            let events = inference::begun(generation).await?;
            Ok(sse::events(&app, interruption, keeping.told(events, writer), error_event))
        }
        keeping => Ok(Json(made(generation, &writer, keeping).await?).into_response()),
    }
}

/// The same for a line of a batch, of this name.
///
/// # Errors
/// As [`create`], and for a stream.
pub async fn whole(
    app: &AppState,
    user: &ModelUser,
    models: &Models<'_>,
    name: &str,
    body: Value,
) -> Result<Value, ApiError> {
    let request = ChatRequest::read(body)?;
    request.stream.refuse()?;
    let (generation, writer, keeping) = begin(app, user, models, format!("chatcmpl-{name}"), request).await?;
    made(generation, &writer, keeping).await
}

/// Waits for the whole answer, and keeps it where it is to be kept.
async fn made(generation: Metered, writer: &ChatWriter, keeping: Option<Keeping>) -> Result<Value, ApiError> {
    let answer = inference::whole(generation, writer).await?;
    if let Some(keeping) = keeping {
        keeping.keep(answer.clone()).await;
    }
    Ok(answer)
}

async fn begin(
    app: &AppState,
    user: &ModelUser,
    models: &Models<'_>,
    id: String,
    request: ChatRequest,
) -> Result<(Metered, ChatWriter, Option<Keeping>), ApiError> {
    let ChatRequest { generate, stream, legacy, store } = request;
    let keeping = store.map(|asked| Keeping::new(app, user, asked, &generate)).transpose()?;
    let object = if stream.stream { "chat.completion.chunk" } else { "chat.completion" };
    let (model, logprobs) = (generate.model.clone(), generate.sampling.logprobs.is_some());
    let must_call = matches!(generate.tools.choice, ToolChoice::Required(_));
    let tier = service_tier::used(generate.priority, models);
    let generation = inference::start(app, models, vec![generate], ENDPOINT).await?;
    let mut head = Head::new(id, object, model, generation.fingerprint());
    head.service_tier = Some(tier);
    let writer = ChatWriter { head, logprobs, include_usage: stream.include_usage, legacy, must_call };
    Ok((generation, writer, keeping))
}

impl ChatRequest {
    /// Where answers are given and not kept.
    ///
    /// # Errors
    /// If it is to be kept.
    pub fn refuse_store(&self) -> Result<(), ParameterError> {
        match self.store {
            Some(_) => {
                Err(ParameterError::unsupported("store", "answers are stored by /v1/chat/completions"))
            }
            None => Ok(()),
        }
    }

    /// Reads a body.
    ///
    /// # Errors
    /// Names the parameter at fault.
    pub fn read(body: Value) -> Result<Self, ParameterError> {
        let asked = (body["store"] == true).then(|| Asked::of(&body));
        let mut fields = Fields::of(body, "")?;
        let model = string(fields.required("model")?, || "model".to_owned())?;
        let prompt = prompt(&mut fields)?;
        let stream = StreamOptions::take(&mut fields)?;
        let mut options = AnswerOptions::take(&mut fields)?;
        options.sampling.logprobs = logprobs(&mut fields)?;
        let Tools { tool_use, legacy } = tools::take(&mut fields)?;
        if legacy {
            options.names.tools = "functions";
            options.names.tool_schema = "parameters";
        }
        if fields.has("max_completion_tokens") {
            options.names.max_new_tokens = "max_completion_tokens";
        }
        let max_new_tokens = max_tokens(&mut fields)?;
        if fields.has("thinking_token_budget") && !fields.has("thinking_budget") {
            options.names.budget = "thinking_token_budget";
        }
        let reasoning = reasoning(&mut fields)?;
        let verbosity = verbosity(&mut fields)?;
        let prediction = prediction(&mut fields, options.choices)?;
        let metadata = metadata::take(&mut fields)?.unwrap_or_default();
        let safety_identifier = end_user(&mut fields, "safety_identifier")?;
        options.end_user = safety_identifier.or(options.end_user);
        let priority = service_tier::take(&mut fields)?;
        let store = if fields.boolean("store")? == Some(true) { asked } else { None };
        only_text(&mut fields)?;
        fields.accept(WITHOUT_EFFECT);
        fields.refuse(REFUSED)?;
        fields.finish()?;
        let mut request = options.request(&model, prompt, max_new_tokens);
        request.attribution.metadata = metadata;
        let generate =
            GenerateRequest { tools: tool_use, reasoning, verbosity, prediction, priority, ..request };
        Ok(Self { generate, stream, legacy, store })
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

/// How much the model is to think.
fn reasoning(fields: &mut Fields) -> Result<Reasoning, ParameterError> {
    let effort = match fields.string("reasoning_effort")?.as_deref() {
        None => None,
        Some("none") => Some(Effort::None),
        Some("minimal") => Some(Effort::Minimal),
        Some("low") => Some(Effort::Low),
        Some("medium") => Some(Effort::Medium),
        Some("high") => Some(Effort::High),
        Some("xhigh") => Some(Effort::Maximal),
        Some(_) => {
            let reason = "must be none, minimal, low, medium, high or xhigh";
            return Err(ParameterError::invalid("reasoning_effort", reason));
        }
    };
    let budget = fields.small_integer("thinking_budget", 0..=u32::MAX)?;
    let longer_name = fields.small_integer("thinking_token_budget", 0..=u32::MAX)?;
    if budget.is_some() && longer_name.is_some() && budget != longer_name {
        let reason = "differs from `thinking_budget`; send one of them";
        return Err(ParameterError::invalid("thinking_token_budget", reason));
    }
    Ok(Reasoning { effort, budget: budget.or(longer_name) })
}

/// How much the model is to say.
fn verbosity(fields: &mut Fields) -> Result<Option<Verbosity>, ParameterError> {
    let Some(name) = fields.string("verbosity")? else { return Ok(None) };
    match Verbosity::named(&name) {
        Some(verbosity) => Ok(Some(verbosity)),
        None => Err(ParameterError::invalid("verbosity", "must be low, medium or high")),
    }
}

/// What the answer is said to be: a text, or a list of parts that are texts. It changes when the answer comes, never what
/// it is.
fn prediction(fields: &mut Fields, choices: u32) -> Result<Option<String>, ParameterError> {
    let Some(mut given) = fields.object("prediction")? else { return Ok(None) };
    if choices > 1 {
        return Err(ParameterError::invalid("prediction", "cannot be used together with `n` above 1"));
    }
    let kind = string(given.required("type")?, || given.path("type"))?;
    if kind != "content" {
        return Err(ParameterError::invalid(given.path("type"), "must be `content`"));
    }
    let content = given.required("content")?;
    let text = messages::content(content, &given)?;
    given.finish()?;
    Ok(Some(text))
}

/// Only variables that are known to be harmless reach a template.
fn template_variables(fields: &mut Fields) -> Result<Map<String, Value>, ParameterError> {
    let mut variables = Map::new();
    let Some(mut given) = fields.object("chat_template_kwargs")? else { return Ok(variables) };
    for name in ["enable_thinking", "thinking"] {
        if let Some(thinking) = given.boolean(name)? {
            variables.insert(name.to_owned(), json!(thinking));
        }
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

fn only_text(fields: &mut Fields) -> Result<(), ParameterError> {
    match fields.take("modalities") {
        Some(modalities) if modalities != json!(["text"]) => {
            Err(ParameterError::unsupported("modalities", "the models here write text"))
        }
        _ => Ok(()),
    }
}
