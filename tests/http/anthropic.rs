//! `/v1/messages` and what belongs to it, as Anthropic's clients use them.

use reqwest::Response;
use serde_json::{Value, json};

use crate::app::{CHAT, EMBED, KEY, TestApp, with};
use crate::shape::assert_like;

const PATH: &str = "/v1/messages";
const COUNT: &str = "/v1/messages/count_tokens";

fn message(content: &str) -> Value {
    json!({"model": CHAT, "max_tokens": 24, "temperature": 0, "messages": [{"role": "user", "content": content}]})
}

/// Status and `error` of a refusal, after checking its shape.
async fn refusal(response: Response) -> (u16, Value) {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body: Value = response.json().await.expect("it is JSON");
    let names: Vec<_> = body.as_object().expect("an object").keys().cloned().collect();
    assert_eq!(names, ["type", "error", "request_id"], "{body}");
    assert_eq!(
        (&body["type"], &body["request_id"]),
        (&json!("error"), &json!(headers["request-id"].to_str().expect("text")))
    );
    let names: Vec<_> = body["error"].as_object().expect("an object").keys().cloned().collect();
    assert_eq!(names, ["type", "message"], "{body}");
    (status, body["error"].clone())
}

async fn refused(app: &TestApp, path: &str, body: &Value) -> (u16, Value) {
    refusal(app.post(path, body).await).await
}

/// Name and data of each event of a stream.
async fn events(app: &TestApp, body: &Value) -> Vec<Value> {
    let response = app.post(PATH, body).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let text = response.text().await.expect("it is text");
    let events = text.split("\n\n").filter(|event| !event.is_empty() && !event.starts_with(':'));
    let event = |event: &str| {
        let (name, data) = event.split_once('\n').unwrap_or_else(|| panic!("{event}"));
        let data: Value =
            serde_json::from_str(data.strip_prefix("data: ").expect("data")).expect("it is JSON");
        assert_eq!(name, format!("event: {}", data["type"].as_str().expect("a type")));
        data
    };
    events.map(event).collect()
}

fn text(events: &[Value]) -> String {
    events.iter().filter_map(|event| event["delta"]["text"].as_str()).collect()
}

#[tokio::test]
async fn a_message_is_answered_whole_and_piece_by_piece() {
    let app = TestApp::start().await;
    let whole = app.ask(PATH, &message("one two")).await;
    let names: Vec<_> = whole.as_object().expect("an object").keys().cloned().collect();
    assert_eq!(names, ["id", "type", "role", "content", "model", "stop_reason", "stop_sequence", "usage"]);
    assert!(whole["id"].as_str().is_some_and(|id| id.starts_with("msg_")), "{whole}");
    assert_eq!(
        (&whole["type"], &whole["role"], &whole["model"]),
        (&json!("message"), &json!("assistant"), &json!(CHAT))
    );
    assert_eq!(whole["content"].as_array().map(Vec::len), Some(1), "{whole}");
    assert_eq!(whole["content"][0]["type"], "text");

    let events = events(&app, &with(message("one two"), "stream", true)).await;
    let kinds: Vec<_> = events.iter().map(|event| event["type"].as_str().expect("a type")).collect();
    assert_eq!(kinds[..3], ["message_start", "content_block_start", "ping"]);
    assert_eq!(kinds[kinds.len() - 3..], ["content_block_stop", "message_delta", "message_stop"]);
    assert!(kinds[3..kinds.len() - 3].iter().all(|kind| *kind == "content_block_delta"), "{kinds:?}");
    assert_eq!(text(&events), whole["content"][0]["text"].as_str().expect("a text"));
    let ended = &events[events.len() - 2];
    assert_eq!(ended["delta"]["stop_reason"], whole["stop_reason"]);
    assert_eq!(ended["usage"]["output_tokens"], whole["usage"]["output_tokens"]);
    let begun = &events[0]["message"];
    assert_eq!((&begun["content"], &begun["stop_reason"]), (&json!([]), &Value::Null));
}

#[tokio::test]
async fn the_same_prompt_is_found_in_the_cache_and_counted_apart() {
    let app = TestApp::start().await;
    let long = "word ".repeat(20);
    let total = |answer: &Value| {
        let count = |name: &str| answer["usage"][name].as_u64().expect("a number");
        (count("input_tokens") + count("cache_read_input_tokens"), count("cache_read_input_tokens"))
    };
    let (first, second) = (app.ask(PATH, &message(&long)).await, app.ask(PATH, &message(&long)).await);
    assert_eq!(total(&first).0, total(&second).0);
    assert!(total(&first).1 == 0 && total(&second).1 > 0, "{first}\n{second}");
    assert_eq!(first["usage"]["cache_creation_input_tokens"], 0);
    let counted =
        app.ask(COUNT, &json!({"model": CHAT, "messages": [{"role": "user", "content": long}]})).await;
    assert_eq!(counted, json!({"input_tokens": total(&first).0}));
}

#[tokio::test]
async fn the_end_is_told_in_anthropics_words() {
    let app = TestApp::start().await;
    let cut = app.ask(PATH, &with(message("one two"), "max_tokens", 3)).await;
    assert_eq!((&cut["stop_reason"], &cut["stop_sequence"]), (&json!("max_tokens"), &Value::Null));
    assert_eq!(cut["usage"]["output_tokens"], 3);
    let free = app.ask(PATH, &message("one two")).await;
    let said = free["content"][0]["text"].as_str().expect("a text").to_owned();
    let half = said.char_indices().nth(said.chars().count() / 2).expect("it is long enough").0;
    let stop: String = said[half..].chars().take(3).collect();
    let before = said.split(&stop).next().expect("there is a first part");
    let body = with(message("one two"), "stop_sequences", json!(["\u{2603}\u{2603}", stop]));
    let stopped = app.ask(PATH, &body).await;
    assert_eq!((&stopped["stop_reason"], &stopped["stop_sequence"]), (&json!("stop_sequence"), &json!(stop)));
    assert_eq!(stopped["content"][0]["text"].as_str().unwrap_or_default(), before);
    let full = app.ask(PATH, &with(message(&"word ".repeat(20)), "max_tokens", 100_000)).await;
    assert!(
        ["model_context_window_exceeded", "end_turn"]
            .contains(&full["stop_reason"].as_str().expect("a reason"))
    );
    let none = app.ask(PATH, &with(message("one two"), "max_tokens", 0)).await;
    assert_eq!((&none["content"], &none["usage"]["output_tokens"]), (&json!([]), &json!(0)));
}

#[tokio::test]
async fn a_last_message_of_the_assistant_is_continued() {
    let app = TestApp::start().await;
    let mut body = message("one two");
    let asked = app.ask(COUNT, &json!({"model": CHAT, "messages": body["messages"]})).await;
    let prefill = json!([{"role": "user", "content": "one two"}, {"role": "assistant", "content": "three"}]);
    body["messages"] = prefill.clone();
    let continued = app.ask(PATH, &body).await;
    let counted = app.ask(COUNT, &json!({"model": CHAT, "messages": prefill})).await;
    assert_eq!(counted["input_tokens"], continued["usage"]["input_tokens"]);
    assert!(counted["input_tokens"].as_u64() > asked["input_tokens"].as_u64(), "{counted} {asked}");
}

#[tokio::test]
async fn errors_have_anthropics_shape_wherever_they_come_from() {
    let app = TestApp::start().await;
    for (path, body, status, kind, said) in [
        (PATH, json!({}), 400, "invalid_request_error", "`model`"),
        (PATH, json!([]), 400, "invalid_request_error", "object"),
        (PATH, json!({"model": CHAT, "messages": []}), 400, "invalid_request_error", "`max_tokens`"),
        (
            PATH,
            with(message("x"), "tool_choice", json!({"type": "any"})),
            400,
            "invalid_request_error",
            "`tool_choice`",
        ),
        (PATH, with(message("x"), "logit_bias", json!({})), 400, "invalid_request_error", "`logit_bias`"),
        (PATH, with(message("x"), "model", "nobody"), 404, "not_found_error", "nobody"),
        (PATH, with(message("x"), "model", EMBED), 400, "invalid_request_error", EMBED),
        (PATH, message(&"word ".repeat(600)), 400, "invalid_request_error", "256"),
        (COUNT, json!({"model": CHAT}), 400, "invalid_request_error", "`messages`"),
        (COUNT, with(message("x"), "max_tokens", 5), 400, "invalid_request_error", "`max_tokens`"),
        ("/v1/messages/batches", json!({}), 404, "not_found_error", "/v1/messages/batches"),
    ] {
        let (got, error) = refused(&app, path, &body).await;
        assert_eq!((got, &error["type"]), (status, &json!(kind)), "{body:.200}", body = body.to_string());
        assert!(error["message"].as_str().is_some_and(|text| text.contains(said)), "{error}");
    }
    let (status, error) = refusal(app.get(PATH).send().await.expect("an answer")).await;
    assert_eq!((status, &error["type"]), (405, &json!("invalid_request_error")));
    let plain = app.client.post(format!("{}{PATH}", app.url)).body("{}").send().await.expect("an answer");
    assert_eq!(refusal(plain).await.0, 415);
    let broken =
        app.client.post(format!("{}{PATH}", app.url)).header("content-type", "application/json").body("{");
    assert_eq!(refusal(broken.send().await.expect("an answer")).await.0, 400);
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let deep =
        app.client.post(format!("{}{PATH}", app.url)).header("content-type", "application/json").body(deep);
    let (status, error) = refusal(deep.send().await.expect("an answer")).await;
    assert_eq!((status, &error["type"]), (413, &json!("request_too_large")));
}

#[tokio::test]
async fn whoever_is_not_known_is_told_so_in_the_same_shape() {
    let app = TestApp::start().await.without_key();
    let (status, error) = refused(&app, PATH, &message("x")).await;
    assert_eq!((status, &error["type"]), (401, &json!("authentication_error")));
    let url = format!("{}{PATH}", app.url);
    let wrong = app.client.post(&url).header("x-api-key", "wrong").json(&message("x"));
    assert_eq!(refusal(wrong.send().await.expect("an answer")).await.0, 401);
    let two = app.client.post(&url).header("x-api-key", KEY).bearer_auth("another").json(&message("x"));
    let (status, error) = refusal(two.send().await.expect("an answer")).await;
    assert!(
        status == 401 && error["message"].as_str().is_some_and(|said| said.contains("different")),
        "{error}"
    );
    let right = app.client.post(&url).header("x-api-key", KEY).json(&message("x"));
    assert_eq!(right.send().await.expect("an answer").status().as_u16(), 200);
}

#[tokio::test]
async fn two_versions_of_the_protocol_are_spoken() {
    let app = TestApp::start().await;
    let url = format!("{}{PATH}", app.url);
    let asked =
        |version: &str| app.client.post(&url).header("anthropic-version", version).json(&message("x"));
    assert_eq!(
        asked("2023-06-01").header("anthropic-beta", "a,b").send().await.expect("an answer").status(),
        200
    );
    assert_eq!(asked("2026-10-21").send().await.expect("an answer").status(), 200);
    for version in ["2023-01-01", "2099-01-01", "", "x"] {
        let (status, error) = refusal(asked(version).send().await.expect("an answer")).await;
        assert_eq!(status, 400, "{version}");
        assert!(error["message"].as_str().is_some_and(|text| text.contains("2023-06-01")), "{error}");
    }
    let listed = app.get("/v1/models").header("anthropic-version", "2099-01-01");
    assert_eq!(refusal(listed.send().await.expect("an answer")).await.0, 400);
}

#[tokio::test]
async fn models_are_listed_in_the_shape_of_whoever_asks() {
    let app = TestApp::start().await;
    let asked = |path: &str| app.get(path).header("anthropic-version", "2023-06-01");
    let page: Value =
        asked("/v1/models?limit=1").send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!(
        (&page["has_more"], &page["first_id"], &page["last_id"]),
        (&json!(false), &json!(CHAT), &json!(CHAT))
    );
    let model = &page["data"][0];
    assert_eq!(
        (&model["type"], &model["id"], &model["max_input_tokens"]),
        (&json!("model"), &json!(CHAT), &json!(256))
    );
    let one: Value = asked("/v1/models/tiny").send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!(one, *model);
    let (status, error) = refusal(asked("/v1/models/nobody").send().await.expect("an answer")).await;
    assert_eq!((status, &error["type"]), (404, &json!("not_found_error")));
    for query in ["limit=0", "limit=1001", "limit=x", "after_id=a&before_id=b", "colour=red"] {
        let answer = asked(&format!("/v1/models?{query}")).send().await.expect("an answer");
        assert_eq!(refusal(answer).await.0, 400, "{query}");
    }
    let usual: Value = app.get("/v1/models").send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!((&usual["object"], usual["data"].as_array().map(Vec::len)), (&json!("list"), Some(2)));
}

/// The example with everything that differs from answer to answer masked.
fn masked(example: &Value, name: &str) -> Value {
    match (name, example) {
        ("type" | "role" | "service_tier" | "stop_reason" | "stop_sequence", kept) => kept.clone(),
        (_, Value::Object(members)) => {
            members.iter().map(|(name, value)| (name.clone(), masked(value, name))).collect()
        }
        (_, Value::Array(items)) => items.iter().map(|item| masked(item, name)).collect(),
        ("text", Value::String(text)) if text.is_empty() => example.clone(),
        ("index", number) => number.clone(),
        (_, Value::Number(_)) => json!("<number>"),
        (_, Value::String(_)) => json!("<text>"),
        (_, other) => other.clone(),
    }
}

#[tokio::test]
async fn a_stream_is_the_public_example_of_one() {
    let app = TestApp::start().await;
    let example = include_str!("../wire/anthropic_text.sse");
    let data = example.lines().filter_map(|line| line.strip_prefix("data: "));
    let mut expected: Vec<Value> = data.map(|data| serde_json::from_str(data).expect("it is JSON")).collect();
    let mut events = events(&app, &with(message("one two"), "stream", true)).await;
    for events in [&mut expected, &mut events] {
        events
            .dedup_by(|next, before| next["type"] == "content_block_delta" && before["type"] == next["type"]);
    }
    assert_eq!(events.len(), expected.len(), "{events:?}");
    for (ours, theirs) in events.iter().zip(&expected) {
        let mut example = masked(theirs, "");
        if theirs["type"] == "message_delta" {
            // Where the model ends it, or the bound does.
            example["delta"]["stop_reason"] = json!("<text>");
        }
        assert_like(&example, ours, &["usage.service_tier"]);
    }
}
