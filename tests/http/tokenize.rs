//! `/v1/tokenize`, `/v1/detokenize` and `/v1/chat/completions/render` against the reference's tokens and prompts.

use serde_json::{Value, json};

use crate::app::{CHAT, EMBED, KEY, TestApp, answers, bearer, chat, golden, with};

const PATH: &str = "/v1/tokenize";

#[tokio::test]
async fn tokens_are_the_references_and_come_back_as_their_text() {
    let app = TestApp::start().await;
    let golden = answers("llama");
    let cases = golden["tokenizer_cases"].as_array().expect("cases");
    assert!(cases.len() > 5);
    for case in cases {
        let body = json!({"model": CHAT, "prompt": case["text"]});
        let answer = app.ask(PATH, &body).await;
        assert_eq!(answer["tokens"], case["ids"], "{case}");
        assert_eq!(answer["count"], case["ids"].as_array().expect("ids").len());
        assert_eq!((answer["max_model_len"].as_u64(), answer.get("token_strs")), (Some(256), None));
        let bare = app.ask(PATH, &with(body, "add_special_tokens", false)).await;
        let ids = bare["tokens"].as_array().expect("ids");
        assert!(answer["tokens"].as_array().expect("ids").len() >= ids.len());
        let text = app.ask("/v1/detokenize", &json!({"model": CHAT, "tokens": ids})).await;
        assert_eq!(text["prompt"], case["text"], "{case}");
    }
    let with_texts = json!({"model": CHAT, "prompt": "one two", "return_token_strs": true});
    let answer = app.ask(PATH, &with_texts).await;
    let texts = answer["token_strs"].as_array().expect("texts");
    assert_eq!(texts.len(), answer["count"].as_u64().expect("a count") as usize);
    let whole: String = texts.iter().filter_map(Value::as_str).collect();
    assert!(whole.ends_with("one two"), "{whole}");
    let other = app.ask(PATH, &json!({"model": EMBED, "prompt": "hello"})).await;
    assert!(other["count"].as_u64().is_some_and(|count| count > 2), "{other}");
}

#[tokio::test]
async fn a_conversation_is_shown_as_its_model_would_read_it() {
    let model = format!("thinker={}", golden("qwen3").display());
    let app = TestApp::start_with(&[("model", &model)]).await;
    let golden = answers("qwen3");
    let cases = golden["chat_cases"].as_array().expect("cases");
    let mut shown = 0;
    for case in cases.iter().filter(|case| case["tools"].is_null() && case["kwargs"].is_null()) {
        let roles = case["messages"].as_array().expect("messages").iter().map(|message| &message["role"]);
        if roles.into_iter().any(|role| role == "tool") || case["rendered"].is_null() {
            continue;
        }
        let body = json!({"model": "thinker", "messages": case["messages"],
            "add_generation_prompt": case["add_generation_prompt"], "max_tokens": 5, "stream": true});
        let answer = app.ask("/v1/chat/completions/render", &body).await;
        assert_eq!(answer["prompt"], case["rendered"], "{}", case["name"]);
        assert_eq!(answer["token_ids"], case["ids"], "{}", case["name"]);
        assert_eq!(answer["count"], case["ids"].as_array().expect("ids").len());
        let tokens = app.ask(PATH, &body).await;
        assert_eq!(tokens["tokens"], case["ids"], "{}", case["name"]);
        shown += 1;
    }
    assert!(shown > 3, "{shown}");
    // What is shown is what is read.
    let body = with(with(chat("Hello"), "model", "thinker"), "max_tokens", 1);
    let rendered = app.ask("/v1/chat/completions/render", &body).await;
    let answer = app.ask("/v1/chat/completions", &body).await;
    assert_eq!(answer["usage"]["prompt_tokens"], rendered["count"]);
    let with_texts = app.ask(PATH, &with(body, "return_token_strs", true)).await;
    let texts = with_texts["token_strs"].as_array().expect("texts");
    let whole: String = texts.iter().filter_map(Value::as_str).collect();
    assert_eq!(whole, rendered["prompt"].as_str().expect("a text"));
}

#[tokio::test]
async fn what_cannot_be_tokenised_is_refused_by_name() {
    let app = TestApp::start().await;
    let text = json!({"model": CHAT, "prompt": "x"});
    let ids = json!({"model": CHAT, "tokens": [1]});
    let render = chat("x");
    for (path, body, name, value, code) in [
        (PATH, &text, "prompt", json!(null), "missing_required_parameter"),
        (PATH, &text, "prompt", json!(["x"]), "invalid_value"),
        (PATH, &text, "prompt", json!("x".repeat((1 << 20) + 1)), "invalid_value"),
        (PATH, &text, "add_special_tokens", json!(1), "invalid_value"),
        (PATH, &text, "return_token_strs", json!("yes"), "invalid_value"),
        (PATH, &text, "temperature", json!(1), "unknown_parameter"),
        (PATH, &render, "temperature", json!(3), "invalid_value"),
        (PATH, &render, "prompt", json!("x"), "unknown_parameter"),
        ("/v1/detokenize", &ids, "tokens", json!(null), "missing_required_parameter"),
        ("/v1/detokenize", &ids, "tokens", json!("x"), "invalid_value"),
        ("/v1/detokenize", &ids, "tokens", json!([-1]), "invalid_value"),
        ("/v1/detokenize", &ids, "tokens", json!([512]), "invalid_value"),
        ("/v1/detokenize", &ids, "colour", json!("red"), "unknown_parameter"),
        ("/v1/chat/completions/render", &render, "messages", json!([]), "invalid_value"),
        ("/v1/chat/completions/render", &render, "colour", json!("red"), "unknown_parameter"),
        ("/v1/chat/completions/render", &render, "model", json!(EMBED), "unsupported_model"),
    ] {
        let (status, error) = app.refused(path, &with(body.clone(), name, value)).await;
        let found = (status, error["code"].as_str(), error["param"].as_str());
        assert_eq!(found, (400, Some(code), Some(name)), "{path} {error}");
    }
    let far_too_long = chat(&"word ".repeat(1000));
    let (status, error) = app.refused("/v1/chat/completions/render", &far_too_long).await;
    assert_eq!((status, error["code"].as_str()), (400, Some("context_length_exceeded")), "{error}");
    let (status, error) = app.refused(PATH, &with(text, "model", "nobody")).await;
    assert_eq!((status, error["code"].as_str()), (404, Some("model_not_found")));
}

#[tokio::test]
async fn a_key_for_another_model_may_not_ask_for_tokens() {
    let app = TestApp::start().await;
    let owner = crate::api::Api::owner(&app).await;
    let (_, other) = owner.own_key(json!({"name": "other", "models": [EMBED]})).await;
    for (path, body) in [
        (PATH, json!({"model": CHAT, "prompt": "x"})),
        ("/v1/detokenize", json!({"model": CHAT, "tokens": [1]})),
        ("/v1/chat/completions/render", chat("x")),
        ("/v1/rerank", json!({"model": CHAT, "query": "x", "documents": ["y"]})),
    ] {
        let refused = other.post(path, body.clone()).await;
        assert!(matches!(refused.status, 403 | 404), "{path}: {}", refused.text);
        let client = app.client.post(format!("{}{path}", app.url)).headers(bearer("nonsense")).json(&body);
        assert_eq!(client.send().await.expect("it answers").status(), 401, "{path}");
    }
    assert_eq!(app.ask(PATH, &json!({"model": CHAT, "prompt": "x"})).await["model"], CHAT, "{KEY}");
}
