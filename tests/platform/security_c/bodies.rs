//! Bodies that no client should send: F6.

use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::operations;
use crate::api::{Answer, Api, password_of};
use crate::app::{CHAT, KEY, OWNER, TestApp, chat, read_error, with};
use crate::rig::sign_in;

const OURS: &str = "/api/v1/chat/completions";
const THEIRS: &str = "/v1/chat/completions";

/// Status and number of a refusal, in the shape of its URL.
async fn refusal(path: &str, response: Response) -> (u16, u64) {
    let number = response.headers().get("x-error-code").and_then(|code| code.to_str().ok());
    let number = number.and_then(|code| code.parse().ok()).unwrap_or_default();
    let theirs = if path.starts_with("/v1/messages") {
        Some(vec!["type", "error", "request_id"])
    } else {
        (!path.starts_with("/api/v1/")).then(|| vec!["error"])
    };
    if theirs.is_some() && path.starts_with("/v1/") && !path.starts_with("/v1/messages") {
        return (read_error(response).await.0, number);
    }
    let status = response.status().as_u16();
    let body: Value = response.json().await.expect("it is JSON");
    let names: Vec<_> = body.as_object().expect("an object").keys().map(String::as_str).collect();
    if let Some(theirs) = theirs {
        assert_eq!(names, theirs, "{path}: {body}");
        return (status, number);
    }
    assert_eq!((names, &body["code"]), (vec!["code", "message", "data"], &json!(number)), "{path}: {body}");
    (status, number)
}

/// Bodies that are wrong wherever they are sent, some nested so deep, and what they are answered.
fn hostile(levels: usize) -> Vec<(&'static str, Vec<u8>, (u16, u64))> {
    let deep = [vec![b'['; levels], vec![b']'; levels]].concat();
    let deep_objects = [b"{\"a\":".repeat(levels), b"1".to_vec(), vec![b'}'; levels]].concat();
    vec![
        ("nothing", b"".to_vec(), (400, 40002)),
        ("half", b"{\"model\":".to_vec(), (400, 40002)),
        ("deep lists", deep, (413, 41302)),
        ("deep objects", deep_objects, (413, 41302)),
        ("a key twice", br#"{"model":"a","model":"b"}"#.to_vec(), (400, 40002)),
        ("a key twice, written differently", br#"{"model":"a","m\u006fdel":"b"}"#.to_vec(), (400, 40002)),
        ("a key twice within", br#"{"x":{"a":1,"a":2}}"#.to_vec(), (400, 40002)),
        ("no UTF-8", b"{\"model\": \"\xff\xfe\"}".to_vec(), (400, 40002)),
        ("UTF-8 that is too long", b"{\"model\": \"\xc0\x80\"}".to_vec(), (400, 40002)),
        ("UTF-16", "{}".encode_utf16().flat_map(u16::to_le_bytes).collect(), (400, 40002)),
        ("a byte order mark", b"\xef\xbb\xbf{}".to_vec(), (400, 40002)),
        ("half a pair", br#"{"model": "\ud800"}"#.to_vec(), (400, 40002)),
        ("the other half", br#"{"model": "\udc00x"}"#.to_vec(), (400, 40002)),
        ("a raw NUL", b"{\"model\": \"a\0b\"}".to_vec(), (400, 40002)),
        ("two documents", b"{} {}".to_vec(), (400, 40002)),
        ("not a number", b"{\"model\": NaN}".to_vec(), (400, 40002)),
    ]
}

#[tokio::test]
async fn f6_hostile_bodies_are_refused_by_every_operation() {
    let app = TestApp::start().await.without_key();
    let (access, _) = sign_in(&app, OWNER).await;
    for operation in operations(&app).await.into_iter().filter(|operation| operation.has_body) {
        let method = Method::from_bytes(operation.method.as_bytes()).expect("a method");
        let path = operation.path.as_str();
        // It takes forms, whose own tests are in `files.rs`.
        if path == "/v1/files" {
            continue;
        }
        let ask = || app.client.request(method.clone(), format!("{}{path}", app.url)).bearer_auth(&access);
        for (what, body, expected) in hostile(if path.contains("/chat/") { 100_000 } else { 300 }) {
            if what == "nothing" && operation.may_say_nothing {
                continue;
            }
            let request = ask().header("content-type", "application/json").body(body);
            let refused = refusal(path, request.send().await.expect("an answer")).await;
            assert_eq!(refused, expected, "{method} {path}: {what}");
        }
        for encoding in ["gzip", "br", "deflate", "identity, gzip"] {
            let response = ask().header("content-encoding", encoding).json(&json!({})).send().await;
            let refused = refusal(path, response.expect("an answer")).await;
            assert_eq!(refused, (415, 41501), "{method} {path}: {encoding}");
        }
    }
    app.client.get(format!("{}/health", app.url)).send().await.expect("it lives on");
}

#[tokio::test]
async fn f6_a_million_keys_are_too_many() {
    let app = TestApp::start().await;
    let keys = (0..1_000_000).map(|number| format!("\"k{number}\":0")).collect::<Vec<_>>().join(",");
    let body = format!("{{{keys}}}");
    for path in [OURS, THEIRS] {
        let request =
            app.client.post(format!("{}{path}", app.url)).header("content-type", "application/json");
        let response = request.body(body.clone()).send().await.expect("an answer");
        assert_eq!(refusal(path, response).await, (413, 41302));
    }
    app.ask(THEIRS, &chat("still there?")).await;
}

/// The beginning of a request, up to its body.
fn head(path: &str, more: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n\
         content-type: application/json\r\n{more}\r\n\r\n"
    )
}

/// All that comes back until the server closes.
async fn rest(connection: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset after the answer loses nothing of it that was read.
    let _ = connection.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn f6_a_body_of_a_gigabyte_is_refused_before_any_of_it_is_sent() {
    let app = TestApp::start_with(&[("max-body-size", "64KiB")]).await;
    for path in [OURS, THEIRS, "/api/v1/auth/login"] {
        for length in ["1073741824", "9223372036854775807", "65537"] {
            let mut connection = TcpStream::connect(app.address()).await.expect("it listens");
            let more = format!("connection: close\r\ncontent-length: {length}");
            connection.write_all(head(path, &more).as_bytes()).await.expect("it is taken");
            connection.shutdown().await.expect("there is no more");
            let answer = rest(&mut connection).await;
            assert!(
                answer.starts_with("HTTP/1.1 413") && answer.contains("41301"),
                "{path} {length}: {answer}"
            );
        }
    }
}

#[tokio::test]
async fn f6_of_a_body_without_end_no_more_is_taken_than_is_allowed() {
    const LIMIT: usize = 64 * 1024;
    /// What the systems at both ends may hold on the way.
    const ON_THE_WAY: usize = 16 << 20;
    let app = TestApp::start_with(&[("max-body-size", "64KiB")]).await;
    for path in [OURS, THEIRS] {
        let connection = TcpStream::connect(app.address()).await.expect("it listens");
        let (mut reader, mut writer) = connection.into_split();
        writer.write_all(head(path, "transfer-encoding: chunked").as_bytes()).await.expect("it is taken");
        let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
        let endless = async {
            let mut sent = 0;
            while sent < 4 * ON_THE_WAY && writer.write_all(chunk.as_bytes()).await.is_ok() {
                sent += chunk.len();
            }
            sent
        };
        let answered = async {
            let mut answer = Vec::new();
            let _ = reader.read_to_end(&mut answer).await;
            String::from_utf8_lossy(&answer).into_owned()
        };
        let (sent, answer) = tokio::join!(endless, answered);
        assert!(sent < LIMIT + ON_THE_WAY, "{path}: {sent} bytes were taken");
        assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("41301"), "{path}: {answer}");
    }
}

#[tokio::test]
async fn f6_a_length_that_lies_is_no_way_to_say_something_else() {
    let app = TestApp::start().await;
    let body = chat("hello").to_string();
    for path in [OURS, THEIRS] {
        // More was announced than comes.
        let mut connection = TcpStream::connect(app.address()).await.expect("it listens");
        let more = format!("content-length: {}", body.len() + 10);
        connection.write_all((head(path, &more) + &body).as_bytes()).await.expect("it is taken");
        connection.shutdown().await.expect("there is no more");
        let answer = rest(&mut connection).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{path}: {answer}");
        // Less was announced: the rest is no request.
        let mut connection = TcpStream::connect(app.address()).await.expect("it listens");
        let more = format!("content-length: {}", body.len() - 10);
        connection.write_all((head(path, &more) + &body).as_bytes()).await.expect("it is taken");
        connection.shutdown().await.expect("there is no more");
        let answer = rest(&mut connection).await;
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("40002"), "{path}: {answer}");
        assert!(!answer.contains("200 OK"), "{path}: {answer}");
        // Two lengths, or a length and chunks: what a proxy in front may read otherwise than we do.
        for more in [
            "content-length: 5\r\ncontent-length: 6",
            "content-length: 5, 6",
            "content-length: +5",
            "content-length: -1",
            "transfer-encoding: chunked\r\ntransfer-encoding: identity",
            "transfer-encoding: gzip",
        ] {
            let mut connection = TcpStream::connect(app.address()).await.expect("it listens");
            connection.write_all((head(path, more) + "{}").as_bytes()).await.expect("it is taken");
            connection.shutdown().await.expect("there is no more");
            let answer = rest(&mut connection).await;
            assert!(answer.starts_with("HTTP/1.1 400"), "{path} {more}: {answer}");
        }
    }
    app.ask(THEIRS, &chat("still there?")).await;
    assert_eq!(app.is_idle_after(1).await.finished_failed, 0, "nothing of it reached the engine");
}

/// Whether it was refused as something that a field cannot be.
fn is_refused(answer: &Answer, what: &str) {
    assert_eq!(answer.status, 400, "{what}: {}", answer.text);
    answer.refusal();
}

/// The body with a text in one of its fields, as it is or in a list.
fn changed(body: &Value, field: &str, text: &str) -> Value {
    let value = if body[field].is_array() { json!([text]) } else { json!(text) };
    with(body.clone(), field, value)
}

#[tokio::test]
async fn f6_a_nul_in_any_field_is_refused_before_the_database_sees_it() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    let (user, _) = owner.colleague("ada", "user").await;
    let team = owner.post("/admin/teams", json!({"name": "one"})).await.data();
    let team = team["id"].as_str().expect("an id");
    let (key, _) = owner.own_key(json!({"name": "one"})).await;
    let new_user = json!({
        "username": "bob", "display_name": "Bob", "email": "b@example.com", "role": "user", "team_ids": [],
        "password": password_of("bob"),
    });
    let new_key = json!({
        "name": "two", "scopes": ["inference"], "models": [], "cidrs": [], "team_id": "", "expires_at": "",
    });
    let new_model = json!({
        "id": "new", "sources": [], "aliases": [], "description": "", "sha256": "", "team_ids": [], "visibility": "",
    });
    let mut model_change = new_model.clone();
    model_change.as_object_mut().expect("an object").remove("id");
    let other_key = with(new_key.clone(), "user_id", user.as_str());
    let change_of_key = with(new_key.clone(), "status", "enabled");
    let change_of_user = json!({"display_name": "", "email": "", "role": "", "status": ""});
    let text = |path: &str, id: &str| format!("{path}/{id}");
    let requests = [
        ("POST", "/admin/users".to_owned(), new_user),
        ("PUT", text("/admin/users", &user), change_of_user),
        ("POST", "/admin/teams".to_owned(), json!({"name": "two", "description": ""})),
        ("PUT", text("/admin/teams", team), json!({"name": "two", "description": ""})),
        ("POST", "/admin/keys".to_owned(), other_key),
        ("PUT", text("/admin/keys", &key), change_of_key.clone()),
        ("POST", "/me/keys".to_owned(), new_key),
        ("PUT", text("/me/keys", &key), change_of_key),
        ("POST", "/admin/models".to_owned(), new_model),
        ("PUT", text("/admin/models", CHAT), model_change),
        ("POST", "/chat/completions".to_owned(), json!({"model": ""})),
    ];
    for (method, path, body) in &requests {
        for field in body.as_object().expect("an object").keys().filter(|field| *field != "password") {
            for nul in ["\0", "a\0b", "tiny\0"] {
                // Only what one field needs, where the rest may be left out.
                let whole = if *method == "POST" { required(body) } else { json!({}) };
                let body = with(whole, field, changed(body, field, nul)[field].clone());
                is_refused(&owner.send(method, path, Some(&body)).await, &format!("{method} {path} {field}"));
            }
        }
        let key = json!({"a\0b": 1});
        is_refused(&owner.send(method, path, Some(&key)).await, &format!("{method} {path}, a key"));
    }
    for path in
        ["/admin/users", "/admin/keys", "/admin/teams", "/admin/models", "/admin/audit", "/admin/usage"]
    {
        for query in
            ["search=a%00b", "cursor=%00", "sort=%00", "limit=%00", "a%00b=1", "model=%00", "user_id=%00"]
        {
            is_refused(&owner.get(&format!("{path}?{query}")).await, &format!("{path}?{query}"));
        }
        for id in ["%00", "a%00b"] {
            assert_eq!(owner.get(&format!("{path}/{id}")).await.number(), (404, 40401), "{path}/{id}");
        }
    }
    for body in [
        json!({"username": "a\0b", "password": "tidal-mosaic"}),
        json!({"username": "admin", "password": "\0"}),
    ] {
        assert_eq!(Api::nobody(&app).post("/auth/login", body).await.refusal(), (401, 40102));
    }
    let refreshed = Api::nobody(&app).post("/auth/refresh", json!({"refresh_token": "a\0b"})).await;
    assert_eq!(refreshed.refusal(), (401, 40105));
    // And what was done is what was meant.
    assert_eq!(owner.get(&format!("/admin/teams/{team}")).await.data()["name"], "one");
}

/// What must be there.
fn required(body: &Value) -> Value {
    let mut body = body.clone();
    body.as_object_mut()
        .expect("an object")
        .retain(|name, value| ["id", "username", "name", "user_id"].contains(&name.as_str()) && value != "");
    body
}
