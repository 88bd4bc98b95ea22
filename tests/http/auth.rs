//! The static key: what needs it, and what a wrong one gets.

use reqwest::header::{AUTHORIZATION, HeaderValue};
use serde_json::json;

use crate::app::{CHAT, TestApp, chat, read_error};

const KEY: &str = "sk-test-key";

#[tokio::test]
async fn all_of_v1_needs_the_key_and_nothing_else_does() {
    let app = TestApp::start_with(&[("api-key", KEY)]).await.without_key();
    let open = ["/health", "/healthz", "/health/ready", "/readyz", "/metrics", "/version"];
    for path in open {
        assert_eq!(app.get(path).send().await.expect("an answer").status().as_u16(), 200, "{path}");
    }
    for path in ["/v1/models", "/v1/models/tiny"] {
        let (status, error) = read_error(app.get(path).send().await.expect("an answer")).await;
        assert_eq!((status, error["code"].as_str()), (401, Some("missing_api_key")), "{path}");
    }
    // The key is asked for before the body is looked at.
    for path in ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"] {
        for body in [json!({}), json!([]), chat("x")] {
            let (status, error) = app.refused(path, &body).await;
            assert_eq!((status, error["type"].as_str()), (401, Some("authentication_error")), "{path}");
        }
    }
    let response = app.get("/v1/models").bearer_auth(KEY).send().await.expect("an answer");
    assert_eq!(response.status().as_u16(), 200);
}

#[tokio::test]
async fn only_the_very_key_opens() {
    let app = TestApp::start_with(&[("api-key", KEY)]).await.without_key();
    let long = format!("Bearer {}", "x".repeat(10_000));
    let values = [
        "",
        "Bearer",
        "Bearer ",
        "Bearer  sk-test-key",
        "Bearer sk-test-ke",
        "Bearer sk-test-keyy",
        "Basic c2stdGVzdC1rZXk=",
        "sk-test-key",
        "Bearer ' OR 1=1--",
        "Bearer %",
        &long,
    ];
    for value in values {
        let value = HeaderValue::from_bytes(value.as_bytes()).expect("a header");
        let response = app.get("/v1/models").header(AUTHORIZATION, &value).send().await.expect("an answer");
        assert_eq!(read_error(response).await.0, 401, "{value:?}");
    }
    let latin = HeaderValue::from_bytes(b"Bearer \xe9").expect("a header");
    let response = app.get("/v1/models").header(AUTHORIZATION, latin).send().await.expect("an answer");
    assert_eq!(read_error(response).await.1["code"], "invalid_api_key");
    let twice = app.get("/v1/models").bearer_auth(KEY).header(AUTHORIZATION, format!("Bearer {KEY}"));
    assert_eq!(read_error(twice.send().await.expect("an answer")).await.0, 401);
    let elsewhere = app.get(&format!("/v1/models?api_key={KEY}")).header("x-api-key", KEY);
    assert_eq!(read_error(elsewhere.send().await.expect("an answer")).await.0, 401);
    let scheme = app.get(&format!("/v1/models/{CHAT}")).header(AUTHORIZATION, format!("bearer {KEY}"));
    assert_eq!(scheme.send().await.expect("an answer").status().as_u16(), 200);
}
