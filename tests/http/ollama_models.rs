//! What Ollama's clients ask of the models themselves: which there are, what they are, that they come and go.

use serde_json::{Value, json};

use crate::altered::{alter, copied};
use crate::api::Api;
use crate::app::{CHAT, EMBED, TestApp, golden, with};
use crate::ollama::{chat, refusal};

async fn get(app: &TestApp, path: &str) -> Value {
    app.get(path).send().await.expect("an answer").json().await.expect("it is JSON")
}

/// The names of the models that are loaded.
async fn running(app: &TestApp) -> Vec<Value> {
    let running = get(app, "/api/ps").await;
    running["models"].as_array().expect("models").iter().map(|model| model["name"].clone()).collect()
}

#[tokio::test]
async fn that_somebody_is_here_is_said_without_a_key() {
    let app = TestApp::start().await.without_key();
    let answer = app.get("/").send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.text().await.expect("a text"), "Ollama is running");
    let answer = app.client.head(format!("{}/", app.url)).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn models_are_listed_and_described() {
    let app = TestApp::start().await;
    let get = async |path: &str| get(&app, path).await;
    let tags = get("/api/tags").await;
    let names: Vec<_> =
        tags["models"].as_array().expect("models").iter().map(|model| model["name"].clone()).collect();
    assert_eq!(names, [CHAT, EMBED]);
    assert_eq!(tags["models"][0]["details"]["family"], "llama");
    let running = get("/api/ps").await;
    assert_eq!(running["models"][0]["context_length"], 256);
    assert!(running["models"][0]["size_vram"].is_u64() && running["models"][0]["expires_at"].is_string());
    assert_eq!(tags["models"][0]["details"]["format"], "safetensors");
    assert!(tags["models"][0]["details"]["quantization_level"].is_string());
    assert!(get("/api/version").await["version"].as_str().is_some_and(|version| version.starts_with("0.")));
    for name in [CHAT.to_owned(), format!("{CHAT}:latest")] {
        let shown = app.ask("/api/show", &json!({"model": name})).await;
        assert_eq!(shown["capabilities"], json!(["completion", "tools"]));
        assert_eq!(shown["model_info"]["llama.context_length"], 256);
        assert!(shown["template"].as_str().is_some_and(|template| template.contains("messages")), "{shown}");
        for name in ["modelfile", "parameters", "license"] {
            assert!(shown[name].is_string(), "{name}: {shown}");
        }
    }
    assert_eq!(app.ask("/api/show", &json!({"name": EMBED})).await["capabilities"], json!(["embedding"]));
    let tagged = app.ask("/api/chat", &with(chat("one two"), "model", format!("{CHAT}:latest"))).await;
    assert_eq!(tagged["model"], format!("{CHAT}:latest"));
}

#[tokio::test]
async fn a_model_that_was_never_loaded_is_described_by_its_files_and_its_registration() {
    let folder = copied("llama");
    std::fs::write(folder.path().join("LICENSE"), "Say from whom you have it.").expect("there is room");
    alter(&folder, "generation_config.json", |config| config["top_p"] = json!(0.75));
    let root = tempfile::tempdir().expect("a temporary folder");
    let (own, gguf) = (root.path().join("own"), golden("gguf/llama256/llama256.Q4_1.gguf"));
    std::fs::rename(folder.path(), &own).expect("it is on the same disk");
    let app = TestApp::start_with(&[
        ("model-root", &golden("").to_string_lossy()),
        ("model-root", &root.path().to_string_lossy()),
    ])
    .await;
    let owner = Api::owner(&app).await;
    for new in [
        json!({"id": "one", "sources": [own.to_string_lossy()], "context_length": 128, "defaults": {"temperature": 0.5}}),
        json!({"id": "two", "sources": [gguf.to_string_lossy()]}),
    ] {
        assert_eq!(owner.post("/admin/models", new).await.status, 201);
    }

    let one = app.ask("/api/show", &json!({"model": "one"})).await;
    let details = json!({"parent_model": "", "format": "safetensors", "family": "llama", "families": ["llama"],
        "parameter_size": "167K", "quantization_level": "F32"});
    assert_eq!(one["details"], details);
    assert_eq!(one["license"], "Say from whom you have it.");
    assert_eq!(one["capabilities"], json!(["completion", "tools"]));
    assert_eq!(one["model_info"]["general.parameter_count"], 167_360);
    assert_eq!(one["model_info"]["llama.context_length"], 128);
    let parameters = one["parameters"].as_str().expect("a text");
    let parameters: Vec<_> =
        parameters.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
    assert_eq!(parameters, [["num_ctx", "128"], ["temperature", "0.5"], ["top_p", "0.75"]]);
    let template = one["template"].as_str().expect("a text");
    let modelfile = format!(
        "FROM one\nTEMPLATE \"\"\"{template}\"\"\"\nPARAMETER num_ctx 128\nPARAMETER temperature 0.5\n\
         PARAMETER top_p 0.75\nLICENSE \"\"\"Say from whom you have it.\"\"\"\n"
    );
    assert_eq!(one["modelfile"], modelfile);

    let two = app.ask("/api/show", &json!({"model": "two"})).await;
    assert_eq!(
        (&two["details"]["format"], &two["details"]["quantization_level"]),
        (&json!("gguf"), &json!("Q4_1"))
    );
    let information = &two["model_info"];
    assert_eq!(information["llama.attention.layer_norm_rms_epsilon"], 1e-6, "{information}");
    assert!(
        information["general.file_type"].is_u64() && information["general.name"].is_string(),
        "{information}"
    );
    assert!(information.get("tokenizer.ggml.tokens").is_none(), "{information}");

    // The lists say the same, and nothing was loaded for it.
    let tags = get(&app, "/api/tags").await;
    let listed = tags["models"].as_array().expect("models").iter().find(|model| model["name"] == "one");
    assert_eq!(listed.expect("it is listed")["details"], details);
    assert_eq!(running(&app).await, [CHAT, EMBED]);
    let states = ["one", "two"].map(|id| app.manager.status(id).expect("it is known").state.name());
    assert_eq!(states, ["absent", "absent"]);
    // What is found out by loading does not contradict it.
    app.ask("/api/generate", &json!({"model": "one"})).await;
    assert_eq!(app.ask("/api/show", &json!({"model": "one"})).await, one);
}

#[tokio::test]
async fn files_that_cannot_be_read_are_not_looked_at_again_until_they_are_to_be_loaded() {
    let folder = copied("llama");
    let root = tempfile::tempdir().expect("a temporary folder");
    let own = root.path().join("own");
    std::fs::rename(folder.path(), &own).expect("it is on the same disk");
    let config = own.join("config.json");
    let right = std::fs::read(&config).expect("it is there");
    std::fs::write(&config, "{").expect("there is room");
    let app = TestApp::start_with(&[
        ("model-root", &golden("").to_string_lossy()),
        ("model-root", &root.path().to_string_lossy()),
    ])
    .await;
    let new = json!({"id": "one", "sources": [own.to_string_lossy()]});
    assert_eq!(Api::owner(&app).await.post("/admin/models", new).await.status, 201);

    let show = json!({"model": "one"});
    assert_eq!(app.ask("/api/show", &show).await["details"]["parameter_size"], "");
    std::fs::write(&config, right).expect("there is room");
    assert_eq!(app.ask("/api/show", &show).await["details"]["parameter_size"], "");
    app.ask("/api/generate", &show).await;
    assert_eq!(app.ask("/api/show", &show).await["details"]["parameter_size"], "167K");
}

#[tokio::test]
async fn a_model_is_loaded_by_a_request_that_asks_nothing() {
    let app = TestApp::start().await;
    for (path, body) in [
        ("/api/generate", json!({"model": CHAT})),
        ("/api/generate", json!({"model": CHAT, "keep_alive": -1})),
        ("/api/chat", json!({"model": CHAT, "messages": [], "keep_alive": "10m"})),
    ] {
        app.manager.unload(CHAT).await.expect("it is known");
        assert_eq!(running(&app).await, [EMBED]);
        let answer = app.ask(path, &body).await;
        assert_eq!((&answer["done"], &answer["done_reason"]), (&json!(true), &json!("load")), "{body}");
        assert_eq!(running(&app).await, [CHAT, EMBED]);
    }
}

#[tokio::test]
async fn a_model_goes_when_somebody_says_so_who_manages_the_models() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    let nothing = |keep_alive: Value| json!({"model": CHAT, "keep_alive": keep_alive});
    for keep_alive in [json!(0), json!("0s")] {
        for path in ["/api/generate", "/api/chat"] {
            // Of anybody else it is not taken.
            assert_eq!(refusal(app.post(path, &nothing(keep_alive.clone())).await).await.0, 403, "{path}");
            assert_eq!(running(&app).await, [CHAT, EMBED], "{path}");
            // Twice: to unload it, it is not loaded.
            for _ in 0..2 {
                let answer = owner.post(path, nothing(keep_alive.clone())).await;
                assert_eq!(
                    (answer.status, &answer.json["done_reason"]),
                    (200, &json!("unload")),
                    "{}",
                    answer.text
                );
                assert_eq!(running(&app).await, [EMBED], "{path}");
            }
            // Who needs it has it back, and beside a question it stays.
            let question = with(chat("one"), "keep_alive", 0);
            assert_eq!(owner.post("/api/chat", question).await.status, 200);
            assert_eq!(running(&app).await, [CHAT, EMBED], "{path}");
        }
    }
    // What somebody uses stays, and what is pinned, and both are said.
    let stays = async |why: &str| {
        let answer = owner.post("/api/chat", nothing(json!(0))).await;
        let message = answer.json["error"].as_str().expect("a text");
        assert!(answer.status == 409 && message.contains(why), "{}", answer.text);
        assert_eq!(running(&app).await, [CHAT, EMBED]);
    };
    let lease = app.manager.lease(CHAT).await.expect("it is loaded");
    stays("is in use").await;
    drop(lease);
    app.manager.pin(CHAT, true).expect("it is known");
    stays("is pinned").await;
    // Only what happened is written down: once for every time that it went.
    let audit = owner.get("/admin/audit?action=model.unload").await.data();
    assert_eq!(audit["items"].as_array().map(Vec::len), Some(4), "{audit}");
    let (status, message) =
        refusal(app.post("/api/chat", &json!({"model": "nobody", "keep_alive": 0})).await).await;
    assert!(status == 404 && message.contains("nobody"), "{message}");
}
