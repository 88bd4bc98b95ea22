//! Calls that must come, over HTTP and with a real model: required, named, in the older words; streamed and whole; and
//! strict ones, which may.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::app::{Events, with};
use crate::shape::assert_like;
use crate::tools::{PATH, ask, start, tools};

/// The calls of a whole answer: (name, arguments).
fn calls(answer: &Value) -> Vec<(String, Value)> {
    let calls = answer["choices"][0]["message"]["tool_calls"].as_array().cloned().unwrap_or_default();
    let read = |call: &Value| {
        assert!(call["id"].as_str().is_some_and(|id| id.starts_with("call_")), "{call}");
        assert_eq!(call["type"], "function");
        let arguments = call["function"]["arguments"].as_str().expect("a text");
        let arguments =
            serde_json::from_str(arguments).unwrap_or_else(|error| panic!("{error}: {arguments}"));
        (call["function"]["name"].as_str().expect("a name").to_owned(), arguments)
    };
    calls.iter().map(read).collect()
}

/// Checks a call against the schema of its function.
fn check((name, arguments): &(String, Value)) {
    match name.as_str() {
        "get_weather" => {
            assert!(["Oslo", "Rome"].contains(&arguments["city"].as_str().expect("a city")), "{arguments}");
            assert!(["C", "F"].contains(&arguments["unit"].as_str().expect("a unit")), "{arguments}");
            assert_eq!(arguments.as_object().map(serde_json::Map::len), Some(2), "{arguments}");
        }
        "set_clock" => assert!(arguments["hours"].as_u64().is_some_and(|hours| hours < 24), "{arguments}"),
        other => panic!("`{other}` was not offered"),
    }
}

#[tokio::test]
async fn a_call_that_is_required_is_a_good_one() {
    let app = start().await;
    for question in ["What is the weather in Oslo?", "Tell me a story.", "7"] {
        let body = with(with(ask(question), "tool_choice", "required"), "parallel_tool_calls", false);
        let answer = app.ask(PATH, &body).await;
        assert_eq!(answer["choices"][0]["finish_reason"], "tool_calls", "{answer}");
        assert!(answer["choices"][0]["message"]["content"].is_null(), "{answer}");
        let calls = calls(&answer);
        assert_eq!(calls.len(), 1, "{answer}");
        check(&calls[0]);
    }
}

#[tokio::test]
async fn the_function_that_is_named_is_called() {
    let app = start().await;
    for name in ["get_weather", "set_clock"] {
        let named = json!({"type": "function", "function": {"name": name}});
        let allowed =
            json!({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [named]}});
        for choice in [named, allowed] {
            let body = with(with(ask("Hello!"), "tool_choice", choice), "parallel_tool_calls", false);
            let calls = calls(&app.ask(PATH, &body).await);
            assert_eq!(calls.len(), 1);
            assert_eq!(calls[0].0, name);
            check(&calls[0]);
        }
    }
}

/// The calls of a stream, put together: (id, name, arguments).
fn streamed(events: &Events) -> BTreeMap<u64, (String, String, String)> {
    let mut calls: BTreeMap<u64, (String, String, String)> = BTreeMap::new();
    let deltas = events.data.iter().filter_map(|event| event["choices"][0]["delta"]["tool_calls"].as_array());
    for delta in deltas.flatten() {
        let call = calls.entry(delta["index"].as_u64().expect("a number")).or_default();
        call.0.push_str(delta["id"].as_str().unwrap_or_default());
        call.1.push_str(delta["function"]["name"].as_str().unwrap_or_default());
        call.2.push_str(delta["function"]["arguments"].as_str().expect("a piece"));
    }
    calls
}

#[tokio::test]
async fn a_streamed_call_comes_in_pieces_that_are_the_whole() {
    let app = start().await;
    let body =
        with(with(ask("The weather in Rome?"), "tool_choice", "required"), "parallel_tool_calls", false);
    let whole = calls(&app.ask(PATH, &body).await);
    let events = app.events(PATH, &with(body, "stream", true)).await;
    let streamed = streamed(&events);
    assert_eq!(streamed.len(), 1);
    let (id, name, arguments) = &streamed[&0];
    assert!(id.starts_with("call_") && id.len() > 20);
    let arguments: Value = serde_json::from_str(arguments).expect("it is JSON");
    assert_eq!(whole, [(name.clone(), arguments)]);
    assert_eq!(events.finish_reason(0).as_deref(), Some("tool_calls"));
    let pieces =
        events.data.iter().filter(|event| event["choices"][0]["delta"]["tool_calls"].is_array()).count();
    assert!(pieces > 3, "arguments come while they are made: {pieces}");
    assert_eq!(
        events.data[0]["choices"][0]["delta"],
        json!({"role": "assistant", "content": null, "refusal": null})
    );
    assert_eq!(events.text(0), "");
}

#[tokio::test]
async fn a_streamed_call_is_as_openais() {
    let app = start().await;
    let body =
        with(with(ask("The weather in Rome?"), "tool_choice", "required"), "parallel_tool_calls", false);
    let body = with(with(body, "stream", true), "stream_options", json!({"include_usage": true}));
    let events = app.events(PATH, &body).await;
    crate::wire::check(include_str!("../wire/chat_tool_call.jsonl"), &events.data);
}

#[tokio::test]
async fn a_streamed_call_of_a_response_is_as_openais() {
    let app = start().await;
    let flat = |tool: &Value| with(tool["function"].clone(), "type", "function");
    let functions: Vec<Value> = tools().as_array().expect("functions").iter().map(flat).collect();
    let body = json!({"model": ask("x")["model"], "input": "The weather in Rome?", "tools": functions,
        "tool_choice": "required", "parallel_tool_calls": false, "stream": true});
    let response = app.post("/v1/responses", &body).await.text().await.expect("it is text");
    let data = response.lines().filter_map(|line| line.strip_prefix("data: "));
    let mut events: Vec<Value> = data.map(|data| serde_json::from_str(data).expect("it is JSON")).collect();
    events.dedup_by(|event, before| {
        event["type"] == before["type"] && event["type"] == "response.function_call_arguments.delta"
    });
    let example = include_str!("../wire/responses_tool_call.jsonl").lines();
    let example: Vec<Value> = example.map(|line| serde_json::from_str(line).expect("it is JSON")).collect();
    assert_eq!(events.len(), example.len(), "{events:#?}");
    for (number, (mut event, example)) in events.into_iter().zip(&example).enumerate() {
        event["sequence_number"] = number.into();
        assert_like(example, &event, &["response.usage.input_tokens_details.cache_write_tokens"]);
    }
}

#[tokio::test]
async fn the_older_words_are_answered_in_the_older_words() {
    let app = start().await;
    let function = tools()[0]["function"].clone();
    let mut body = with(ask("The weather in Rome?"), "functions", json!([function]));
    body["tools"] = Value::Null;
    body["function_call"] = json!({"name": "get_weather"});
    let answer = app.ask(PATH, &body).await;
    let choice = &answer["choices"][0];
    assert_eq!(choice["finish_reason"], "function_call", "{answer}");
    assert_eq!(choice["message"]["function_call"]["name"], "get_weather");
    assert!(choice["message"].get("tool_calls").is_none());
}

#[tokio::test]
async fn a_call_that_is_cut_short_is_no_text() {
    let app = start().await;
    for length in [1, 2, 4] {
        let body = with(with(ask("The weather?"), "tool_choice", "required"), "max_tokens", length);
        let answer = app.ask(PATH, &body).await;
        assert!(answer["choices"][0]["message"]["content"].is_null(), "{answer}");
        assert_eq!(answer["choices"][0]["finish_reason"], "length", "{answer}");
        assert_eq!(app.events(PATH, &with(body, "stream", true)).await.text(0), "");
    }
}

#[tokio::test]
async fn a_call_is_not_ended_by_words_in_it_and_has_no_arguments_that_nobody_asked_for() {
    let app = start().await;
    let now = json!([{"type": "function", "function": {"name": "now"}}]);
    let body = with(with(with(ask("The time?"), "tools", now), "tool_choice", "required"), "stop", "name");
    let answer = app.ask(PATH, &with(body, "parallel_tool_calls", false)).await;
    assert_eq!(calls(&answer), [("now".to_owned(), json!({}))]);
    assert_eq!(answer["choices"][0]["finish_reason"], "tool_calls");
}

#[tokio::test]
async fn strict_functions_may_be_called_or_not_but_only_rightly() {
    let app = start().await;
    for question in ["Say hello.", "What is the weather in Oslo? Call get_weather."] {
        let answer = app.ask(PATH, &with(ask(question), "tool_choice", "auto")).await;
        calls(&answer).iter().for_each(check);
        assert!(answer["choices"][0]["finish_reason"].is_string(), "{answer}");
    }
}

/// Log-probabilities are of the text, and a call is none: there are none of it, not even of its marks.
#[tokio::test]
async fn a_call_has_no_log_probabilities() {
    let app = start().await;
    let body = with(with(ask("The weather?"), "tool_choice", "required"), "parallel_tool_calls", false);
    let body = with(body, "logprobs", true);
    let answer = app.ask(PATH, &body).await;
    assert_eq!(calls(&answer).len(), 1, "{answer}");
    assert_eq!(answer["choices"][0]["logprobs"]["content"], json!([]), "{answer}");
    let events = app.events(PATH, &with(body, "stream", true)).await;
    let told = events.data.iter().filter_map(|event| event["choices"][0]["logprobs"]["content"].as_array());
    assert_eq!(told.flatten().count(), 0, "{:?}", events.data);
}

/// Nobody sees what stands between the mark of a call and its name: no stop text is looked for in it.
#[tokio::test]
async fn a_call_is_not_ended_by_words_before_its_name() {
    let app = start().await;
    let mark = json!({"model": ask("")["model"], "prompt": "<tool_call>", "add_special_tokens": false});
    let mark = app.ask("/v1/tokenize", &mark).await;
    let mark = mark["tokens"].as_array().expect("there are tokens");
    // What is likelier than anything else spells the mark; what follows it the grammar says.
    let bias: Map<String, Value> = mark.iter().map(|id| (id.to_string(), json!(100))).collect();
    let body = with(ask("What is the weather in Oslo?"), "logit_bias", json!(bias));
    let body = with(with(body, "tool_choice", "auto"), "parallel_tool_calls", false);
    let answer = app.ask(PATH, &with(body, "stop", json!(["name", "{", "[", "\": \""]))).await;
    assert_eq!(calls(&answer).len(), 1, "{answer}");
    calls(&answer).iter().for_each(check);
    assert_eq!(answer["choices"][0]["finish_reason"], "tool_calls", "{answer}");
}
