//! The web and hostile bodies: one test for each line C of the list of attacks that the platform must stand, and F6.

mod bodies;
mod browsers;
mod secrets;
mod slow_clients;

use serde_json::Value;

use crate::app::TestApp;

/// An operation of the API, as its own description has it.
struct Operation {
    method: String,
    /// With made-up ids in it.
    path: String,
    has_body: bool,
    /// The body may be left out.
    may_say_nothing: bool,
}

/// All operations, so that none that comes later is forgotten.
async fn operations(app: &TestApp) -> Vec<Operation> {
    let document: Value =
        app.get("/api/v1/openapi.json").send().await.expect("an answer").json().await.expect("JSON");
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        let parts = path.split('/').map(|part| if part.starts_with('{') { "nothing" } else { part });
        let plain = parts.collect::<Vec<_>>().join("/");
        for method in ["get", "post", "put", "patch", "delete"] {
            let operation = &item[method];
            if operation.is_object() {
                let body = &operation["requestBody"];
                all.push(Operation {
                    method: method.to_uppercase(),
                    path: plain.clone(),
                    has_body: body.is_object(),
                    may_say_nothing: body["required"] != true,
                });
            }
        }
    }
    assert!(all.len() > 40, "{}", all.len());
    all
}
