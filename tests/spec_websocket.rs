//! The API specification, §3.1.2, sentence by sentence: conversations over a WebSocket. And what its users will look for
//! next: cancel, errors that keep the connection, bounds, foreign origins, an end when the credential ends.

#[path = "common/app.rs"]
mod app;
#[path = "database/mod.rs"]
mod database;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use sconce::store::usage::{self, UsageFilter, UsageRow};
use sconce::store::{ListRequest, Order, Store};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};
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
        self.rest().await.1
    }

    /// What is told before it is closed, and the code it is closed with.
    async fn rest(&mut self) -> (Vec<Value>, Option<u16>) {
        let mut told = Vec::new();
        while let Some(Ok(message)) = self.0.next().await {
            match message {
                Message::Text(text) => {
                    told.push(serde_json::from_str(text.as_str()).expect("messages are JSON"));
                }
                Message::Close(frame) => return (told, frame.map(|frame| frame.code.into())),
                _ => {}
            }
        }
        (told, None)
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

/// More than can be sent before a test is over.
fn endless() -> Value {
    let body = with(with(chat("hello"), "max_tokens", 180), "ignore_eos", true);
    with(with(with(body, "n", 32), "logprobs", true), "top_logprobs", 5)
}

async fn rows(store: &Store) -> Vec<UsageRow> {
    let mut tx = store.read().await.expect("it reads");
    let all = ListRequest { limit: 100, cursor: None, sort: "at", order: Order::Ascending };
    usage::list(&mut tx, &UsageFilter::default(), &all).await.expect("they are there").items
}

/// What was used, once all of it is written.
async fn used(app: &TestApp) -> Vec<UsageRow> {
    app.usage.flushed().await;
    rows(&Store::open(&app.database_url.clone().into()).await.expect("the database is there")).await
}

async fn outcomes(app: &TestApp) -> Vec<String> {
    used(app).await.into_iter().map(|row| row.outcome).collect()
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
    for query in [
        format!("?authorization=Bearer%20{token}"),
        format!("?Authorization=Bearer+{KEY}"),
        format!("?Authorization=bearer%20{token}"),
        format!("?authorization={KEY}"),
        format!("?token={token}"),
        format!("?access_token={token}"),
        format!("?api_key={KEY}"),
    ] {
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
        (format!("?authorization=Bearer%20{token}&token={token}"), 401),
        (format!("?authorization={KEY}&Authorization={KEY}"), 400),
        ("?authorization=Bearer%20".into(), 401),
        (format!("?authorization=Basic%20{KEY}"), 401),
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

/// The end of a turn is known to the client and to the server at once: however fast the next message is, it is no conflict.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn another_turn_can_be_begun_as_soon_as_the_last_message_is_there() {
    let app = TestApp::start().await;
    let mut socket = opened(&app).await;
    let short = with(chat("hello"), "max_tokens", 1);
    for turn in 0..300 {
        socket.send(&short).await;
        let last = socket.turn().await.pop().expect("an end");
        assert_eq!(last["choices"][0]["finish_reason"], "length", "{turn}: {last}");
    }
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
    socket.send(&endless()).await;
    socket.next().await;
    drop(socket);
    assert_eq!(app.is_idle_after(1).await.finished_abandoned, 1);
    assert_eq!(outcomes(&app).await, ["client_gone"]);
}

#[tokio::test]
async fn a_cancelled_turn_is_over_when_its_last_message_comes_and_says_what_it_cost() {
    let app = TestApp::start().await;
    let mut socket = opened(&app).await;
    socket.send(&endless()).await;
    socket.next().await;
    socket.send(&json!({"type": "cancel"})).await;
    let last = socket.turn().await.pop().expect("an end");
    let choices = last["choices"].as_array().expect("choices");
    assert_eq!(choices.len(), 32);
    assert!(
        choices.iter().all(|choice| choice["delta"] == json!({}) && choice["finish_reason"] == "cancelled")
    );
    let figures = app.is_idle_after(1).await;
    assert_eq!(figures.finished_abandoned, 1);
    assert_eq!(last["usage"]["completion_tokens"], figures.generated_tokens);
    assert_eq!(outcomes(&app).await, ["cancelled"]);
    assert_eq!(used(&app).await[0].completion_tokens as u64, figures.generated_tokens);
    // Also while it waits for its turn, or before there is anything to cancel.
    socket.send(&chat("hello")).await;
    socket.send(&json!({"type": "cancel"})).await;
    socket.send(&json!({"type": "cancel"})).await;
    let last = socket.turn().await.pop().expect("an end");
    let reason = last["choices"][0]["finish_reason"].as_str();
    assert!(matches!(reason, Some("cancelled" | "length")), "{last}");
}

#[tokio::test]
async fn an_error_that_ends_a_turn_has_its_id_and_others_have_none() {
    let app = TestApp::start_with(&[("request-timeout", "1ms")]).await;
    let mut socket = opened(&app).await;
    socket.send(&endless()).await;
    let mut messages = socket.turn().await;
    let error = messages.pop().expect("an error");
    assert_eq!(error["error"]["code"], 50401);
    let id = error["id"].as_str().expect("the turn's");
    assert!(messages.iter().all(|message| message["id"] == id), "{messages:?}");
    socket.send(&json!({"model": 7})).await;
    let error = socket.next().await;
    assert_eq!((error["error"]["code"].as_i64(), error.get("id")), (Some(40003), None));
}

#[tokio::test]
async fn what_a_message_says_of_streams_is_nothing_here() {
    let app = TestApp::start().await;
    let mut socket = opened(&app).await;
    for stream in [json!(true), json!(false), json!(null), json!("yes")] {
        socket.send(&with(with(chat("hello"), "stream", stream), "max_tokens", 2)).await;
        assert_eq!(socket.turn().await.last().expect("an end")["usage"]["completion_tokens"], 2);
    }
    let options =
        with(with(chat("hello"), "max_tokens", 2), "stream_options", json!({"include_usage": true}));
    socket.send(&options).await;
    let messages = socket.turn().await;
    assert_eq!(messages.iter().filter(|message| message.get("usage").is_some()).count(), 1);
}

#[tokio::test]
async fn what_a_key_may_use_is_looked_at_for_each_turn() {
    let app = TestApp::start().await;
    let token = app.sign_in(OWNER, OWNER_PASSWORD).await;
    let url = format!("{}/api/v1/me/keys", app.url);
    let made = app.client.post(&url).bearer_auth(&token).json(&json!({"name": "one"})).send().await;
    let made: Value = made.expect("an answer").json().await.expect("JSON");
    let (id, key) = (&made["data"]["id"], made["data"]["key"].as_str().expect("a key"));
    let mut socket = open(&app, &format!("?api_key={key}"), &[]).await.expect("it is good");
    socket.send(&chat("hello")).await;
    socket.turn().await;
    let url = format!("{url}/{}", id.as_str().expect("an id"));
    let change = json!({"models": ["org/tiny-embed"]});
    let changed = app.client.put(&url).bearer_auth(&token).json(&change).send().await.expect("an answer");
    assert_eq!(changed.status().as_u16(), 200);
    socket.send(&chat("hello")).await;
    assert_eq!(socket.turn().await[0]["error"]["code"], 40303);
    let disabled = app.client.put(&url).bearer_auth(&token).json(&json!({"status": "disabled"})).send().await;
    assert_eq!(disabled.expect("an answer").status().as_u16(), 200);
    let since = std::time::Instant::now();
    assert_eq!(socket.close_code().await, Some(4401));
    // A second is promised; the tests beside this one take of the machine too.
    assert!(since.elapsed() <= std::time::Duration::from_secs(3), "{:?}", since.elapsed());
}

/// Whether the turn or the connection saw it first.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn why_a_connection_ends_is_told_once_and_as_the_end_of_its_turn() {
    let app = TestApp::start().await;
    let token = app.sign_in(OWNER, OWNER_PASSWORD).await;
    let keys = format!("{}/api/v1/me/keys", app.url);
    for round in 0..40 {
        let made = app.client.post(&keys).bearer_auth(&token).json(&json!({"name": "one"})).send().await;
        let made: Value = made.expect("an answer").json().await.expect("JSON");
        let (id, key) = (made["data"]["id"].as_str(), made["data"]["key"].as_str().expect("a key"));
        let mut socket = open(&app, &format!("?api_key={key}"), &[]).await.expect("it is good");
        socket.send(&endless()).await;
        socket.next().await;
        let url = format!("{keys}/{}", id.expect("an id"));
        let gone = app.client.delete(&url).bearer_auth(&token).send().await.expect("an answer");
        assert!(gone.status().is_success());
        let (told, code) = socket.rest().await;
        let errors: Vec<_> = told.iter().filter(|said| said.get("error").is_some()).collect();
        assert!(errors.len() == 1 && code == Some(4401), "{round}: {errors:?} {code:?}");
        // The turn may have been faster.
        let has_ended = told.iter().any(|said| said["choices"][0]["finish_reason"].is_string());
        assert!(has_ended || errors[0]["id"].is_string(), "{round}: {errors:?}");
    }
}

#[tokio::test]
async fn a_connection_that_nobody_uses_is_closed() {
    let app = TestApp::start_with(&[("socket-idle-timeout", "50ms")]).await;
    let mut socket = opened(&app).await;
    assert_eq!(socket.close_code().await, Some(1000));
}

#[tokio::test]
async fn a_connection_that_answers_no_ping_is_given_up() {
    let app = TestApp::start_with(&[("keep-alive", "10ms")]).await;
    let mut connection = TcpStream::connect(app.address()).await.expect("it listens");
    let head = format!(
        "GET {PATH}?api_key={KEY} HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    );
    connection.write_all(head.as_bytes()).await.expect("it is taken");
    let mut heard = Vec::new();
    // Far more than is to come: pings for ever would be seen, too.
    connection.take(4096).read_to_end(&mut heard).await.expect("what is sent, and the end");
    let after_head = heard.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
    assert!(heard.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&heard));
    assert_eq!(heard[after_head..], [0x89, 0].repeat(4), "four pings, and no farewell");
}

#[tokio::test]
async fn a_client_that_takes_its_leave_is_answered() {
    let app = TestApp::start().await;
    let mut socket = opened(&app).await;
    socket.send(&endless()).await;
    socket.next().await;
    let leave = CloseFrame { code: CloseCode::Away, reason: "".into() };
    socket.0.close(Some(leave)).await.expect("it is open");
    assert_eq!(socket.close_code().await, Some(1001));
    assert!(socket.0.next().await.is_none(), "there is nothing after it, and no reset");
    assert_eq!(outcomes(&app).await, ["client_gone"]);
}

#[tokio::test]
async fn the_end_of_the_server_waits_for_a_turn_and_then_closes() {
    let mut app = TestApp::start().await;
    let (mut busy, mut cut) = (opened(&app).await, opened(&app).await);
    let short = with(with(chat("hello"), "ignore_eos", true), "max_tokens", 180);
    busy.send(&short).await;
    cut.send(&endless()).await;
    busy.next().await;
    cut.next().await;
    app.shutdown.drain();
    assert_eq!(busy.turn().await.last().expect("an end")["choices"][0]["finish_reason"], "length");
    assert_eq!(busy.close_code().await, Some(1012));
    app.shutdown.end();
    let error = cut.turn().await.pop().expect("an error");
    assert_eq!(error["error"]["code"], 50301);
    assert_eq!(cut.close_code().await, Some(1012));
    let (url, usage) = (app.database_url.clone(), app.usage.clone());
    let store = Store::open(&url.into()).await.expect("the database is there");
    app.ended().await.expect("it ends well");
    usage.flushed().await;
    let mut endings: Vec<String> = rows(&store).await.into_iter().map(|row| row.outcome).collect();
    endings.sort_unstable();
    assert_eq!(endings, ["length", "shutdown"]);
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
    // What is not closed for what it did is closed for what it does not: with 1000.
    let app = TestApp::start_with(&[("socket-idle-timeout", "10s")]).await;
    let mut socket = opened(&app).await;
    // The server may close before all of it has left.
    let _ = socket.0.send(Message::text("x".repeat(2 << 20))).await;
    assert_eq!(socket.close_code().await, Some(1009));
    // The same in pieces: no end in sight is as large as too large.
    let mut socket = opened(&app).await;
    let piece = Bytes::from(vec![b'x'; 1024]);
    for number in 0..2048 {
        let opcode = if number == 0 { Data::Text } else { Data::Continue };
        let frame = Frame::message(piece.clone(), OpCode::Data(opcode), false);
        if socket.0.send(Message::Frame(frame)).await.is_err() {
            break;
        }
    }
    assert_eq!(socket.close_code().await, Some(1009));
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
    busy.send(&endless()).await;
    busy.next().await;
    let url = format!("{}/api/v1/auth/logout", app.url);
    let out = app.client.post(url).bearer_auth(&token).json(&json!({})).send().await.expect("an answer");
    assert_eq!(out.status().as_u16(), 200);
    assert_eq!(idle.close_code().await, Some(4401));
    let error = busy.turn().await.pop().expect("an error");
    assert_eq!((error["error"]["code"].as_i64(), error["id"].is_string()), (Some(40104), true));
    assert_eq!(busy.close_code().await, Some(4401));
    assert_eq!(outcomes(&app).await, ["revoked"]);
    let mut other = opened(&app).await;
    app.shutdown.drain();
    assert_eq!(other.close_code().await, Some(1012));
}
