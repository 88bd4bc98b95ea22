//! What gets into logs, metrics, records, messages and files: no secret (C7), and nothing that becomes more than text
//! there (C9).

use std::io::{self, Write};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use futures_util::{SinkExt, StreamExt};
use reqwest::{Method, RequestBuilder, Response};
use sconce::clock::Timestamp;
use sconce::config::{LogConfig, LogFormat};
use sconce::store::usage::{UsageRow, insert};
use sconce::telemetry::logging;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tracing::dispatcher;

use crate::api::Api;
use crate::app::{OWNER, TestApp, chat, with};
use crate::rig::{LOGIN, REFRESH, store};

/// What was written.
#[derive(Clone, Default)]
struct Pages(Arc<Mutex<Vec<u8>>>);

impl Pages {
    fn read(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl Write for Pages {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn settings(format: LogFormat) -> LogConfig {
    LogConfig { filter: "sconce=trace,platform=trace,info".to_owned(), format }
}

/// The log of this whole process, engine threads included, from the first time somebody asks for it.
fn log() -> Pages {
    static LOG: OnceLock<Pages> = OnceLock::new();
    let pages = LOG.get_or_init(|| {
        let pages = Pages::default();
        let written = pages.clone();
        let lines = logging(&settings(LogFormat::Text), move || written.clone());
        dispatcher::set_global_default(lines).expect("nobody else sets it in this binary");
        pages
    });
    pages.clone()
}

/// Sends requests, and keeps all that is answered.
struct Listener<'a> {
    app: &'a TestApp,
    heard: Mutex<String>,
}

impl Listener<'_> {
    fn ask(&self, method: Method, path: &str, token: &str) -> RequestBuilder {
        let request = self.app.client.request(method, format!("{}{path}", self.app.url));
        let request = request.header("x-request-id", "c7-control");
        if token.is_empty() { request } else { request.bearer_auth(token) }
    }

    async fn hear(&self, response: Response) -> u16 {
        let status = response.status().as_u16();
        let said = format!("{:?}\n{}\n", response.headers().clone(), response.text().await.expect("text"));
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).push_str(&said);
        status
    }

    async fn get(&self, path: &str, token: &str) -> u16 {
        self.hear(self.ask(Method::GET, path, token).send().await.expect("an answer")).await
    }

    async fn post(&self, path: &str, token: &str, body: &Value) -> u16 {
        self.hear(self.ask(Method::POST, path, token).json(body).send().await.expect("an answer")).await
    }

    /// Opens a WebSocket by its query, says something bad and something good there, and takes leave.
    async fn converse(&self, query: &str, request_id: &str) {
        let url = format!("ws://{}/api/v1/chat/stream?{query}", self.app.address());
        let mut request = url.into_client_request().expect("a URL");
        request.headers_mut().insert("x-request-id", request_id.parse().expect("a header"));
        let (mut socket, response) = connect_async(request).await.expect("the query opens it");
        let mut said = format!("{:?}\n", response.headers());
        for body in [json!({"model": 7}), with(chat("hello"), "max_tokens", 2)] {
            socket.send(Message::text(body.to_string())).await.expect("it is open");
        }
        let leave = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        while let Some(message) = socket.next().await {
            let message = message.expect("it ends in order");
            said += &format!("{message:?}\n");
            if message.to_text().is_ok_and(|text| text.contains("\"usage\"")) {
                socket.close(Some(leave.clone())).await.expect("it is open");
            }
        }
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).push_str(&said);
    }

    /// Posts what hands out a secret: this answer alone may hold it.
    async fn made(&self, path: &str, token: &str, body: &Value) -> Value {
        let response = self.ask(Method::POST, path, token).json(body).send().await.expect("an answer");
        assert!(response.status().is_success(), "{path}: {}", response.status());
        response.json::<Value>().await.expect("JSON")["data"].clone()
    }
}

fn text(data: &Value, name: &str) -> String {
    data[name].as_str().unwrap_or_else(|| panic!("no `{name}`: {data}")).to_owned()
}

#[tokio::test]
async fn c7_no_secret_is_in_logs_metrics_records_or_errors() {
    let log = log();
    let (key, password) = ("marble-otter-configured-key-5521", "glacier-pewter-monsoon-88");
    let (signing, hub) = ("Jq7vWm2kXz9TfLb4Rn6yHs3cPd8gAe5u", "hf_QwErTyUiOp1234567890AsDf");
    let (new_password, wrong) = ("harbor-velcro-tundra-19", "wrong-but-secret-all-the-same-3");
    let all = [("api-key", key), ("admin-password", password), ("jwt-secret", signing), ("hub-token", hub)];
    let app = TestApp::start_with(&all).await.without_key();
    let listener = Listener { app: &app, heard: Mutex::default() };
    let credentials = |password: &str| json!({"username": OWNER, "password": password});
    let signed_in = listener.made(LOGIN, "", &credentials(password)).await;
    let (access, refresh) = (text(&signed_in, "access_token"), text(&signed_in, "refresh_token"));
    let made = listener.made("/api/v1/me/keys", &access, &json!({"name": "one"})).await;
    let (key_id, api_key) = (text(&made, "id"), text(&made, "key"));
    let ticket = text(&listener.made("/api/v1/auth/ticket", &access, &Value::Null).await, "ticket");
    let user = json!({"username": "ada", "password": new_password, "role": "user"});
    assert_eq!(listener.post("/api/v1/admin/users", &access, &user).await, 201);
    let rotated = listener.made(&format!("/api/v1/me/keys/{key_id}/rotate"), &access, &json!({})).await;
    let rotated = text(&rotated, "key");
    let renewed = listener.made(REFRESH, "", &json!({"refresh_token": refresh})).await;
    let secrets = [
        ("the configured key", key.to_owned()),
        ("the owner's password", password.to_owned()),
        ("the signing secret", signing.to_owned()),
        ("the hub's token", hub.to_owned()),
        ("a user's password", new_password.to_owned()),
        ("a wrong password", wrong.to_owned()),
        ("an access token", access.clone()),
        ("its signature", access.rsplit('.').next().expect("a signature").to_owned()),
        ("a refresh token", refresh.clone()),
        ("its successor", text(&renewed, "refresh_token")),
        ("an access token of the second kind", text(&renewed, "access_token")),
        ("a key", api_key.clone()),
        ("the key's successor", rotated),
        ("a ticket", ticket.clone()),
    ];
    // Where a query may hold one, and it opens the door.
    let opening = [
        ("token", &access),
        ("token", &api_key),
        ("access_token", &access),
        ("api_key", &api_key),
        ("ticket", &ticket),
    ];
    for (number, (name, secret)) in opening.into_iter().enumerate() {
        listener.converse(&format!("{name}={secret}"), &format!("c7-socket-{number}")).await;
    }
    // All of them where they do not belong, and where they do but do not help.
    for (_, secret) in &secrets {
        for name in ["token", "ticket", "api_key", "access_token", "limit", "cursor", "search", "sort"] {
            for path in ["/api/v1/chat/stream", "/v1/models", "/api/v1/admin/users", "/api/v1/me/keys"] {
                let status = listener.get(&format!("{path}?{name}={secret}"), &access).await;
                assert!(status < 500, "{path}?{name}");
            }
        }
        listener.get("/v1/models", secret).await;
        listener.get("/v1/models", &format!("{secret}x")).await;
        listener.get("/api/v1/me", &format!("{secret}x")).await;
        let basic = listener.ask(Method::GET, "/v1/models", "").basic_auth(OWNER, Some(secret));
        assert_eq!(listener.hear(basic.send().await.expect("an answer")).await, 401);
        let twice = listener.ask(Method::GET, "/api/v1/me", secret).header("authorization", secret);
        assert_eq!(listener.hear(twice.send().await.expect("an answer")).await, 401);
        listener.post("/api/v1/chat/completions", secret, &json!({"model": "tiny"})).await;
        listener.post("/v1/chat/completions", secret, &with(chat("x"), "temperature", 99)).await;
    }
    for body in [
        credentials(wrong),
        json!({"username": OWNER, "password": {"value": wrong}}),
        json!({"username": OWNER, "password": [password]}),
        json!({"username": OWNER, "password": password, "more": password}),
        json!({"username": [OWNER], "password": password}),
        json!({"user": OWNER, "password": password}),
    ] {
        assert!((400..500).contains(&listener.post(LOGIN, "", &body).await), "{body}");
    }
    for body in [json!({"refresh_token": [refresh]}), json!({"refresh_token": wrong})] {
        assert!((400..500).contains(&listener.post(REFRESH, "", &body).await));
    }
    for body in [
        json!({"current_password": wrong, "new_password": new_password}),
        json!({"current_password": password, "new_password": password}),
        json!({"current_password": password, "new_password": [new_password]}),
    ] {
        assert!((400..500).contains(&listener.post("/api/v1/me/password", &access, &body).await));
    }
    let source =
        json!({"id": "m", "sources": [format!("https://user:{wrong}@models.example/m.gguf?token={wrong}")]});
    listener.post("/api/v1/admin/models", &access, &source).await;
    assert_eq!(listener.post("/v1/chat/completions", key, &chat("hello")).await, 200);
    assert_eq!(listener.get("/metrics", "").await, 200);
    for path in
        ["settings", "users", "keys", "models", "usage", "usage/export", "audit?limit=100", "audit/verify"]
    {
        assert_eq!(listener.get(&format!("/api/v1/admin/{path}"), &access).await, 200, "{path}");
    }
    app.shutdown.end();
    let (log, heard) = (log.read(), listener.heard.into_inner().unwrap_or_else(PoisonError::into_inner));
    assert!(
        log.contains("c7-control") && log.contains("/api/v1/chat/stream"),
        "it is the log of this server"
    );
    for number in 0..opening.len() {
        let request_id = format!("c7-socket-{number}");
        let line = log.lines().find(|line| line.contains(&request_id) && line.contains("101"));
        assert!(line.is_some(), "the log tells of {request_id}");
    }
    assert!(heard.contains("user.sign_in_failed") && heard.contains("sconce_http_requests_total"), "{heard}");
    for (what, secret) in &secrets {
        for (place, written) in [("the log", &log), ("an answer", &heard)] {
            let line = written.lines().find(|line| line.contains(secret.as_str()));
            assert!(line.is_none(), "{what} is in {place}: {}", line.unwrap_or_default());
        }
    }
    assert!(!log.contains("?token=") && !log.contains("?ticket="), "queries are not logged");
}

/// Breaks lines, clears screens, turns text round.
const EVIL: &str = "a\nINFO forged=1\r\u{1b}[2J\u{9b}2J\u{85}\u{2028}\u{2029}\u{202e}\u{7}\u{8}z";

fn is_harmless(line: &str) -> bool {
    !line.contains(|c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202e}'))
}

#[test]
fn c9_texts_of_strangers_stay_within_their_line_of_the_log() {
    for format in [LogFormat::Text, LogFormat::Json] {
        let pages = Pages::default();
        let written = pages.clone();
        let lines = logging(&settings(format), move || written.clone());
        dispatcher::with_default(&lines, || {
            tracing::info!("said {EVIL}");
            tracing::info!(shown = %EVIL, debugged = ?EVIL, plain = EVIL, "fields");
            let error = io::Error::other(EVIL);
            tracing::error!(error = &error as &dyn std::error::Error, %error, "errors");
            tracing::info_span!("span", id = EVIL).in_scope(|| tracing::info!("within"));
        });
        let written = pages.read();
        assert_eq!(written.lines().count(), 4, "{format:?}: {written}");
        for line in written.lines() {
            assert!(is_harmless(line), "{format:?}: {line:?}");
            if format == LogFormat::Json {
                let record: Value = serde_json::from_str(line).expect("a record is JSON");
                assert_eq!(record.get("forged"), None);
            }
        }
        assert!(written.contains("forged=1"), "it is told, but harmlessly: {written}");
    }
}

#[tokio::test]
async fn c9_requests_with_odd_texts_leave_a_log_of_lines() {
    let log = log();
    let app = TestApp::start().await;
    let path = "/api/v1/admin/models/x%0aINFO%20forged%1b[2J\u{2028}y\u{85}\u{9b}2J";
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: localhost\r\nuser-agent: agent\u{2028}\u{9b}2J\r\nx-request-id: c9\u{2028}\r\n\
         connection: close\r\n\r\n"
    );
    let mut connection = TcpStream::connect(app.address()).await.expect("it listens");
    connection.write_all(request.as_bytes()).await.expect("it is taken");
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await.expect("an answer");
    assert!(answer.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&answer));
    app.refused("/v1/chat/completions", &with(chat("x"), "model", EVIL)).await;
    let login = json!({"username": EVIL, "password": EVIL});
    assert_eq!(Api::nobody(&app).post("/auth/login", login).await.refusal(), (401, 40102));
    let owner = Api::owner(&app).await;
    for (path, body) in [
        ("/admin/users", json!({"username": EVIL})),
        ("/admin/users", json!({"username": "ada", "display_name": EVIL})),
        ("/admin/teams", json!({"name": EVIL})),
        ("/admin/models", json!({"id": EVIL})),
        ("/admin/models", json!({"id": "m", "sources": [EVIL]})),
        ("/me/keys", json!({"name": EVIL})),
    ] {
        assert_eq!(owner.post(path, body.clone()).await.status, 400, "{path} {body}");
    }
    let written = log.read();
    assert!(written.contains("answered"), "it is the log of this server");
    for line in written.lines() {
        assert!(is_harmless(line) && line.starts_with("20"), "each line begins with its time: {line:?}");
    }
}

#[tokio::test]
async fn c9_no_cell_of_an_exported_file_is_a_formula() {
    let app = TestApp::start().await;
    let formulas = ["=cmd|'/c calc'!A0", "+1+1", "-1+1", "@SUM(1)", "\t=1", "\r=1", "\n=1", "=a,\"b\"\r\n=c"];
    let row = |(number, text): (usize, &&str)| UsageRow {
        id: format!("use_{number}"),
        at: Timestamp::from_millis(1_700_000_000_000),
        request_id: (*text).to_owned(),
        user_id: None,
        key_id: None,
        team_id: None,
        model: (*text).to_owned(),
        asked_for: (*text).to_owned(),
        endpoint: "/v1/completions".to_owned(),
        prompt_tokens: 1,
        cached_tokens: 0,
        completion_tokens: 0,
        outcome: "stop".to_owned(),
        duration_ms: 1,
        end_user: None,
        metadata: None,
    };
    let rows: Vec<_> = formulas.iter().enumerate().map(row).collect();
    let store = store(&app).await;
    let mut tx = store.append().await.expect("it writes");
    insert(&mut tx, &rows).await.expect("they are new");
    tx.commit().await.expect("it commits");
    let file = Api::owner(&app).await.get("/admin/usage/export").await.text;
    let cells = cells(&file);
    assert_eq!(cells.len() % 16, 0, "{file}");
    for formula in formulas {
        let found = cells.iter().filter(|cell| **cell == format!("'{formula}")).count();
        assert_eq!(found, 3, "{formula:?}: {file}");
    }
    let begins = |cell: &&String| cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']);
    assert_eq!(cells.iter().find(begins), None, "{file}");
}

/// The cells of a file of values parted by commas, as a spreadsheet reads them.
fn cells(file: &str) -> Vec<String> {
    let (mut cells, mut cell, mut is_quoted) = (Vec::new(), String::new(), false);
    let mut characters = file.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '"' if is_quoted && characters.next_if_eq(&'"').is_some() => cell.push('"'),
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => cells.push(std::mem::take(&mut cell)),
            '\r' if !is_quoted && characters.next_if_eq(&'\n').is_some() => {
                cells.push(std::mem::take(&mut cell))
            }
            c => cell.push(c),
        }
    }
    cells
}
