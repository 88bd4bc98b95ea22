//! From a checked request to a running generation, and to an answer that is streamed or whole. One for all endpoints.

use std::future::Future;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::{Stream, StreamExt, stream};
use uuid::Uuid;

use crate::auth::Caller;
use crate::generate::{GenerateError, GenerateRequest, GenerationBatch, GenerationEvent};
use crate::http::{ApiError, AppState, OpenAiError};

/// How long a stream's head waits for the first event, so that an early failure still has its own status.
const PATIENCE_BEFORE_HEAD: Duration = Duration::from_secs(10);

/// Leases the model and starts all requests; `param` is the field to blame for a prompt that does not fit.
///
/// # Errors
/// For a model that cannot be had, a request that does not suit it, and a full queue.
pub async fn start(
    app: &AppState,
    caller: &Caller,
    requests: Vec<GenerateRequest>,
    param: &str,
) -> Result<GenerationBatch, OpenAiError> {
    let model = requests.first().map(|request| request.model.clone()).unwrap_or_default();
    refuse_while_draining(app)?;
    let lease = app.models(caller).lease(&model).await?;
    let started = app.generator().start_all(lease, requests).await;
    started.map_err(|error| match &error {
        GenerateError::Engine(_) => error.into(),
        _ => ApiError::from(error).or_param(param).into(),
    })
}

/// New work is not begun while the server goes away.
///
/// # Errors
/// 503 while draining.
pub fn refuse_while_draining(app: &AppState) -> Result<(), OpenAiError> {
    if app.shutdown().is_draining() { Err(ApiError::shutting_down().into()) } else { Ok(()) }
}

/// Waits for a whole answer, but not past the end of the server.
///
/// # Errors
/// Its own, and 503 when the server ends first.
pub async fn whole<T>(
    app: &AppState,
    answer: impl Future<Output = Result<T, GenerateError>>,
) -> Result<T, OpenAiError> {
    tokio::select! {
        answer = answer => Ok(answer?),
        () = app.shutdown().ended() => Err(ApiError::shutting_down().into()),
    }
}

/// The same events, once the first of them is known to be good (or is long in coming).
///
/// # Errors
/// If the first event is an error.
pub async fn begun(
    mut generation: GenerationBatch,
) -> Result<impl Stream<Item = Result<GenerationEvent, GenerateError>> + Send, OpenAiError> {
    let first = match tokio::time::timeout(PATIENCE_BEFORE_HEAD, generation.next()).await {
        Ok(Some(Err(error))) => return Err(error.into()),
        Ok(first) => first,
        Err(_) => None,
    };
    Ok(stream::iter(first).chain(generation))
}

/// A fresh id.
pub fn id(prefix: &str) -> String {
    format!("{prefix}-{}", Uuid::new_v4().simple())
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
