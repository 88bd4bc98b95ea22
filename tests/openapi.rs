//! The description of the API, as programs in another language read it: a validator, a fuzzer, a client made from it.
//!
//! Runs `tests/openapi/check.py` in a virtual environment of its own (made on first use), against a sample of an API and
//! against the real server.

#[path = "common/api.rs"]
mod api;
#[path = "common/app.rs"]
mod app;
mod clients;
#[path = "database/mod.rs"]
mod database;
#[path = "openapi/sample.rs"]
mod sample;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::Duration;

use api::Api;
use app::{CHAT, OWNER, OWNER_PASSWORD, TestApp};
use clients::workspace;
use sample::{ADMIN, Fault, MODEL, OTHER, PASSWORD};
use sconce::http::{Bounds, serve};
use serde_json::{Value, json};
use tokio::net::TcpListener;

fn said(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The Python of a virtual environment that has the tools.
fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    let requirements = workspace().join("tests/openapi/requirements.txt");
    PYTHON.get_or_init(|| clients::python("openapi-environment", &requirements))
}

/// Runs a check; whether it is content, and what it said.
async fn check(arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(python());
    command.arg(workspace().join("tests/openapi/check.py")).args(arguments);
    let ran = tokio::task::spawn_blocking(move || command.output()).await.expect("it does not panic");
    let output = ran.expect("python runs");
    (output.status.success(), said(&output))
}

/// Serves the sample; its address.
async fn start(fault: Fault) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("it listens"));
    tokio::spawn(serve(
        listener,
        sample::app(fault),
        Bounds::of_process(Duration::from_secs(60)),
        std::future::pending(),
    ));
    url
}

async fn validate(document: &[u8]) -> (bool, String) {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), document).expect("it can be written");
    check(&["validate", &file.path().to_string_lossy()]).await
}

#[tokio::test]
async fn the_document_is_valid_openapi_3_0() {
    let (is_valid, said) = validate(&sample::documents().for_most).await;
    assert!(is_valid, "{said}");
    println!("{said}");
}

#[tokio::test]
async fn the_servers_own_document_is_valid_openapi_3_0() {
    let app = TestApp::start().await;
    let document = app.get("/api/v1/openapi.json").send().await.expect("it answers");
    let document = document.bytes().await.expect("it is all there");
    let (is_valid, said) = validate(&document).await;
    assert!(is_valid, "{said}");
    let document: Value = serde_json::from_slice(&document).expect("it is JSON");
    assert_eq!(document["info"]["title"], "sconce");
    names_are_of_one_thing_each(&document);
}

/// The tokens of the owner and of another administrator.
async fn two_administrators(app: &TestApp) -> (String, String) {
    let owner = Api::owner(app).await;
    let password = "velvet-harbour-spruce-73";
    let new =
        json!({"username": "second", "password": password, "role": "admin", "must_change_password": false});
    let made = owner.post("/admin/users", new).await;
    assert_eq!(made.status, 201, "{}", made.text);
    (owner.token, app.sign_in("second", password).await)
}

#[tokio::test]
async fn the_server_keeps_to_its_document_whatever_it_is_sent() {
    let ranker = format!("tiny-rank={}", app::golden("bert_cross_encoder").display());
    let app = TestApp::start_with(&[("model", &ranker)]).await;
    let (owner, second) = two_administrators(&app).await;
    let (is_right, said) = check(&["fuzz", &app.url, &owner, &second]).await;
    println!("{said}");
    assert!(is_right, "{said}");
}

#[tokio::test]
async fn a_client_made_from_the_servers_document_signs_in_makes_a_key_and_chats() {
    let app = TestApp::start().await;
    let (is_right, said) = check(&["client", &app.url, OWNER, OWNER_PASSWORD, CHAT]).await;
    assert!(is_right, "{said}");
    for path in ["/api/v1/chat/completions: ", "/v1/chat/completions: "] {
        assert!(said.lines().any(|line| line.starts_with(path)), "{said}");
    }
}

/// The server's own document.
async fn document(app: &TestApp) -> Value {
    app.get("/api/v1/openapi.json").send().await.expect("it answers").json().await.expect("it is JSON")
}

#[tokio::test]
async fn what_is_in_the_document_is_served() {
    let app = TestApp::start().await.without_key();
    let status = async |method: &str, path: &str| {
        let method = method.to_uppercase().parse().expect("a method");
        let request = app.client.request(method, format!("{}{path}", app.url));
        request.send().await.expect("it answers").status().as_u16()
    };
    assert_eq!((status("get", "/api/v1/nothing").await, status("put", "/version").await), (404, 405));
    let document = document(&app).await;
    let mut operations = 0;
    for (path, item) in document["paths"].as_object().expect("there are paths") {
        let (path, methods) = (path.replace(['{', '}'], "x"), item.as_object().expect("it is an object"));
        for (method, operation) in methods {
            let status = status(method, &path).await;
            match operation["security"] == json!([]) {
                // Nobody asks with nothing: some of these answer, and some say what is missing.
                true => assert!(![404, 405].contains(&status), "{method} {path}: {status}"),
                false => assert_eq!(status, 401, "{method} {path}"),
            }
            operations += 1;
        }
    }
    assert!(operations > 50, "{operations}");
}

#[test]
fn what_is_served_is_in_the_document() {
    // `routes!` puts a route into the router and into the document; `route` into the router alone.
    let mut files = vec![workspace().join("src")];
    let mut read = 0;
    while let Some(file) = files.pop() {
        if file.is_dir() {
            files.extend(
                file.read_dir().expect("it can be read").map(|entry| entry.expect("it is there").path()),
            );
            continue;
        }
        let text = std::fs::read_to_string(&file).expect("it is text");
        let product = text.split("#[cfg(test)]\nmod tests {").next().expect("there is a first part");
        read += 1;
        if file.ends_with("http/openapi/page.rs") {
            continue;
        }
        for word in [".route(", ".route_service(", ".nest(", ".nest_service(", ".fallback_service("] {
            assert!(!product.contains(word), "{} serves what the document does not say", file.display());
        }
    }
    assert!(read > 100, "{read}");
}

#[tokio::test]
async fn the_examples_are_those_of_the_specification() {
    let app = TestApp::start().await;
    let document = document(&app).await;
    let chat = &document["paths"]["/api/v1/chat/completions"]["post"];
    let asked = &chat["requestBody"]["content"]["application/json"]["examples"]["whole"]["value"];
    let messages = json!([{"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Hello!"}]);
    let expected = json!({"model": "gpt-4o", "messages": messages, "stream": false, "temperature": 0.7, "max_tokens": 1024});
    assert_eq!(asked, &expected);

    let mut answered = document["components"]["schemas"]["ChatCompletion"]["example"].clone();
    answered["id"] = "chatcmpl-xxxxxxxx".into();
    let said = json!({"role": "assistant", "content": "Hello there! How can I help you today?"});
    let expected = json!({"id": "chatcmpl-xxxxxxxx", "object": "chat.completion", "created": 1677652288,
        "model": "gpt-4o", "choices": [{"index": 0, "message": said, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21}});
    assert_eq!(answered.to_string(), expected.to_string());

    let streamed = chat["responses"]["200"]["content"]["text/event-stream"]["example"].as_str();
    let head = r#"data: {"id":"chatcmpl-xxx","object":"chat.completion.chunk","created":1694268190,"model":"gpt-4o","choices":"#;
    let pieces = [r#"{"role":"assistant","content":""}"#, r#"{"content":"Hello"}"#, r#"{"content":"!"}"#];
    let pieces =
        pieces.map(|delta| format!("{head}[{{\"index\":0,\"delta\":{delta},\"finish_reason\":null}}]}}\n\n"));
    assert_eq!(streamed, Some(format!("{}data: [DONE]\n\n", pieces.concat()).as_str()));
}

/// Of two types with one name only one gets into the document: the other is then written out where it is an argument.
fn names_are_of_one_thing_each(document: &Value) {
    let schemas = document["components"]["schemas"].as_object().expect("there are schemas");
    for (name, schema) in schemas {
        let Some((_, argument)) = name.split_once('_') else { continue };
        if schemas.get(argument).is_some_and(|schema| schema.get("properties").is_some()) {
            let reference = format!("#/components/schemas/{argument}");
            assert!(schema.to_string().contains(&reference), "there are two types of the name {argument}");
        }
    }
}

#[tokio::test]
async fn the_validator_refuses_the_newer_document_under_the_older_number() {
    for document in
        [sample::untouched(), serde_json::from_slice(&sample::documents().newer).expect("it is JSON")]
    {
        let mut document: Value = document;
        document["openapi"] = "3.0.3".into();
        let (is_valid, said) = validate(document.to_string().as_bytes()).await;
        assert!(!is_valid, "{said}");
    }
    let (is_valid, said) = validate(&sample::documents().newer).await;
    assert!(!is_valid && said.contains("not 3.0.3"), "{said}");
}

#[tokio::test]
async fn the_page_keeps_its_own_policy_and_all_else_the_strictest() {
    let url = start(Fault::None).await;
    for (path, policy) in
        [("/docs", "script-src 'self';"), ("/api/v1/me", "default-src 'none'; frame-ancestors")]
    {
        let answer = reqwest::get(format!("{url}{path}")).await.expect("it answers");
        let headers = answer.headers();
        let given = headers["content-security-policy"].to_str().expect("it is text");
        assert!(given.contains(policy) && !given.contains("unsafe"), "{path}: {given}");
        assert_eq!(headers["x-content-type-options"], "nosniff");
    }
}

#[tokio::test]
async fn a_server_that_keeps_to_its_document_is_found_right() {
    let url = start(Fault::None).await;
    let (is_right, said) = check(&["fuzz", &url, ADMIN, OTHER]).await;
    assert!(is_right, "{said}");
    // Without another's token those operations are left out by which the caller would lose itself.
    let (is_right, said) = check(&["fuzz", &url, ADMIN]).await;
    assert!(is_right && said.contains("left out") && said.contains("POST /api/v1/auth/logout"), "{said}");
}

#[tokio::test]
async fn a_server_that_does_not_is_found_wrong() {
    for (fault, finding) in [
        (Fault::Teapot, "Undocumented status code"),
        (Fault::Broken, "Server error"),
        (Fault::Shape, "Response violates schema"),
        (Fault::Header, "Missing required response headers"),
        (Fault::Stream, "an event of no known kind"),
        (Fault::Event, "an event that is not as described"),
    ] {
        let url = start(fault).await;
        let (is_right, said) = check(&["fuzz", &url, ADMIN, OTHER]).await;
        assert!(!is_right && said.contains(finding), "{fault:?}: {said}");
    }
}

#[tokio::test]
async fn a_client_made_from_it_signs_in_makes_a_key_and_chats() {
    let url = start(Fault::None).await;
    let (is_right, said) = check(&["client", &url, "admin", PASSWORD, MODEL]).await;
    assert!(is_right && said.matches("You said: Say hello.").count() == 2, "{said}");
    let (is_right, said) = check(&["client", &url, "admin", "wrong", MODEL]).await;
    assert!(!is_right && said.contains("POST /api/v1/auth/login: 401"), "{said}");
}
