//! `WS /api/v1/chat/stream`: conversations over a WebSocket, one turn after the other on one connection.
//!
//! In: a message with the members of `POST /api/v1/chat/completions`, or `{"type": "cancel"}`. Out: the same JSON as an
//! event stream's `data`, one message each; the last of a turn carries `finish_reason` and `usage`. What is wrong with a
//! message is answered, and the connection goes on. A connection that is dropped drops its turn.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::http::HeaderMap;
use axum::http::header::{HOST, ORIGIN};
use axum::response::Response;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use utoipa::IntoParams;

use crate::api::inference::{self, Endpoint, Writer};
use crate::api::native::chat::{NativeWriter, ended};
use crate::api::openai::chat::ChatRequest;
use crate::api::openai::types::finish_reason;
use crate::auth::{AuthError, Caller, ModelUser, Origin, Permission};
use crate::error::Code;
use crate::generate::{Answer, GenerationEvent};
use crate::http::{
    ApiError, AppState, EnvelopeError, Interruption, Query, RequestContext, credential, json, sse,
};

const ENDPOINT: Endpoint =
    Endpoint { path: "/api/v1/chat/stream", prompt: "messages", usual_max_tokens: None };

/// Largest message, whole or in frames.
const MOST_BYTES: usize = 512 * 1024;

/// A connection that is silent for this long, pings unanswered, is given up.
const LONGEST_SILENCE: Duration = Duration::from_secs(90);

/// Messages in a row that are not understood, after which the connection is closed.
const MOST_MISTAKES: u32 = 20;

/// Pings, pongs and cancels that one may send in a minute.
const MOST_SIGNALS: u32 = 300;

/// How long a client has to take note that the connection is being closed.
const LINGER: Duration = Duration::from_secs(3);

/// RFC 6455 §7.4.1, and our own 4401.
const POLICY: u16 = 1008;
const TOO_LARGE: u16 = 1009;
const RESTART: u16 = 1012;
const SIGNED_OUT: u16 = 4401;

/// How to show a credential where no header can be sent. At most one of them; never in a log.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct StreamQuery {
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
/// Each message of the client is a request with the members of `POST /api/v1/chat/completions`, one turn after the other,
/// or `{"type": "cancel"}`, which ends the turn. Each message of the server is a `ChatCompletionChunk`; the last of a turn
/// carries `finish_reason` and `usage`. What is wrong with a message is answered by `{"error": {"code", "message",
/// "data"}}`, and the connection goes on.
///
/// # Errors
/// 401 without a good credential, 403 from a foreign web origin, 400 for what is no handshake.
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
    let context = RequestContext::current();
    let upgrade = upgrade.max_message_size(MOST_BYTES).max_frame_size(MOST_BYTES);
    Ok(upgrade.on_upgrade(move |socket| context.scope(Connection::new(app, user, socket).run())))
}

async fn authenticate(
    app: &AppState,
    headers: &HeaderMap,
    query: StreamQuery,
    origin: Origin,
) -> Result<Caller, ApiError> {
    let header = credential(headers)?;
    let StreamQuery { token, api_key, access_token, ticket } = query;
    let shown: Vec<&str> = [header, token.as_deref(), api_key.as_deref(), access_token.as_deref()]
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

/// An answer that is being given.
struct Turn {
    /// What is sent, in JSON.
    messages: BoxStream<'static, Result<String, ApiError>>,
    /// What is sent last if the client has heard enough.
    cancelled: Value,
}

struct Connection {
    app: AppState,
    user: Arc<ModelUser>,
    socket: WebSocket,
    turn: Option<Turn>,
    mistakes: u32,
    signals: u32,
    heard: Instant,
}

/// Why a connection ends.
enum End {
    /// The client is gone, or does not read.
    Gone,
    /// The client is told.
    Close(u16, &'static str),
}

impl Connection {
    fn new(app: AppState, user: ModelUser, socket: WebSocket) -> Self {
        let (user, heard) = (Arc::new(user), Instant::now());
        Self { app, user, socket, turn: None, mistakes: 0, signals: 0, heard }
    }

    async fn run(mut self) {
        if let Err(End::Close(code, reason)) = self.serve().await {
            // Work ends before the farewell, which may take its time.
            self.turn = None;
            let frame = CloseFrame { code, reason: reason.into() };
            let patience = self.app.settings().slow_client_timeout;
            let _ = timeout(patience, self.socket.send(Message::Close(Some(frame)))).await;
            // A connection that is closed with something unread is reset, and the farewell with it.
            let rest = async { while let Some(Ok(_)) = self.socket.recv().await {} };
            let _ = timeout(LINGER, rest).await;
        }
    }

    async fn serve(&mut self) -> Result<(), End> {
        let interruption = Interruption::of(self.user.caller(), Permission::Inference, self.app.shutdown());
        let shutdown = self.app.shutdown().clone();
        let mut ended = std::pin::pin!(async move { interruption.happened().await });
        let mut drained = std::pin::pin!(async move { shutdown.drained().await });
        let mut ticks = interval(self.app.settings().keep_alive);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut minute = Instant::now();
        loop {
            if self.mistakes >= MOST_MISTAKES || self.signals >= MOST_SIGNALS {
                return Err(End::Close(POLICY, "too many messages that say nothing"));
            }
            let is_idle = self.turn.is_none();
            tokio::select! {
                biased;
                error = &mut ended => return self.say_farewell(error).await,
                () = &mut drained, if is_idle => return Err(End::Close(RESTART, "the server is shutting down")),
                piece = next(&mut self.turn) => self.send_piece(piece).await?,
                message = self.socket.recv() => self.receive(message).await?,
                _ = ticks.tick() => {
                    if self.heard.elapsed() > LONGEST_SILENCE {
                        return Err(End::Gone);
                    }
                    if minute.elapsed() > Duration::from_secs(60) {
                        (minute, self.signals) = (Instant::now(), 0);
                    }
                    self.send(Message::Ping(Vec::new().into())).await?;
                }
            }
        }
    }

    /// A piece of the answer, its end, or why it broke.
    async fn send_piece(&mut self, piece: Option<Result<String, ApiError>>) -> Result<(), End> {
        match piece {
            Some(Ok(text)) => self.send(Message::Text(text.into())).await,
            Some(Err(error)) => {
                self.turn = None;
                match closes(&error) {
                    Some(_) => self.say_farewell(error).await,
                    None => self.answer_error(error).await,
                }
            }
            None => {
                self.turn = None;
                Ok(())
            }
        }
    }

    async fn receive(&mut self, message: Option<Result<Message, axum::Error>>) -> Result<(), End> {
        let message = match message {
            Some(Ok(message)) => message,
            // Nothing that was larger, or not in the protocol, can be answered in it.
            Some(Err(error)) if is_too_large(&error) => {
                return Err(End::Close(TOO_LARGE, "a message may have 512 KiB"));
            }
            Some(Err(_)) | None => return Err(End::Gone),
        };
        self.heard = Instant::now();
        match message {
            Message::Text(text) => self.understand(text.as_bytes()).await,
            Message::Binary(bytes) => self.understand(&bytes).await,
            Message::Ping(_) | Message::Pong(_) => {
                self.signals += 1;
                Ok(())
            }
            Message::Close(_) => Err(End::Gone),
        }
    }

    async fn understand(&mut self, text: &[u8]) -> Result<(), End> {
        let body = match json::parse(text) {
            Ok(body) => body,
            Err(error) => return self.mistake(error).await,
        };
        if body == serde_json::json!({"type": "cancel"}) {
            self.signals += 1;
            // A cancel that crosses the end of its turn is no mistake.
            let Some(turn) = self.turn.take() else { return Ok(()) };
            return self.send(Message::Text(turn.cancelled.to_string().into())).await;
        }
        if self.turn.is_some() {
            let message = "the answer before is still being given: wait for its end, or cancel it";
            return self.mistake(ApiError::new(Code::StateConflict, message)).await;
        }
        match ChatRequest::read(body) {
            Ok(request) => {
                self.mistakes = 0;
                self.turn = Some(begin(&self.app, &self.user, request));
                Ok(())
            }
            Err(error) => self.mistake(error.into()).await,
        }
    }

    async fn mistake(&mut self, error: ApiError) -> Result<(), End> {
        self.mistakes += 1;
        self.answer_error(error).await
    }

    async fn answer_error(&mut self, error: ApiError) -> Result<(), End> {
        self.send(Message::Text(sse::envelope_error(error).to_string().into())).await
    }

    async fn say_farewell(&mut self, error: ApiError) -> Result<(), End> {
        self.turn = None;
        let code = closes(&error).unwrap_or(POLICY);
        self.answer_error(error).await?;
        let reason =
            if code == RESTART { "the server is shutting down" } else { "the credential is no longer good" };
        Err(End::Close(code, reason))
    }

    async fn send(&mut self, message: Message) -> Result<(), End> {
        let patience = self.app.settings().slow_client_timeout;
        match timeout(patience, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(End::Gone),
        }
    }
}

/// The code that a connection is closed with after an error; none if it goes on.
fn closes(error: &ApiError) -> Option<u16> {
    match error.code() {
        Code::Unavailable => Some(RESTART),
        Code::PermissionMissing | Code::ScopeMissing | Code::PasswordChangeRequired => Some(SIGNED_OUT),
        code if code.status() == 401 => Some(SIGNED_OUT),
        _ => None,
    }
}

fn is_too_large(error: &axum::Error) -> bool {
    // The library of frames says so in words only.
    let text = error.to_string().to_lowercase();
    text.contains("too long") || text.contains("too large") || text.contains("too big")
}

/// The next piece; never, without a turn.
async fn next(turn: &mut Option<Turn>) -> Option<Result<String, ApiError>> {
    match turn {
        Some(turn) => turn.messages.next().await,
        None => std::future::pending().await,
    }
}

fn begin(app: &AppState, user: &Arc<ModelUser>, request: ChatRequest) -> Turn {
    let ChatRequest { generate, .. } = request;
    let writer = NativeWriter::new(&generate.model, generate.sampling.logprobs.is_some(), false);
    let choices = (0..generate.choices).map(|choice| ended(choice, "cancelled")).collect();
    let cancelled = writer.chunk(choices, None);
    let (app, user) = (app.clone(), Arc::clone(user));
    let started = async move {
        let generation = inference::start(&app, &app.models(&user), vec![generate], ENDPOINT).await?;
        Ok(inference::outlet(&app, generation, TurnWriter { writer, ended: Vec::new() }))
    };
    let messages = started.map(|started: Result<_, ApiError>| match started {
        Ok(outlet) => stream::unfold(outlet, |mut outlet| async move {
            let next = outlet.next().await?;
            Some((next, outlet))
        })
        .boxed(),
        Err(error) => stream::iter([Err(error)]).boxed(),
    });
    Turn { messages: messages.flatten_stream().boxed(), cancelled }
}

/// As the event stream's, but for the last message, which has all ends and the usage.
struct TurnWriter {
    writer: NativeWriter,
    ended: Vec<(u32, &'static str)>,
}

impl Writer for TurnWriter {
    fn answer(&self, answer: Answer) -> Value {
        self.writer.answer(answer)
    }

    fn chunks(&mut self, event: GenerationEvent) -> Vec<Value> {
        match event {
            GenerationEvent::Ended { choice, reason } => {
                self.ended.push((choice, finish_reason(reason)));
                Vec::new()
            }
            GenerationEvent::Done { usage } => {
                let choices = std::mem::take(&mut self.ended).into_iter();
                let choices = choices.map(|(choice, reason)| ended(choice, reason)).collect();
                vec![self.writer.chunk(choices, Some(usage.into()))]
            }
            other => self.writer.chunks(other),
        }
    }
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
