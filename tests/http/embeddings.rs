//! `/v1/embeddings`: inputs of all kinds, both encodings, and what is refused.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::altered::{alter, copied, named};
use crate::app::{CHAT, EMBED, TestApp, answers, golden, with};

const PATH: &str = "/v1/embeddings";

fn vector(value: &Value) -> Vec<f64> {
    value.as_array().expect("numbers").iter().map(|number| number.as_f64().expect("a number")).collect()
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[tokio::test]
async fn texts_are_embedded_as_the_reference_does() {
    let app = TestApp::start().await;
    let golden = answers("bert");
    let sentences = golden["sentences"].as_array().expect("sentences");
    let texts: Vec<_> = sentences
        .iter()
        .filter(|sentence| sentence["text"].as_str().is_some_and(|text| !text.is_empty()))
        .collect();
    assert!(texts.len() > 1);
    let input: Vec<&Value> = texts.iter().map(|sentence| &sentence["text"]).collect();
    let answer = app.ask(PATH, &json!({"model": EMBED, "input": input})).await;
    assert_eq!((answer["object"].as_str(), answer["model"].as_str()), (Some("list"), Some(EMBED)));
    for (index, sentence) in texts.iter().enumerate() {
        let found = &answer["data"][index];
        assert_eq!(
            (found["object"].as_str(), found["index"].as_u64()),
            (Some("embedding"), Some(index as u64))
        );
        let likeness = cosine(&vector(&found["embedding"]), &vector(&sentence["embedding"]));
        assert!(likeness > 1.0 - 1e-4, "{likeness} for {}", sentence["text"]);
    }
    let tokens = answer["usage"]["prompt_tokens"].as_u64().expect("a count");
    assert!(tokens > 0 && answer["usage"]["total_tokens"] == tokens);
}

#[tokio::test]
async fn token_ids_and_base64_say_the_same_as_text_and_floats() {
    let app = TestApp::start().await;
    let golden = answers("bert");
    let sentence = golden["sentences"]
        .as_array()
        .expect("sentences")
        .iter()
        .find(|s| s["text"].is_string())
        .expect("one with a text");
    let body = json!({"model": EMBED, "input": sentence["text"], "user": "someone"});
    let text = app.ask(PATH, &body).await;
    let floats = vector(&text["data"][0]["embedding"]);
    for ids in [json!(sentence["ids"]), json!([sentence["ids"]])] {
        let answer = app.ask(PATH, &with(body.clone(), "input", ids)).await;
        assert_eq!(vector(&answer["data"][0]["embedding"]), floats);
        assert_eq!(answer["usage"], text["usage"]);
    }
    let packed = app.ask(PATH, &with(body, "encoding_format", "base64")).await;
    let bytes = STANDARD.decode(packed["data"][0]["embedding"].as_str().expect("text")).expect("base64");
    let unpacked: Vec<f64> = bytes
        .chunks_exact(4)
        .map(|four| f64::from(f32::from_le_bytes(four.try_into().expect("four"))))
        .collect();
    assert_eq!(unpacked.len(), floats.len());
    assert!(unpacked.iter().zip(&floats).all(|(a, b)| (a - b).abs() < 1e-6));
}

#[tokio::test]
async fn what_cannot_be_embedded_is_refused_by_name() {
    let app = TestApp::start().await;
    let fine = json!({"model": EMBED, "input": "x"});
    for (name, value, code) in [
        ("input", json!(null), "missing_required_parameter"),
        ("input", json!(""), "invalid_value"),
        ("input", json!([]), "invalid_value"),
        ("input", json!([""]), "invalid_value"),
        ("input", json!([[]]), "invalid_value"),
        ("input", json!(7), "invalid_value"),
        ("input", json!({"text": "x"}), "invalid_value"),
        ("input", json!(["x", 7]), "invalid_value"),
        ("input", json!([1, "x"]), "invalid_value"),
        ("input", json!([[1.5]]), "invalid_value"),
        ("input", json!([[-1]]), "invalid_value"),
        ("input", json!([[512]]), "invalid_value"),
        ("input", json!([[4_294_967_296_u64]]), "invalid_value"),
        ("input", json!(vec!["x"; 2049]), "invalid_value"),
        ("input", json!([vec![1; 200]]), "context_length_exceeded"),
        ("input", json!("word ".repeat(300)), "context_length_exceeded"),
        ("encoding_format", json!("int8"), "invalid_value"),
        ("dimensions", json!(8), "unsupported_parameter"),
        ("dimensions", json!(65), "unsupported_parameter"),
        ("prompt_name", json!("query"), "unsupported_parameter"),
        ("prompt_name", json!(7), "invalid_value"),
        ("input_type", json!("query"), "unsupported_parameter"),
        ("input_type", json!("nonsense"), "invalid_value"),
        ("truncate_prompt_tokens", json!(8), "unsupported_parameter"),
        ("dimensions", json!(0), "invalid_value"),
        ("user", json!(7), "invalid_value"),
        ("colour", json!("red"), "unknown_parameter"),
        ("model", json!(CHAT), "unsupported_model"),
        ("model", json!(7), "invalid_value"),
    ] {
        let (status, error) = app.refused(PATH, &with(fine.clone(), name, value.clone())).await;
        let found = (status, error["code"].as_str(), error["param"].as_str());
        assert_eq!(found, (400, Some(code), Some(name)), "{value} {error}");
    }
    assert_eq!(app.ask(PATH, &with(fine.clone(), "dimensions", 64)).await["data"][0]["index"], 0);
    let (status, error) = app.refused(PATH, &with(fine, "model", "nobody")).await;
    assert_eq!((status, error["code"].as_str()), (404, Some("model_not_found")));
}

#[tokio::test]
async fn decoders_and_other_encoders_embed_as_the_reference_does() {
    let models = ["qwen3_embedding", "xlm_roberta"];
    let arguments = models.map(|name| format!("{name}={}", golden(name).display()));
    let settings: Vec<_> = arguments.iter().map(|argument| ("model", argument.as_str())).collect();
    let app = TestApp::start_with(&settings).await;
    for name in models {
        let golden = answers(name);
        let sentences = golden["sentences"].as_array().expect("sentences").iter();
        let sentences: Vec<&Value> = sentences.filter(|sentence| sentence["text"] != "").collect();
        assert!(sentences.len() > 4, "{name}");
        let texts: Vec<&Value> = sentences.iter().map(|sentence| &sentence["text"]).collect();
        let ids: Vec<&Value> = sentences.iter().map(|sentence| &sentence["ids"]).collect();
        for input in [json!(texts), json!(ids)] {
            if input.as_array().is_some_and(|inputs| inputs.iter().any(Value::is_null)) {
                continue;
            }
            let answer = app.ask(PATH, &json!({"model": name, "input": input})).await;
            for (index, sentence) in sentences.iter().enumerate() {
                let found = vector(&answer["data"][index]["embedding"]);
                let expected = vector(&sentence["embedding"]);
                assert_eq!(found.len(), expected.len());
                let likeness = cosine(&found, &expected);
                assert!(likeness > 1.0 - 1e-4, "{name}: {likeness} for {}", sentence["text"]);
            }
        }
    }
}

#[tokio::test]
async fn a_batch_of_2048_inputs_is_embedded_in_its_order() {
    let app = TestApp::start().await;
    let words = ["stone", "river", "warm cat", "mill", "red wool", "lake", "bridge", "fish"];
    let single = app.ask(PATH, &json!({"model": EMBED, "input": words})).await;
    let inputs: Vec<&str> = (0..2048).map(|number| words[number % words.len()]).collect();
    let answer = app.ask(PATH, &json!({"model": EMBED, "input": inputs})).await;
    let data = answer["data"].as_array().expect("vectors");
    assert_eq!(data.len(), 2048);
    for (index, found) in data.iter().enumerate() {
        assert_eq!(found["index"], index);
        assert_eq!(found["embedding"], single["data"][index % words.len()]["embedding"], "{index}");
    }
}

#[tokio::test]
async fn vectors_are_cut_where_the_models_files_say_that_they_may_be() {
    let folder = copied("bert");
    alter(&folder, "config.json", |config| config["matryoshka_dimensions"] = json!([16, 32]));
    let app = TestApp::start_with(&[("model", &named("cut", &folder))]).await;
    let body = json!({"model": "cut", "input": "The cat sleeps."});
    let whole = vector(&app.ask(PATH, &body).await["data"][0]["embedding"]);
    for length in [16, 32, 64] {
        let answer = app.ask(PATH, &with(body.clone(), "dimensions", length)).await;
        let found = vector(&answer["data"][0]["embedding"]);
        assert_eq!(found.len(), length);
        assert!((found.iter().map(|x| x * x).sum::<f64>() - 1.0).abs() < 1e-5, "{length}");
        assert!(cosine(&found, &whole[..length]) > 1.0 - 1e-6, "{length}");
    }
    let (status, error) = app.refused(PATH, &with(body, "dimensions", 17)).await;
    assert_eq!((status, error["param"].as_str()), (400, Some("dimensions")));
    assert!(error["message"].as_str().is_some_and(|text| text.contains("[16, 32]")), "{error}");
}

#[tokio::test]
async fn a_models_own_prompts_stand_before_texts() {
    let folder = copied("bert");
    alter(&folder, "config_sentence_transformers.json", |settings| {
        *settings =
            json!({"prompts": {"query": "what is ", "passage": "stone "}, "default_prompt_name": "passage"});
    });
    let app = TestApp::start_with(&[("model", &named("prompted", &folder))]).await;
    let body = json!({"model": "prompted", "input": "a river"});
    let said = async |body: Value| vector(&app.ask(PATH, &body).await["data"][0]["embedding"]);
    let plain = async |text: &str| said(json!({"model": EMBED, "input": text})).await;
    assert_eq!(said(body.clone()).await, plain("stone a river").await);
    let named = with(body.clone(), "prompt_name", "query");
    assert_eq!(said(named).await, plain("what is a river").await);
    for (purpose, text) in [("query", "what is a river"), ("search_document", "stone a river")] {
        assert_eq!(said(with(body.clone(), "input_type", purpose)).await, plain(text).await);
    }
    for (name, value) in [("prompt_name", "nonsense"), ("prompt_name", "Query")] {
        let (status, error) = app.refused(PATH, &with(body.clone(), name, value)).await;
        assert_eq!((status, error["param"].as_str()), (400, Some(name)), "{error}");
        assert!(error["message"].as_str().is_some_and(|text| text.contains("passage, query")), "{error}");
    }
    let ids = with(with(body, "input", json!([5, 6])), "prompt_name", "query");
    assert_eq!(app.refused(PATH, &ids).await.1["param"], "prompt_name");
}
