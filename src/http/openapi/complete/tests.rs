//! What each operation is given, and what it keeps.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{complete, meaning};

fn completed(paths: Value) -> Value {
    let mut document = json!({"openapi": "3.1.0", "paths": paths});
    complete(&mut document);
    document
}

fn statuses(document: &Value, path: &str, method: &str) -> Vec<u16> {
    let responses = document["paths"][path][method]["responses"].as_object().expect("there are responses");
    responses.keys().map(|status| status.parse().expect("a status is a number")).collect()
}

#[test]
fn an_operation_has_the_errors_it_can_give_and_no_others() {
    let body = json!({"content": {}});
    let document = completed(json!({
        "/health": {"get": {"security": [{}]}},
        "/api/v1/admin/users": {"get": {"parameters": [{}]}, "post": {"requestBody": body}},
        "/api/v1/admin/users/{userId}": {"delete": {}},
        "/api/v1/auth/login": {"post": {"requestBody": body, "security": [{}]}},
        "/api/v1/chat/completions": {"post": {"requestBody": body}},
        "/api/v1/me": {"get": {}}
    }));
    let expected: [(&str, &str, &[u16]); 7] = [
        ("/health", "get", &[421, 431, 500]),
        ("/api/v1/me", "get", &[401, 403, 421, 429, 431, 500, 503]),
        ("/api/v1/admin/users", "get", &[400, 401, 403, 421, 429, 431, 500, 503]),
        ("/api/v1/admin/users", "post", &[400, 401, 403, 408, 409, 413, 415, 421, 429, 431, 500, 503]),
        ("/api/v1/admin/users/{userId}", "delete", &[400, 401, 403, 404, 409, 421, 429, 431, 500, 503]),
        ("/api/v1/auth/login", "post", &[400, 408, 413, 415, 421, 429, 431, 500, 503]),
        (
            "/api/v1/chat/completions",
            "post",
            &[400, 401, 403, 404, 408, 413, 415, 421, 429, 431, 500, 503, 504],
        ),
    ];
    for (path, method, expected) in expected {
        assert_eq!(statuses(&document, path, method), expected, "{method} {path}");
    }
}

#[test]
fn each_surface_has_its_own_errors() {
    let document = completed(json!({"/v1/models": {"get": {}}, "/api/v1/me": {"get": {}}}));
    let reference = |path: &str| document["paths"][path]["get"]["responses"]["401"]["$ref"].clone();
    assert_eq!(reference("/v1/models"), "#/components/responses/OpenAiError401");
    assert_eq!(reference("/api/v1/me"), "#/components/responses/Error401");
    for (name, schema) in [("OpenAiError401", "OpenAiErrorEnvelope"), ("Error401", "ErrorEnvelope")] {
        let response = &document["components"]["responses"][name];
        let used = &response["content"]["application/json"]["schema"]["$ref"];
        assert_eq!(*used, format!("#/components/schemas/{schema}"));
        assert!(document["components"]["schemas"][schema].is_object());
        let headers: Vec<_> = response["headers"].as_object().expect("there are headers").keys().collect();
        assert_eq!(headers, ["X-Request-Id", "x-error-code", "WWW-Authenticate"]);
        assert!(
            response["description"].as_str().is_some_and(|text| text.contains("- 40001: Invalid API Key"))
        );
    }
    assert!(document["components"]["responses"].get("Error404").is_none(), "nobody gives it");
}

#[test]
fn references_lead_somewhere() {
    let mut document = completed(json!({"/v1/a/{b}": {"post": {"requestBody": {}}}, "/api/{c}": {"put": {
        "responses": {"200": {"description": ""}, "429": {"description": ""}}
    }}}));
    let text = document.to_string();
    let references: BTreeSet<&str> =
        text.split("\"$ref\":\"#").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(references.len() > 20, "{references:?}");
    for reference in references {
        assert!(document.pointer(reference).is_some(), "{reference}");
    }
    let once = document.clone();
    complete(&mut document);
    assert_eq!(document, once, "a second time changes nothing");
}

#[test]
fn what_a_handler_says_is_kept() {
    let document = completed(json!({"/api/v1/a": {"get": {"responses": {
        "200": {"description": "fine", "headers": {"X-Request-Id": {"description": "own"}}},
        "201": {},
        "402": {"description": "no money"},
        "404": {},
        "500": {"description": "own", "content": {"text/plain": {}}}
    }}}}));
    let responses = &document["paths"]["/api/v1/a"]["get"]["responses"];
    assert_eq!(responses["200"]["headers"]["X-Request-Id"]["description"], "own");
    assert!(responses["200"].get("content").is_none());
    assert_eq!(responses["201"]["description"], "", "a response must have one");
    assert_eq!(responses["402"]["description"], "no money");
    assert!(responses["402"]["content"]["application/json"].is_object());
    assert_eq!(responses["404"]["description"], meaning(404));
    assert_eq!(responses["500"]["content"], json!({"text/plain": {}}));
    let headers = |status: &str| responses[status]["headers"].as_object().expect("it has some");
    assert!(headers("402").contains_key("x-error-code"));
    assert!(!headers("500").contains_key("x-error-code"), "what has a body of its own is no error of ours");
}

#[test]
fn what_is_said_to_readers_of_the_code_is_left_out() {
    let document = completed(json!({"/api/v1/a": {
        "get": {"description": "More.\n\n# Errors\nMany."},
        "put": {"description": "# Errors\nMany."},
        "post": {"description": "No errors."}
    }}));
    let said = |method: &str| document["paths"]["/api/v1/a"][method].get("description").cloned();
    assert_eq!(said("get"), Some("More.".into()));
    assert_eq!(said("put"), None);
    assert_eq!(said("post"), Some("No errors.".into()));
}

#[test]
fn a_token_is_wanted_unless_the_handler_says_otherwise() {
    let document = completed(json!({
        "/api/v1/a": {"get": {}, "post": {"security": [{}]}, "put": {"security": [{"other": []}]}}
    }));
    let security = |method: &str| document["paths"]["/api/v1/a"][method]["security"].clone();
    assert_eq!(security("get"), json!([{"bearer": []}]));
    assert_eq!(security("post"), json!([]));
    assert_eq!(security("put"), json!([{"other": []}]));
    assert_eq!(document["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
}
