//! How an answer is kept: checked for its size before anything is made, written when it is made. What was made is given
//! though it cannot be kept.

use std::time::Duration;

use metrics::counter;
use serde_json::Value;

use crate::api::openai::responses::maker::Maker;
use crate::auth::responses::{MOST_BYTES, NewResponse, OwnResponses};
use crate::error::Code;
use crate::http::ApiError;
use crate::telemetry::metrics::NOT_KEPT;

/// How often it is tried to write the end of an answer, and how long is waited in between.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);

/// What an answer shows again, and may be large.
const ECHOED: [&str; 4] = ["instructions", "tools", "text", "metadata"];

/// An answer that is to be kept.
pub struct Keeping {
    /// Whose it is.
    pub responses: OwnResponses,
    /// `resp_…`
    pub id: String,
    /// The one that it goes on from.
    pub previous: Option<String>,
    /// The items that it answers.
    pub input: Vec<Value>,
    /// How long it is kept.
    pub retention: Duration,
}

impl Keeping {
    /// Checks that there is room for what was asked, before it costs anything.
    ///
    /// # Errors
    /// Names the member that takes the most.
    pub fn check_size(&self, maker: &Maker) -> Result<(), ApiError> {
        let body = maker.body();
        let input: usize = self.input.iter().map(length).sum();
        let bytes = input + length(&body);
        if bytes <= MOST_BYTES {
            return Ok(());
        }
        let echoed = ECHOED.map(|name| (name, length(&body[name])));
        let largest = echoed.into_iter().chain([("input", input)]).max_by_key(|(_, bytes)| *bytes);
        let name = largest.map_or("input", |(name, _)| name);
        let message = format!(
            "`{name}` is too large to be stored ({bytes} bytes in all, at most {MOST_BYTES}): send `store: false`"
        );
        Err(ApiError::new(Code::InvalidValue, message).or_param(name))
    }

    /// Keeps it as it stands.
    ///
    /// # Errors
    /// For one that is too large, and for a database that takes nothing.
    pub async fn keep(&self, maker: &Maker) -> Result<(), ApiError> {
        let body = maker.body();
        let new = NewResponse {
            id: &self.id,
            previous_id: self.previous.as_deref(),
            status: maker.status(),
            body: &body,
            input: &self.input,
            retention: self.retention,
        };
        Ok(self.responses.keep(new).await?)
    }

    /// Keeps what was made, if it can; else the answer says that it was not.
    pub async fn keep_made(&self, maker: &mut Maker) {
        if let Err(error) = self.keep(maker).await {
            counter!(NOT_KEPT, "kind" => "response").increment(1);
            tracing::warn!(id = self.id, error = %error.message(), "an answer cannot be kept; it is given all the same");
            maker.is_not_kept();
        }
    }
}

/// Writes how an answer ended that was kept from its beginning, even if the database is away for a moment.
pub async fn finish(id: &str, responses: &OwnResponses, maker: &Maker) {
    let body = maker.body();
    for number in 1..=TRIES {
        match responses.finish(id, maker.status(), &body).await {
            Ok(()) => return,
            Err(error) if number == TRIES => {
                counter!(NOT_KEPT, "kind" => "response").increment(1);
                tracing::error!(%error, id, "an answer cannot be written; it is lost");
            }
            Err(error) => {
                tracing::warn!(%error, id, "an answer cannot be written; it is tried again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn length(value: &Value) -> usize {
    value.to_string().len()
}
