//! One answer on a WebSocket, from the message that asked for it to the one that says why it ended.
//!
//! A task of its own makes it (`http/pump.rs`); dropping the turn ends the work. Who may use what is looked at anew for
//! each turn: the connection may be hours old.

use std::sync::{Arc, OnceLock};

use futures_util::{Stream, StreamExt, stream};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::api::inference::{self, Endpoint, Writer};
use crate::api::native::chat::{NativeWriter, ended};
use crate::api::openai::chat::ChatRequest;
use crate::api::openai::types::finish_reason;
use crate::auth::{Caller, ModelUser};
use crate::generate::{Answer, GenerateRequest, GenerationEvent, Usage};
use crate::http::metered::Metered;
use crate::http::pump::{self, Outlet};
use crate::http::{ApiError, AppState, Interruption};

const ENDPOINT: Endpoint =
    Endpoint { path: "/api/v1/chat/stream", prompt: "messages", usual_max_tokens: None };

/// What an answer says.
pub enum Said {
    /// A piece, in JSON.
    Piece(String),
    /// The last message, in JSON: the turn is over.
    Last(String),
}

/// An answer that is being given.
pub struct Turn {
    id: String,
    outlet: Outlet,
    /// The last message, there before the outlet ends. Not one of its pieces, of which nobody could say that none follows:
    /// a client may speak again once it has this one, and must not be told that its turn is still running.
    last: Arc<OnceLock<String>>,
    cancel: CancellationToken,
}

impl Turn {
    /// Begins to answer. `interruption` is the connection's.
    pub fn begin(app: &AppState, caller: Caller, interruption: &Interruption, request: ChatRequest) -> Self {
        let generate = request.generate;
        let writer = TurnWriter::new(&generate);
        let id = writer.inner.id().to_owned();
        let (last, cancel) = (Arc::default(), CancellationToken::new());
        let source = Source {
            app: app.clone(),
            caller,
            interruption: interruption.clone(),
            stage: Stage::Asked(Box::new(generate)),
            writer,
            last: Arc::clone(&last),
            cancel: cancel.clone(),
        };
        let patience = app.settings().slow_client_timeout;
        let outlet = pump::start(source.pieces(), interruption.clone(), patience);
        Self { id, outlet, last, cancel }
    }

    /// What all its pieces have as their `id`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What it says next. Not to be asked after the last message, nor after an error.
    pub async fn next(&mut self) -> Result<Said, ApiError> {
        match self.outlet.next().await {
            Some(piece) => piece.map(Said::Piece),
            None => self.last.get().cloned().map(Said::Last).ok_or_else(ApiError::internal),
        }
    }

    /// Asks for the end. Pieces that are on their way still come, and then the last.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }
}

/// How far the answer is.
enum Stage {
    Asked(Box<GenerateRequest>),
    Running(Box<Metered>),
    Over,
}

/// Where the pieces come from.
struct Source {
    app: AppState,
    caller: Caller,
    interruption: Interruption,
    stage: Stage,
    writer: TurnWriter,
    last: Arc<OnceLock<String>>,
    cancel: CancellationToken,
}

type Pieces = Result<Vec<Value>, ApiError>;

impl Source {
    fn pieces(self) -> impl Stream<Item = Pieces> + Send + 'static {
        stream::unfold(self, |mut source| async move {
            let pieces = source.step().await?;
            Some((pieces, source))
        })
    }

    async fn step(&mut self) -> Option<Pieces> {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Asked(request) => self.start(*request).await,
            Stage::Running(generation) => self.go_on(generation).await,
            Stage::Over => None,
        }
    }

    async fn start(&mut self, request: GenerateRequest) -> Option<Pieces> {
        let started = tokio::select! {
            biased;
            () = self.cancel.cancelled() => return self.end(Usage::default()),
            started = begin(&self.app, &self.caller, &self.interruption, request) => started,
        };
        match started {
            Ok(generation) => {
                self.stage = Stage::Running(Box::new(generation));
                Some(Ok(Vec::new()))
            }
            Err(error) => Some(Err(error)),
        }
    }

    async fn go_on(&mut self, mut generation: Box<Metered>) -> Option<Pieces> {
        let event = tokio::select! {
            biased;
            // Where all have ended, the end is there.
            () = self.cancel.cancelled(), if !self.writer.has_ended() => {
                let usage = generation.cancelled().await;
                return self.end(usage);
            }
            event = generation.next() => event?,
        };
        match event {
            Ok(GenerationEvent::Done { usage }) => {
                // Settles its record.
                drop(generation);
                self.end(usage)
            }
            Ok(event) => {
                self.stage = Stage::Running(generation);
                Some(Ok(self.writer.chunks(event)))
            }
            Err(error) => Some(Err(error)),
        }
    }

    /// Leaves the last message where the turn finds it.
    fn end(&self, usage: Usage) -> Option<Pieces> {
        // Said once: nothing is asked after it.
        let _ = self.last.set(self.writer.last(usage).to_string());
        None
    }
}

async fn begin(
    app: &AppState,
    caller: &Caller,
    interruption: &Interruption,
    request: GenerateRequest,
) -> Result<Metered, ApiError> {
    let caller = app.auth().renew(caller).await?;
    let user = caller.exchange::<ModelUser>(app.auth()).await?;
    let models = app.models(&user).interrupted_by(interruption);
    inference::start(app, &models, vec![request], ENDPOINT).await.map(Metered::watched)
}

/// As the event stream's, but for the last message, which has all ends and the usage.
struct TurnWriter {
    inner: NativeWriter,
    /// How each choice ended, once it has.
    ends: Vec<Option<&'static str>>,
}

impl TurnWriter {
    fn new(request: &GenerateRequest) -> Self {
        let inner = NativeWriter::new(&request.model, request.sampling.logprobs.is_some(), false);
        Self { inner, ends: vec![None; request.choices as usize] }
    }

    /// Whether all choices have.
    fn has_ended(&self) -> bool {
        self.ends.iter().all(Option::is_some)
    }

    /// The last message. What had not ended of itself was cancelled.
    fn last(&self, usage: Usage) -> Value {
        let choice = |(index, end): (u32, &Option<&'static str>)| ended(index, end.unwrap_or("cancelled"));
        self.inner.chunk((0..).zip(&self.ends).map(choice).collect(), Some(usage.into()))
    }
}

impl Writer for TurnWriter {
    fn answer(&self, answer: Answer) -> Value {
        self.inner.answer(answer)
    }

    fn chunks(&mut self, event: GenerationEvent) -> Vec<Value> {
        match event {
            GenerationEvent::Ended { choice, reason } => {
                self.ends[choice as usize] = Some(finish_reason(reason));
                Vec::new()
            }
            other => self.inner.chunks(other),
        }
    }
}
