//! Values in JSON → server-sent events, with keep-alive comments and an error event. After an error there is no `[DONE]`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderValue;
use axum::http::header::CACHE_CONTROL;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, stream};
use serde::Serialize;
use serde_json::{Value, json};

use crate::http::pump::{self, Outlet};
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
    respond(pump::start(values, interruption, settings.slow_client_timeout), error, settings.keep_alive)
}

/// Sends what comes out, then `[DONE]`; or an error and the end. While nothing comes, a comment at every `interval`.
fn respond(outlet: Outlet, error: ErrorEvent, interval: Duration) -> Response {
    let context = RequestContext::current();
    let events = stream::unfold(Some(outlet), move |outlet| {
        // The connection reads this when the request is answered already: the language must come along.
        Arc::clone(&context).scope(async move {
            let mut outlet = outlet?;
            let (text, rest) = match outlet.next().await {
                Some(Ok(text)) => (text, Some(outlet)),
                Some(Err(broken)) => (error(broken).to_string(), None),
                None => ("[DONE]".to_owned(), None),
            };
            Some((Ok::<_, Infallible>(Event::default().data(text)), rest))
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
