//! Registered models: what is written in the registry becomes true, on every replica, for those who may see it.

use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::app::{CHAT, OWNER, OWNER_PASSWORD, TestApp, golden};

/// An owner who is signed in.
struct Owner<'a> {
    app: &'a TestApp,
    token: String,
}

impl<'a> Owner<'a> {
    async fn of(app: &'a TestApp) -> Self {
        let token = app.sign_in(OWNER, OWNER_PASSWORD).await;
        Self { app, token }
    }

    async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Response {
        let url = format!("{}/api/v1{path}", self.app.url);
        let request = self.app.client.request(method, url).bearer_auth(&self.token);
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        request.send().await.expect("the server answers")
    }

    /// Status, code and data of an answer.
    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (u16, i64, Value) {
        let response = self.send(method, path, body).await;
        let status = response.status().as_u16();
        let answer: Value = response.json().await.expect("an envelope");
        (status, answer["code"].as_i64().expect("a code"), answer["data"].clone())
    }

    async fn register(&self, id: &str, more: Value) -> (u16, i64, Value) {
        let mut body = json!({"id": id, "sources": [golden("llama").to_string_lossy()]});
        for (name, value) in more.as_object().expect("an object") {
            body[name] = value.clone();
        }
        self.ask(Method::POST, "/admin/models", Some(body)).await
    }
}

async fn start() -> TestApp {
    let root = golden("");
    TestApp::start_with(&[("model-root", root.to_str().expect("a plain path"))]).await
}

fn greeting(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4, "temperature": 0})
}

fn ids(list: &Value) -> Vec<&str> {
    list["data"].as_array().expect("a list").iter().filter_map(|model| model["id"].as_str()).collect()
}

#[tokio::test]
async fn a_registered_model_is_loaded_watched_used_by_its_alias_disabled_and_deleted() {
    let app = start().await;
    let owner = Owner::of(&app).await;
    let (status, _, model) =
        owner.register("mine", json!({"aliases": ["gpt-4o"], "description": "A test"})).await;
    assert_eq!(
        (status, model["origin"].as_str(), model["status"]["state"].as_str()),
        (201, Some("registry"), Some("absent"))
    );

    // Its progress is told until it is there.
    let url = format!("{}/api/v1/admin/models/mine/load", app.url);
    let request = app.client.post(url).bearer_auth(&owner.token).header("accept", "text/event-stream");
    let response = request.send().await.expect("an answer");
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let text = response.text().await.expect("it ends by itself");
    let last = text.lines().filter_map(|line| line.strip_prefix("data: {")).next_back().expect("events");
    assert!(last.contains("\"state\":\"ready\"") && text.trim_end().ends_with("data: [DONE]"), "{text}");
    assert!(text.contains("\"state\":\"loading\"") || text.contains("\"state\":\"downloading\""), "{text}");

    // A client written for another model is answered by this one, and sees the name it asked for.
    let answer = app.ask("/v1/chat/completions", &greeting("gpt-4o")).await;
    assert_eq!(answer["model"], "gpt-4o");
    let own = app.ask("/v1/chat/completions", &greeting("mine")).await;
    assert_eq!(answer["choices"][0]["message"], own["choices"][0]["message"]);

    let (status, _, model) =
        owner.ask(Method::PUT, "/admin/models/mine", Some(json!({"enabled": false}))).await;
    assert_eq!((status, model["enabled"].as_bool()), (200, Some(false)));
    assert_eq!(app.refused("/v1/chat/completions", &greeting("gpt-4o")).await.0, 404);
    let list: Value = app.get("/v1/models").send().await.expect("an answer").json().await.expect("JSON");
    assert!(!ids(&list).contains(&"mine"), "{list}");
    let (status, code, _) = owner.ask(Method::POST, "/admin/models/mine/load", None).await;
    assert_eq!((status, code / 100), (409, 409), "a disabled model is not loaded");

    assert_eq!(owner.ask(Method::DELETE, "/admin/models/mine", None).await.0, 200);
    assert_eq!(owner.ask(Method::GET, "/admin/models/mine", None).await.1, 40402);
    assert_eq!(owner.ask(Method::DELETE, "/admin/models/mine", None).await.1, 40401);
    let (_, _, audit) = owner.ask(Method::GET, "/admin/audit?target_id=mine", None).await;
    let actions: Vec<_> =
        audit["items"].as_array().expect("rows").iter().map(|row| row["action"].clone()).collect();
    assert_eq!(actions, ["model.delete", "model.load", "model.update", "model.load", "model.create"]);
}

#[tokio::test]
async fn a_configured_model_is_taken_over_by_a_change_and_given_back() {
    let app = start().await;
    let owner = Owner::of(&app).await;
    let path = format!("/admin/models/{CHAT}");
    let (_, _, before) = owner.ask(Method::GET, &path, None).await;
    assert_eq!(before["origin"], "configuration");
    assert_eq!(owner.ask(Method::DELETE, &path, None).await.1, 40902);
    let (status, _, model) = owner.ask(Method::PUT, &path, Some(json!({"aliases": ["other"]}))).await;
    assert_eq!((status, model["origin"].as_str()), (200, Some("registry")), "{model}");
    assert_eq!(app.ask("/v1/chat/completions", &greeting("other")).await["model"], "other");
    assert_eq!(owner.ask(Method::DELETE, &path, None).await.0, 200);
    assert_eq!(app.refused("/v1/chat/completions", &greeting("other")).await.0, 404);
    assert_eq!(app.ask("/v1/chat/completions", &greeting(CHAT)).await["model"], CHAT);
}

#[tokio::test]
async fn defaults_and_limits_hold_for_requests() {
    let app = start().await;
    let owner = Owner::of(&app).await;
    let more =
        json!({"limits": {"max_tokens": 3, "n": 1, "temperature": 0.5}, "defaults": {"temperature": 0.0}});
    assert_eq!(owner.register("bounded", more).await.0, 201);
    let message = json!([{"role": "user", "content": "hello"}]);
    let body = |name: &str, value: Value| {
        let mut body = json!({"model": "bounded", "messages": message, "max_tokens": 2});
        body[name] = value;
        body
    };
    for (name, value) in [("max_tokens", json!(4)), ("n", json!(2)), ("temperature", json!(0.6))] {
        let (status, error) = app.refused("/v1/chat/completions", &body(name, value)).await;
        assert_eq!((status, error["param"].as_str()), (400, Some(name)), "{error}");
    }
    let message = json!([{"role": "user", "content": "hello"}]);
    for (path, name, body) in [
        ("/v1/chat/completions", "max_completion_tokens", json!({"messages": message})),
        ("/v1/responses", "max_output_tokens", json!({"input": "hello"})),
    ] {
        let mut body = body;
        (body["model"], body[name]) = (json!("bounded"), json!(4));
        let (status, error) = app.refused(path, &body).await;
        assert_eq!((status, error["param"].as_str()), (400, Some(name)), "{error}");
    }
    // Who asks for nothing gets no more than the limit, and the default: the same answer twice.
    let open = json!({"model": "bounded", "messages": message});
    let first = app.ask("/v1/chat/completions", &open).await;
    assert!(first["usage"]["completion_tokens"].as_u64().expect("a count") <= 3, "{first}");
    let second = app.ask("/v1/chat/completions", &open).await;
    assert_eq!(first["choices"], second["choices"]);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_by_its_field() {
    let app = start().await;
    let owner = Owner::of(&app).await;
    let refused = async |more: Value| {
        let mut body = json!({"id": "wrong"});
        for (name, value) in more.as_object().expect("an object") {
            body[name] = value.clone();
        }
        let (status, code, data) = owner.ask(Method::POST, "/admin/models", Some(body)).await;
        assert_eq!(status, 400, "{more} {code} {data}");
        (code, data["errors"][0]["field"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(refused(json!({"id": "../x"})).await, (40003, "id".into()));
    assert_eq!(refused(json!({"id": 7})).await.0, 40003);
    assert_eq!(refused(json!({"quota": 7})).await.0, 40004);
    assert_eq!(refused(json!({"created_at": "2026-01-01T00:00:00Z"})).await.0, 40004);
    assert_eq!(refused(json!({"context_length": 0})).await, (40003, "context_length".into()));
    assert_eq!(refused(json!({"aliases": ["a b"]})).await, (40003, "aliases".into()));
    assert_eq!(refused(json!({"sources": ["nonsense:x"]})).await.0, 40011);
    assert_eq!(refused(json!({"defaults": {"temperature": 9}})).await.0, 40005);
    assert_eq!(refused(json!({"limits": {"max_tokens": 0}})).await.0, 40005);
    assert_eq!(
        refused(json!({"visibility": "teams", "team_ids": ["team_none"]})).await,
        (40003, "team_ids".into())
    );
    assert_eq!(refused(json!({"sources": ["/etc/passwd"]})).await.0, 40011);
    assert_eq!(refused(json!({"sources": ["https://169.254.169.254/x.gguf"]})).await.0, 40011);
    assert_eq!(owner.register(CHAT, json!({})).await.0, 201, "a configured model may be registered");
    assert_eq!(owner.register(CHAT, json!({})).await.1, 40901);
    assert_eq!(owner.register("new", json!({"aliases": [CHAT]})).await.1, 40901, "an alias shadows no model");
    assert_eq!(owner.register("one", json!({"aliases": ["same"]})).await.0, 201);
    assert_eq!(owner.register("two", json!({"aliases": ["same"]})).await.1, 40901);
    assert_eq!(owner.register("same", json!({})).await.1, 40901);
}

#[tokio::test]
async fn a_model_of_a_team_is_there_for_its_members_only() {
    let app = start().await;
    let owner = Owner::of(&app).await;
    let (_, _, team) = owner.ask(Method::POST, "/admin/teams", Some(json!({"name": "research"}))).await;
    let team = team["id"].as_str().expect("an id").to_owned();
    let more = json!({"visibility": "teams", "team_ids": [team]});
    assert_eq!(owner.register("secret-model", more).await.0, 201);
    let mut keys = Vec::new();
    for (name, teams) in [("ina", json!([team])), ("olaf", json!([]))] {
        let body = json!({"username": name, "password": "granite-lantern-82-fox", "team_ids": teams});
        let (status, _, user) = owner.ask(Method::POST, "/admin/users", Some(body)).await;
        assert_eq!(status, 201, "{user}");
        let user = user["id"].as_str().or(user["user"]["id"].as_str()).expect("an id").to_owned();
        let (_, _, key) =
            owner.ask(Method::POST, "/admin/keys", Some(json!({"user_id": user, "name": "k"}))).await;
        keys.push(key["key"].as_str().expect("a key").to_owned());
    }
    for (key, sees) in [(&keys[0], true), (&keys[1], false)] {
        let list = app.get("/v1/models").bearer_auth(key).send().await.expect("an answer");
        let list: Value = list.json().await.expect("JSON");
        assert_eq!(ids(&list).contains(&"secret-model"), sees, "{list}");
        let url = format!("{}/v1/chat/completions", app.url);
        let chat = app.client.post(url).bearer_auth(key).json(&greeting("secret-model")).send().await;
        assert_eq!(chat.expect("an answer").status().as_u16(), if sees { 200 } else { 404 });
    }
}

#[tokio::test]
async fn probes_name_a_hidden_model_to_nobody_who_may_not_see_all() {
    let app = start().await.without_key();
    let owner = Owner::of(&app).await;
    let (_, _, team) = owner.ask(Method::POST, "/admin/teams", Some(json!({"name": "a"}))).await;
    let hidden = json!({"visibility": "teams", "team_ids": [team["id"]]});
    assert_eq!(owner.register("top-secret", hidden).await.0, 201);
    // Used once, so that there are figures of it.
    let (_, _, me) = owner.ask(Method::GET, "/me", None).await;
    let member =
        format!("/admin/teams/{}/members/{}", team["id"].as_str().unwrap(), me["id"].as_str().unwrap());
    owner.ask(Method::PUT, &member, Some(json!({}))).await;
    let url = format!("{}/v1/chat/completions", app.url);
    let request = app.client.post(url).bearer_auth(&owner.token).json(&greeting("top-secret"));
    assert_eq!(request.send().await.expect("an answer").status(), 200);

    let page = async |path: &str, token: Option<&str>| {
        let request = app.get(path);
        let request = if let Some(token) = token { request.bearer_auth(token) } else { request };
        request.send().await.expect("an answer").text().await.expect("text")
    };
    for path in ["/health/ready", "/readyz"] {
        let text = page(path, None).await;
        let ready: Value = serde_json::from_str(&text).expect("JSON");
        assert!(!text.contains("top-secret") && text.contains(CHAT), "{text}");
        assert_eq!(ready["others"], json!([{"state": "ready", "count": 1}]), "{text}");
    }
    let user = crate::rig::add_user(&app, "ada", "user", |_| {}).await;
    let key = crate::rig::add_key(&app, &user, |_| {}).await;
    for token in [None, Some(key.reveal()), Some("sk-sconce-wrong")] {
        let text = page("/metrics", token).await;
        assert!(!text.contains("top-secret"), "{text}");
        assert!(text.contains(&format!("model=\"{CHAT}\"")) && text.contains("vllm:num_requests_running "));
    }
    assert!(page("/metrics", Some(&owner.token)).await.contains("model=\"top-secret\""));
    // Nor when it is gone.
    assert_eq!(owner.ask(Method::DELETE, "/admin/models/top-secret", None).await.0, 200);
    assert!(!page("/metrics", None).await.contains("top-secret"));
}

#[tokio::test]
async fn a_model_registered_through_one_replica_is_there_on_the_other() {
    let root = golden("");
    let root = root.to_str().expect("a plain path");
    let one = TestApp::start_with(&[("model-root", root)]).await;
    if !one.database_url.starts_with("postgres") {
        // A SQLite file has one server.
        return;
    }
    let other = TestApp::start_with(&[("model-root", root), ("database-url", &one.database_url)]).await;
    let mut changes = other.manager.watch();
    let owner = Owner::of(&one).await;
    assert_eq!(owner.register("shared", json!({})).await.0, 201);
    while other.manager.status("shared").is_none() {
        changes.changed().await.expect("the manager lives");
    }
    assert_eq!(other.ask("/v1/chat/completions", &greeting("shared")).await["model"], "shared");
}
