//! The API specification, §1, §2 and §3.1.1, sentence by sentence, over HTTP. Its examples are compared byte by byte,
//! once ids, times, texts and counts are masked.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "common/app.rs"]
mod app;
#[path = "database/mod.rs"]
mod database;

use app::{CHAT, OWNER, OWNER_PASSWORD, TestApp, bearer, chat, with};
use reqwest::Response;
use serde_json::{Value, json};

const PATH: &str = "/api/v1/chat/completions";

/// The specification's request; the model is one that is here.
fn example(stream: bool) -> Value {
    json!({
        "model": CHAT,
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": "Hello!"}
        ],
        "stream": stream,
        "temperature": 0.7,
        "max_tokens": 1024
    })
}

/// The text with what is different each time replaced by what the specification shows there.
fn masked(text: &str, examples: &[(&str, &str)]) -> String {
    let mut text = text.to_owned();
    for (name, shown) in examples {
        let mut rest = text.as_str();
        let mut replaced = String::new();
        let opening = format!("\"{name}\":");
        while let Some(at) = rest.find(&opening) {
            let value = at + opening.len();
            replaced.push_str(&rest[..value]);
            replaced.push_str(shown);
            rest = &rest[value + end_of_value(&rest[value..])..];
        }
        replaced.push_str(rest);
        text = replaced;
    }
    text
}

/// Where a JSON string or number ends.
fn end_of_value(text: &str) -> usize {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    values.next().unwrap().unwrap();
    values.byte_offset()
}

async fn text_of(response: Response) -> String {
    assert_eq!(response.status().as_u16(), 200);
    response.text().await.unwrap()
}

#[tokio::test]
async fn section_3_1_1_a_whole_answer_is_that_of_the_specification() {
    let app = TestApp::start().await;
    let response = app.post(PATH, &example(false)).await;
    assert_eq!(response.headers()["content-type"], "application/json");
    let answer = masked(
        &text_of(response).await,
        &[
            ("id", "\"chatcmpl-xxxxxxxx\""),
            ("created", "1677652288"),
            ("model", "\"gpt-4o\""),
            ("content", "\"Hello there! How can I help you today?\""),
            ("finish_reason", "\"stop\""),
            ("prompt_tokens", "9"),
            ("completion_tokens", "12"),
            ("total_tokens", "21"),
        ],
    );
    let specified = concat!(
        r#"{"code":0,"message":"Success","data":{"id":"chatcmpl-xxxxxxxx","object":"chat.completion","#,
        r#""created":1677652288,"model":"gpt-4o","choices":[{"index":0,"message":{"role":"assistant","#,
        r#""content":"Hello there! How can I help you today?"},"finish_reason":"stop"}],"#,
        r#""usage":{"prompt_tokens":9,"completion_tokens":12,"total_tokens":21}}}"#,
    );
    assert_eq!(answer, specified);
}

#[tokio::test]
async fn section_3_1_1_a_stream_is_that_of_the_specification() {
    let app = TestApp::start().await;
    let response = app.post(PATH, &with(example(true), "max_tokens", 2)).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let text = text_of(response).await;
    let examples = [("id", "\"chatcmpl-xxx\""), ("created", "1694268190"), ("model", "\"gpt-4o\"")];
    let events: Vec<String> = text.split_terminator("\n\n").map(|event| masked(event, &examples)).collect();
    let head = concat!(
        r#"data: {"id":"chatcmpl-xxx","object":"chat.completion.chunk","created":1694268190,"model":"gpt-4o","#,
        r#""choices":[{"index":0,"delta":"#,
    );
    let [first, pieces @ .., last, done] = events.as_slice() else { panic!("{text}") };
    assert_eq!(first, &format!(r#"{head}{{"role":"assistant","content":""}},"finish_reason":null}}]}}"#));
    for piece in pieces {
        let hello = format!(r#"{head}{{"content":"Hello"}},"finish_reason":null}}]}}"#);
        assert_eq!(masked(piece, &[("content", "\"Hello\"")]), hello);
    }
    assert_eq!(last, &format!(r#"{head}{{}},"finish_reason":"length"}}]}}"#));
    assert_eq!(done, "data: [DONE]");
    assert!(text.ends_with("\n\n"));
}

#[tokio::test]
async fn section_3_1_1_both_ways_say_the_same_and_their_heads_are_true() {
    let app = TestApp::start().await;
    let before = now();
    let body = with(chat("Hello"), "ignore_eos", true);
    let whole = app.ask(PATH, &body).await["data"].clone();
    let events = app.events(PATH, &with(body, "stream", true)).await;
    assert!(events.done);
    assert_eq!(events.text(0), whole["choices"][0]["message"]["content"].as_str().unwrap());
    assert_eq!(events.finish_reason(0).as_deref(), whole["choices"][0]["finish_reason"].as_str());
    for head in events.data.iter().chain([&whole]) {
        assert!(head["id"].as_str().unwrap().starts_with("chatcmpl-"), "{head}");
        assert!((before..=now()).contains(&head["created"].as_u64().unwrap()), "{head}");
        assert_eq!(head["model"], CHAT);
    }
    assert!(events.data.iter().all(|event| event["id"] == events.data[0]["id"]));
    assert_ne!(whole["id"], events.data[0]["id"]);
    let usage = &whole["usage"];
    assert_eq!(usage["completion_tokens"], 24);
    assert_eq!(
        usage["total_tokens"].as_u64().unwrap(),
        usage["prompt_tokens"].as_u64().unwrap() + usage["completion_tokens"].as_u64().unwrap()
    );
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

#[tokio::test]
async fn section_3_1_1_stream_defaults_to_false_and_the_rest_is_optional() {
    let app = TestApp::start().await;
    let body = json!({"model": CHAT, "messages": [{"role": "user", "content": "Hello!"}]});
    let response = app.post(PATH, &body).await;
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(response.json::<Value>().await.unwrap()["code"], 0);
    for missing in ["model", "messages"] {
        let mut body = example(false);
        body.as_object_mut().unwrap().remove(missing);
        let (status, error) = refused(&app, &body).await;
        assert_eq!((status, error["code"].as_u64()), (400, Some(40015)), "{missing}");
        assert_eq!(error["data"]["errors"][0]["field"], missing);
    }
}

async fn refused(app: &TestApp, body: &Value) -> (u16, Value) {
    let response = app.post(PATH, body).await;
    let (status, code) = (response.status().as_u16(), response.headers()["x-error-code"].clone());
    let text = response.text().await.unwrap();
    let error: Value = serde_json::from_str(&text).unwrap();
    let names: Vec<_> = error.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, ["code", "message", "data"], "{text}");
    assert_eq!(code.to_str().unwrap(), error["code"].to_string());
    (status, error)
}

#[tokio::test]
async fn section_2_failures_are_in_the_envelope_with_their_true_status() {
    let app = TestApp::start().await;
    for stream in [false, true] {
        let (status, error) = refused(&app, &with(example(stream), "model", "nobody")).await;
        assert_eq!((status, error["code"].as_u64()), (404, Some(40402)));
        assert!(error["message"].as_str().unwrap().contains("nobody") && !error["data"].is_null(), "{error}");
        let (status, error) = refused(&app, &with(example(stream), "temperature", 9)).await;
        assert_eq!((status, error["code"].as_u64()), (400, Some(40003)));
        assert_eq!(error["data"]["errors"][0]["field"], "temperature");
        let (status, error) = refused(&app, &with(example(stream), "max_tokenz", 9)).await;
        assert_eq!((status, error["code"].as_u64()), (400, Some(40004)));
        let (status, error) =
            refused(&app, &with(example(stream), "tools", json!([{"type": "custom"}]))).await;
        assert_eq!((status, error["code"].as_u64()), (400, Some(40010)));
    }
    let wrong = app.client.post(format!("{}{PATH}", app.url)).bearer_auth("sk-wrong").json(&example(false));
    let response = wrong.send().await.unwrap();
    assert_eq!(response.status().as_u16(), 401);
    assert_eq!(response.text().await.unwrap(), r#"{"code":40001,"message":"Invalid API Key","data":null}"#);
}

#[tokio::test]
async fn section_1_the_credential_is_a_key_or_a_token_in_the_authorization_header() {
    let app = TestApp::start().await.without_key();
    let (status, error) = refused(&app, &example(false)).await;
    assert_eq!((status, error["code"].as_u64()), (401, Some(40101)));
    let query = format!("{PATH}?api_key={}", app::KEY);
    assert_eq!(app.post(&query, &example(false)).await.status().as_u16(), 401);
    let keyed = app.client.post(format!("{}{PATH}", app.url)).bearer_auth(app::KEY).json(&example(false));
    assert_eq!(keyed.send().await.unwrap().status().as_u16(), 200);
}

#[tokio::test]
async fn section_3_1_1_an_alias_is_answered_by_the_name_it_was_asked_for() {
    let app = TestApp::start_with(&[("model-root", &app::golden("").to_string_lossy())]).await;
    let token = app.sign_in(OWNER, OWNER_PASSWORD).await;
    let model =
        json!({"id": "local", "aliases": ["gpt-4o"], "sources": [app::golden("llama").to_string_lossy()]});
    let request = app.client.post(format!("{}/api/v1/admin/models", app.url));
    assert_eq!(request.headers(bearer(&token)).json(&model).send().await.unwrap().status(), 201);
    let whole = app.ask(PATH, &with(example(false), "model", "gpt-4o")).await;
    assert_eq!(whole["data"]["model"], "gpt-4o");
    let events = app.events(PATH, &with(example(true), "model", "gpt-4o")).await;
    assert!(events.data.iter().all(|event| event["model"] == "gpt-4o"));
    for other in ["GPT-4o", "gpt-4o ", "gpt\u{2010}4o", "ｇpt-4o"] {
        let (status, error) = refused(&app, &with(example(false), "model", other)).await;
        assert_eq!((status, error["code"].as_u64()), (404, Some(40402)), "{other}");
    }
}

#[tokio::test]
async fn what_was_asked_for_beyond_the_specification_is_there_and_else_it_is_not() {
    let app = TestApp::start().await;
    let body = with(with(chat("Hello"), "logprobs", true), "n", 2);
    let whole = app.ask(PATH, &body).await;
    for (index, choice) in whole["data"]["choices"].as_array().unwrap().iter().enumerate() {
        assert_eq!(keys(choice), ["index", "message", "logprobs", "finish_reason"]);
        assert_eq!(choice["index"], index);
        assert!(!choice["logprobs"]["content"].as_array().unwrap().is_empty());
    }
    let streamed = with(with(body, "stream", true), "stream_options", json!({"include_usage": true}));
    let events = app.events(PATH, &streamed).await;
    let (last, before) = events.data.split_last().unwrap();
    assert_eq!((&last["choices"], &last["usage"]), (&json!([]), &whole["data"]["usage"]));
    assert!(before.iter().all(|event| event.get("usage").is_none()));
    assert_eq!(events.text(1), whole["data"]["choices"][1]["message"]["content"].as_str().unwrap());
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test]
async fn an_error_within_a_stream_is_an_event_and_nothing_comes_after_it() {
    let app = TestApp::start().await;
    // Far more than sockets hold, and read only afterwards: it cannot be over before the end.
    let body = with(with(chat("Hello"), "ignore_eos", true), "max_tokens", 200);
    let body = with(with(with(body, "n", 32), "logprobs", true), "top_logprobs", 5);
    let mut response = app.post(PATH, &with(body, "stream", true)).await;
    assert!(response.chunk().await.unwrap().is_some());
    app.shutdown.end();
    let mut text = String::new();
    while let Some(bytes) = response.chunk().await.unwrap() {
        text.push_str(&String::from_utf8_lossy(&bytes));
    }
    let last = text.trim_end().rsplit("\n\n").next().unwrap();
    let event: Value = serde_json::from_str(last.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(keys(&event), ["error"]);
    assert_eq!(keys(&event["error"]), ["code", "message", "data"]);
    assert_eq!(event["error"]["code"], 50301);
}
