//! `store`: how a chat is kept, with what was asked. What was made is given though it cannot be kept.

use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use metrics::counter;
use serde_json::{Map, Value};

use crate::api::inference::Writer;
use crate::api::openai::chat::writer::ChatWriter;
use crate::auth::ModelUser;
use crate::auth::responses::chats::NewChat;
use crate::auth::responses::{MOST_BYTES, OwnResponses};
use crate::error::Code;
use crate::generate::{CollectedAnswer, GenerateRequest, GenerationEvent};
use crate::http::{ApiError, AppState, RequestContext};
use crate::telemetry::metrics::NOT_KEPT;

/// What of the question is shown with the answer: its name there, and in the question.
const SHOWN: [(&str, &str); 9] = [
    ("tools", "tools"),
    ("tool_choice", "tool_choice"),
    ("response_format", "response_format"),
    ("temperature", "temperature"),
    ("top_p", "top_p"),
    ("presence_penalty", "presence_penalty"),
    ("frequency_penalty", "frequency_penalty"),
    ("seed", "seed"),
    ("input_user", "user"),
];

/// What is kept of a question, as it was sent.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Asked {
    messages: Vec<Value>,
    shown: Map<String, Value>,
}

impl Asked {
    /// What is kept of a body.
    pub(super) fn of(body: &Value) -> Self {
        Self {
            messages: body["messages"].as_array().cloned().unwrap_or_default(),
            shown: SHOWN.iter().map(|(shown, sent)| ((*shown).to_owned(), body[*sent].clone())).collect(),
        }
    }

    fn bytes(&self) -> usize {
        let shown = self.shown.values().chain(&self.messages);
        shown.map(|value| value.to_string().len()).sum()
    }
}

/// An answer that is to be kept.
pub(super) struct Keeping {
    chats: OwnResponses,
    retention: Duration,
    asked: Asked,
    metadata: Map<String, Value>,
}

impl Keeping {
    /// Checks that it can be kept, before it costs anything.
    ///
    /// # Errors
    /// Where nothing is kept, and for a question that is too large.
    pub(super) fn new(
        app: &AppState,
        user: &ModelUser,
        mut asked: Asked,
        request: &GenerateRequest,
    ) -> Result<Self, ApiError> {
        let Some(retention) = app.settings().response_retention else {
            let message = "`store` is not supported: this server keeps no answers";
            return Err(ApiError::new(Code::UnsupportedParameter, message).or_param("store"));
        };
        let bytes = asked.bytes();
        if bytes > MOST_BYTES {
            let message = format!(
                "`messages` is too large to be stored ({bytes} bytes in all, at most {MOST_BYTES}): send `store: false`"
            );
            return Err(ApiError::new(Code::InvalidValue, message).or_param("messages"));
        }
        asked.shown.insert("request_id".to_owned(), RequestContext::current().id.clone().into());
        let metadata = request.attribution.metadata.clone();
        Ok(Self { chats: user.responses(), retention, asked, metadata })
    }

    /// Keeps an answer, if it can.
    pub(super) async fn keep(&self, mut answer: Value) {
        // That of a stream was told in pieces, and is kept whole.
        answer["object"] = "chat.completion".into();
        for (name, value) in &self.asked.shown {
            answer[name] = value.clone();
        }
        let text = |name: &str| answer[name].as_str().unwrap_or_default();
        let new = NewChat {
            id: text("id"),
            model: text("model"),
            metadata: &self.metadata,
            body: &answer,
            messages: &self.asked.messages,
            retention: self.retention,
        };
        if let Err(error) = self.chats.keep_chat(new).await {
            // A chat has no member to say so, as an answer of `/v1/responses` has: it is not found, and it is counted.
            counter!(NOT_KEPT, "kind" => "chat").increment(1);
            tracing::warn!(id = text("id"), %error, "a chat cannot be kept; it is given all the same");
        }
    }

    /// What is told of an answer as it comes. It is kept before its end is told: who hears that may look for it.
    pub(super) fn told(
        self,
        events: impl Stream<Item = Result<GenerationEvent, ApiError>> + Send + 'static,
        writer: ChatWriter,
    ) -> impl Stream<Item = Result<Vec<Value>, ApiError>> + Send + 'static {
        let begun = (Box::pin(events), CollectedAnswer::default(), writer, self);
        stream::unfold(begun, |(mut events, mut collected, mut writer, keeping)| async move {
            let told = match events.next().await? {
                Ok(event) => {
                    collected.add(event.clone());
                    if matches!(event, GenerationEvent::Done { .. }) {
                        let answer = std::mem::take(&mut collected).into_answer();
                        keeping.keep(writer.answer(answer)).await;
                    }
                    Ok(writer.chunks(event))
                }
                Err(error) => Err(error),
            };
            Some((told, (events, collected, writer, keeping)))
        })
    }
}
