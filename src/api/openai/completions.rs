//! `POST /v1/completions`: the older endpoint, for text without a conversation; evaluations live on it.

mod writer;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use self::writer::{TextWriter, Whole};
use crate::api::inference::{self, Endpoint};
use crate::api::openai::error_event;
use crate::api::openai::fields::{Fields, ParameterError, string};
use crate::api::openai::sampling::{AnswerOptions, MAX_CHOICES, StreamOptions, token_ids};
use crate::api::openai::schema;
use crate::api::openai::types::Head;
use crate::auth::ModelUser;
use crate::generate::{GenerateRequest, Prompt};
use crate::http::metered::Metered;
use crate::http::state::Models;
use crate::http::{ApiError, AppState, Granted, JsonBody, OpenAiError};

/// Its URL.
pub const PATH: &str = "/v1/completions";

const ENDPOINT: Endpoint =
    Endpoint { path: PATH, prompt: "prompt", usual_max_tokens: Some(DEFAULT_MAX_TOKENS) };

/// OpenAI's own default.
const DEFAULT_MAX_TOKENS: u32 = 16;

/// Most prompts of one request.
pub const MAX_PROMPTS: usize = 128;

/// Most answers that the best are chosen from.
const MAX_BEST_OF: u32 = MAX_CHOICES;

/// Most alternatives of a prompt's token.
const MAX_PROMPT_LOGPROBS: u32 = 20;

/// A request, read and checked: one [`GenerateRequest`] for each prompt.
#[derive(Debug, PartialEq)]
pub struct CompletionRequest {
    generate: Vec<GenerateRequest>,
    stream: StreamOptions,
    show: Show,
}

/// What is shown of what is generated.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Show {
    /// Answers to each prompt; the best, where more are generated.
    choices: u32,
    /// Of those that are generated.
    best_of: u32,
    /// The prompt's text and log-probabilities, before the answer.
    echo: bool,
    /// Log-probabilities of the answer, with so many alternatives.
    logprobs: Option<u32>,
    /// Log-probabilities of the prompt, with so many alternatives, beside the answer.
    prompt_logprobs: Option<u32>,
}

impl Show {
    /// Whether the prompt comes back before each answer.
    fn has_prompt(self) -> bool {
        self.echo || self.prompt_logprobs.is_some()
    }
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
    let request = CompletionRequest::read(body)?;
    let (stream, show) = (request.stream, request.show);
    let (generation, writer) = begin(&app, &app.models(&user), request).await?;
    if stream.stream {
        return Ok(inference::events(&app, generation, writer, error_event).await?);
    }
    let answer = inference::unless_interrupted(generation, |events| Whole::collect(events, show)).await?;
    Ok(Json(writer.whole(answer)).into_response())
}

/// The same for a line of a batch.
///
/// # Errors
/// As [`create`], and for a stream.
pub async fn whole(app: &AppState, models: &Models<'_>, body: Value) -> Result<Value, ApiError> {
    let request = CompletionRequest::read(body)?;
    request.stream.refuse()?;
    let show = request.show;
    let (generation, writer) = begin(app, models, request).await?;
    let answer = inference::unless_interrupted(generation, |events| Whole::collect(events, show)).await?;
    Ok(json!(writer.whole(answer)))
}

async fn begin(
    app: &AppState,
    models: &Models<'_>,
    request: CompletionRequest,
) -> Result<(Metered, TextWriter), ApiError> {
    let CompletionRequest { generate, stream, show } = request;
    let model = generate.first().map(|first| first.model.clone()).unwrap_or_default();
    let generation = inference::start(app, models, generate, ENDPOINT).await?;
    let head = Head::new(inference::id("cmpl"), "text_completion", model, generation.fingerprint());
    Ok((generation, TextWriter::new(head, show, stream.include_usage)))
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
        let best_of = fields.small_integer("best_of", 1..=MAX_BEST_OF)?;
        let prompt_logprobs = fields.small_integer("prompt_logprobs", 0..=MAX_PROMPT_LOGPROBS)?;
        let mut options = AnswerOptions::take(&mut fields)?;
        let show = Show {
            choices: options.choices,
            best_of: best_of.unwrap_or(options.choices),
            echo: fields.boolean("echo")?.unwrap_or(false),
            logprobs: fields.small_integer("logprobs", 0..=5)?,
            prompt_logprobs,
        };
        check_best_of(show, stream)?;
        // Answers are ranked by how likely their tokens were.
        let ranked = (show.best_of > show.choices).then_some(0);
        options.choices = show.best_of;
        options.sampling.logprobs = show.logprobs.or(ranked);
        let max_new_tokens = fields.small_integer("max_tokens", 0..=u32::MAX)?;
        let suffix = fields.string("suffix")?.filter(|suffix| !suffix.is_empty());
        fields.refuse(&[
            ("max_completion_tokens", "it is called `max_tokens` here"),
            ("messages", "use /v1/chat/completions"),
            ("top_logprobs", "it is called `logprobs` here"),
            ("add_special_tokens", "send token ids to choose them yourself"),
        ])?;
        fields.finish()?;
        let echoed = show.logprobs.filter(|_| show.echo);
        let request = |prompt| GenerateRequest {
            echo: show.has_prompt(),
            prompt_logprobs: prompt_logprobs.max(echoed),
            ..options.clone().request(&model, prompt, max_new_tokens)
        };
        let prompts = with_gaps(prompts, suffix, show)?;
        Ok(Self { generate: prompts.into_iter().map(request).collect(), stream, show })
    }
}

fn check_best_of(show: Show, stream: StreamOptions) -> Result<(), ParameterError> {
    if show.best_of < show.choices {
        return Err(ParameterError::invalid("best_of", "must not be less than `n`"));
    }
    if show.best_of > show.choices && stream.stream {
        let reason = "must equal `n` with `stream`: the best are known only once all have been made";
        return Err(ParameterError::invalid("best_of", reason));
    }
    Ok(())
}

/// The prompts, as what is before a gap that ends with `suffix`, if there is one.
fn with_gaps(
    prompts: Vec<Prompt>,
    suffix: Option<String>,
    show: Show,
) -> Result<Vec<Prompt>, ParameterError> {
    let Some(after) = suffix else { return Ok(prompts) };
    if show.has_prompt() {
        let reason = "cannot be used together with `echo` or `prompt_logprobs`";
        return Err(ParameterError::invalid("suffix", reason));
    }
    let gap = |prompt| match prompt {
        Prompt::Text(before) => Ok(Prompt::Infill { before, after: after.clone() }),
        _ => Err(ParameterError::invalid("suffix", "needs prompts that are texts, not token ids")),
    };
    prompts.into_iter().map(gap).collect()
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
