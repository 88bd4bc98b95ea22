//! Every parameter of OpenAI's is honoured or refused by its name. None is dropped, whatever its value.

use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::app::{CHAT, TestApp, chat, with};

const CHAT_PATH: &str = "/v1/chat/completions";
const TEXT_PATH: &str = "/v1/completions";

fn text() -> Value {
    json!({"model": CHAT, "prompt": [303, 324], "max_tokens": 2})
}

/// (name, a value that is taken, values that are refused). Numbers between ends are below.
fn taken() -> Vec<(&'static str, Value, Vec<Value>)> {
    vec![
        (
            "temperature",
            json!(0.7),
            vec![json!(-0.1), json!(2.1), json!("1"), json!(1e308), json!([1]), json!(true)],
        ),
        ("top_p", json!(0.5), vec![json!(-0.1), json!(1.1), json!("1"), json!({})]),
        ("top_k", json!(5), vec![json!(-2), json!(1.5), json!("5")]),
        ("min_p", json!(0.1), vec![json!(-1), json!(2), json!("x")]),
        ("typical_p", json!(0.9), vec![json!(0), json!(1.5)]),
        ("repetition_penalty", json!(1.1), vec![json!(0), json!(-1), json!(11)]),
        ("presence_penalty", json!(-2), vec![json!(-2.1), json!(2.1), json!("0")]),
        ("frequency_penalty", json!(2), vec![json!(-3), json!(3), json!("0")]),
        ("n", json!(2), vec![json!(0), json!(-1), json!(65), json!(1.5), json!("2")]),
        ("max_tokens", json!(3), vec![json!(-1), json!(1.5), json!("3"), json!(4_294_967_296_u64)]),
        ("min_tokens", json!(1), vec![json!(-1), json!("1")]),
        ("seed", json!(-7), vec![json!(-1.5), json!(1.5), json!(18_446_744_073_709_551_616.0), json!("7")]),
        (
            "stop",
            json!(["a", "b"]),
            vec![
                json!(""),
                json!([""]),
                json!([1]),
                json!(7),
                json!({"a": 1}),
                json!(vec!["a"; 17]),
                json!("x".repeat(257)),
            ],
        ),
        ("stop_token_ids", json!([1, 2]), vec![json!([-1]), json!(["a"]), json!(1), json!([512])]),
        (
            "logit_bias",
            json!({"5": 1.5, "6": -100}),
            vec![json!({"5": 101}), json!({"5": "x"}), json!({"a": 1}), json!({"512": 1}), json!([5])],
        ),
        ("ignore_eos", json!(true), vec![json!("true"), json!(1)]),
        ("skip_special_tokens", json!(false), vec![json!("no")]),
        ("user", json!("someone"), vec![json!(7), json!({})]),
        ("stream", json!(false), vec![json!("yes"), json!(1)]),
    ]
}

#[tokio::test]
async fn what_both_endpoints_know_is_taken_or_refused_by_name() {
    let app = TestApp::start().await;
    for (path, body) in [(CHAT_PATH, chat("x")), (TEXT_PATH, text())] {
        for (name, good, bad) in taken() {
            app.ask(path, &with(body.clone(), name, good)).await;
            app.ask(path, &with(body.clone(), name, Value::Null)).await;
            for value in bad {
                let (status, error) = app.refused(path, &with(body.clone(), name, value.clone())).await;
                assert_eq!(status, 400, "{path} {name} {value}");
                let param = error["param"].as_str().unwrap_or_default();
                let named = param == name || param.starts_with(&format!("{name}."));
                assert!(named && error["code"] == "invalid_value", "{path} {name} {value}: {error}");
            }
        }
    }
}

#[tokio::test]
async fn what_chat_alone_knows_is_taken_or_refused_by_name() {
    let app = TestApp::start().await;
    for (name, value) in [
        ("max_completion_tokens", json!(24)),
        ("response_format", json!({"type": "text"})),
        ("tools", json!([])),
        ("tools", json!([{"type": "function", "function": {"name": "f"}}])),
        ("tool_choice", json!("none")),
        ("tool_choice", json!("auto")),
        ("parallel_tool_calls", json!(false)),
        ("functions", json!([])),
        ("functions", json!([{"name": "f"}])),
        ("function_call", json!("none")),
        ("reasoning_effort", json!("none")),
        ("store", json!(false)),
        ("store", json!(true)),
        ("modalities", json!(["text"])),
        ("metadata", json!({"a": "b"})),
        ("service_tier", json!("auto")),
        ("service_tier", json!("flex")),
        ("safety_identifier", json!("x")),
        ("prompt_cache_key", json!("x")),
        ("chat_template_kwargs", json!({"enable_thinking": false})),
        ("add_generation_prompt", json!(true)),
    ] {
        app.ask(CHAT_PATH, &with(chat("x"), name, value)).await;
    }
    let custom = json!([{"type": "custom", "custom": {"name": "f"}}]);
    for (name, value, param) in [
        ("tools", custom, "tools[0].type"),
        ("modalities", json!(["text", "audio"]), "modalities"),
        ("audio", json!({}), "audio"),
        ("service_tier", json!("scale"), "service_tier"),
        ("reasoning_effort", json!("low"), "reasoning_effort"),
        ("thinking_budget", json!(10), "thinking_budget"),
        ("verbosity", json!("low"), "verbosity"),
        ("web_search_options", json!({}), "web_search_options"),
        ("best_of", json!(2), "best_of"),
        ("echo", json!(true), "echo"),
        ("chat_template", json!("{{ 1 }}"), "chat_template"),
        ("priority", json!(1), "priority"),
        ("use_beam_search", json!(true), "use_beam_search"),
    ] {
        let (status, error) = app.refused(CHAT_PATH, &with(chat("x"), name, value)).await;
        let found = (status, error["code"].as_str(), error["param"].as_str());
        assert_eq!(found, (400, Some("unsupported_parameter"), Some(param)), "{error}");
    }
}

#[tokio::test]
async fn parameters_that_need_each_other_are_checked_together() {
    let app = TestApp::start().await;
    let both = |a: (&str, Value), b: (&str, Value)| with(with(chat("x"), a.0, a.1), b.0, b.1);
    for (body, param) in [
        (with(chat("x"), "top_logprobs", 2), "top_logprobs"),
        (with(chat("x"), "verbosity", "loud"), "verbosity"),
        (with(chat("x"), "prediction", json!({})), "prediction.type"),
        (with(chat("x"), "prediction", json!({"type": "content"})), "prediction.content"),
        (
            with(chat("x"), "prediction", json!({"type": "content", "content": "word ".repeat(600)})),
            "prediction",
        ),
        (both(("prediction", json!({"type": "content", "content": "x"})), ("n", json!(2))), "prediction"),
        (both(("logprobs", json!(true)), ("top_logprobs", json!(21))), "top_logprobs"),
        (with(chat("x"), "logprobs", 2), "logprobs"),
        (both(("max_tokens", json!(5)), ("max_completion_tokens", json!(6))), "max_tokens"),
        (with(chat("x"), "stream_options", json!({"include_usage": true})), "stream_options"),
        (
            both(("stream", json!(true)), ("stream_options", json!({"include_usage": 1}))),
            "stream_options.include_usage",
        ),
        (both(("stream", json!(true)), ("stream_options", json!({"usage": true}))), "stream_options.usage"),
        (
            both(("continue_final_message", json!(true)), ("add_generation_prompt", json!(true))),
            "add_generation_prompt",
        ),
        (with(chat("x"), "chat_template_kwargs", json!({"tokenize": true})), "chat_template_kwargs.tokenize"),
    ] {
        let (status, error) = app.refused(CHAT_PATH, &body).await;
        assert_eq!((status, error["param"].as_str()), (400, Some(param)), "{error}");
    }
    app.ask(CHAT_PATH, &both(("max_tokens", json!(5)), ("max_completion_tokens", json!(5)))).await;
    app.ask(CHAT_PATH, &both(("logprobs", json!(true)), ("top_logprobs", json!(20)))).await;
}

#[tokio::test]
async fn what_completions_alone_know_is_taken_or_refused_by_name() {
    let app = TestApp::start().await;
    for (name, value) in
        [("echo", json!(true)), ("logprobs", json!(5)), ("best_of", json!(1)), ("max_tokens", json!(0))]
    {
        app.ask(TEXT_PATH, &with(text(), name, value)).await;
    }
    for (name, value, code) in [
        ("suffix", json!("x"), "invalid_value"),
        ("suffix", json!(7), "invalid_value"),
        ("prompt_logprobs", json!(21), "invalid_value"),
        ("messages", json!([]), "unsupported_parameter"),
        ("logprobs", json!(6), "invalid_value"),
        ("logprobs", json!(true), "invalid_value"),
        ("prompt", json!(null), "missing_required_parameter"),
        ("prompt", json!([]), "invalid_value"),
        ("prompt", json!([[]]), "invalid_value"),
        ("prompt", json!(7), "invalid_value"),
        ("prompt", json!(["a", 7]), "invalid_value"),
        ("prompt", json!([512]), "invalid_value"),
        ("prompt", json!([-1]), "invalid_value"),
        ("model", json!(null), "missing_required_parameter"),
        ("temprature", json!(1), "unknown_parameter"),
    ] {
        let (status, error) = app.refused(TEXT_PATH, &with(text(), name, value.clone())).await;
        let found = (status, error["code"].as_str(), error["param"].as_str());
        assert_eq!(found, (400, Some(code), Some(name)), "{value} {error}");
    }
}

#[tokio::test]
async fn an_unknown_parameter_is_refused_with_what_was_probably_meant() {
    let app = TestApp::start().await;
    let (status, error) = app.refused(CHAT_PATH, &with(chat("x"), "max_token", 5)).await;
    assert_eq!(
        (status, error["code"].as_str(), error["param"].as_str()),
        (400, Some("unknown_parameter"), Some("max_token"))
    );
    assert!(
        error["message"].as_str().is_some_and(|text| text.ends_with("did you mean `max_tokens`?")),
        "{error}"
    );
    let (_, error) = app.refused(CHAT_PATH, &with(chat("x"), "api_base", "http://169.254.169.254/")).await;
    assert_eq!(error["code"], "unknown_parameter");
}

/// Anything a client might put where a number belongs.
fn anything() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i64>().prop_map(|number| json!(number)),
        any::<u64>().prop_map(|number| json!(number)),
        any::<f64>().prop_map(|number| json!(number)),
        (-3.0..3.0_f64).prop_map(|number| json!(number)),
        (-2..70_i64).prop_map(|number| json!(number)),
        "[-0-9.eE]{0,6}".prop_map(|text| json!(text)),
        any::<bool>().prop_map(|truth| json!(truth)),
        Just(Value::Null),
        Just(json!([])),
        Just(json!([1])),
        Just(json!({})),
        Just(json!(1e308)),
        Just(json!(-0.0)),
        Just(json!(5e-324)),
    ]
}

#[tokio::test]
async fn whatever_stands_where_a_number_belongs_is_answered_or_refused_by_name() {
    const FIELDS: [&str; 13] = [
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "typical_p",
        "repetition_penalty",
        "presence_penalty",
        "frequency_penalty",
        "n",
        "max_tokens",
        "min_tokens",
        "seed",
        "logprobs",
    ];
    let app = TestApp::start().await;
    let mut answered = 0;
    let mut runner = TestRunner::deterministic();
    for round in 0..390 {
        let name = FIELDS[round % FIELDS.len()];
        let value = anything().new_tree(&mut runner).expect("a value").current();
        let (path, body) = if round % 2 == 0 { (CHAT_PATH, chat("x")) } else { (TEXT_PATH, text()) };
        let response = app.post(path, &with(with(body, "max_tokens", 2), name, value.clone())).await;
        match response.status().as_u16() {
            200 => answered += 1,
            400 => {
                let body: Value = response.json().await.expect("JSON");
                assert_eq!(body["error"]["param"], name, "{path} {name} {value}: {body}");
            }
            other => panic!("{path} {name} {value}: {other}"),
        }
    }
    app.is_idle_after(answered).await;
}
