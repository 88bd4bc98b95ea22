//! The real server in this process, on 127.0.0.1 and a free port, with tiny models and a temporary data folder.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::StreamExt;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use sconce::app::{App, AppError};
use sconce::auth::Auth;
use sconce::clock::Clock;
use sconce::config::{Config, Environment, RawConfig};
use sconce::engine::{EngineHandle, EngineStats};
use sconce::manager::{ModelManager, Runner};
use sconce::shutdown::Shutdown;
use sconce::usage::Recorder;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinHandle;

use crate::database::{Backend, TestDatabase};

/// The chat model: a llama with random weights, 512 tokens, a context of 256.
pub const CHAT: &str = "tiny";

/// The embedding model: a BERT with random weights.
pub const EMBED: &str = "org/tiny-embed";

/// The key from the configuration, which [`TestApp::client`] shows unless told otherwise.
pub const KEY: &str = "test-key-of-the-configuration";

/// The first user's name and password.
pub const OWNER: &str = "admin";
pub const OWNER_PASSWORD: &str = "tidal-mosaic-quarry-41";

/// An `Authorization` header.
pub fn bearer(token: &str) -> HeaderMap {
    let value = HeaderValue::from_str(&format!("Bearer {token}")).expect("tokens are ASCII");
    HeaderMap::from_iter([(AUTHORIZATION, value)])
}

/// A running server. Cut off when dropped.
pub struct TestApp {
    pub url: String,
    pub client: Client,
    pub shutdown: Shutdown,
    pub manager: Arc<ModelManager>,
    pub auth: Auth,
    pub usage: Recorder,
    pub database_url: String,
    task: Option<JoinHandle<Result<(), AppError>>>,
    _data: TempDir,
    _database: TestDatabase,
}

impl Drop for TestApp {
    fn drop(&mut self) {
        self.shutdown.end();
    }
}

/// Listens as the program does: the system keeps little for a client that does not read.
fn listen(address: SocketAddr) -> TcpListener {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_send_buffer_size(128 * 1024).expect("it can be so large");
    socket.bind(address).expect("a free port");
    socket.listen(1024).expect("it listens")
}

/// Golden data of the models crate.
pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tests/golden").join(name)
}

/// `golden.json` of a model.
pub fn answers(name: &str) -> Value {
    let text = std::fs::read_to_string(golden(name).join("golden.json")).expect("golden data is there");
    serde_json::from_str(&text).expect("golden data is JSON")
}

impl TestApp {
    /// With everything at its default.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With some settings, by name.
    pub async fn start_with(settings: &[(&str, &str)]) -> Self {
        Self::start_by(settings, Clock::System).await
    }

    /// With some settings, and expiries by another clock.
    pub async fn start_by(settings: &[(&str, &str)], clock: Clock) -> Self {
        let data = tempfile::tempdir().expect("a temporary folder");
        let database = TestDatabase::fresh(Backend::under_test()).await;
        let mut raw = RawConfig::default()
            .with("listen", "127.0.0.1:0")
            .with("device", "cpu")
            .with("offline", "true")
            .with("memory-budget", "1GiB")
            .with("hub-cache", data.path().to_string_lossy())
            .with("data-dir", data.path().to_string_lossy())
            .with("database-url", database.url())
            .with("api-key", KEY)
            .with("admin-username", OWNER)
            .with("admin-password", OWNER_PASSWORD)
            .with("model", format!("{CHAT}={}", golden("llama").display()))
            .with("model", format!("{EMBED}={}", golden("bert").display()));
        for (name, value) in settings {
            raw = raw.with(name, *value);
        }
        let config = Config::load_from(raw, &Environment::default()).expect("the settings are right");
        let listener = listen(config.server.listen);
        let url = format!("http://{}", listener.local_addr().expect("it listens"));
        let shutdown = Shutdown::new();
        let app = App::open_by(config, clock).await.expect("it can be built");
        let (manager, auth, mut ready) = (Arc::clone(app.manager()), app.auth().clone(), app.ready());
        let usage = app.usage().clone();
        let database_url = database.url().to_owned();
        let task = tokio::spawn(app.serve(listener, shutdown.clone()));
        if ready.wait_for(|ready| *ready).await.is_err() {
            panic!("the server ended early: {:?}", task.await);
        }
        let client = Client::builder().no_proxy().default_headers(bearer(KEY)).build().expect("a client");
        Self {
            url,
            client,
            shutdown,
            manager,
            auth,
            usage,
            database_url,
            task: Some(task),
            _data: data,
            _database: database,
        }
    }

    /// The same server, with a client that shows no key unless told to.
    pub fn without_key(mut self) -> Self {
        self.client = Client::builder().no_proxy().build().expect("a client");
        self
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    pub fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.url))
    }

    pub async fn post(&self, path: &str, body: &Value) -> Response {
        self.client.post(format!("{}{path}", self.url)).json(body).send().await.expect("the server answers")
    }

    /// Posts, and reads an answer of 200.
    pub async fn ask(&self, path: &str, body: &Value) -> Value {
        let response = self.post(path, body).await;
        let status = response.status();
        let answer: Value = response.json().await.expect("it is JSON");
        assert_eq!(status, StatusCode::OK, "{body}\n{answer}");
        answer
    }

    /// Signs in; gives the access token.
    pub async fn sign_in(&self, username: &str, password: &str) -> String {
        let body = json!({"username": username, "password": password});
        let answer = self.ask("/api/v1/auth/login", &body).await;
        answer["data"]["access_token"].as_str().expect("an access token").to_owned()
    }

    /// Posts, and reads the error.
    pub async fn refused(&self, path: &str, body: &Value) -> (u16, Value) {
        read_error(self.post(path, body).await).await
    }

    /// Posts, and reads an event stream to its end.
    pub async fn events(&self, path: &str, body: &Value) -> Events {
        let response = self.post(path, body).await;
        let status = response.status();
        let text = response.text().await.expect("it is text");
        assert_eq!(status, StatusCode::OK, "{body}\n{text}");
        Events::read(&text)
    }

    /// The engine of the chat model.
    pub async fn engine(&self) -> EngineHandle {
        let lease = self.manager.lease(CHAT).await.expect("it is loaded");
        match &lease.runner {
            Runner::Engine(engine) => engine.clone(),
            Runner::Embedder(_) => panic!("the chat model has an engine"),
        }
    }

    /// Waits until the chat model's figures are such.
    pub async fn engine_is(&self, such: impl FnMut(&EngineStats) -> bool) -> EngineStats {
        let mut figures = self.engine().await.watch();
        *figures.wait_for(such).await.expect("the engine runs")
    }

    /// Waits until so many requests have ended one way or another and nothing runs or waits; checks that no block is
    /// held. (Figures are published after a step, so without a number a request that just came would be missed.)
    pub async fn is_idle_after(&self, requests: u64) -> EngineStats {
        let ended = |stats: &EngineStats| {
            stats.finished_stop
                + stats.finished_length
                + stats.finished_abandoned
                + stats.finished_deadline
                + stats.finished_failed
        };
        let idle = |stats: &EngineStats| stats.running == 0 && stats.waiting == 0 && ended(stats) >= requests;
        let figures = self.engine_is(idle).await;
        assert_eq!(ended(&figures), requests, "{figures:?}");
        assert_eq!(figures.free_blocks, figures.total_blocks, "{figures:?}");
        figures
    }

    /// Waits for the server's own end. Its database stays until the app is dropped.
    pub async fn ended(&mut self) -> Result<(), AppError> {
        let task = self.task.take().expect("it was not waited for before");
        task.await.expect("it did not panic")
    }
}

/// Status and `error` of a refusal, after checking its shape.
pub async fn read_error(response: Response) -> (u16, Value) {
    let (status, headers) = (response.status(), response.headers().clone());
    let text = response.text().await.expect("it is text");
    assert!(!status.is_success(), "{text}");
    let body: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status}: not JSON: {text}"));
    let error = body["error"].as_object().unwrap_or_else(|| panic!("no error object: {body}"));
    let names: Vec<_> = error.keys().map(String::as_str).collect();
    assert_eq!(names, ["message", "type", "param", "code"], "{body}");
    assert!(headers.contains_key("x-request-id") && headers.contains_key("x-error-code"), "{headers:?}");
    let number = headers["x-error-code"].to_str().expect("text").to_owned();
    let status = status.as_u16();
    assert!(number.starts_with(&status.to_string()) || (number == "40001" && status == 401), "{number}");
    (status, body["error"].clone())
}

/// The events of a stream.
#[derive(Debug)]
pub struct Events {
    /// The JSON of each.
    pub data: Vec<Value>,
    /// Whether `[DONE]` came last.
    pub done: bool,
}

impl Events {
    /// Reads a whole stream.
    pub fn read(text: &str) -> Self {
        let mut lines: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        let done = lines.last() == Some(&"[DONE]");
        if done {
            lines.pop();
        }
        let data = lines.iter().map(|line| serde_json::from_str(line).expect("events are JSON")).collect();
        Self { data, done }
    }

    /// What one choice said.
    pub fn text(&self, choice: u64) -> String {
        let choices = self.data.iter().filter_map(|event| event["choices"].get(0));
        let own = choices.filter(|found| found["index"] == choice);
        own.filter_map(|found| found["delta"]["content"].as_str().or(found["text"].as_str())).collect()
    }

    /// How one choice ended.
    pub fn finish_reason(&self, choice: u64) -> Option<String> {
        let choices = self.data.iter().filter_map(|event| event["choices"].get(0));
        let mut own = choices.filter(|found| found["index"] == choice);
        own.find_map(|found| found["finish_reason"].as_str().map(str::to_owned))
    }
}

/// Reads `count` events of a running stream.
pub async fn read_events(
    response: &mut (impl StreamExt<Item = reqwest::Result<bytes::Bytes>> + Unpin),
    count: usize,
) {
    let mut read = Vec::new();
    while read.windows(2).filter(|pair| pair == b"\n\n").count() < count {
        let bytes = response.next().await.expect("the stream goes on").expect("it can be read");
        read.extend_from_slice(&bytes);
    }
}

/// A conversation of one message, greedy.
pub fn chat(content: &str) -> Value {
    json!({"model": CHAT, "messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 24})
}

/// The body with one more member.
pub fn with(mut body: Value, name: &str, value: impl Into<Value>) -> Value {
    body[name] = value.into();
    body
}

/// A request that keeps the engine busy: many long answers that no end token cuts short.
pub fn long(choices: u32) -> Value {
    let body = json!({"model": CHAT, "prompt": [303, 324, 14], "max_tokens": 240, "ignore_eos": true, "stream": true});
    with(body, "n", choices)
}
