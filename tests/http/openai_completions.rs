//! `/v1/completions`: the reference's own continuations, prompts of all kinds, echo, log-probabilities.

use serde_json::{Value, json};

use crate::altered::{alter, copied, named};
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

/// A model whose tokenizer has tokens for gaps, as Qwen's for code has.
async fn with_gaps() -> (TestApp, tempfile::TempDir) {
    let folder = copied("qwen2");
    alter(&folder, "tokenizer.json", |tokenizer| {
        let tokens = tokenizer["added_tokens"].as_array_mut().expect("tokens");
        for (id, name) in (512..).zip(["<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>"]) {
            tokens.push(json!({"id": id, "content": name, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true}));
        }
    });
    let app = TestApp::start_with(&[("model", &named("coder", &folder))]).await;
    (app, folder)
}

#[tokio::test]
async fn a_gap_is_filled_by_a_model_that_was_trained_to() {
    let (app, _folder) = with_gaps().await;
    let (before, after) = ("def mean(values):\n    return ", " / len(values)\n");
    let ids = async |text: &str| {
        let body = json!({"model": "coder", "prompt": text, "add_special_tokens": false});
        app.ask("/v1/tokenize", &body).await["tokens"].as_array().expect("ids").clone()
    };
    let mut prompt = vec![json!(512)];
    prompt.extend(ids(before).await);
    prompt.push(json!(514));
    prompt.extend(ids(after).await);
    prompt.push(json!(513));
    let plain = json!({"model": "coder", "prompt": prompt, "max_tokens": 12, "temperature": 0, "stop_token_ids": [515]});
    let expected = app.ask(PATH, &plain).await;
    let body =
        json!({"model": "coder", "prompt": before, "suffix": after, "max_tokens": 12, "temperature": 0});
    let found = app.ask(PATH, &body).await;
    assert_eq!(found["choices"], expected["choices"]);
    assert_eq!(found["usage"]["prompt_tokens"], prompt.len());
    // An empty suffix is none.
    let none = app.ask(PATH, &with(body.clone(), "suffix", "")).await;
    assert_eq!(none["usage"]["prompt_tokens"], ids(before).await.len());
    let streamed = app.events(PATH, &with(body.clone(), "stream", true)).await;
    assert_eq!(streamed.text(0), found["choices"][0]["text"].as_str().expect("a text"));
    // Its end tokens end a gap too.
    let forced = with(with(body.clone(), "logit_bias", json!({"515": 100})), "max_tokens", 5);
    let ended = app.ask(PATH, &forced).await;
    assert_eq!(
        (&ended["choices"][0]["finish_reason"], &ended["usage"]["completion_tokens"]),
        (&json!("stop"), &json!(1))
    );

    for (name, value) in [("echo", json!(true)), ("prompt_logprobs", json!(1)), ("prompt", json!([1, 2]))] {
        let (status, error) = app.refused(PATH, &with(body.clone(), name, value)).await;
        assert_eq!((status, error["param"].as_str()), (400, Some("suffix")), "{error}");
    }
    let (status, error) = app.refused(PATH, &with(body, "model", CHAT)).await;
    let found = (status, error["code"].as_str(), error["param"].as_str());
    assert_eq!(found, (400, Some("unsupported_parameter"), Some("suffix")), "{error}");
    let model = app.get("/v1/models/coder").send().await.expect("it answers");
    let model: Value = model.json().await.expect("it is JSON");
    assert_eq!(model["capabilities"]["infill"], true);
}

#[tokio::test]
async fn of_several_answers_the_likeliest_are_shown_and_all_are_counted() {
    let app = TestApp::start().await;
    let body = json!({"model": CHAT, "prompt": [[303, 324], [14, 15]], "max_tokens": 8, "temperature": 1.5,
        "seed": 7, "n": 6, "ignore_eos": true, "logprobs": 0});
    let all = app.ask(PATH, &body).await;
    let mean = |choice: &Value| {
        let logprobs = choice["logprobs"]["token_logprobs"].as_array().expect("numbers");
        logprobs.iter().map(|number| number.as_f64().expect("a number")).sum::<f64>() / logprobs.len() as f64
    };
    let choices = all["choices"].as_array().expect("choices");
    let best = app.ask(PATH, &with(with(body.clone(), "n", 2), "best_of", 6)).await;
    let mut expected = Vec::new();
    for prompt in choices.chunks(6) {
        let mut ranked: Vec<&Value> = prompt.iter().collect();
        ranked.sort_by(|a, b| mean(b).total_cmp(&mean(a)));
        expected.extend(ranked[..2].iter().map(|choice| choice["text"].clone()));
    }
    let found: Vec<Value> =
        best["choices"].as_array().expect("choices").iter().map(|one| one["text"].clone()).collect();
    assert_eq!(found, expected);
    assert_eq!(best["choices"][3]["index"], 3);
    for name in ["prompt_tokens", "completion_tokens", "total_tokens"] {
        assert_eq!(best["usage"][name], all["usage"][name], "{name}");
    }
    // Log-probabilities that were not asked for are not shown; those of the prompt have no part in it.
    let mut quiet = with(with(with(body.clone(), "n", 2), "best_of", 6), "echo", true);
    quiet.as_object_mut().expect("an object").remove("logprobs");
    let quiet = app.ask(PATH, &quiet).await;
    assert!(quiet["choices"][0]["logprobs"].is_null());
    for (choice, expected) in quiet["choices"].as_array().expect("choices").iter().zip(&expected) {
        let text = choice["text"].as_str().expect("a text");
        assert!(text.ends_with(expected.as_str().expect("a text")), "{text} {expected}");
    }
    for (name, value) in [("best_of", json!(1)), ("best_of", json!(65)), ("best_of", json!("2"))] {
        let (status, error) = app.refused(PATH, &with(with(body.clone(), "n", 2), name, value)).await;
        assert_eq!((status, error["param"].as_str()), (400, Some("best_of")), "{error}");
    }
    let streamed = with(with(with(body, "n", 2), "best_of", 3), "stream", true);
    assert_eq!(app.refused(PATH, &streamed).await.1["param"], "best_of");
}

#[tokio::test]
async fn what_the_model_thought_of_a_prompt_is_told_beside_the_answer() {
    let app = TestApp::start().await;
    let prompt = prompts().into_iter().find(|prompt| prompt["text"].is_string()).expect("one with a text");
    let ids = prompt["ids"].as_array().expect("ids");
    let body = with(greedy(&prompt["text"], 4), "prompt_logprobs", 2);
    let answer = app.ask(PATH, &body).await;
    let choice = &answer["choices"][0];
    let plain = app.ask(PATH, &greedy(&prompt["text"], 4)).await;
    assert_eq!((&choice["text"], &choice["logprobs"]), (&plain["choices"][0]["text"], &Value::Null));
    assert!(plain["choices"][0].get("prompt_logprobs").is_none());
    let found = choice["prompt_logprobs"].as_array().expect("entries");
    assert_eq!(found.len(), ids.len());
    assert!(found[0].is_null());
    let echo = with(with(greedy(&prompt["text"], 0), "echo", true), "logprobs", 2);
    let echo = app.ask(PATH, &echo).await;
    for (index, id) in ids.iter().enumerate().skip(1) {
        let own = &found[index][id.to_string()];
        let expected = &echo["choices"][0]["logprobs"]["token_logprobs"][index];
        assert!(
            (own["logprob"].as_f64().expect("a number") - expected.as_f64().expect("a number")).abs() < 1e-6
        );
        assert!(
            found[index].as_object().is_some_and(|entry| (2..=3).contains(&entry.len())),
            "{}",
            found[index]
        );
    }
    let events = app.events(PATH, &with(body, "stream", true)).await;
    assert_eq!(events.data[0]["choices"][0]["prompt_logprobs"], choice["prompt_logprobs"]);
    assert_eq!(events.text(0), choice["text"].as_str().expect("a text"));
    let none = app.ask(PATH, &with(greedy(&prompt["ids"], 0), "prompt_logprobs", 0)).await;
    let entry = &none["choices"][0]["prompt_logprobs"][1];
    assert_eq!(entry.as_object().map(serde_json::Map::len), Some(1), "{entry}");
}
