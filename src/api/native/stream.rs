//! `WS /api/v1/chat/stream`: conversations over a WebSocket, one turn after the other on one connection. Here is how it
//! is opened; what happens on it is in `connection.rs`, one answer in `turn.rs`.
//!
//! In: a message with the members of `POST /api/v1/chat/completions` (`stream` says nothing here), or
//! `{"type": "cancel"}`. Out: the same JSON as an event stream's `data`, one message each. The last of a turn has the
//! `finish_reason` of every choice, and the `usage`; it comes for a cancelled turn too, when nothing of it runs any more.
//! An error with an `id` is the end of that turn; an error without one is about the last message that came in. The
//! connection goes on after either, and ends with its credential: it is closed with 4401.

mod allowance;
mod connection;
mod turn;

use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::HeaderMap;
use axum::http::header::{HOST, ORIGIN};
use axum::response::Response;
use serde::Deserialize;
use tracing::{Instrument, Span};
use utoipa::IntoParams;

use crate::api::inference;
use crate::api::native::stream::connection::Connection;
use crate::auth::{AuthError, Caller, ModelUser, Origin};
use crate::error::Code;
use crate::http::{ApiError, AppState, EnvelopeError, Query, RequestContext, credential};

/// Largest message, whole or in frames, where bodies may not be even smaller.
const MOST_BYTES: usize = 1 << 20;

/// What is set aside for reading from a connection that says nothing.
const READ_BUFFER: usize = 4 * 1024;

/// Most that waits for a connection to take it: one message, and what keeps the connection alive.
const WRITE_BUFFER: usize = 4 << 20;

/// How to show a credential where no header can be sent. At most one of them; never in a log.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct StreamQuery {
    /// What the header `Authorization` would say, with `Bearer` before it or without.
    #[serde(alias = "Authorization")]
    authorization: Option<String>,
    /// An access token or an API key.
    token: Option<String>,
    /// An API key.
    api_key: Option<String>,
    /// An access token.
    access_token: Option<String>,
    /// A ticket of `POST /api/v1/auth/ticket`: used once, within 30 seconds. The best of them, since addresses get kept.
    ticket: Option<String>,
}

/// Opens a WebSocket for conversations.
///
/// Send a message with the members of `POST /api/v1/chat/completions`; the answer comes as messages like the events of a
/// stream. The last of a turn has the `finish_reason` of every choice, and the `usage`; the next may be asked for as soon
/// as it is there. One turn runs at a time: another message meanwhile is answered with error 40902, `{"type": "cancel"}`
/// ends the turn with the `finish_reason` `cancelled`. What is wrong with a message is answered with
/// `{"error": {"code", "message", "data"}}`, and the connection goes on; an error with an `id` is the end of that turn. The
/// connection is closed with 4401 when the credential ends, 1008 for floods of anything but turns that were answered (200
/// messages at once, 20 a second), 1009 for a message that is too large, 1012 when the server goes away, 1000 when nothing
/// was said for long.
///
/// # Errors
/// 401 without a good credential, 403 from a foreign web origin, 400 for what is no handshake, 429 where the user has 256
/// open already.
#[utoipa::path(get, path = "/api/v1/chat/stream", operation_id = "openChatStream", tag = "chat", params(StreamQuery),
    responses((status = 101, description = "The connection is a WebSocket now")))]
pub async fn open(
    State(app): State<AppState>,
    origin: Origin,
    Query(query): Query<StreamQuery>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, EnvelopeError> {
    let caller = authenticate(&app, &headers, query, origin).await?;
    let user = caller.exchange::<ModelUser>(app.auth()).await?;
    check_origin(&headers, &app.settings().allowed_origins)?;
    let upgrade = upgrade.map_err(|_| {
        ApiError::new(Code::InvalidValue, "open this URL with a WebSocket handshake (RFC 6455)")
    })?;
    inference::refuse_while_draining(&app)?;
    let place = app.sockets().open(user.caller())?;
    let most_bytes = MOST_BYTES.min(app.settings().max_body_bytes);
    let upgrade = upgrade
        .max_message_size(most_bytes)
        .max_frame_size(most_bytes)
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(WRITE_BUFFER);
    // What is said and logged later belongs to this request still.
    let (context, span, caller) = (RequestContext::current(), Span::current(), user.caller().clone());
    Ok(upgrade.on_upgrade(move |socket| {
        let connection = async move {
            Connection::new(app, caller, socket).run().await;
            drop(place);
        };
        context.scope(connection).instrument(span)
    }))
}

async fn authenticate(
    app: &AppState,
    headers: &HeaderMap,
    query: StreamQuery,
    origin: Origin,
) -> Result<Caller, ApiError> {
    let header = credential(headers)?;
    let StreamQuery { authorization, token, api_key, access_token, ticket } = query;
    let authorization = authorization.as_deref().map(without_scheme);
    let shown: Vec<&str> =
        [header, authorization, token.as_deref(), api_key.as_deref(), access_token.as_deref()]
            .into_iter()
            .flatten()
            .collect();
    match (shown.as_slice(), ticket) {
        ([], Some(ticket)) => Ok(app.auth().redeem_ticket(&ticket, origin).await?),
        ([], None) => Ok(app.auth().authenticate(None, origin).await?),
        ([only], None) => Ok(app.auth().authenticate(Some(only), origin).await?),
        // Which of them counts must not be a matter of opinion.
        _ => Err(AuthError::MissingCredentials.into()),
    }
}

/// A credential without the `Bearer` that may stand before it.
fn without_scheme(text: &str) -> &str {
    match text.split_at_checked(7) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer ") => rest,
        _ => text,
    }
}

/// A page of another site may not open a connection in its visitor's name. Programs send no origin.
fn check_origin(headers: &HeaderMap, allowed: &[String]) -> Result<(), ApiError> {
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().unwrap_or_default();
    let own = headers.get(HOST).and_then(|host| host.to_str().ok());
    let is_own = origin.split_once("://").is_some_and(|(_, place)| Some(place) == own);
    if is_own || allowed.iter().any(|allowed| allowed == origin) {
        return Ok(());
    }
    Err(ApiError::of(Code::OriginNotAllowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin_is_let_in(origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, "localhost:8080".parse().expect("a header"));
        if let Some(origin) = origin {
            headers.insert(ORIGIN, origin.parse().expect("a header"));
        }
        check_origin(&headers, &["https://console.example".to_owned()]).is_ok()
    }

    #[test]
    fn pages_of_other_sites_are_not_let_in() {
        for origin in [None, Some("http://localhost:8080"), Some("https://console.example")] {
            assert!(origin_is_let_in(origin), "{origin:?}");
        }
        for origin in [
            "null",
            "",
            "https://evil.example",
            "http://localhost",
            "http://localhost:8080.evil.example",
            "localhost:8080",
        ] {
            assert!(!origin_is_let_in(Some(origin)), "{origin}");
        }
    }
}
