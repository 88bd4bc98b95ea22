//! One line of a batch: its request answered as its URL would answer it, by whoever the batch's maker is then.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::api::openai::line;
use crate::auth::{AuthError, Deferral, ModelUser, files, new_id};
use crate::batch::runner::Runner;
use crate::batch::validate;
use crate::error::Code;
use crate::http::{ApiError, OpenAiError, RequestContext, Surface};
use crate::language::Language;
use crate::store::batches::{LineRow, Progress};
use crate::usage::{Outcome, Unwritten};

/// How often a request is tried that the engine fails.
const MOST_FAULTS: u32 = 3;

/// How long a request that cannot be served now waits before it is tried again: first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// What all lines of a batch have in common.
pub(super) struct Common {
    pub(super) runner: Arc<Runner>,
    pub(super) batch_id: String,
    pub(super) input_file_id: String,
    pub(super) endpoint: String,
    pub(super) deferral: Deferral,
    /// What waits need not be waited for any more.
    pub(super) ending: CancellationToken,
    /// Nor is what is being made.
    pub(super) stopping: CancellationToken,
}

/// What has become of a line.
pub(super) enum LineEnd {
    /// It has a result.
    Done(LineResult),
    /// It has none, and the batch is ending or the server is: whoever goes on with the batch does it again.
    Undone,
    /// It was being answered when the batch was cancelled or its time was over; what was used until then.
    Stopped(Unwritten),
    /// Its maker may not do this any more; what was used until then.
    Revoked(ApiError, Unwritten),
}

/// The result of a line.
pub(super) struct LineResult {
    /// As HTTP has it.
    pub(super) status: u16,
    /// The line of the output.
    pub(super) output: String,
    /// What it used.
    pub(super) used: Unwritten,
    /// How many of the generated tokens are thoughts.
    reasoning_tokens: i64,
}

impl LineResult {
    fn new(custom_id: &str, request_id: &str, (status, body): (u16, Value), used: Unwritten) -> Self {
        let reasoning_tokens = reasoning_tokens(&body);
        let response = json!({"status_code": status, "request_id": request_id, "body": body});
        let output =
            json!({"id": new_id("batch_req"), "custom_id": custom_id, "response": response, "error": null});
        Self { status, output: output.to_string(), used, reasoning_tokens }
    }

    /// What its batch has come on by it.
    pub(super) fn progress(&self) -> Progress {
        let answered = i64::from(self.status == 200);
        let used = Progress::from(&self.used);
        Progress { answered, refused: 1 - answered, reasoning_tokens: self.reasoning_tokens, ..used }
    }
}

impl From<&Unwritten> for Progress {
    fn from(used: &Unwritten) -> Self {
        used.rows.iter().fold(Self::default(), |sum, row| Self {
            input_tokens: sum.input_tokens + row.prompt_tokens,
            cached_tokens: sum.cached_tokens + row.cached_tokens,
            output_tokens: sum.output_tokens + row.completion_tokens,
            ..sum
        })
    }
}

/// How many tokens were thoughts, as the answer says; none where it says nothing of it.
fn reasoning_tokens(answer: &Value) -> i64 {
    let usage = &answer["usage"];
    let told = ["completion_tokens_details", "output_tokens_details"]
        .into_iter()
        .find_map(|details| usage[details]["reasoning_tokens"].as_i64());
    told.unwrap_or(0)
}

/// One try.
enum Try {
    End(LineEnd),
    /// Not now.
    Later(Option<Duration>),
    /// The engine failed it.
    Fault(ApiError, Unwritten),
}

impl Common {
    /// Answers a line; tries again what cannot be served now, for as long as it takes.
    pub(super) async fn answer(self: Arc<Self>, line: LineRow) -> LineEnd {
        let (mut pause, mut faults) = (FIRST_PAUSE, 0);
        loop {
            let request_id = new_id("req");
            let tried = AssertUnwindSafe(self.attempt(&line, &request_id)).catch_unwind().await;
            let tried = tried.unwrap_or_else(|_| Try::Fault(ApiError::internal(), Unwritten::default()));
            let wait = match tried {
                Try::End(end) => return end,
                Try::Fault(error, used) => {
                    faults += 1;
                    if faults >= MOST_FAULTS {
                        return refused(&line, &request_id, error, used);
                    }
                    None
                }
                Try::Later(wait) => wait,
            };
            tokio::select! {
                () = tokio::time::sleep(wait.unwrap_or(pause).min(LONGEST_PAUSE)) => {}
                () = self.ending.cancelled() => return LineEnd::Undone,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn attempt(&self, line: &LineRow, request_id: &str) -> Try {
        let app = self.runner.app();
        let slot = tokio::select! {
            biased;
            () = self.ending.cancelled() => return Try::End(LineEnd::Undone),
            slot = self.runner.slot() => slot,
        };
        let user = match self.user(request_id).await {
            Ok(user) => user,
            Err(AuthError::Store(_)) => return Try::Later(None),
            Err(error) => return Try::End(LineEnd::Revoked(error.into(), Unwritten::default())),
        };
        let (place, length) = (line.place.unsigned_abs(), line.length.unsigned_abs() as usize);
        let read = files::part(self.runner.store(), &self.input_file_id, place, length).await;
        let body = match read {
            Ok(bytes) => validate::body(&bytes).unwrap_or_default(),
            Err(AuthError::Store(_)) => return Try::Later(None),
            Err(error) => return Try::End(refused(line, request_id, error.into(), Unwritten::default())),
        };
        let (recorder, mut aside) = self.runner.usage().aside();
        let models = app.models(&user).in_background().recorded_by(recorder);
        let name = self.name(line);
        let answer = line::answer(app, &user, &models, &self.endpoint, &name, body);
        let answer = Arc::new(self.context(&user, request_id)).scope(answer);
        // Polled first: an answer that is there is given.
        let answer = tokio::select! {
            biased;
            answer = answer => Some(answer),
            () = self.stopping.cancelled() => None,
        };
        let mut used = aside.settled().await;
        drop(slot);
        let Some(answer) = answer else {
            // No client left: there never was one.
            for row in used.rows.iter_mut().filter(|row| row.outcome == Outcome::ClientGone.name()) {
                row.outcome = Outcome::Cancelled.name().to_owned();
            }
            return Try::End(LineEnd::Stopped(used));
        };
        match answer {
            Ok(body) => {
                let result = LineResult::new(&line.custom_id, request_id, (200, body), used);
                Try::End(LineEnd::Done(result))
            }
            Err(error) => self.judge(line, request_id, error, used).await,
        }
    }

    /// The same whenever and wherever the line is answered: what is kept of an answer whose result was lost with its server
    /// is replaced, and not kept twice. Of the length of what an id has after its prefix.
    fn name(&self, line: &LineRow) -> String {
        let digest = blake3::hash(format!("{}/{}", self.batch_id, line.number).as_bytes());
        digest.to_hex()[..32].to_owned()
    }

    /// Who the batch's maker is now, as one who may use models.
    async fn user(&self, request_id: &str) -> Result<ModelUser, AuthError> {
        let auth = self.runner.app().auth();
        auth.resume(&self.deferral, request_id.to_owned()).await?.exchange(auth).await
    }

    /// What follows from a refusal.
    async fn judge(&self, line: &LineRow, request_id: &str, error: ApiError, used: Unwritten) -> Try {
        if self.runner.app().shutdown().is_draining() && error.status().as_u16() >= 500 {
            return Try::End(LineEnd::Undone);
        }
        match error.code() {
            Code::RateLimited
            | Code::ModelOverloaded
            | Code::ModelLoading
            | Code::ModelOutOfMemory
            | Code::DatabaseBusy
            | Code::DatabaseUnavailable
            | Code::DiskFull
            | Code::Timeout
            | Code::Unavailable => return Try::Later(None),
            code if code.status() >= 500 => return Try::Fault(error, used),
            _ => {}
        }
        // Whether it is the request that is refused, or its maker.
        match self.user(request_id).await {
            Err(AuthError::Store(_)) => Try::Later(None),
            Err(error) => Try::End(LineEnd::Revoked(error.into(), used)),
            // The key has another secret since the line began.
            Ok(_) if error.status().as_u16() == 401 => Try::Later(None),
            Ok(_) => Try::End(refused(line, request_id, error, used)),
        }
    }

    fn context(&self, user: &ModelUser, request_id: &str) -> RequestContext {
        let origin = user.caller().origin();
        RequestContext {
            id: request_id.to_owned(),
            language: Language::English,
            surface: Surface::OpenAi,
            request: format!("POST {}", self.endpoint),
            address: origin.address,
            user_agent: origin.user_agent.clone(),
        }
    }
}

fn refused(line: &LineRow, request_id: &str, error: ApiError, used: Unwritten) -> LineEnd {
    let status = error.status().as_u16();
    let body = OpenAiError::from(error).to_json();
    LineEnd::Done(LineResult::new(&line.custom_id, request_id, (status, body), used))
}
