//! Values in JSON → lines, one value each, as Ollama's clients read a stream. An error is the last line.
//!
//! There is no keep-alive: a line that is no value would be a broken one to them.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::Response;
use futures_util::{Stream, stream};
use serde::Serialize;

use crate::http::sse::ErrorEvent;
use crate::http::{ApiError, AppState, Interruption, RequestContext, pump};

/// Sends the values of `values`, as long as they come and nothing interrupts them.
pub fn lines<T, S>(app: &AppState, interruption: Interruption, values: S, error: ErrorEvent) -> Response
where
    T: Serialize + Send + Sync + 'static,
    S: Stream<Item = Result<Vec<T>, ApiError>> + Send + 'static,
{
    let outlet = pump::start(values, interruption, app.settings().slow_client_timeout);
    let context = RequestContext::current();
    let lines = stream::unfold(Some(outlet), move |outlet| {
        // The connection reads this when the request is answered already: the language must come along.
        Arc::clone(&context).scope(async move {
            let mut outlet = outlet?;
            let (text, rest) = match outlet.next().await? {
                Ok(text) => (text, Some(outlet)),
                Err(broken) => (error(broken).to_string(), None),
            };
            Some((Ok::<_, Infallible>(format!("{text}\n")), rest))
        })
    });
    let mut response = Response::new(Body::from_stream(lines));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
