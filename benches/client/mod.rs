//! A client of OpenAI-compatible servers that costs little: it streams, notes when each piece of an answer came, and reads
//! nothing that it does not need. Not a library: what the benches share.

#![allow(dead_code, reason = "each bench uses a part of it")]

mod events;
pub mod own_server;
pub mod process;
pub mod statistics;

use std::time::{Duration, Instant};

use reqwest::{Client, Response};
use serde_json::{Value, json};

use events::{Event, Events};

/// Longer than any request here takes on a machine that works.
const TIMEOUT: Duration = Duration::from_secs(900);

/// A server to be asked.
#[derive(Debug, Clone)]
pub struct Target {
    /// `http://host:port`
    pub url: String,
    pub key: Option<String>,
    /// The name that requests give.
    pub model: String,
    client: Client,
}

/// How one request went.
#[derive(Debug, Clone)]
pub struct Answer {
    pub sent: Instant,
    pub ended: Instant,
    /// When each piece of text came.
    pub pieces: Vec<Instant>,
    /// As the server counted.
    pub prompt_tokens: u64,
    /// As the server counted.
    pub tokens: u64,
    /// Of the text, as it stood in the events: equal for equal texts of one server.
    pub digest: u64,
    /// Why there is no whole answer.
    pub failure: Option<String>,
}

impl Answer {
    fn new() -> Self {
        let now = Instant::now();
        let (pieces, digest) = (Vec::new(), 0xCBF2_9CE4_8422_2325);
        Self { sent: now, ended: now, pieces, prompt_tokens: 0, tokens: 0, digest, failure: None }
    }

    /// From sending the request to the first text.
    pub fn first(&self) -> Option<Duration> {
        self.pieces.first().map(|piece| *piece - self.sent)
    }

    /// From the first text to the last.
    pub fn decoding(&self) -> Duration {
        match (self.pieces.first(), self.pieces.last()) {
            (Some(first), Some(last)) => *last - *first,
            _ => Duration::ZERO,
        }
    }

    /// Between one piece and the next.
    pub fn gaps(&self) -> impl Iterator<Item = Duration> {
        self.pieces.windows(2).map(|pair| pair[1] - pair[0])
    }

    fn take(&mut self, event: Event<'_>, now: Instant) {
        match event {
            Event::Text(text) => {
                self.pieces.push(now);
                for byte in text {
                    self.digest = (self.digest ^ u64::from(*byte)).wrapping_mul(0x100_0000_01B3);
                }
            }
            Event::Usage { prompt, completion } => (self.prompt_tokens, self.tokens) = (prompt, completion),
            Event::Failure(text) => self.failure = Some(text),
        }
    }
}

impl Target {
    /// A server; the model is the first that it lists, unless one is named.
    pub async fn new(url: &str, key: Option<String>, model: Option<String>) -> Result<Self, String> {
        // A connection for each request: llama-server closes one behind a streamed answer, though the answer's head says that
        // it stays, and the next request on it is lost.
        let client =
            Client::builder().no_proxy().tcp_nodelay(true).timeout(TIMEOUT).pool_max_idle_per_host(0);
        let client = client.build();
        let client = client.map_err(|error| error.to_string())?;
        let url = url.trim_end_matches('/').trim_end_matches("/v1").to_owned();
        let mut target = Self { url, key, model: String::new(), client };
        target.model = match model {
            Some(model) => model,
            None => target.first_model().await?,
        };
        Ok(target)
    }

    async fn first_model(&self) -> Result<String, String> {
        let cannot = |error: reqwest::Error| format!("{}/v1/models: {error}", self.url);
        let mut request = self.client.get(format!("{}/v1/models", self.url));
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        let list: Value = request.send().await.map_err(cannot)?.json().await.map_err(cannot)?;
        let first = list["data"][0]["id"].as_str();
        first.map(str::to_owned).ok_or_else(|| format!("{}/v1/models names no model: {list}", self.url))
    }

    /// Streams the answer to a body of `/v1/chat/completions` or `/v1/completions`; what is the same in all requests is
    /// added here.
    pub async fn ask(&self, path: &str, body: Value) -> Answer {
        self.ask_and_watch(path, body, |_| true).await
    }

    /// The same; after each piece `watch` says whether to go on. Whoever does not has hung up.
    pub async fn ask_and_watch(
        &self,
        path: &str,
        mut body: Value,
        mut watch: impl FnMut(&Answer) -> bool,
    ) -> Answer {
        body["model"] = json!(self.model);
        body["temperature"] = json!(0);
        body["stream"] = json!(true);
        body["stream_options"] = json!({"include_usage": true});
        let mut request = self.client.post(format!("{}{path}", self.url)).json(&body);
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        let mut answer = Answer::new();
        if let Err(failure) = receive(request, &mut answer, &mut watch).await {
            answer.failure = Some(failure);
        }
        answer.ended = Instant::now();
        answer
    }
}

async fn receive(
    request: reqwest::RequestBuilder,
    answer: &mut Answer,
    watch: &mut impl FnMut(&Answer) -> bool,
) -> Result<(), String> {
    let mut response = refuse_failure(request.send().await.map_err(describe)?).await?;
    let mut events = Events::default();
    while let Some(bytes) = response.chunk().await.map_err(describe)? {
        let (now, known) = (Instant::now(), answer.pieces.len());
        events.read(&bytes, |event| answer.take(event, now));
        if answer.pieces.len() > known && !watch(answer) {
            return Ok(());
        }
    }
    if events.done { Ok(()) } else { Err("the stream ended early".to_owned()) }
}

async fn refuse_failure(response: Response) -> Result<Response, String> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let text = response.text().await.unwrap_or_default();
    Err(format!("{status}: {}", text.chars().take(300).collect::<String>()))
}

/// An error with its causes.
fn describe(error: reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(next) = cause {
        text.push_str(&format!(": {next}"));
        cause = next.source();
    }
    text
}
