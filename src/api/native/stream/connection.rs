//! A WebSocket from its first message to its farewell: who speaks when, and how much.
//!
//! Not the answers themselves (`turn.rs`), and not the last moments of the connection's bytes (`http/wire.rs`). One task
//! has the socket: it reads while an answer is being given, so that a cancel is heard and a client that leaves is noticed.

use std::convert::Infallible;
use std::pin::pin;

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures_util::SinkExt;
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::api::native::stream::allowance::Allowance;
use crate::api::native::stream::turn::{Said, Turn};
use crate::api::openai::chat::ChatRequest;
use crate::auth::{Caller, Permission};
use crate::error::Code;
use crate::http::{ApiError, AppState, Interruption, json as strict_json, sse};

/// Messages in a row that are not understood, after which the connection is closed.
const MOST_MISTAKES: u32 = 20;

/// Pings that may stay unanswered.
const MOST_PINGS: u32 = 4;

/// RFC 6455 §7.4.1, and our own 4401.
const NORMAL: u16 = 1000;
const POLICY: u16 = 1008;
const TOO_LARGE: u16 = 1009;
const RESTART: u16 = 1012;
const SIGNED_OUT: u16 = 4401;

/// Why a connection ends.
enum End {
    /// The client is gone, or does not read.
    Gone,
    /// The client said that it leaves.
    Left,
    /// The client is told.
    Close(u16, &'static str),
}

/// An open connection.
pub struct Connection {
    app: AppState,
    caller: Caller,
    socket: WebSocket,
    interruption: Interruption,
    turn: Option<Turn>,
    /// Messages in a row that were not understood.
    mistakes: u32,
    allowance: Allowance,
    /// Pings since the client was last heard.
    unanswered: u32,
    /// When the connection was last of use.
    used: Instant,
}

impl Connection {
    /// Of somebody who may use models.
    pub fn new(app: AppState, caller: Caller, socket: WebSocket) -> Self {
        let interruption = Interruption::of(&caller, Permission::Inference, app.shutdown());
        let now = Instant::now();
        Self {
            app,
            caller,
            socket,
            interruption,
            turn: None,
            mistakes: 0,
            allowance: Allowance::full(now),
            unanswered: 0,
            used: now,
        }
    }

    /// Serves it to its end.
    pub async fn run(mut self) {
        let Err(end) = self.converse().await;
        // Work ends before the farewell, which may take its time.
        self.turn = None;
        // Whether it is heard is the client's affair.
        let _ = match end {
            End::Gone => Ok(()),
            // The library has its answer ready.
            End::Left => self.in_time(|socket| socket.flush()).await,
            End::Close(code, reason) => {
                self.send(Message::Close(Some(CloseFrame { code, reason: reason.into() }))).await
            }
        };
    }

    async fn converse(&mut self) -> Result<Infallible, End> {
        let (interruption, shutdown) = (self.interruption.clone(), self.app.shutdown().clone());
        let mut interrupted = pin!(interruption.happened());
        let mut drained = pin!(shutdown.drained());
        let settings = self.app.settings();
        let mut ticks = interval(settings.keep_alive.min(settings.socket_idle_timeout));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_idle = self.turn.is_none();
            // In no order: pieces that are always there must not keep a cancel from being heard.
            tokio::select! {
                error = interrupted.as_mut() => return Err(self.end_by(error).await),
                () = drained.as_mut(), if is_idle => return Err(End::Close(RESTART, "the server is going away")),
                said = next(&mut self.turn) => self.pass_on(said).await?,
                message = self.socket.recv() => self.receive(message).await?,
                _ = ticks.tick() => self.look_after().await?,
            }
        }
    }

    /// Finds out whether the client is still there, and for what.
    async fn look_after(&mut self) -> Result<(), End> {
        if self.unanswered >= MOST_PINGS {
            return Err(End::Gone);
        }
        if self.turn.is_none() && self.used.elapsed() >= self.app.settings().socket_idle_timeout {
            return Err(End::Close(NORMAL, "nothing was said for too long"));
        }
        self.unanswered += 1;
        self.send(Message::Ping(Vec::new().into())).await
    }

    /// A piece of the answer, its end, or why it broke.
    async fn pass_on(&mut self, said: Result<Said, ApiError>) -> Result<(), End> {
        match said {
            Ok(Said::Piece(text)) => self.send(Message::Text(text.into())).await,
            Ok(Said::Last(text)) => {
                // Over before it is told: who hears of it may ask again at once.
                self.turn = None;
                let sent = self.send(Message::Text(text.into())).await;
                self.allowance.give_back();
                self.used = Instant::now();
                sent
            }
            Err(error) => match self.interruption.has_happened().await {
                // The turn may have seen it first, or have failed of something else just before.
                Some(error) => Err(self.end_by(error).await),
                None => {
                    let error = self.error_of_turn(error);
                    self.say(&error).await
                }
            },
        }
    }

    async fn receive(&mut self, message: Option<Result<Message, axum::Error>>) -> Result<(), End> {
        let message = match message {
            Some(Ok(message)) => message,
            Some(Err(error)) if is_too_large(&error) => {
                return Err(End::Close(TOO_LARGE, "the message is too large"));
            }
            // What is not in the protocol cannot be answered in it.
            Some(Err(_)) | None => return Err(End::Gone),
        };
        self.unanswered = 0;
        if !self.allowance.take(Instant::now()) {
            return Err(End::Close(POLICY, "too many messages"));
        }
        match message {
            Message::Text(text) => self.understand(text.as_bytes()).await,
            Message::Binary(bytes) => self.understand(&bytes).await,
            Message::Ping(_) | Message::Pong(_) => Ok(()),
            Message::Close(_) => Err(End::Left),
        }
    }

    async fn understand(&mut self, text: &[u8]) -> Result<(), End> {
        self.used = Instant::now();
        let body = match strict_json::parse(text) {
            Ok(body) => body,
            Err(error) => return self.mistake(error).await,
        };
        if body == json!({"type": "cancel"}) {
            // A cancel that crosses the end of its turn is no mistake.
            self.turn.iter().for_each(Turn::cancel);
            return Ok(());
        }
        if self.turn.is_some() {
            let message = "the answer before is still being given: wait for its end, or cancel it";
            return self.mistake(ApiError::new(Code::StateConflict, message)).await;
        }
        let read = ChatRequest::read(streamed(body));
        match read.and_then(|request| request.refuse_store().map(|()| request)) {
            Ok(request) => {
                self.mistakes = 0;
                let caller = self.caller.clone();
                self.turn = Some(Turn::begin(&self.app, caller, &self.interruption, request));
                Ok(())
            }
            Err(error) => self.mistake(error.into()).await,
        }
    }

    /// Answers a message that cannot be done.
    async fn mistake(&mut self, error: ApiError) -> Result<(), End> {
        self.mistakes += 1;
        if self.mistakes > MOST_MISTAKES {
            return Err(End::Close(POLICY, "too many messages that cannot be understood"));
        }
        self.say(&sse::envelope_error(error)).await
    }

    /// Ends the turn, if there is one; the error that says so.
    fn error_of_turn(&mut self, error: ApiError) -> Value {
        self.used = Instant::now();
        let mut said = sse::envelope_error(error);
        if let Some(turn) = self.turn.take() {
            said = json!({"id": turn.id(), "error": said["error"]});
        }
        said
    }

    /// Ends everything: says why; how the connection is to be closed.
    async fn end_by(&mut self, error: ApiError) -> End {
        let end = match error.code() {
            Code::Unavailable => End::Close(RESTART, "the server is going away"),
            _ => End::Close(SIGNED_OUT, "the credential is no longer good for this"),
        };
        let error = self.error_of_turn(error);
        self.say(&error).await.err().unwrap_or(end)
    }

    async fn say(&mut self, message: &Value) -> Result<(), End> {
        self.send(Message::Text(message.to_string().into())).await
    }

    async fn send(&mut self, message: Message) -> Result<(), End> {
        self.in_time(|socket| SinkExt::send(socket, message)).await
    }

    /// Does something that may wait for the client to read.
    async fn in_time<'a, W>(&'a mut self, write: impl FnOnce(&'a mut WebSocket) -> W) -> Result<(), End>
    where
        W: Future<Output = Result<(), axum::Error>>,
    {
        match timeout(self.app.settings().slow_client_timeout, write(&mut self.socket)).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(End::Gone),
        }
    }
}

/// Here every answer is sent in pieces, whatever the message says of it.
fn streamed(mut body: Value) -> Value {
    if let Some(members) = body.as_object_mut() {
        members.insert("stream".to_owned(), json!(true));
    }
    body
}

/// What the turn says next; never, without one.
async fn next(turn: &mut Option<Turn>) -> Result<Said, ApiError> {
    match turn {
        Some(turn) => turn.next().await,
        None => std::future::pending().await,
    }
}

fn is_too_large(error: &axum::Error) -> bool {
    // The library of frames says so in words only.
    error.to_string().starts_with("Space limit exceeded")
}
