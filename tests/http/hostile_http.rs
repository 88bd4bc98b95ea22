//! Requests that no client should send: each gets a clear answer in the usual shape, and the server lives on.

use futures_util::StreamExt;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::app::{CHAT, KEY, TestApp, chat, read_error, with};

const PATH: &str = "/v1/chat/completions";

async fn send(app: &TestApp, kind: &str, body: Vec<u8>) -> (u16, serde_json::Value) {
    let request = app.client.post(format!("{}{PATH}", app.url)).header("content-type", kind).body(body);
    read_error(request.send().await.expect("an answer")).await
}

/// Sends bytes as they are and reads the head and what comes with it.
async fn raw(app: &TestApp, bytes: &[u8]) -> String {
    let mut connection = TcpStream::connect(app.address()).await.expect("it listens");
    // It may answer and close before all is sent.
    let _ = connection.write_all(bytes).await;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while !answer.windows(2).any(|pair| pair == b"}}") {
        match connection.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn what_is_not_json_is_refused() {
    let app = TestApp::start().await;
    let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    let wide = format!("{{\"messages\":[{}0]}}", "0,".repeat(500_000)).into_bytes();
    let twice = br#"{"model":"a","model":"b"}"#.to_vec();
    for (body, status, code) in [
        (b"".to_vec(), 400, "invalid_json"),
        (b"{".to_vec(), 400, "invalid_json"),
        (b"{\"model\": \"\xff\"}".to_vec(), 400, "invalid_json"),
        (b"\xef\xbb\xbf{}".to_vec(), 400, "invalid_json"),
        (br#"{"model": "\ud800"}"#.to_vec(), 400, "invalid_json"),
        (b"{\"temperature\": NaN}".to_vec(), 400, "invalid_json"),
        (b"{\"temperature\": 1e999}".to_vec(), 400, "invalid_json"),
        (b"[]".to_vec(), 400, "invalid_json"),
        (b"null".to_vec(), 400, "invalid_json"),
        (twice, 400, "invalid_json"),
        (deep, 413, "too_many_items"),
        (wide, 413, "too_many_items"),
    ] {
        let shown = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
        let (found, error) = send(&app, "application/json", body).await;
        assert_eq!((found, error["code"].as_str()), (status, Some(code)), "{shown}");
    }
    app.ask(PATH, &chat("still there?")).await;
}

#[tokio::test]
async fn only_json_is_read() {
    let app = TestApp::start().await;
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonp",
    ] {
        let (status, error) = send(&app, kind, chat("x").to_string().into_bytes()).await;
        assert_eq!((status, error["code"].as_str()), (415, Some("unsupported_media_type")), "{kind}");
    }
    let request =
        app.client.post(format!("{}{PATH}", app.url)).header("content-encoding", "gzip").json(&chat("x"));
    assert_eq!(read_error(request.send().await.expect("an answer")).await.0, 415);
    let request = app
        .client
        .post(format!("{}{PATH}", app.url))
        .header("content-type", "application/json; charset=utf-8");
    assert!(request.body(chat("x").to_string()).send().await.expect("an answer").status().is_success());
}

#[tokio::test]
async fn large_bodies_are_refused_before_they_are_read() {
    let app = TestApp::start_with(&[("max-body-size", "64KiB")]).await;
    let head = |more: &str| {
        format!(
            "POST {PATH} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\ncontent-type: application/json\r\n{more}\r\n\r\n"
        )
    };
    let announced = raw(&app, head("content-length: 1073741824").as_bytes()).await;
    assert!(announced.starts_with("HTTP/1.1 413") && announced.contains("request_too_large"), "{announced}");
    let mut endless = head("transfer-encoding: chunked").into_bytes();
    for _ in 0..40 {
        endless.extend_from_slice(format!("1000\r\n{}\r\n", " ".repeat(0x1000)).as_bytes());
    }
    let endless = raw(&app, &endless).await;
    assert!(endless.starts_with("HTTP/1.1 413"), "{endless}");
    let just_right = with(chat("x"), "prompt_cache_key", "u".repeat(60 * 1024));
    app.ask(PATH, &just_right).await;
    let (status, error) =
        app.refused(PATH, &with(chat("x"), "prompt_cache_key", "u".repeat(64 * 1024))).await;
    assert_eq!((status, error["code"].as_str()), (413, Some("request_too_large")));
}

#[tokio::test]
async fn all_bodies_together_are_bounded_in_memory() {
    const LENGTH: usize = 31 << 20;
    let app = TestApp::start_with(&[("max-body-size", "32MiB")]).await;
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\ncontent-type: application/json\r\n\
         content-length: {LENGTH}\r\n\r\n"
    );
    // All but the last byte is sent: nobody is answered before the time for bodies is over, but for want of memory.
    let sending = async || {
        let (mut reader, mut writer) =
            TcpStream::connect(app.address()).await.expect("it listens").into_split();
        let send = async {
            let _ = writer.write_all(head.as_bytes()).await;
            let piece = vec![b' '; 1 << 20];
            for _ in 0..30 {
                if writer.write_all(&piece).await.is_err() {
                    break;
                }
            }
            let _ = writer.write_all(&piece[1..]).await;
            std::future::pending::<()>().await;
        };
        let mut answer = vec![0; 4096];
        let read = tokio::select! {
            read = reader.read(&mut answer) => read.unwrap_or(0),
            () = send => 0,
        };
        String::from_utf8_lossy(&answer[..read]).into_owned()
    };
    {
        let mut all: futures_util::stream::FuturesUnordered<_> = (0..10).map(|_| sending()).collect();
        let first = all.next().await.expect("there are some");
        assert!(first.starts_with("HTTP/1.1 429") && first.contains("retry-after: "), "{first}");
        // Small ones are read meanwhile.
        app.ask(PATH, &with(chat("x"), "prompt_cache_key", "u".repeat(60 * 1024))).await;
    }
    // And large ones afterwards.
    let (status, error) = app.refused(PATH, &with(chat("x"), "model", "u".repeat(20 << 20))).await;
    assert_eq!((status, error["code"].as_str()), (404, Some("model_not_found")));
}

#[tokio::test]
async fn of_a_stranger_no_body_is_read() {
    let app = TestApp::start().await;
    for (method, path) in [
        ("POST", PATH),
        ("POST", "/v1/completions"),
        ("POST", "/v1/embeddings"),
        ("POST", "/api/v1/chat/completions"),
        ("POST", "/api/v1/admin/users"),
        ("PUT", "/api/v1/admin/models/tiny"),
        ("POST", "/api/v1/me/password"),
    ] {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 10000\r\n\r\n"
        );
        // Nothing follows: who waits for it answers 408 in the end.
        let answer = raw(&app, head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 401"), "{path}: {answer}");
    }
    let announced = "POST /api/v1/auth/login HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
        content-length: 20000\r\n\r\n";
    assert!(raw(&app, announced.as_bytes()).await.starts_with("HTTP/1.1 413"));
}

#[tokio::test]
async fn large_headers_are_refused_in_the_usual_shape() {
    let app = TestApp::start().await;
    let request = app.get("/v1/models").header("x-large", "x".repeat(40 * 1024));
    let (status, error) = read_error(request.send().await.expect("an answer")).await;
    assert_eq!((status, error["code"].as_str()), (431, Some("headers_too_large")));
    let request = app.get("/api/v1/me").header("x-large", "x".repeat(40 * 1024));
    let answer: serde_json::Value =
        request.send().await.expect("an answer").json().await.expect("it is JSON");
    assert_eq!((&answer["code"], &answer["data"]), (&json!(43101), &json!(null)));
    assert!(
        app.get("/v1/models")
            .header("x-large", "x".repeat(20 * 1024))
            .send()
            .await
            .expect("an answer")
            .status()
            .is_success()
    );
    let many =
        (0..150).fold(app.get("/v1/models"), |request, number| request.header(format!("x-{number}"), "x"));
    assert_eq!(many.send().await.expect("an answer").status(), 431);
}

#[tokio::test]
async fn a_foreign_host_name_is_turned_away() {
    let app = TestApp::start().await;
    for (host, status) in [
        ("localhost", "200"),
        ("127.0.0.1:9", "200"),
        ("evil.example", "421"),
        ("127.0.0.1.evil.example", "421"),
    ] {
        let request = format!(
            "GET /v1/models HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {KEY}\r\nconnection: close\r\n\r\n"
        );
        let answer = raw(&app, request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{host}: {answer}");
    }
}

#[tokio::test]
async fn wrong_urls_and_methods_have_the_usual_shape() {
    // Where Ollama's protocol is spoken its root is there.
    let app = TestApp::start_with(&[("ollama", "off")]).await;
    for path in
        ["/", "/v1", "/v1/", "/v2/chat/completions", "/v1/chat/completions/", "/admin", "/%2e%2e/etc/passwd"]
    {
        let (status, error) = read_error(app.get(path).send().await.expect("an answer")).await;
        assert_eq!((status, error["code"].as_str()), (404, Some("not_found")), "{path}");
    }
    for (method, path) in [
        ("PUT", PATH),
        ("DELETE", PATH),
        ("POST", "/v1/models"),
        ("DELETE", "/v1/models/tiny"),
        ("PUT", "/health"),
    ] {
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        let request = app.client.request(method, format!("{}{path}", app.url));
        let (status, error) = read_error(request.send().await.expect("an answer")).await;
        assert_eq!((status, error["code"].as_str()), (405, Some("method_not_allowed")), "{path}");
    }
}

#[tokio::test]
async fn odd_texts_are_only_texts() {
    let app = TestApp::start().await;
    for text in [
        "\u{0}",
        "\u{feff}",
        "<|eot_id|>",
        "{{ 7 * 7 }}",
        "{% for x in y %}",
        "\u{202e}abc",
        "\u{1f9d1}\u{200d}\u{1f680}",
        " ",
    ] {
        app.ask(PATH, &chat(text)).await;
    }
    let (status, _) = app.refused(PATH, &with(chat("x"), "model", "../../etc/passwd\u{0}")).await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn counts_are_bounded_before_anything_is_made_of_them() {
    let app = TestApp::start().await;
    let biases: serde_json::Map<_, _> = (0..5_000).map(|id| (id.to_string(), json!(1))).collect();
    for (name, value) in [
        ("n", json!(1_000_000_000)),
        ("top_logprobs", json!(1_000_000_000)),
        ("logit_bias", json!(biases)),
        ("stop", json!(vec!["x"; 100_000])),
        ("messages", json!(vec![json!({"role": "user", "content": "x"}); 20_000])),
        ("stop_token_ids", json!(vec![1; 100_000])),
    ] {
        let (status, error) = app.refused(PATH, &with(with(chat("x"), "logprobs", true), name, value)).await;
        assert_eq!((status, error["param"].as_str()), (400, Some(name)), "{error}");
    }
    // A huge limit is cut to what fits; it sets no memory aside.
    let answer = app.ask(PATH, &with(chat("x"), "max_tokens", 2_147_483_647)).await;
    assert!(answer["usage"]["total_tokens"].as_u64().is_some_and(|total| total <= 256));
    let prompts = json!({"model": CHAT, "prompt": vec!["x"; 200]});
    assert_eq!(app.refused("/v1/completions", &prompts).await.1["param"], "prompt");
}
