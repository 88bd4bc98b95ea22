//! `/v1/chat/completions`: shapes, streams, log-probabilities, continued messages.

use serde_json::{Value, json};

use crate::app::{CHAT, EMBED, TestApp, answers, chat, read_error, with};

const PATH: &str = "/v1/chat/completions";

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[tokio::test]
async fn a_whole_answer_has_the_shape_clients_know() {
    let app = TestApp::start().await;
    let answer = app.ask(PATH, &chat("Hello")).await;
    assert_eq!(
        keys(&answer),
        ["id", "object", "created", "model", "system_fingerprint", "service_tier", "choices", "usage"]
    );
    assert!(answer["id"].as_str().is_some_and(|id| id.starts_with("chatcmpl-")));
    assert_eq!((answer["object"].as_str(), answer["model"].as_str()), (Some("chat.completion"), Some(CHAT)));
    let choice = &answer["choices"][0];
    assert_eq!(keys(choice), ["index", "message", "logprobs", "finish_reason"]);
    assert_eq!(keys(&choice["message"]), ["role", "content", "refusal"]);
    assert_eq!(choice["message"]["role"], "assistant");
    let usage = &answer["usage"];
    let sum = usage["prompt_tokens"].as_u64().expect("a count")
        + usage["completion_tokens"].as_u64().expect("a count");
    assert_eq!(usage["total_tokens"], sum);
}

#[tokio::test]
async fn a_stream_begins_with_the_role_and_ends_with_a_reason_and_done() {
    let app = TestApp::start().await;
    let body = with(chat("Hello"), "ignore_eos", true);
    let whole = app.ask(PATH, &body).await;
    let events = app.events(PATH, &with(body, "stream", true)).await;
    assert!(events.done);
    let first = &events.data[0];
    assert_eq!(
        keys(first),
        ["id", "object", "created", "model", "system_fingerprint", "service_tier", "choices"]
    );
    assert_eq!(first["object"], "chat.completion.chunk");
    assert_eq!(first["choices"][0]["delta"], json!({"role": "assistant", "content": "", "refusal": null}));
    assert!(first["choices"][0]["finish_reason"].is_null());
    let last = events.data.last().expect("events");
    assert_eq!(last["choices"][0]["delta"], json!({}));
    assert_eq!(last["choices"][0]["finish_reason"], "length");
    assert!(events.data.iter().all(|event| event["id"] == first["id"]));
    assert_eq!(events.text(0), whole["choices"][0]["message"]["content"].as_str().expect("text"));
    assert_eq!(
        events.data.iter().filter(|event| event["choices"][0]["delta"]["role"].is_string()).count(),
        1
    );
}

#[tokio::test]
async fn the_usage_chunk_comes_last_and_only_when_asked_for() {
    let app = TestApp::start().await;
    let body = with(with(chat("Hello"), "stream", true), "stream_options", json!({"include_usage": true}));
    let events = app.events(PATH, &body).await;
    let (last, before) = events.data.split_last().expect("events");
    assert_eq!(last["choices"], json!([]));
    assert_eq!(
        keys(&last["usage"]),
        [
            "prompt_tokens",
            "completion_tokens",
            "total_tokens",
            "prompt_tokens_details",
            "completion_tokens_details",
            "timings"
        ]
    );
    assert!(before.iter().all(|event| event.get("usage").is_some_and(Value::is_null)));
    let without = with(body, "stream_options", json!({"include_usage": false}));
    assert!(app.events(PATH, &without).await.data.iter().all(|event| event.get("usage").is_none()));
}

#[tokio::test]
async fn several_choices_are_told_apart() {
    let app = TestApp::start().await;
    let body = with(with(with(chat("Hello"), "n", 3), "temperature", 1.2), "seed", 5);
    let whole = app.ask(PATH, &body).await;
    let events = app.events(PATH, &with(body, "stream", true)).await;
    for index in 0..3 {
        let choice = &whole["choices"][index];
        assert_eq!(choice["index"], index);
        assert_eq!(choice["message"]["content"], events.text(index as u64));
        assert_eq!(events.finish_reason(index as u64).as_deref(), choice["finish_reason"].as_str());
    }
    assert_eq!(whole["choices"].as_array().map(Vec::len), Some(3));
}

#[tokio::test]
async fn log_probabilities_have_tokens_bytes_and_alternatives() {
    let app = TestApp::start().await;
    let body = with(with(with(chat("Hello"), "logprobs", true), "top_logprobs", 3), "ignore_eos", true);
    let whole = app.ask(PATH, &body).await;
    let tokens = whole["choices"][0]["logprobs"]["content"].as_array().expect("tokens").clone();
    assert_eq!(tokens.len(), 24);
    for token in &tokens {
        assert_eq!(keys(token), ["token", "logprob", "bytes", "top_logprobs"]);
        let alternatives = token["top_logprobs"].as_array().expect("alternatives");
        assert_eq!(alternatives.len(), 3);
        // Greedy: the token is the best of them.
        assert_eq!(
            (&alternatives[0]["token"], &alternatives[0]["logprob"]),
            (&token["token"], &token["logprob"])
        );
    }
    let events = app.events(PATH, &with(body.clone(), "stream", true)).await;
    let streamed: Vec<Value> = events
        .data
        .iter()
        .filter_map(|event| event["choices"][0]["logprobs"]["content"].as_array().cloned())
        .flatten()
        .collect();
    assert_eq!(streamed, tokens);
    let none = app.ask(PATH, &with(with(body, "logprobs", false), "top_logprobs", Value::Null)).await;
    assert!(none["choices"][0]["logprobs"].is_null());
}

#[tokio::test]
async fn a_conversation_is_rendered_by_the_models_own_template() {
    let app = TestApp::start().await;
    let golden = answers("llama");
    let cases = golden["chat_cases"].as_array().expect("cases");
    let no_tools =
        |case: &&Value| case["error"].is_null() && case["tools"].as_array().is_none_or(Vec::is_empty);
    let plain = |case: &&Value| {
        let messages = case["messages"].as_array().expect("messages");
        let known = ["system", "user", "assistant"];
        let kwargs = case["kwargs"].as_object().is_none_or(serde_json::Map::is_empty);
        kwargs
            && messages.iter().all(|m| {
                m["content"].is_string()
                    && known.contains(&m["role"].as_str().unwrap_or(""))
                    && m["tool_calls"].is_null()
            })
    };
    let mut seen = 0;
    for case in cases.iter().filter(no_tools).filter(plain) {
        let ids = case["ids"].as_array().expect("ids").len();
        if ids >= 256 {
            continue;
        }
        let body = json!({"model": CHAT, "messages": case["messages"], "max_tokens": 1, "add_generation_prompt": case["add_generation_prompt"]});
        let answer = app.ask(PATH, &body).await;
        assert_eq!(answer["usage"]["prompt_tokens"], ids, "{}", case["rendered"]);
        seen += 1;
    }
    assert!(seen >= 2, "the golden data has plain conversations");
}

#[tokio::test]
async fn the_last_message_can_be_continued() {
    let app = TestApp::start().await;
    let messages = json!([{"role": "user", "content": "Count"}, {"role": "assistant", "content": "one two"}]);
    let body =
        json!({"model": CHAT, "messages": messages, "temperature": 0, "max_tokens": 8, "ignore_eos": true});
    let continued = app.ask(PATH, &with(body.clone(), "continue_final_message", true)).await;
    let answered = app.ask(PATH, &body).await;
    let tokens = |answer: &Value| answer["usage"]["prompt_tokens"].as_u64().expect("a count");
    // No end of turn and no new header.
    assert!(tokens(&continued) < tokens(&answered));
    let user_last = with(body, "messages", json!([{"role": "user", "content": "Count"}]));
    let (status, error) = app.refused(PATH, &with(user_last, "continue_final_message", true)).await;
    assert_eq!((status, error["param"].as_str()), (400, Some("continue_final_message")));
}

#[tokio::test]
async fn a_model_that_cannot_chat_and_one_that_nobody_knows_are_refused() {
    let app = TestApp::start().await;
    let (status, error) = app.refused(PATH, &with(chat("x"), "model", EMBED)).await;
    assert_eq!(
        (status, error["code"].as_str(), error["param"].as_str()),
        (400, Some("unsupported_model"), Some("model"))
    );
    for stream in [true, false] {
        let body = with(with(chat("x"), "model", "nobody"), "stream", stream);
        let (status, error) = app.refused(PATH, &body).await;
        assert_eq!((status, error["type"].as_str()), (404, Some("invalid_request_error")));
        assert_eq!(
            (error["code"].as_str(), error["param"].as_str()),
            (Some("model_not_found"), Some("model"))
        );
    }
}

#[tokio::test]
async fn a_conversation_that_is_too_long_is_refused_with_both_numbers() {
    let app = TestApp::start().await;
    for stream in [true, false] {
        let body = with(chat(&"word ".repeat(400)), "stream", stream);
        let (status, error) = app.refused(PATH, &body).await;
        assert_eq!((status, error["code"].as_str()), (400, Some("context_length_exceeded")));
        assert_eq!(error["param"], "messages");
        assert!(error["message"].as_str().is_some_and(|text| text.contains("256 tokens")), "{error}");
    }
}

#[tokio::test]
async fn request_ids_are_on_every_answer() {
    let app = TestApp::start().await;
    let response =
        app.client.post(format!("{}{PATH}", app.url)).header("x-request-id", "mine-1").json(&chat("x"));
    assert_eq!(response.send().await.expect("an answer").headers()["x-request-id"], "mine-1");
    let (_, _) = read_error(app.get("/nowhere").send().await.expect("an answer")).await;
}
