//! `item_reference` in the `input` of `/v1/responses`: items that were kept stand in for themselves, and only their owner's.

use serde_json::{Value, json};

use crate::api::Api;
use crate::app::{CHAT, TestApp, with};

const PATH: &str = "/v1/responses";

fn ask(input: Value) -> Value {
    json!({"model": CHAT, "input": input, "temperature": 0, "max_output_tokens": 8})
}

fn said(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

fn reference(id: &Value) -> Value {
    json!({"type": "item_reference", "id": id})
}

async fn get(app: &TestApp, path: &str) -> Value {
    app.get(path).send().await.expect("an answer").json().await.expect("it is JSON")
}

/// What a response was asked, the first first.
async fn asked(app: &TestApp, response: &Value) -> Vec<Value> {
    let id = response["id"].as_str().expect("an id");
    let page = get(app, &format!("{PATH}/{id}/input_items?order=asc")).await;
    page["data"].as_array().expect("items").clone()
}

fn without_id(mut item: Value) -> Value {
    item["id"].take();
    item
}

#[tokio::test]
async fn a_conversation_goes_on_by_references_as_it_does_by_its_items() {
    let app = TestApp::start().await;
    let first = app.ask(PATH, &ask(json!([said("One")]))).await;
    let (question, answer) = (asked(&app, &first).await[0].clone(), first["output"][0].clone());
    let referred = json!([reference(&question["id"]), {"id": answer["id"]}, said("Two")]);
    let second = app.ask(PATH, &ask(referred.clone())).await;
    let whole = app.ask(PATH, &ask(json!([question, answer, said("Two")]))).await;
    assert_eq!(second["output"][0]["content"], whole["output"][0]["content"]);
    assert_eq!(second["usage"]["input_tokens"], whole["usage"]["input_tokens"]);
    let body = json!({"model": CHAT, "input": referred});
    let counted = app.ask(&format!("{PATH}/input_tokens"), &body).await;
    assert_eq!(counted["input_tokens"], second["usage"]["input_tokens"]);
    // What is kept of it stands by itself.
    let (kept, of_whole) = (asked(&app, &second).await, asked(&app, &whole).await);
    assert_eq!(kept[..2], of_whole[..2]);
    assert_eq!(without_id(kept[2].clone()), without_id(of_whole[2].clone()));
    let last = app.ask(PATH, &ask(json!([reference(&second["output"][0]["id"]), said("Three")]))).await;
    let path = format!("{PATH}/{}", first["id"].as_str().expect("an id"));
    app.client.delete(format!("{}{path}", app.url)).send().await.expect("an answer");
    assert_eq!(asked(&app, &second).await, kept);
    assert_eq!(asked(&app, &last).await[0]["content"], second["output"][0]["content"]);
    let (status, error) = app.refused(PATH, &ask(referred)).await;
    assert_eq!((status, &error["param"]), (404, &json!("input[0].id")), "{error}");
}

#[tokio::test]
async fn what_is_not_there_is_not_found_in_openais_words() {
    let app = TestApp::start().await;
    let first = app.ask(PATH, &ask(json!([said("One")]))).await;
    let unstored = app.ask(PATH, &with(ask(json!([said("One")])), "store", false)).await;
    let own = first["output"][0]["id"].as_str().expect("an id");
    for id in ["msg_1", "", &own[..own.len() - 1], unstored["output"][0]["id"].as_str().expect("an id")] {
        let (status, error) = app.refused(PATH, &ask(json!([said("Two"), reference(&json!(id))]))).await;
        assert_eq!(error["param"], "input[1].id", "{error}");
        if !id.is_empty() {
            assert_eq!((status, &error["type"]), (404, &json!("invalid_request_error")), "{error}");
            assert_eq!(error["message"], format!("Item with id '{id}' not found."));
        }
    }
    for (body, param) in [
        (ask(json!([reference(&json!(own)), reference(&json!(own))])), "input[1].id"),
        (
            with(ask(json!([reference(&json!(own))])), "previous_response_id", first["id"].clone()),
            "input[0].id",
        ),
    ] {
        let (status, error) = app.refused(PATH, &body).await;
        assert_eq!((status, &error["param"]), (400, &json!(param)), "it stands twice: {error}");
    }
    let others = (0..257).map(|number| reference(&json!(format!("msg_{number:032x}0000")))).collect();
    let (status, error) = app.refused(PATH, &ask(Value::Array(others))).await;
    assert_eq!((status, &error["param"]), (400, &json!("input")), "so many are not looked up: {error}");
}

#[tokio::test]
async fn an_item_is_its_owners_whichever_key_refers_to_it() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    let (_, other) = owner.colleague("ada", "user").await;
    let kept = owner.post(PATH, ask(json!([said("One")]))).await.json;
    let goes_on = ask(json!([reference(&kept["output"][0]["id"]), said("Two")]));
    let (_, key) = owner.own_key(json!({"name": "one"})).await;
    assert_eq!(key.post(PATH, goes_on.clone()).await.status, 200);
    for stranger in [&other, &Api::showing(&app, crate::app::KEY)] {
        assert_eq!(stranger.post(PATH, goes_on.clone()).await.number(), (404, 40401));
    }
}

#[tokio::test]
async fn a_call_that_is_referred_to_has_its_output_after_it() {
    let app = TestApp::start().await;
    let now = json!([{"type": "function", "name": "now",
        "parameters": {"type": "object", "properties": {}, "additionalProperties": false}}]);
    let asking = with(with(ask(json!([said("The time?")])), "tools", now), "tool_choice", "required");
    let asking = with(with(asking, "parallel_tool_calls", false), "max_output_tokens", 96);
    let first = app.ask(PATH, &asking).await;
    let call = first["output"].as_array().expect("items").last().expect("a call").clone();
    assert_eq!((&call["type"], &call["status"]), (&json!("function_call"), &json!("completed")), "{first}");
    let output = json!({"type": "function_call_output", "call_id": call["call_id"], "output": "noon"});
    let referred = json!([said("The time?"), reference(&call["id"]), output]);
    let second = app.ask(PATH, &ask(referred)).await;
    assert_eq!(asked(&app, &second).await[1], call);
    let (status, error) = app.refused(PATH, &ask(json!([reference(&call["id"])]))).await;
    assert_eq!((status, &error["param"]), (400, &json!("input")), "it waits for its output: {error}");
}
