//! `/v1/files`: what is uploaded comes back as it was, to its owner and to nobody else, and there is an end to all of it.

use futures_util::{StreamExt, stream};
use reqwest::Method;
use serde_json::{Value, json};

use crate::api::Api;
use crate::app::{TestApp, bearer, read_error};
use crate::form::with_form;

/// Uploads; status and JSON.
async fn upload(app: &TestApp, fields: &[(&str, &str)], file: Option<(&str, &[u8])>) -> (u16, Value) {
    let request = with_form(app.client.post(format!("{}/v1/files", app.url)), fields, file);
    let response = request.send().await.expect("it answers");
    (response.status().as_u16(), response.json().await.expect("it is JSON"))
}

async fn uploaded(app: &TestApp, name: &str, content: &[u8]) -> Value {
    let (status, file) = upload(app, &[("purpose", "batch")], Some((name, content))).await;
    assert_eq!(status, 200, "{file}");
    file
}

async fn get(app: &TestApp, path: &str) -> (u16, Value) {
    let response = app.get(path).send().await.expect("it answers");
    (response.status().as_u16(), response.json().await.expect("it is JSON"))
}

fn id(file: &Value) -> &str {
    file["id"].as_str().expect("an id")
}

#[tokio::test]
async fn what_is_uploaded_comes_back_as_it_was_and_goes_when_it_is_deleted() {
    let app = TestApp::start().await;
    // Several pieces, none of them whole.
    let content: Vec<u8> =
        (0..1_500_001_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let file = uploaded(&app, "../../etc/requests.jsonl", &content).await;
    assert_eq!((&file["object"], &file["purpose"]), (&json!("file"), &json!("batch")));
    assert_eq!((&file["filename"], &file["status"]), (&json!("requests.jsonl"), &json!("processed")));
    assert_eq!((&file["bytes"], &file["expires_at"]), (&json!(content.len()), &Value::Null));
    let path = format!("/v1/files/{}", id(&file));
    assert_eq!(get(&app, &path).await, (200, file.clone()));

    let response = app.get(&format!("{path}/content")).send().await.expect("it answers");
    assert_eq!(response.headers()["content-type"], "application/octet-stream");
    assert_eq!(response.headers()["content-length"], content.len().to_string());
    assert!(response.bytes().await.expect("it comes whole") == content);

    let gone = app.client.delete(format!("{}{path}", app.url)).send().await.expect("it answers");
    let gone: Value = gone.json().await.expect("it is JSON");
    assert_eq!(gone, json!({"id": file["id"], "object": "file", "deleted": true}));
    for path in [path.clone(), format!("{path}/content")] {
        assert_eq!(read_error(app.get(&path).send().await.expect("it answers")).await.0, 404);
    }
    assert_eq!(get(&app, "/v1/files").await.1["data"], json!([]));
}

#[tokio::test]
async fn lists_are_turned_over_in_both_directions() {
    let app = TestApp::start().await;
    let mut made = Vec::new();
    for number in 0..5 {
        made.push(uploaded(&app, &format!("{number}.jsonl"), b"{}").await["id"].clone());
    }
    for (order, mut expected) in [("asc", made.clone()), ("desc", made.iter().rev().cloned().collect())] {
        let (mut found, mut after) = (Vec::new(), String::new());
        loop {
            let (status, page) = get(&app, &format!("/v1/files?limit=2&order={order}{after}")).await;
            assert_eq!((status, &page["object"]), (200, &json!("list")), "{page}");
            let items = page["data"].as_array().expect("a list");
            found.extend(items.iter().map(|file| file["id"].clone()));
            assert_eq!(page["last_id"], items.last().expect("it is not empty")["id"]);
            if page["has_more"] == false {
                break;
            }
            after = format!("&after={}", page["last_id"].as_str().expect("an id"));
        }
        // Those of one millisecond have no order but that of their ids.
        found.sort_by_key(Value::to_string);
        expected.sort_by_key(Value::to_string);
        assert_eq!(found, expected, "{order}");
    }
    assert_eq!(get(&app, "/v1/files?purpose=batch_output").await.1["data"], json!([]));
    for query in
        ["limit=0", "limit=10001", "order=up", "purpose=vision", "after=file-none", "other=1", "after=%00"]
    {
        assert_eq!(get(&app, &format!("/v1/files?{query}")).await.0, 400, "{query}");
    }
}

#[tokio::test]
async fn forms_that_are_not_right_are_refused_by_name_and_leave_nothing() {
    let app = TestApp::start().await;
    let file = Some(("a.jsonl", &b"{}"[..]));
    let batch = ("purpose", "batch");
    for (fields, file, number, param) in [
        (&[][..], file, 400, json!("purpose")),
        (&[batch][..], None, 400, json!("file")),
        (&[batch], Some(("a.jsonl", &b""[..])), 400, json!("file")),
        (&[batch, batch], file, 400, json!("purpose")),
        (&[("purpose", "vision")], file, 400, json!("purpose")),
        (&[("purpose", "nonsense")], file, 400, json!("purpose")),
        (&[batch, ("file", "text")], None, 400, json!("file")),
        (&[batch, ("other", "1")], file, 400, json!("other")),
        (&[batch, ("expires_after[seconds]", "7200")], file, 400, json!("expires_after[anchor]")),
        (&[batch, ("expires_after[anchor]", "created_at")], file, 400, json!("expires_after[seconds]")),
    ] {
        let (status, body) = upload(&app, fields, file).await;
        assert_eq!((status, &body["error"]["param"]), (number, &param), "{fields:?}: {body}");
    }
    let url = format!("{}/v1/files", app.url);
    let json = app.client.post(&url).json(&json!({})).send().await.expect("it answers");
    assert_eq!(read_error(json).await.0, 415);
    let broken = app
        .client
        .post(&url)
        .header("content-type", "multipart/form-data; boundary=x")
        .body("--x\r\nno form");
    assert_eq!(read_error(broken.send().await.expect("it answers")).await.0, 400);
    assert_eq!(get(&app, "/v1/files").await.1["data"], json!([]));
}

#[tokio::test]
async fn a_file_may_be_so_large_and_all_of_a_users_so_large_together() {
    let limits = [("max-file-size", "1MiB"), ("max-user-files", "2MiB")];
    let app = TestApp::start_with(&limits).await;
    let (status, body) = upload(&app, &[("purpose", "batch")], Some(("a", &vec![b'x'; (1 << 20) + 1]))).await;
    assert_eq!((status, &body["error"]["code"]), (413, &json!("request_too_large")), "{body}");
    // Who does not say how much will come is stopped when it has.
    let head = "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n";
    let body = stream::iter([head.as_bytes().to_vec()]).chain(stream::repeat(vec![b'x'; 4096]));
    let body = body.map(Ok::<_, std::io::Error>);
    let request = app.client.post(format!("{}/v1/files", app.url));
    let request = request.header("content-type", "multipart/form-data; boundary=x");
    let answer = request.body(reqwest::Body::wrap_stream(body)).send().await;
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status() == 413));

    let full = vec![b'x'; 1 << 20];
    for _ in 0..2 {
        uploaded(&app, "a.jsonl", &full).await;
    }
    let (status, body) = upload(&app, &[("purpose", "batch")], Some(("a", &full))).await;
    assert_eq!((status, &body["error"]["code"]), (409, &json!("quota_exceeded")), "{body}");
    let files = get(&app, "/v1/files").await.1;
    assert_eq!(files["data"].as_array().map(Vec::len), Some(2));
    let path = format!("{}/v1/files/{}", app.url, id(&files["data"][0]));
    assert_eq!(app.client.delete(path).send().await.expect("it answers").status(), 200);
    uploaded(&app, "a.jsonl", &full).await;
}

#[tokio::test]
async fn b1_anothers_files_and_batches_are_not_there() {
    let app = TestApp::start().await.without_key();
    let owner = Api::owner(&app).await;
    let (_, one) = owner.colleague("one", "user").await;
    let mine = with_form(
        app.client.post(format!("{}/v1/files", app.url)).headers(bearer(&one.token)),
        &[("purpose", "batch")],
        Some(("a.jsonl", b"{}")),
    );
    let mine: Value = mine.send().await.expect("it answers").json().await.expect("it is JSON");
    let new = json!({"input_file_id": mine["id"], "endpoint": "/v1/embeddings", "completion_window": "24h"});
    let batch = one.post("/v1/batches", new.clone()).await;
    assert_eq!(batch.status, 200, "{}", batch.text);
    let (_, other) = owner.colleague("other", "user").await;
    for who in [&other, &owner] {
        for (method, path) in [
            ("GET", "/v1/files/{}"),
            ("GET", "/v1/files/{}/content"),
            ("DELETE", "/v1/files/{}"),
            ("GET", "/v1/batches/{}"),
            ("POST", "/v1/batches/{}/cancel"),
        ] {
            let known = if path.contains("files") { id(&mine) } else { id(&batch.json) };
            let answers = [known, "none"].map(|id| path.replace("{}", id));
            let found = who.send(method, &answers[0], None).await;
            let unknown = who.send(method, &answers[1], None).await;
            assert_eq!((found.status, &found.text), (404, &unknown.text), "{method} {path}");
        }
        for path in ["/v1/files", "/v1/batches"] {
            assert_eq!(who.get(path).await.json["data"], json!([]), "{path}");
            let after =
                format!("{path}?after={}", if path.contains("files") { id(&mine) } else { id(&batch.json) });
            assert_eq!(who.get(&after).await.status, 400, "{after}");
        }
        let refused = who.post("/v1/batches", new.clone()).await;
        assert_eq!((refused.status, &refused.json["error"]["param"]), (400, &json!("input_file_id")));
    }
    assert_eq!(one.get(&format!("/v1/files/{}", id(&mine))).await.status, 200);
    let method = Method::GET;
    let nobody =
        app.client.request(method, format!("{}/v1/files", app.url)).send().await.expect("it answers");
    assert_eq!(nobody.status(), 401);
}
