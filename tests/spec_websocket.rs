//! The API specification, §3.1.2, sentence by sentence: conversations over a WebSocket. And what its users will look for
//! next: cancel, errors that keep the connection, bounds, foreign origins, an end when the credential ends.

#[path = "common/app.rs"]
mod app;
#[path = "database/mod.rs"]
mod database;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::tungstenite::{Error, http::Request};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::app::{CHAT, KEY, OWNER, OWNER_PASSWORD, TestApp, chat, with};

const PATH: &str = "/api/v1/chat/stream";

struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    async fn send(&mut self, message: &Value) {
        self.0.send(Message::text(message.to_string())).await.expect("it is open");
    }

    /// The next message in JSON.
    async fn next(&mut self) -> Value {
        loop {
            match self.0.next().await.expect("it is open").expect("it can be read") {
                Message::Text(text) => {
                    return serde_json::from_str(text.as_str()).expect("messages are JSON");
                }
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("not a message: {other:?}"),
            }
        }
    }

    /// All messages of a turn: up to the one that says why it ended.
    async fn turn(&mut self) -> Vec<Value> {
        let mut messages = Vec::new();
        loop {
            let message = self.next().await;
            let is_last = !message["choices"][0]["finish_reason"].is_null() || message.get("error").is_some();
            messages.push(message);
            if is_last {
                return messages;
            }
        }
    }

    /// The code it is closed with; messages before that are passed over.
    async fn close_code(&mut self) -> Option<u16> {
        while let Some(Ok(message)) = self.0.next().await {
            if let Message::Close(frame) = message {
                return frame.map(|frame| frame.code.into());
            }
        }
        None
    }
}

fn request(app: &TestApp, query: &str, headers: &[(&'static str, &str)]) -> Request<()> {
    let url = format!("ws://{}{PATH}{query}", app.address());
    let mut request = url.into_client_request().expect("a URL");
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().expect("a header"));
    }
    request
}

async fn open(app: &TestApp, query: &str, headers: &[(&'static str, &str)]) -> Result<Socket, u16> {
    match connect_async(request(app, query, headers)).await {
        Ok((socket, _)) => Ok(Socket(socket)),
        Err(Error::Http(response)) => Err(response.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

async fn opened(app: &TestApp) -> Socket {
    let key = format!("Bearer {KEY}");
    open(app, "", &[("authorization", &key)]).await.expect("the key is good")
}

fn text(messages: &[Value]) -> String {
    messages.iter().filter_map(|message| message["choices"][0]["delta"]["content"].as_str()).collect()
}

#[tokio::test]
async fn a_connection_is_opened_by_header_or_query_parameter() {
    let app = TestApp::start().await;
    let token = app.sign_in(OWNER, OWNER_PASSWORD).await;
    let header = format!("Bearer {token}");
    assert!(open(&app, "", &[("authorization", &header)]).await.is_ok());
    for query in [format!("?token={token}"), format!("?access_token={token}"), format!("?api_key={KEY}")] {
        let mut socket = open(&app, &query, &[]).await.expect("it is good");
        socket.send(&chat("hello")).await;
        assert_eq!(socket.turn().await.last().expect("an end")["choices"][0]["finish_reason"], "length");
    }
    for (query, status) in [
        (String::new(), 401),
        ("?token=".into(), 401),
        ("?token=sk-sconce-wrong".into(), 401),
        (format!("?token={token}x"), 401),
        (format!("?token={token}&api_key={KEY}"), 401),
        (format!("?key={KEY}"), 400),
        ("?ticket=none".into(), 401),
    ] {
        assert_eq!(open(&app, &query, &[]).await.err(), Some(status), "{query}");
    }
    // Without a handshake it is no WebSocket, and a stranger does not learn even that.
    let plain = app.get(PATH).send().await.expect("an answer");
    assert_eq!(plain.status().as_u16(), 400);
    let answer: Value = plain.json().await.expect("an envelope");
    assert_eq!(answer["code"], 40003);
}

#[tokio::test]
async fn a_ticket_opens_one_connection() {
    let app = TestApp::start().await;
    let token = app.sign_in(OWNER, OWNER_PASSWORD).await;
    let url = format!("{}/api/v1/auth/ticket", app.url);
    let answer = app.client.post(url).bearer_auth(&token).send().await.expect("an answer");
    let answer: Value = answer.json().await.expect("an envelope");
    let ticket = answer["data"]["ticket"].as_str().expect("a ticket").to_owned();
    let query = format!("?ticket={ticket}");
    let mut socket = open(&app, &query, &[]).await.expect("it is fresh");
    socket.send(&chat("hello")).await;
    assert!(!socket.turn().await.is_empty());
    assert_eq!(open(&app, &query, &[]).await.err(), Some(401), "it is used up");
}

#[tokio::test]
async fn each_answer_is_one_json_object_as_in_the_event_stream_and_the_last_says_why_it_ended() {
    let app = TestApp::start().await;
    let mut socket = opened(&app).await;
    socket.send(&chat("hello")).await;
    let messages = socket.turn().await;
    let events = app.events("/api/v1/chat/completions", &with(chat("hello"), "stream", true)).await;
    let masked = |message: &Value| {
        let mut message = message.clone();
        message["id"] = json!("chatcmpl-xxx");
        message["created"] = json!(0);
        message.as_object_mut().expect("an object").remove("usage");
        message.to_string()
    };
    let (own, theirs): (Vec<_>, Vec<_>) =
        (messages.iter().map(masked).collect(), events.data.iter().map(masked).collect());
    assert_eq!(own, theirs);
    assert_eq!(
        own[0],
        r#"{"id":"chatcmpl-xxx","object":"chat.completion.chunk","created":0,"model":"tiny","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#
    );
    let last = messages.last().expect("an end");
    assert_eq!(last["choices"][0]["finish_reason"], "length");
    assert_eq!(last["usage"]["completion_tokens"], 24);
    assert!(messages.iter().all(|message| message["id"] == messages[0]["id"]), "one turn has one id");
}

#[tokio::test]
async fn a_connection_has_several_turns_and_outlives_what_is_wrong() {
    let app = TestApp::start().await;
    let mut socket = opened(&app).await;
    socket.send(&chat("hello")).await;
    let first = socket.turn().await;
    for (message, code) in [
        ("{".to_owned(), 40002),
        ("[]".to_owned(), 40002),
        (json!({"model": CHAT}).to_string(), 40015),
        (with(chat("x"), "colour", "red").to_string(), 40004),
        (with(chat("x"), "model", "nobody").to_string(), 40402),
        (chat(&"long ".repeat(2000)).to_string(), 40006),
        (json!({"type": "dance"}).to_string(), 40004),
    ] {
        socket.0.send(Message::text(message.clone())).await.expect("it is open");
        let answer = socket.next().await;
        let found = answer["error"]["code"].as_i64().expect("a code");
        assert!(found == code || (code == 40004 && found == 40015), "{message} {answer}");
    }
    socket.0.send(Message::Ping(vec![1, 2].into())).await.expect("it is open");
    socket.send(&chat("hello")).await;
    let second = socket.turn().await;
    assert_eq!(text(&first), text(&second));
    assert_ne!(first[0]["id"], second[0]["id"]);
}

#[tokio::test]
async fn a_turn_can_be_cancelled_and_another_begun() {
    let app = TestApp::start().await;
    let mut socket = opened(&app).await;
    let long = with(with(chat("hello"), "max_tokens", 180), "ignore_eos", true);
    socket.send(&long).await;
    let first = socket.next().await;
    // While it runs, another is refused, and it goes on.
    socket.send(&chat("x")).await;
    while socket.next().await["error"]["code"] != 40902 {}
    socket.send(&json!({"type": "cancel"})).await;
    let last = socket.turn().await.pop().expect("an end");
    assert_eq!(last["choices"][0]["finish_reason"], "cancelled");
    assert_eq!(last["id"], first["id"]);
    app.is_idle_after(1).await;
    // A cancel without a turn says nothing.
    socket.send(&json!({"type": "cancel"})).await;
    socket.send(&chat("hello")).await;
    assert_eq!(socket.turn().await.last().expect("an end")["choices"][0]["finish_reason"], "length");
}

#[tokio::test]
async fn a_dropped_connection_drops_its_turn() {
    let app = TestApp::start().await;
    let mut socket = opened(&app).await;
    socket.send(&with(with(chat("hello"), "max_tokens", 180), "ignore_eos", true)).await;
    socket.next().await;
    drop(socket);
    app.is_idle_after(1).await;
}

#[tokio::test]
async fn c6_pages_of_other_sites_cannot_open_a_connection() {
    let app = TestApp::start_with(&[("allowed-origin", "https://console.example")]).await;
    let key = format!("Bearer {KEY}");
    let own = format!("http://{}", app.address());
    for origin in [own.as_str(), "https://console.example"] {
        assert!(open(&app, "", &[("authorization", &key), ("origin", origin)]).await.is_ok(), "{origin}");
    }
    for origin in ["https://evil.example", "null", "http://localhost"] {
        let refused = open(&app, &format!("?token={KEY}"), &[("origin", origin)]).await.err();
        assert_eq!(refused, Some(403), "{origin}");
    }
    assert_eq!(open(&app, "", &[("cookie", &format!("token={KEY}"))]).await.err(), Some(401));
    // Only this route takes a credential from the query.
    let elsewhere = app.without_key();
    let response = elsewhere.get(&format!("/api/v1/me?token={KEY}")).send().await.expect("an answer");
    assert_eq!(response.status().as_u16(), 401);
}

#[tokio::test]
async fn c8_floods_and_giants_close_the_connection() {
    let app = TestApp::start().await;
    let mut socket = opened(&app).await;
    // The server may close before all of it has left.
    let _ = socket.0.send(Message::text("x".repeat(2 << 20))).await;
    assert!(matches!(socket.close_code().await, Some(1009) | None));
    let mut socket = opened(&app).await;
    for _ in 0..1000 {
        if socket.0.send(Message::Ping(Vec::new().into())).await.is_err() {
            break;
        }
    }
    assert_eq!(socket.close_code().await, Some(1008));
    let mut socket = opened(&app).await;
    for _ in 0..100 {
        if socket.0.send(Message::text("{")).await.is_err() {
            break;
        }
    }
    assert_eq!(socket.close_code().await, Some(1008));
}

#[tokio::test]
async fn a_connection_ends_with_its_credential_and_with_the_server() {
    let app = TestApp::start().await;
    let token = app.sign_in(OWNER, OWNER_PASSWORD).await;
    let mut idle = open(&app, &format!("?token={token}"), &[]).await.expect("it is good");
    let mut busy = open(&app, &format!("?token={token}"), &[]).await.expect("it is good");
    busy.send(&with(with(chat("hello"), "max_tokens", 180), "ignore_eos", true)).await;
    busy.next().await;
    let url = format!("{}/api/v1/auth/logout", app.url);
    let out = app.client.post(url).bearer_auth(&token).json(&json!({})).send().await.expect("an answer");
    assert_eq!(out.status().as_u16(), 200);
    assert_eq!(idle.close_code().await, Some(4401));
    assert_eq!(busy.close_code().await, Some(4401));
    let mut other = opened(&app).await;
    app.shutdown.drain();
    assert_eq!(other.close_code().await, Some(1012));
}
