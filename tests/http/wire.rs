//! The events of a chat's stream, in their order and shape, beside public examples of OpenAI's
//! (<https://platform.openai.com/docs/api-reference/chat-streaming>), ids, times, texts and counts masked.

use serde_json::{Value, json};

use crate::app::{TestApp, chat, with};
use crate::shape::assert_like;

/// What is sent beside what is OpenAI's.
const OURS: [&str; 1] = ["usage.timings"];

/// Whether what is new is of the same kind: the same members, whatever they hold.
fn is_more_of(a: &Value, b: &Value) -> bool {
    let names = |value: &Value| -> Vec<String> {
        let delta = &value["choices"][0]["delta"];
        let of = |value: &Value| value.as_object().map(|object| object.keys().cloned().collect::<Vec<_>>());
        let call = &delta["tool_calls"][0];
        [of(delta), of(call), of(&call["function"])].into_iter().flatten().flatten().collect()
    };
    names(a) == names(b) && !names(a).is_empty()
}

/// Checks a stream, in which several pieces of a kind may stand where the example has one.
pub fn check(example: &str, events: &[Value]) {
    let examples: Vec<Value> =
        example.lines().map(|line| serde_json::from_str(line).expect("the example is JSON")).collect();
    let mut events = events.to_vec();
    events.dedup_by(|b, a| is_more_of(a, b));
    assert_eq!(events.len(), examples.len(), "{events:#?}");
    for (example, found) in examples.iter().zip(&events) {
        assert_like(example, found, &OURS);
    }
}

#[tokio::test]
async fn a_streamed_text_is_as_openais() {
    let app = TestApp::start().await;
    let body = with(with(chat("Hello"), "stream", true), "stream_options", json!({"include_usage": true}));
    let events = app.events("/v1/chat/completions", &with(body, "ignore_eos", true)).await;
    assert!(events.done);
    check(include_str!("../wire/chat_text.jsonl"), &events.data);
}
