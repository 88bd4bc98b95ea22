//! The specification's chapter on administration, sentence by sentence; answers as bytes, ids and times masked.

#[path = "common/api.rs"]
mod api;
#[path = "common/app.rs"]
mod app;
#[path = "database/mod.rs"]
mod database;

use api::Api;
use app::{CHAT, OWNER, TestApp, chat, golden};
use serde_json::json;

/// §2, success: `{"code": 0, "message": "Success", "data": {…}}`; failure: `{"code": 40001, "message": "Invalid API Key",
/// "data": null}`, here with its true status.
#[tokio::test]
async fn answers_are_in_the_uniform_envelope() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    let users = owner.get("/admin/users").await;
    assert!(users.text.starts_with(r#"{"code":0,"message":"Success","data":{"#), "{}", users.text);
    let wrong = Api::showing(&app, "sk-wrong").get("/admin/users").await;
    assert_eq!(wrong.text, r#"{"code":40001,"message":"Invalid API Key","data":null}"#);
    assert_eq!((wrong.status, wrong.headers["content-type"].as_bytes()), (401, &b"application/json"[..]));
}

/// §1: `Authorization: Bearer <JWT_or_API_Key>`.
#[tokio::test]
async fn both_a_jwt_and_an_api_key_are_accepted() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    let (_, by_key) = owner.own_key(json!({"name": "admin", "scopes": ["users:read"]})).await;
    let (by_token, by_key) = (owner.get("/admin/users").await, by_key.get("/admin/users").await);
    assert_eq!((by_token.status, by_token.text), (200, by_key.text));
}

/// §3.2.1, first: get the list of users.
#[tokio::test]
async fn get_users_lists_the_users() {
    let app = TestApp::start().await;
    let answer = Api::owner(&app).await.get("/admin/users").await;
    let expected = r#"{"code":0,"message":"Success","data":{"items":[{"id":"<usr>","username":"admin","display_name":"admin","email":null,"role":"owner","status":"active","must_change_password":false,"team_ids":[],"created_at":"<time>","updated_at":"<time>","last_login_at":"<time>"}],"next_cursor":null}}"#;
    assert_eq!((answer.status, answer.masked().as_str()), (200, expected));
}

/// §3.2.1, second and third: make a new user; get a certain user.
#[tokio::test]
async fn post_users_makes_a_user_and_get_shows_it() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    let new = json!({"username": "Ada", "display_name": "Ada Lovelace", "email": "ada@example.com", "password": "tidal-mosaic-quarry-42"});
    let made = owner.post("/admin/users", new).await;
    let user = r#"{"id":"<usr>","username":"ada","display_name":"Ada Lovelace","email":"ada@example.com","role":"user","status":"active","must_change_password":false,"team_ids":[],"created_at":"<time>","updated_at":"<time>","last_login_at":null}"#;
    let expected = format!(r#"{{"code":0,"message":"Success","data":{user}}}"#);
    assert_eq!((made.status, made.masked()), (201, expected.clone()));
    let id = made.data()["id"].as_str().expect("an id").to_owned();
    let shown = owner.get(&format!("/admin/users/{id}")).await;
    assert_eq!((shown.status, shown.text), (200, made.text));
    // Who was made signs in.
    assert!(!app.sign_in("ada", "tidal-mosaic-quarry-42").await.is_empty());
    let unknown = owner.get("/admin/users/usr_00000000000000000000000000000000").await;
    assert_eq!(unknown.refusal(), (404, 40401));
    let taken = owner.post("/admin/users", json!({"username": "ADA"})).await;
    assert_eq!(taken.text, r#"{"code":40901,"message":"the user `ada` exists already","data":null}"#);
}

/// §3.2.1, fourth: change a user.
#[tokio::test]
async fn put_users_changes_a_user() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    let id = owner.make_user("ada", "user").await;
    let path = format!("/admin/users/{id}");
    let change = json!({"display_name": "Ada King", "email": "king@example.com", "role": "operator", "status": "disabled"});
    let changed = owner.put(&path, change).await;
    let expected = r#"{"code":0,"message":"Success","data":{"id":"<usr>","username":"ada","display_name":"Ada King","email":"king@example.com","role":"operator","status":"disabled","must_change_password":false,"team_ids":[],"created_at":"<time>","updated_at":"<time>","last_login_at":null}}"#;
    assert_eq!((changed.status, changed.masked().as_str()), (200, expected));
    assert_eq!(owner.get(&path).await.text, changed.text);
    // What is left out stays, and null clears what may be nothing.
    let cleared = owner.put(&path, json!({"email": null})).await.data();
    assert_eq!((&cleared["email"], &cleared["display_name"]), (&json!(null), &json!("Ada King")));
}

/// §3.2.2, first and second: make a new API key for a user; get all API keys.
#[tokio::test]
async fn post_keys_makes_a_key_for_a_user_and_get_lists_all() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    let user_id = owner.make_user("ada", "user").await;
    let made = owner.post("/admin/keys", json!({"user_id": user_id, "name": "laptop"})).await;
    let kept = r#""id":"<key>","user_id":"<usr>","team_id":null,"name":"laptop","prefix":"<key of 16>","scopes":["inference"],"models":null,"cidrs":null,"status":"enabled","expires_at":null,"previous_key_expires_at":null,"created_at":"<time>","created_by":"<usr>","updated_at":"<time>","last_used_at":null}"#;
    let expected = format!(r#"{{"code":0,"message":"Success","data":{{"key":"<key of 59>",{kept}}}"#);
    assert_eq!((made.status, made.masked()), (201, expected));
    let key = made.data()["key"].as_str().expect("a key").to_owned();

    let all = owner.get("/admin/keys").await;
    assert_eq!(all.data()["items"].as_array().map(Vec::len), Some(2), "the owner's first and this one");
    assert!(!all.text.contains(&key[17..]), "only the answer to making it shows a key");
    let of_ada = owner.get(&format!("/admin/keys?user_id={user_id}")).await;
    let expected =
        format!(r#"{{"code":0,"message":"Success","data":{{"items":[{{{kept}],"next_cursor":null}}}}"#);
    assert_eq!(of_ada.masked(), expected);

    let answered = Api::showing(&app, key).post("/v1/chat/completions", chat("Hello!")).await;
    assert_eq!(answered.status, 200, "{}", answered.text);
}

/// §3.2.2, third: change a key's status (enable, disable). Fourth: delete a key.
#[tokio::test]
async fn put_keys_enables_and_disables_and_delete_deletes() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    let (id, by_key) = owner.own_key(json!({"name": "laptop"})).await;
    let (path, models) = (format!("/admin/keys/{id}"), "/v1/models");
    assert_eq!(by_key.get(models).await.status, 200);

    let disabled = owner.put(&path, json!({"status": "disabled"})).await.data();
    assert_eq!((&disabled["id"], &disabled["status"]), (&json!(id), &json!("disabled")));
    let refused = by_key.get(models).await;
    assert_eq!(refused.number(), (401, 40108));

    assert_eq!(owner.put(&path, json!({"status": "enabled"})).await.data()["status"], "enabled");
    assert_eq!(by_key.get(models).await.status, 200);

    let deleted = owner.delete(&path).await;
    assert_eq!(
        (deleted.status, deleted.text.as_str()),
        (200, r#"{"code":0,"message":"Success","data":null}"#)
    );
    let refused = by_key.get(models).await;
    assert_eq!(refused.number(), (401, 40001));
    assert_eq!(owner.get(&path).await.refusal(), (404, 40401));
}

/// §3.2.3: get the list of models; add the configuration of a new model; change a model's configuration.
#[tokio::test]
async fn models_are_listed_added_and_changed() {
    let root = golden("");
    let app = TestApp::start_with(&[("model-root", root.to_str().expect("a plain path"))]).await;
    let owner = Api::owner(&app).await;
    let new =
        json!({"id": "gpt-4o", "sources": [golden("llama").to_string_lossy()], "description": "A test"});
    let added = owner.post("/admin/models", new).await;
    assert_eq!(added.status, 201, "{}", added.text);
    assert!(
        added.text.starts_with(r#"{"code":0,"message":"Success","data":{"id":"gpt-4o","#),
        "{}",
        added.text
    );
    let listed = owner.get("/admin/models?limit=100").await.data();
    let ids =
        listed["items"].as_array().expect("items").iter().map(|model| model["id"].as_str().expect("an id"));
    let ids: Vec<_> = ids.collect();
    assert!(ids.contains(&"gpt-4o") && ids.contains(&CHAT), "{ids:?}");
    // What was added answers, as the specification's own example asks for it.
    let body =
        json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 4});
    assert_eq!(owner.post("/chat/completions", body.clone()).await.data()["model"], "gpt-4o");

    let changed =
        owner.put("/admin/models/gpt-4o", json!({"description": "Another", "enabled": false})).await.data();
    assert_eq!((&changed["id"], &changed["description"]), (&json!("gpt-4o"), &json!("Another")));
    assert_eq!(owner.get("/admin/models/gpt-4o").await.data()["enabled"], false);
    assert_eq!(owner.post("/chat/completions", body).await.refusal(), (404, 40402), "it is switched off");
    assert_eq!(owner.put("/admin/models/none", json!({"enabled": false})).await.refusal(), (404, 40402));
}

/// The first user is an owner who can do all of it.
#[tokio::test]
async fn the_first_user_administers() {
    let app = TestApp::start().await;
    let me = Api::owner(&app).await.get("/me").await.data();
    assert_eq!((&me["username"], &me["role"]), (&json!(OWNER), &json!("owner")));
}
