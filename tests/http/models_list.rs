//! `/v1/models` and `/v1/models/{id}`, ids with slashes included.

use serde_json::Value;

use crate::app::{CHAT, EMBED, TestApp, read_error};

async fn get(app: &TestApp, path: &str) -> Value {
    app.get(path).send().await.expect("an answer").json().await.expect("JSON")
}

#[tokio::test]
async fn the_list_names_what_can_be_asked_for() {
    let app = TestApp::start().await;
    let list = get(&app, "/v1/models").await;
    assert_eq!(list["object"], "list");
    let models = list["data"].as_array().expect("models");
    let ids: Vec<_> = models.iter().map(|model| model["id"].as_str().expect("a name")).collect();
    assert_eq!(ids, [CHAT, EMBED]);
    for model in models {
        assert_eq!((model["object"].as_str(), model["owned_by"].as_str()), (Some("model"), Some("sconce")));
        assert!(model["created"].as_u64().is_some_and(|seconds| seconds > 1_700_000_000), "{model}");
        assert!(model["parent"].is_null());
        assert_eq!(model["status"]["state"], "ready");
    }
    assert_eq!(models[0]["max_model_len"], 256);
    assert_eq!(models[0]["kind"], "causal");
}

#[tokio::test]
async fn one_model_is_retrieved_by_its_name() {
    let app = TestApp::start().await;
    let list = get(&app, "/v1/models").await;
    for (path, place) in [("tiny", 0), ("org/tiny-embed", 1), ("org%2Ftiny-embed", 1)] {
        let mut model = get(&app, &format!("/v1/models/{path}")).await;
        let members = model.as_object_mut().expect("an object");
        assert!(members.remove("capabilities").is_some_and(|found| found.is_object()), "{path}");
        assert_eq!(model, list["data"][place]);
    }
    for path in ["nobody", "TINY", "tiny%00", "%ff", "..%2f..%2fetc%2fpasswd", "tiny/"] {
        let (status, error) =
            read_error(app.get(&format!("/v1/models/{path}")).send().await.expect("an answer")).await;
        assert_eq!((status, error["code"].as_str()), (404, Some("model_not_found")), "{path}");
    }
}
