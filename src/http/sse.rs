//! Values in JSON → server-sent events, with keep-alive comments and an error event. After an error there is no `[DONE]`.
//!
//! Two kinds of streams: those whose events have no names and end with `[DONE]`, and those whose events are named by their
//! own `type`, of which the last says by itself that it is.

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderValue;
use axum::http::header::CACHE_CONTROL;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::http::pump;
use crate::http::{ApiError, AppState, EnvelopeError, Interruption, RequestContext};

/// How a protocol writes an error into a stream.
pub type ErrorEvent = fn(ApiError) -> Value;

/// An error within a stream under `/api/v1`, or on its WebSocket: `{"error": …}` with what the envelope would say.
pub fn envelope_error(error: ApiError) -> Value {
    json!({"error": EnvelopeError::from(error).to_json()})
}

/// Sends the values of `values`, as long as they come and nothing interrupts them.
pub fn events<T, S>(app: &AppState, interruption: Interruption, values: S, error: ErrorEvent) -> Response
where
    T: Serialize + Send + Sync + 'static,
    S: Stream<Item = Result<Vec<T>, ApiError>> + Send + 'static,
{
    let settings = app.settings();
    let outlet = pump::start(values, interruption, settings.slow_client_timeout);
    let events = stream::unfold(Some(outlet), move |outlet| async move {
        let mut outlet = outlet?;
        let (text, rest) = match outlet.next().await {
            Some(Ok(text)) => (text, Some(outlet)),
            Some(Err(broken)) => (error(broken).to_string(), None),
            None => ("[DONE]".to_owned(), None),
        };
        Some((Event::default().data(text), rest))
    });
    respond(events, settings.keep_alive)
}

/// Sends the values of `values`, each as an event of the name that is its `type`. Where they are numbered, an error has the
/// next number.
pub fn named_events<T, S>(
    app: &AppState,
    interruption: Interruption,
    values: S,
    error: ErrorEvent,
) -> Response
where
    T: Serialize + Send + Sync + 'static,
    S: Stream<Item = Result<Vec<T>, ApiError>> + Send + 'static,
{
    named_events_from(app, interruption, values, error, 0)
}

/// As [`named_events`], where the first has this number.
pub fn named_events_from<T, S>(
    app: &AppState,
    interruption: Interruption,
    values: S,
    error: ErrorEvent,
    first: u64,
) -> Response
where
    T: Serialize + Send + Sync + 'static,
    S: Stream<Item = Result<Vec<T>, ApiError>> + Send + 'static,
{
    let settings = app.settings();
    let outlet = pump::start(values, interruption, settings.slow_client_timeout);
    let events = stream::unfold((Some(outlet), first), move |(outlet, number)| async move {
        let mut outlet = outlet?;
        let (text, rest) = match outlet.next().await? {
            Ok(text) => (text, Some(outlet)),
            Err(broken) => (numbered(error(broken), number).to_string(), None),
        };
        let named: Named<'_> = serde_json::from_str(&text).unwrap_or_default();
        let next = named.sequence_number.map_or(number, |number| number + 1);
        let event = Event::default().event(named.kind);
        Some((event.data(&text), (rest, next)))
    });
    respond(events, settings.keep_alive)
}

/// What is read of an event to send it.
#[derive(Default, Deserialize)]
struct Named<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    sequence_number: Option<u64>,
}

fn numbered(mut event: Value, next: u64) -> Value {
    if let Some(number) = event.get_mut("sequence_number") {
        *number = next.into();
    }
    event
}

/// Sends events; while none comes, a comment at every `interval`.
fn respond(events: impl Stream<Item = Event> + Send + 'static, interval: Duration) -> Response {
    let context = RequestContext::current();
    let events = stream::unfold(Box::pin(events), move |mut events| {
        // The connection reads this when the request is answered already: the language must come along.
        Arc::clone(&context).scope(async move {
            let event = events.next().await?;
            Some((Ok::<_, Infallible>(event), events))
        })
    });
    let keep_alive = KeepAlive::new().interval(interval).text("keep-alive");
    let mut response = Sse::new(events).keep_alive(keep_alive).into_response();
    let headers = response.headers_mut();
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    // As everything that is answered to somebody; the library's own word would only ask to check again.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
