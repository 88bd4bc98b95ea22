//! What a model's document says of it, and how its own test went.

use serde_json::{Value, json};

use crate::altered::{alter, copied, named};
use crate::api::Api;
use crate::app::{CHAT, EMBED, TestApp, golden};

async fn document(app: &TestApp, id: &str) -> Value {
    app.get(&format!("/v1/models/{id}")).send().await.expect("it answers").json().await.expect("it is JSON")
}

#[tokio::test]
async fn a_model_that_generates_says_what_it_takes() {
    let app = TestApp::start().await;
    let model = document(&app, CHAT).await;
    // What OpenAI's clients know is where they look for it.
    assert_eq!((model["id"].as_str(), model["object"].as_str()), (Some(CHAT), Some("model")));
    let found = &model["capabilities"];
    assert_eq!(found["context_length"], 256);
    assert_eq!(found["modalities"], json!({"input": ["text"], "output": ["text"]}));
    assert_eq!((found["infill"].as_bool(), found["chat_template"].as_bool()), (Some(false), Some(true)));
    assert_eq!(found["quantisation"], "F32");
    let config = std::fs::read_to_string(golden("llama").join("config.json")).expect("it is there");
    let config: Value = serde_json::from_str(&config).expect("it is JSON");
    let number = |name: &str| config[name].as_u64().expect("a number");
    let head = config["head_dim"].as_u64().unwrap_or(number("hidden_size") / number("num_attention_heads"));
    let bytes = 2 * 2 * number("num_hidden_layers") * number("num_key_value_heads") * head;
    assert_eq!(found["cache_bytes_per_token"], bytes);
    assert!(found["embedding"].is_null() && found["ranking"].is_null());
    for (path, name) in [("/v1/chat/completions", "top_logprobs"), ("/v1/completions", "best_of")] {
        let endpoints = found["endpoints"].as_array().expect("paths");
        let parameters = found["parameters"][path].as_array().expect("names");
        assert!(endpoints.contains(&json!(path)) && parameters.contains(&json!(name)), "{found}");
    }
    let list: Value = app.get("/v1/models").send().await.expect("it answers").json().await.expect("JSON");
    assert!(list["data"][0].get("capabilities").is_none(), "{list}");
}

#[tokio::test]
async fn a_model_that_embeds_says_how() {
    let folder = copied("bert");
    alter(&folder, "config.json", |config| config["matryoshka_dimensions"] = json!([32, 16]));
    alter(&folder, "config_sentence_transformers.json", |settings| {
        *settings = json!({"prompts": {"query": "ask: ", "document": ""}, "default_prompt_name": null});
    });
    let app = TestApp::start_with(&[("model", &named("cut", &folder))]).await;
    let found = document(&app, "cut").await["capabilities"]["embedding"].clone();
    let expected = json!({"dimensions": 64, "shorter_dimensions": [16, 32], "pooling": "mean",
        "normalised": true, "prompt_names": ["document", "query"], "default_prompt_name": null});
    assert_eq!(found, expected);
    let plain = document(&app, EMBED).await["capabilities"].clone();
    assert_eq!(plain["embedding"]["shorter_dimensions"], json!([]));
    assert_eq!(plain["modalities"]["output"], json!(["embedding"]));
    assert!(plain["cache_bytes_per_token"].is_null());
}

#[tokio::test]
async fn a_models_own_test_shows_in_its_document_and_in_the_registry() {
    let broken = copied("qwen3");
    // A template whose turns end otherwise than the model stops, and one that cannot be rendered.
    alter(&broken, "tokenizer_config.json", |settings| {
        settings["chat_template"] =
            json!("{% for m in messages %}<tool_call>{{ m.content }}<|im_start|>{% endfor %}");
    });
    let _ = std::fs::remove_file(broken.path().join("chat_template.jinja"));
    let raising = copied("qwen3");
    alter(&raising, "tokenizer_config.json", |settings| {
        settings["chat_template"] = json!("{{ raise_exception('never') }}");
    });
    let _ = std::fs::remove_file(raising.path().join("chat_template.jinja"));
    let sound = format!("sound={}", golden("qwen3").display());
    let settings =
        [("model", sound), ("model", named("broken", &broken)), ("model", named("raising", &raising))];
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let app = TestApp::start_with(&settings).await;
    let owner = Api::owner(&app).await;
    for (id, template, tools, end) in [
        ("sound", "passed", "passed", "passed"),
        ("broken", "passed", "not_applicable", "failed"),
        ("raising", "failed", "failed", "failed"),
        (CHAT, "passed", "passed", "passed"),
    ] {
        let test = document(&app, id).await["capabilities"]["self_test"].clone();
        let results = ["template", "tools", "end_of_turn"].map(|name| test[name]["result"].clone());
        assert_eq!(results, [json!(template), json!(tools), json!(end)], "{id} {test}");
        let registry = owner.get(&format!("/admin/models/{id}")).await.data();
        let registry = &registry["status"]["self_test"];
        for name in ["template", "tools", "end_of_turn"] {
            assert_eq!(registry[name]["result"], test[name]["result"], "{id} {registry}");
        }
    }
    let test = document(&app, "broken").await["capabilities"]["self_test"]["end_of_turn"].clone();
    assert!(test["reason"].as_str().is_some_and(|reason| reason.contains("<|im_start|>")), "{test}");
}
