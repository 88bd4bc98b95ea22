//! `/v1/completions`: the reference's own continuations, prompts of all kinds, echo, log-probabilities.

use serde_json::{Value, json};

use crate::app::{CHAT, TestApp, answers, with};

const PATH: &str = "/v1/completions";

fn greedy(prompt: &Value, tokens: u64) -> Value {
    json!({"model": CHAT, "prompt": prompt, "max_tokens": tokens, "temperature": 0})
}

fn prompts() -> Vec<Value> {
    answers("llama")["prompts"].as_array().expect("prompts").clone()
}

#[tokio::test]
async fn continuations_are_the_references() {
    let app = TestApp::start().await;
    for prompt in prompts() {
        let mut asked = vec![prompt["ids"].clone(), json!([prompt["ids"]])];
        asked.extend(Some(prompt["text"].clone()).filter(Value::is_string));
        for prompt_form in asked {
            let answer = app.ask(PATH, &greedy(&prompt_form, 24)).await;
            let choice = &answer["choices"][0];
            assert_eq!(choice["text"], prompt["greedy_text"], "{}", prompt["name"]);
            assert_eq!(choice["finish_reason"], "length");
            assert_eq!(answer["usage"]["completion_tokens"], 24);
            assert_eq!(answer["usage"]["prompt_tokens"], prompt["ids"].as_array().expect("ids").len());
        }
    }
}

#[tokio::test]
async fn the_shape_is_the_one_clients_know() {
    let app = TestApp::start().await;
    let answer = app.ask(PATH, &greedy(&json!([303]), 2)).await;
    let names: Vec<_> = answer.as_object().expect("an object").keys().collect();
    assert_eq!(names, ["id", "object", "created", "model", "system_fingerprint", "choices", "usage"]);
    assert!(answer["id"].as_str().is_some_and(|id| id.starts_with("cmpl-")));
    assert_eq!((answer["object"].as_str(), answer["model"].as_str()), (Some("text_completion"), Some(CHAT)));
    let names: Vec<_> = answer["choices"][0].as_object().expect("an object").keys().collect();
    assert_eq!(names, ["index", "text", "logprobs", "finish_reason"]);
    let default = app.ask(PATH, &json!({"model": CHAT, "prompt": [303], "ignore_eos": true})).await;
    assert_eq!(default["usage"]["completion_tokens"], 16);
}

#[tokio::test]
async fn a_stream_says_the_same_as_a_whole_answer() {
    let app = TestApp::start().await;
    let body = with(greedy(&json!([[303], [51, 78]]), 20), "n", 2);
    let whole = app.ask(PATH, &body).await;
    let events = app.events(PATH, &with(body.clone(), "stream", true)).await;
    assert!(events.done);
    for choice in 0..4 {
        assert_eq!(whole["choices"][choice]["index"], choice);
        assert_eq!(whole["choices"][choice]["text"], events.text(choice as u64));
        assert_eq!(
            events.finish_reason(choice as u64).as_deref(),
            whole["choices"][choice]["finish_reason"].as_str()
        );
    }
    assert_eq!(whole["usage"]["prompt_tokens"], 3);
    assert_eq!(whole["usage"]["completion_tokens"], 80);
    assert!(events.data.iter().all(|event| event.get("usage").is_none()));

    let options = with(with(body, "stream", true), "stream_options", json!({"include_usage": true}));
    let mut events = app.events(PATH, &options).await;
    let last = events.data.pop().expect("events");
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["completion_tokens"], 80);
    assert!(events.data.iter().all(|event| event["usage"].is_null() && event.get("usage").is_some()));
}

#[tokio::test]
async fn log_probabilities_are_the_references() {
    let app = TestApp::start().await;
    for prompt in prompts() {
        let answer = app.ask(PATH, &with(greedy(&prompt["ids"], 24), "logprobs", 5)).await;
        let found = &answer["choices"][0]["logprobs"];
        let expected = prompt["greedy_logprob"].as_array().expect("numbers");
        for (index, expected) in expected.iter().enumerate() {
            // Keys and values are kept in 16 bits.
            let found = found["token_logprobs"][index].as_f64().expect("a number");
            assert!(
                (found - expected.as_f64().expect("a number")).abs() < 1e-2,
                "{index}: {found} {expected}"
            );
        }
        assert_eq!(found["top_logprobs"].as_array().map(Vec::len), Some(24));
        assert_eq!(found["text_offset"][0], 0);
        let texts: Vec<_> =
            found["tokens"].as_array().expect("tokens").iter().filter_map(Value::as_str).collect();
        assert_eq!(texts.len(), 24);
    }
    let none = app.ask(PATH, &with(greedy(&json!([303]), 2), "logprobs", 0)).await;
    assert!(none["choices"][0]["logprobs"]["top_logprobs"].is_null());
    assert_eq!(none["choices"][0]["logprobs"]["tokens"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn an_echo_shows_the_prompt_and_what_the_model_thought_of_it() {
    let app = TestApp::start().await;
    let prompt = prompts().into_iter().find(|prompt| prompt["text"].is_string()).expect("one with a text");
    let body = with(with(greedy(&prompt["text"], 0), "echo", true), "logprobs", 1);
    let answer = app.ask(PATH, &body).await;
    let choice = &answer["choices"][0];
    assert_eq!((&choice["text"], choice["finish_reason"].as_str()), (&prompt["text"], Some("length")));
    let length = prompt["ids"].as_array().expect("ids").len();
    let logprobs = choice["logprobs"]["token_logprobs"].as_array().expect("numbers");
    assert_eq!(logprobs.len(), length);
    assert!(
        logprobs[0].is_null() && logprobs[1..].iter().all(|number| number.as_f64().is_some_and(|n| n < 0.0))
    );
    assert_eq!(answer["usage"]["completion_tokens"], 0);

    let body = with(greedy(&prompt["text"], 24), "echo", true);
    let text = format!(
        "{}{}",
        prompt["text"].as_str().expect("text"),
        prompt["greedy_text"].as_str().expect("text")
    );
    assert_eq!(app.ask(PATH, &body).await["choices"][0]["text"], text);
    assert_eq!(app.events(PATH, &with(body, "stream", true)).await.text(0), text);
}

#[tokio::test]
async fn a_prompt_may_fill_the_context_but_for_one_token() {
    let app = TestApp::start().await;
    let ids = |count: usize| json!(vec![303; count]);
    let answer = app.ask(PATH, &with(greedy(&ids(255), 100), "ignore_eos", true)).await;
    assert_eq!(answer["usage"]["completion_tokens"], 1);
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    for count in [256, 257, 2560] {
        let (status, error) = app.refused(PATH, &greedy(&ids(count), 1)).await;
        let message = error["message"].as_str().expect("text");
        assert_eq!((status, error["code"].as_str()), (400, Some("context_length_exceeded")));
        assert_eq!(error["param"], "prompt");
        assert!(message.contains("256") && message.contains(&count.to_string()), "{message}");
    }
    let (status, error) = app.refused(PATH, &greedy(&json!("word ".repeat(100_000)), 1)).await;
    assert_eq!((status, error["code"].as_str()), (400, Some("context_length_exceeded")));
}

#[tokio::test]
async fn a_stop_text_ends_the_answer_before_it() {
    let app = TestApp::start().await;
    let prompt = &prompts()[0];
    let full = prompt["greedy_text"].as_str().expect("text");
    // Each pair of characters, wherever its tokens end.
    let starts: Vec<usize> = full.char_indices().map(|(at, _)| at).skip(1).step_by(3).collect();
    let requests = 2 * starts.len() as u64;
    for at in starts {
        let stop: String = full[at..].chars().take(3).collect();
        let expected = &full[..full.find(&stop).expect("it is a part of it")];
        let body = with(greedy(&prompt["ids"], 24), "stop", json!(["never said", stop]));
        let answer = app.ask(PATH, &body).await;
        assert_eq!(answer["choices"][0]["text"], expected, "stop {stop:?}");
        assert_eq!(answer["choices"][0]["finish_reason"], "stop");
        let events = app.events(PATH, &with(body, "stream", true)).await;
        assert_eq!((events.text(0).as_str(), events.finish_reason(0).as_deref()), (expected, Some("stop")));
    }
    app.is_idle_after(requests).await;
}

#[tokio::test]
async fn a_stop_token_ends_the_answer_before_it() {
    let app = TestApp::start().await;
    let prompt = &prompts()[0];
    let greedy_ids = prompt["greedy"].as_array().expect("ids");
    let body = with(greedy(&prompt["ids"], 24), "stop_token_ids", json!([greedy_ids[5]]));
    let answer = app.ask(PATH, &body).await;
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    let first = greedy_ids.iter().position(|id| id == &greedy_ids[5]).expect("it is there") as u64;
    assert_eq!(answer["usage"]["completion_tokens"], first + 1);
    let answer = app.ask(PATH, &with(body, "min_tokens", 12)).await;
    assert!(answer["usage"]["completion_tokens"].as_u64().is_some_and(|count| count >= 12), "{answer}");
}

#[tokio::test]
async fn the_same_seed_gives_the_same_answer_and_choices_differ() {
    let app = TestApp::start().await;
    let body = json!({"model": CHAT, "prompt": [303, 324], "max_tokens": 20, "temperature": 1.5, "seed": 7, "n": 3, "ignore_eos": true});
    let texts = |answer: &Value| -> Vec<String> {
        let choices = answer["choices"].as_array().expect("choices");
        choices.iter().map(|choice| choice["text"].as_str().expect("text").to_owned()).collect()
    };
    let first = app.ask(PATH, &body).await;
    let second = app.ask(PATH, &body).await;
    assert_eq!(texts(&first), texts(&second));
    assert_eq!(first["system_fingerprint"], second["system_fingerprint"]);
    assert_ne!(texts(&first)[0], texts(&first)[1]);
    assert_ne!(texts(&first), texts(&app.ask(PATH, &with(body, "seed", 8)).await));
}

#[tokio::test]
async fn a_repeated_prompt_is_found_in_the_cache() {
    let app = TestApp::start().await;
    let body = greedy(&json!(vec![303; 130]), 4);
    let first = app.ask(PATH, &body).await;
    let second = app.ask(PATH, &body).await;
    assert_eq!(first["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
    assert_eq!(second["usage"]["prompt_tokens_details"]["cached_tokens"], 128);
    assert_eq!(first["choices"], second["choices"]);
}
