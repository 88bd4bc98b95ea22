//! From a checked request to a running generation, and from there to an answer that is whole or streamed. One for all
//! protocols: what they differ in is a [`Writer`].

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::response::Response;
use futures_util::{Stream, StreamExt, stream};
use serde_json::Value;
use uuid::Uuid;

use crate::auth::models::ModelLimits;
use crate::auth::{Caller, Permission};
use crate::error::Code;
use crate::generate::{Answer, GenerateError, GenerateRequest, GenerationEvent, Priority};
use crate::http::metered::Metered;
use crate::http::sse::{self, ErrorEvent};
use crate::http::state::Models;
use crate::http::{ApiError, AppState};

/// How long a stream's head waits for the first event, so that an early failure still has its own status.
const PATIENCE_BEFORE_HEAD: Duration = Duration::from_secs(10);

/// What a protocol makes of a generation.
pub trait Writer: Send + 'static {
    /// The whole answer.
    fn answer(&self, answer: Answer) -> Value;

    /// What is sent when something happens.
    fn chunks(&mut self, event: GenerationEvent) -> Vec<Value>;
}

/// Which URL was asked.
#[derive(Debug, Clone, Copy)]
pub struct Endpoint {
    /// Its path, for the records.
    pub path: &'static str,
    /// The field to blame for a prompt that does not fit.
    pub prompt: &'static str,
    /// Most tokens of an answer where the request does not say; none: as many as the context leaves.
    pub usual_max_tokens: Option<u32>,
}

/// Leases the model and starts all requests.
///
/// # Errors
/// For a model that cannot be had, a request that does not suit it, and a full queue.
pub async fn start(
    app: &AppState,
    models: &Models<'_>,
    mut requests: Vec<GenerateRequest>,
    endpoint: Endpoint,
) -> Result<Metered, ApiError> {
    let name = requests.first().map(|request| request.model.clone()).unwrap_or_default();
    refuse_while_draining(app)?;
    let lease = models.lease(&name).await?;
    let limits = models.limits(&lease.id);
    if requests.iter().any(|request| request.priority == Priority::High) {
        may_go_first(models.caller())?;
    }
    for request in &mut requests {
        limit(request, &limits, endpoint.usual_max_tokens)?;
        request.tenant = models.caller().tenant();
        request.priority = request.priority.min(models.highest_priority());
        request.deadline = models.deadline();
    }
    let mut record = models.record(&lease.id, &name, endpoint.path)?;
    record.attribute(requests.first().map(|request| request.attribution.clone()).unwrap_or_default());
    match app.generator().start_all(lease, requests, record.account()).await {
        Ok(generation) => Ok(Metered::new(generation, record)),
        Err(error) => {
            record.failed(&error);
            Err(match &error {
                GenerateError::Engine(_) => error.into(),
                _ => ApiError::from(error).or_param(endpoint.prompt),
            })
        }
    }
}

/// Whether the caller may go before others: who manages the models may, by a key that is allowed to.
fn may_go_first(caller: &Caller) -> Result<(), ApiError> {
    match caller.permissions().has(Permission::ModelsManage) {
        true => Ok(()),
        false => {
            let reason = "`service_tier` may be `priority` only with the permission `models:manage`";
            Err(ApiError::new(Code::PermissionMissing, reason).or_param("service_tier"))
        }
    }
}

/// Holds a request to what may be asked of its model.
fn limit(
    request: &mut GenerateRequest,
    limits: &ModelLimits,
    usual_max_tokens: Option<u32>,
) -> Result<(), ApiError> {
    let above = |code, field: &str, most: String| {
        Err(ApiError::new(code, format!("`{field}` must be at most {most} for this model")).or_param(field))
    };
    let (asked, most) = (request.max_new_tokens, limits.max_tokens);
    if let (Some(asked), Some(most)) = (asked, most)
        && asked > most
    {
        return above(Code::MaxTokensAboveLimit, request.names.max_new_tokens, most.to_string());
    }
    request.max_new_tokens = asked.or(usual_max_tokens.into_iter().chain(most).min());
    if let Some(most) = limits.n.filter(|most| request.choices > *most) {
        return above(Code::OutOfRange, "n", most.to_string());
    }
    if let Some(most) = limits.temperature
        && request.sampling.temperature.is_some_and(|asked| asked > most)
    {
        return above(Code::OutOfRange, request.names.temperature, most.to_string());
    }
    Ok(())
}

/// New work is not begun while the server goes away.
///
/// # Errors
/// 503 while draining.
pub fn refuse_while_draining(app: &AppState) -> Result<(), ApiError> {
    if app.shutdown().is_draining() { Err(ApiError::shutting_down()) } else { Ok(()) }
}

/// Waits for a whole answer, unless something happens before it.
///
/// # Errors
/// The generation's, and what happened.
pub async fn whole(generation: Metered, writer: &impl Writer) -> Result<Value, ApiError> {
    let answer = unless_interrupted(generation, Answer::collect).await?;
    Ok(writer.answer(answer))
}

/// Waits for what is made of all events, unless something happens before it.
///
/// # Errors
/// The generation's, and what happened.
pub async fn unless_interrupted<T, F>(
    generation: Metered,
    collect: impl FnOnce(Metered) -> F,
) -> Result<T, ApiError>
where
    F: Future<Output = Result<T, ApiError>>,
{
    let interruption = generation.interruption().clone();
    // Polled before the interruption is: an answer that is there is given.
    tokio::select! {
        biased;
        answer = collect(generation) => answer,
        error = interruption.happened() => Err(error),
    }
}

/// Streams the answer as server-sent events, once the first of them is known to be good (or is long in coming).
///
/// # Errors
/// If the first event is an error.
pub async fn events(
    app: &AppState,
    generation: Metered,
    writer: impl Writer,
    error: ErrorEvent,
) -> Result<Response, ApiError> {
    let interruption = generation.interruption().clone();
    let events = begun(generation).await?;
    Ok(sse::events(app, interruption, written(events, writer), error))
}

/// The events of a generation, once the first of them is known to be good (or is long in coming).
///
/// # Errors
/// If the first event is an error, and what happened before it came.
pub async fn begun(
    mut generation: Metered,
) -> Result<impl Stream<Item = Result<GenerationEvent, ApiError>> + Send + 'static, ApiError> {
    let interruption = generation.interruption().clone();
    let first = {
        let first = tokio::time::timeout(PATIENCE_BEFORE_HEAD, generation.next());
        tokio::select! {
            biased;
            first = first => first,
            error = interruption.happened() => return Err(error),
        }
    };
    let first = match first {
        Ok(Some(Err(error))) => return Err(error),
        Ok(first) => first,
        Err(_) => None,
    };
    Ok(stream::iter(first).chain(generation))
}

/// What a protocol makes of the events, as they come.
pub fn written<W: Writer>(
    events: impl Stream<Item = Result<GenerationEvent, ApiError>> + Send + 'static,
    mut writer: W,
) -> impl Stream<Item = Result<Vec<Value>, ApiError>> + Send + 'static {
    events.map(move |event| event.map(|event| writer.chunks(event)))
}

/// A fresh id.
pub fn id(prefix: &str) -> String {
    format!("{prefix}-{}", Uuid::new_v4().simple())
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
