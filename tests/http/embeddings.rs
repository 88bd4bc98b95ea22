//! `/v1/embeddings`: inputs of all kinds, both encodings, and what is refused.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::app::{CHAT, EMBED, TestApp, answers, with};

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
