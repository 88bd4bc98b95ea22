//! Chats that are kept with `store`: shown, listed, noted and deleted by their owner, and by nobody else.

use serde_json::{Value, json};
use std::time::Duration;

use crate::api::Api;
use crate::app::{KEY, TestApp, chat, with};
use crate::rig;

const PATH: &str = "/v1/chat/completions";

fn stored(text: &str, notes: Value) -> Value {
    with(with(with(chat(text), "store", true), "metadata", notes), "max_tokens", 4)
}

fn id(chat: &Value) -> String {
    chat["id"].as_str().unwrap_or_else(|| panic!("no id: {chat}")).to_owned()
}

async fn get(app: &TestApp, path: &str) -> (u16, Value) {
    let answer = app.get(path).send().await.expect("an answer");
    (answer.status().as_u16(), answer.json().await.expect("it is JSON"))
}

async fn listed(app: &TestApp, query: &str) -> (Vec<String>, bool) {
    let (status, page) = get(app, &format!("{PATH}?{query}")).await;
    assert_eq!((status, &page["object"]), (200, &json!("list")), "{page}");
    let data = page["data"].as_array().expect("a list");
    assert_eq!(
        (&page["first_id"], &page["last_id"]),
        (
            &data.first().map_or(Value::Null, |chat| chat["id"].clone()),
            &data.last().map_or(Value::Null, |chat| chat["id"].clone())
        )
    );
    (data.iter().map(id).collect(), page["has_more"] == true)
}

#[tokio::test]
async fn a_chat_that_is_stored_is_shown_with_what_was_asked() {
    let app = TestApp::start().await;
    let parts = json!([{"type": "text", "text": "Hello"}]);
    let messages = json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": parts}]);
    let asked = with(with(stored("x", json!({"job": "a"})), "messages", messages), "user", "ada");
    let given = app.ask(PATH, &with(with(asked, "temperature", 0.5), "seed", -7)).await;
    let (status, shown) = get(&app, &format!("{PATH}/{}", id(&given))).await;
    assert_eq!(status, 200);
    for (name, value) in given.as_object().expect("an object") {
        assert_eq!(&shown[name], value, "{name} is as it was given");
    }
    assert_eq!((&shown["metadata"], &shown["input_user"]), (&json!({"job": "a"}), &json!("ada")));
    assert_eq!(
        (&shown["temperature"], &shown["seed"], &shown["tools"]),
        (&json!(0.5), &json!(-7), &Value::Null)
    );
    assert!(shown["request_id"].as_str().is_some_and(|id| !id.is_empty()), "{shown}");

    let path = format!("{PATH}/{}/messages", id(&given));
    let page = get(&app, &path).await.1;
    let first = format!("{}-0", id(&given));
    assert_eq!((&page["first_id"], &page["has_more"]), (&json!(first), &json!(false)));
    assert_eq!(page["data"][0]["content"], "Be brief.");
    assert_eq!((&page["data"][1]["content"], &page["data"][1]["content_parts"]), (&Value::Null, &parts));
    let next = get(&app, &format!("{path}?after={first}&limit=1")).await.1;
    assert_eq!(next["data"], json!([page["data"][1]]));
    let last = get(&app, &format!("{path}?order=desc&limit=1")).await.1;
    assert_eq!((&last["data"][0], &last["has_more"]), (&page["data"][1], &json!(true)));
}

#[tokio::test]
async fn a_stream_is_stored_whole_before_its_end_is_told() {
    let app = TestApp::start().await;
    let asked = with(with(stored("Hello", json!({})), "temperature", 0), "ignore_eos", true);
    let whole = app.ask(PATH, &asked).await;
    let events = app.events(PATH, &with(asked, "stream", true)).await;
    assert!(events.done);
    let shown = get(&app, &format!("{PATH}/{}", id(&events.data[0]))).await.1;
    assert_eq!((&shown["object"], &shown["choices"]), (&json!("chat.completion"), &whole["choices"]));
    assert_eq!(shown["usage"]["completion_tokens"], whole["usage"]["completion_tokens"]);
    assert_eq!(listed(&app, "").await.0.len(), 2);
}

#[tokio::test]
async fn what_is_not_to_be_stored_is_not() {
    let app = TestApp::start().await;
    for body in [chat("x"), with(chat("x"), "store", false), with(chat("x"), "store", Value::Null)] {
        let given = app.ask(PATH, &body).await;
        assert_eq!(get(&app, &format!("{PATH}/{}", id(&given))).await.0, 404);
    }
    let (status, error) = app.refused(PATH, &with(chat("x"), "store", "yes")).await;
    assert_eq!((status, &error["param"]), (400, &json!("store")));
    let answer = app.post("/api/v1/chat/completions", &with(chat("x"), "store", true)).await;
    assert_eq!(answer.status(), 400, "it could not be found again there");
    let keeps_nothing = TestApp::start_with(&[("response-retention", "off")]).await;
    let (status, error) = keeps_nothing.refused(PATH, &with(chat("x"), "store", true)).await;
    assert_eq!((status, &error["param"]), (400, &json!("store")), "{error}");
    let huge =
        with(stored("x", json!({})), "messages", json!([{"role": "user", "content": "x".repeat(9 << 20)}]));
    let (status, error) = app.refused(PATH, &huge).await;
    assert_eq!((status, &error["param"]), (400, &json!("messages")), "{error}");
}

#[tokio::test]
async fn chats_are_listed_page_by_page_and_by_their_notes() {
    let app = TestApp::start_by(&[], rig::start()).await;
    let mut all = Vec::new();
    for job in ["a", "b", "a", "b", "a"] {
        all.push(id(&app.ask(PATH, &stored("x", json!({"job": job, "all": "yes"}))).await));
        app.auth.clock().advance(Duration::from_millis(1));
    }
    // What `/v1/responses` keeps beside them is no chat.
    let response = app
        .ask("/v1/responses", &json!({"model": crate::app::CHAT, "input": "x", "max_output_tokens": 2}))
        .await;
    assert_eq!(listed(&app, "").await, (all.clone(), false));
    assert_eq!(get(&app, &format!("{PATH}/{}", id(&response))).await.0, 404);
    assert_eq!(get(&app, &format!("/v1/responses/{}", all[0])).await.0, 404);

    let backwards: Vec<String> = all.iter().rev().cloned().collect();
    assert_eq!(listed(&app, "order=desc&limit=2").await, (backwards[..2].to_vec(), true));
    let next = format!("order=desc&limit=3&after={}", backwards[1]);
    assert_eq!(listed(&app, &next).await, (backwards[2..].to_vec(), false));
    let only_b = vec![all[1].clone(), all[3].clone()];
    assert_eq!(listed(&app, "metadata[job]=b").await, (only_b.clone(), false));
    assert_eq!(
        listed(&app, "metadata%5Bjob%5D=b&metadata%5Ball%5D=yes&limit=1").await,
        (only_b[..1].to_vec(), true)
    );
    assert_eq!(listed(&app, "metadata[job]=c").await, (Vec::new(), false));
    assert_eq!(listed(&app, &format!("model={}", crate::app::CHAT)).await.0.len(), 5);
    assert_eq!(listed(&app, "model=other").await.0.len(), 0);
    for (query, param) in
        [("after=x", "after"), ("limit=0", "limit"), ("limit=101", "limit"), ("colour=x", "colour")]
    {
        let (status, answer) = get(&app, &format!("{PATH}?{query}")).await;
        assert_eq!((status, &answer["error"]["param"]), (400, &json!(param)), "{answer}");
    }
}

#[tokio::test]
async fn notes_are_changed_and_chats_deleted_by_their_owner_alone() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    let (_, one) = owner.own_key(json!({"name": "one"})).await;
    let (_, two) = owner.own_key(json!({"name": "two"})).await;
    let (other_id, other) = owner.colleague("ada", "user").await;
    let (_, others_key) = other.own_key(json!({"name": "ada's"})).await;
    let given = one.post(PATH, stored("x", json!({"job": "a"}))).await.json;
    let path = format!("{PATH}/{}", id(&given));
    let noted = two.post(&path, json!({"metadata": {"job": "b"}})).await.json;
    assert_eq!((&noted["id"], &noted["metadata"]), (&given["id"], &json!({"job": "b"})));
    assert_eq!(one.get(&path).await.json["metadata"], json!({"job": "b"}));
    assert_eq!(one.post(&path, json!({"metadata": null})).await.json["metadata"], json!({}));
    assert_eq!(one.post(&path, json!({"metadata": {"a": 1}})).await.number(), (400, 40003));
    for stranger in [&other, &others_key, &Api::showing(&app, KEY)] {
        assert_eq!(stranger.get(&path).await.number(), (404, 40401));
        assert_eq!(stranger.get(&format!("{path}/messages")).await.number(), (404, 40401));
        assert_eq!(stranger.post(&path, json!({"metadata": {}})).await.number(), (404, 40401));
        assert_eq!(stranger.delete(&path).await.number(), (404, 40401));
        assert_eq!(stranger.get(PATH).await.json["data"], json!([]));
        assert_eq!(stranger.get(&format!("{PATH}?after={}", id(&given))).await.number(), (400, 40003));
    }
    let deleted = two.delete(&path).await.json;
    assert_eq!(deleted, json!({"id": id(&given), "object": "chat.completion.deleted", "deleted": true}));
    assert_eq!(one.get(&path).await.status, 404);
    assert_eq!(rig::number(&app, "SELECT COUNT(*) FROM stored_chats").await, 0, "nothing is left of it");
    // What a deleted user stored is gone with them.
    others_key.post(PATH, stored("x", json!({}))).await;
    assert_eq!(rig::number(&app, "SELECT COUNT(*) FROM stored_chats").await, 1);
    assert_eq!(owner.delete(&format!("/admin/users/{other_id}")).await.status, 200);
    assert_eq!(rig::number(&app, "SELECT COUNT(*) FROM stored_chats").await, 0);
}

#[tokio::test]
async fn chats_are_kept_as_long_as_answers_are() {
    let app = TestApp::start_by(&[("response-retention", "2d")], rig::start()).await;
    let given = app.ask(PATH, &stored("x", json!({}))).await;
    let path = format!("{PATH}/{}", id(&given));
    app.auth.clock().advance(Duration::from_secs(47 * 3600));
    app.auth.sweep_responses().await.expect("it writes");
    assert_eq!(get(&app, &path).await.0, 200);
    app.auth.clock().advance(Duration::from_secs(2 * 3600));
    assert_eq!(get(&app, &path).await.0, 404);
    assert_eq!(listed(&app, "").await.0.len(), 0);
    app.auth.sweep_responses().await.expect("it writes");
    assert_eq!(rig::number(&app, "SELECT COUNT(*) FROM stored_chats").await, 0);
}
