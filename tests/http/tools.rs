//! Functions over HTTP, with a real model: what of them it is told, and their results in the conversation.

use serde_json::{Value, json};

use crate::app::{TestApp, with};
use crate::real_models::smollm2;

pub const PATH: &str = "/v1/chat/completions";
const MODEL: &str = "smollm2";

/// A server with the real model.
pub async fn start() -> TestApp {
    let model = format!("{MODEL}={}", smollm2().display());
    TestApp::start_with(&[("model", &model), ("memory-budget", "3GiB")]).await
}

pub fn tools() -> Value {
    let weather = json!({"type": "object", "additionalProperties": false, "required": ["city", "unit"], "properties": {
        "city": {"type": "string", "enum": ["Oslo", "Rome"]}, "unit": {"type": "string", "enum": ["C", "F"]}}});
    let clock = json!({"type": "object", "additionalProperties": false, "required": ["hours"],
        "properties": {"hours": {"type": "integer", "minimum": 0, "maximum": 23}}});
    json!([
        {"type": "function", "function": {"name": "get_weather", "description": "Tells the weather in a city",
            "parameters": weather, "strict": true}},
        {"type": "function", "function": {"name": "set_clock", "description": "Sets the clock", "parameters": clock}},
    ])
}

pub fn ask(content: &str) -> Value {
    json!({"model": MODEL, "messages": [{"role": "user", "content": content}], "tools": tools(), "temperature": 0,
        "max_tokens": 160, "seed": 1})
}

#[tokio::test]
async fn without_a_choice_the_model_sees_no_functions_and_with_one_it_does() {
    let app = start().await;
    let prompt = |answer: &Value| answer["usage"]["prompt_tokens"].as_u64().expect("a count");
    let body = with(ask("Say hello."), "max_tokens", 8);
    let none = app.ask(PATH, &with(body.clone(), "tool_choice", "none")).await;
    let without = app.ask(PATH, &with(body.clone(), "tools", json!([]))).await;
    let mut loose = tools();
    loose[0]["function"]["strict"] = json!(false);
    let auto = app.ask(PATH, &with(body, "tools", loose)).await;
    assert_eq!(prompt(&none), prompt(&without));
    assert!(prompt(&auto) > prompt(&none) + 50, "{auto}");
    assert_eq!(none["choices"][0]["message"]["content"], without["choices"][0]["message"]["content"]);
}

#[tokio::test]
async fn a_result_is_read_in_the_conversation() {
    let app = start().await;
    let call = json!([{"id": "call_1", "type": "function",
        "function": {"name": "get_weather", "arguments": "{\"city\": \"Oslo\", \"unit\": \"C\"}"}}]);
    let conversation = |result: &str| {
        json!([{"role": "user", "content": "What is the weather in Oslo?"},
            {"role": "assistant", "content": null, "tool_calls": call},
            {"role": "tool", "tool_call_id": "call_1", "content": result}])
    };
    let body = with(with(ask(""), "max_tokens", 12), "tool_choice", "none");
    let short = app.ask(PATH, &with(body.clone(), "messages", conversation("rain"))).await;
    let long =
        app.ask(PATH, &with(body, "messages", conversation("rain and snow, and then more rain"))).await;
    let prompt = |answer: &Value| answer["usage"]["prompt_tokens"].as_u64().expect("a count");
    assert!(prompt(&long) > prompt(&short));
    assert!(short["choices"][0]["message"]["content"].is_string(), "{short}");
}
