//! Functions over HTTP, with a real model: what of them it is told, and their results in the conversation.

use serde_json::{Value, json};

use crate::altered::{alter, copied, named};
use crate::app::{Events, TestApp, with};
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

/// Somebody has to answer the call: that is told, and not that the answer was ended by a text.
#[tokio::test]
async fn a_stop_text_after_a_call_leaves_the_call_and_its_reason() {
    let caller = copied("qwen3");
    // A model whose likeliest token is all that is to be said.
    alter(&caller, "tokenizer.json", |tokenizer| {
        let said = "<tool_call>{\"name\": \"now\", \"arguments\": {}}</tool_call> and so END more";
        let tokens = tokenizer["added_tokens"].as_array_mut().expect("tokens");
        tokens
            .push(json!({"id": 512, "content": said, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": false}));
    });
    let app = TestApp::start_with(&[("model", &named("caller", &caller))]).await;
    let body = json!({"model": "caller", "messages": [{"role": "user", "content": "?"}], "temperature": 0,
        "max_tokens": 4, "logit_bias": {"512": 100}, "stop": "END",
        "tools": [{"type": "function", "function": {"name": "now"}}]});
    let answer = app.ask(PATH, &body).await;
    let choice = &answer["choices"][0];
    assert_eq!(
        (&choice["finish_reason"], &answer["usage"]["completion_tokens"]),
        (&json!("tool_calls"), &json!(1))
    );
    assert_eq!(choice["message"]["tool_calls"].as_array().map(Vec::len), Some(1), "{answer}");
    assert_eq!(choice["message"]["tool_calls"][0]["function"], json!({"name": "now", "arguments": "{}"}));
    let text = choice["message"]["content"].as_str().expect("a text");
    assert_eq!(text.trim(), "and so");
    let events: Events = app.events(PATH, &with(body.clone(), "stream", true)).await;
    assert_eq!((events.finish_reason(0).as_deref(), events.text(0).as_str()), (Some("tool_calls"), text));
    // Without a call before it, it is what ends the answer.
    let plain = app.ask(PATH, &with(with(body, "tools", json!([])), "stop", "call>")).await;
    assert_eq!(plain["choices"][0]["finish_reason"], "stop", "{plain}");
}

/// Nobody's schema is at fault, and nothing is generated.
#[tokio::test]
async fn functions_that_are_too_much_only_together_are_refused_together() {
    let app = TestApp::start().await;
    let function = |name: &str, length: usize| {
        json!({"type": "function", "function": {"name": name, "strict": true, "parameters": {"type": "object",
            "required": ["a"], "additionalProperties": false, "properties": {"a": {"const": "x".repeat(length)}}}}})
    };
    let body = |tools: Value| with(crate::app::chat("?"), "tools", tools);
    let both = json!([function("one", 40_000), function("two", 40_000)]);
    for body in [body(both.clone()), with(body(both), "tool_choice", "required")] {
        let (status, error) = app.refused(PATH, &body).await;
        assert_eq!((status, &error["param"]), (400, &json!("tools")), "{error}");
        assert!(error["message"].as_str().is_some_and(|message| message.contains("at most")), "{error}");
    }
    // Each is no more than the prompt is then.
    for (length, code, param) in [
        (40_000, "context_length_exceeded", "messages"),
        (70_000, "invalid_value", "tools[1].function.parameters"),
    ] {
        let tools = json!([{"type": "function", "function": {"name": "zero"}}, function("one", length)]);
        let (status, error) = app.refused(PATH, &body(tools)).await;
        assert_eq!((status, &error["code"], &error["param"]), (400, &json!(code), &json!(param)), "{error}");
    }
    assert_eq!(app.engine().await.stats().generated_tokens, 0);
}
