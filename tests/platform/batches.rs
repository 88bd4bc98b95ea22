//! `/v1/batches`: each line is answered as its URL would answer it, once, and counted once; and every end that a batch can
//! come to.

use std::collections::BTreeSet;
use std::time::Duration;

use sconce::clock::{Clock, Timestamp};
use serde_json::{Value, json};

use crate::api::Api;
use crate::app::{CHAT, EMBED, KEY, TestApp, bearer, chat, with};
use crate::form::{is_over, line, read_lines, with_form};
use crate::rig;

const URL: &str = "/v1/chat/completions";

/// Who has batches.
struct Client<'a> {
    app: &'a TestApp,
    token: String,
}

impl<'a> Client<'a> {
    fn of(app: &'a TestApp) -> Self {
        Self { app, token: KEY.to_owned() }
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let request = self.app.client.get(format!("{}{path}", self.app.url)).headers(bearer(&self.token));
        let response = request.send().await.expect("it answers");
        (response.status().as_u16(), response.text().await.expect("it is text"))
    }

    async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let request = self.app.client.post(format!("{}{path}", self.app.url)).headers(bearer(&self.token));
        let response = request.json(body).send().await.expect("it answers");
        (response.status().as_u16(), response.json().await.expect("it is JSON"))
    }

    async fn upload(&self, content: &[u8]) -> Value {
        let request = self.app.client.post(format!("{}/v1/files", self.app.url)).headers(bearer(&self.token));
        let request = with_form(request, &[("purpose", "batch")], Some(("requests.jsonl", content)));
        let response = request.send().await.expect("it answers");
        assert_eq!(response.status(), 200);
        response.json().await.expect("it is JSON")
    }

    async fn begin(&self, endpoint: &str, content: &[u8]) -> Value {
        let file = self.upload(content).await;
        let new = json!({"input_file_id": file["id"], "endpoint": endpoint, "completion_window": "24h",
            "metadata": {"test": "yes"}});
        let (status, batch) = self.post("/v1/batches", &new).await;
        assert_eq!(status, 200, "{batch}");
        assert_eq!((&batch["status"], &batch["metadata"]), (&json!("validating"), &json!({"test": "yes"})));
        batch
    }

    /// The batch once it is such.
    async fn until(&self, batch: &Value, such: impl Fn(&Value) -> bool) -> Value {
        let path = format!("/v1/batches/{}", batch["id"].as_str().expect("an id"));
        loop {
            let (status, text) = self.get(&path).await;
            assert_eq!(status, 200, "{text}");
            let now: Value = serde_json::from_str(&text).expect("it is JSON");
            if such(&now) {
                return now;
            }
            assert!(!is_over(&now), "it is over, and not as it should be: {now}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn done(&self, batch: &Value) -> Value {
        self.until(batch, is_over).await
    }

    /// The lines of one of its files.
    async fn lines(&self, batch: &Value, file: &str) -> Vec<Value> {
        let Some(id) = batch[file].as_str() else { return Vec::new() };
        let (status, text) = self.get(&format!("/v1/files/{id}/content")).await;
        assert_eq!(status, 200, "{text}");
        read_lines(&text)
    }
}

fn names(lines: &[Value]) -> BTreeSet<String> {
    let names: BTreeSet<_> =
        lines.iter().map(|line| line["custom_id"].as_str().expect("a name").to_owned()).collect();
    assert_eq!(names.len(), lines.len(), "no line is there twice");
    names
}

/// What a batch with these answers used.
fn usage_of(answers: &[Value]) -> Value {
    let sum = |pointers: [&str; 2]| -> u64 {
        let usages = answers.iter().map(|answer| &answer["response"]["body"]["usage"]);
        let told =
            usages.filter_map(|usage| pointers.iter().find_map(|pointer| usage.pointer(pointer)?.as_u64()));
        told.sum()
    };
    let input = sum(["/prompt_tokens", "/input_tokens"]);
    let output = sum(["/completion_tokens", "/output_tokens"]);
    let cached = sum(["/prompt_tokens_details/cached_tokens", "/input_tokens_details/cached_tokens"]);
    let thoughts =
        sum(["/completion_tokens_details/reasoning_tokens", "/output_tokens_details/reasoning_tokens"]);
    json!({"input_tokens": input, "input_tokens_details": {"cached_tokens": cached}, "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": thoughts}, "total_tokens": input + output})
}

/// Checks that what a batch says that it used is what is written of it, where nothing else is.
async fn is_in_the_ledger(app: &TestApp, usage: &Value) {
    for (column, told) in [
        ("prompt_tokens", &usage["input_tokens"]),
        ("cached_tokens", &usage["input_tokens_details"]["cached_tokens"]),
        ("completion_tokens", &usage["output_tokens"]),
    ] {
        let sum = format!("SELECT CAST(SUM({column}) AS BIGINT) FROM usage_records");
        assert_eq!(told, &json!(rig::number(app, &sum).await), "{column}: {usage}");
    }
}

/// So many requests with long answers.
fn long(count: usize) -> String {
    let body = with(with(chat("hi"), "max_tokens", 200), "ignore_eos", true);
    (0..count).map(|number| line(&number.to_string(), URL, &body) + "\n").collect()
}

/// Kept, gone on from and refused as at their URL.
#[tokio::test]
async fn responses_are_made_in_batches_too() {
    let app = TestApp::start().await;
    let client = Client::of(&app);
    const RESPONSES: &str = "/v1/responses";
    let ask = |input: &str| json!({"model": CHAT, "input": input, "temperature": 0, "max_output_tokens": 8});
    let (status, earlier) = client.post(RESPONSES, &ask("one")).await;
    assert_eq!(status, 200, "{earlier}");
    let bodies = [
        ("plain", ask("one")),
        ("gone on from", with(ask("two"), "previous_response_id", earlier["id"].clone())),
        ("not kept", with(ask("three"), "store", false)),
        ("streamed", with(ask("four"), "stream", true)),
        ("in the background", with(ask("five"), "background", true)),
    ];
    let content: Vec<String> = bodies.iter().map(|(name, body)| line(name, RESPONSES, body)).collect();
    let batch = client.done(&client.begin(RESPONSES, content.join("\n").as_bytes()).await).await;
    assert_eq!(batch["request_counts"], json!({"total": 5, "completed": 3, "failed": 2}), "{batch}");
    let answers = client.lines(&batch, "output_file_id").await;
    let answer = |name: &str| {
        let line = answers.iter().find(|line| line["custom_id"] == name).expect("it is answered");
        line["response"]["body"].clone()
    };
    assert_eq!(answer("plain")["output"][0]["content"], earlier["output"][0]["content"]);
    assert_eq!(answer("gone on from")["previous_response_id"], earlier["id"]);
    for (name, is_kept) in [("plain", true), ("gone on from", true), ("not kept", false)] {
        let id = answer(name)["id"].as_str().expect("an id").to_owned();
        let (status, text) = client.get(&format!("{RESPONSES}/{id}")).await;
        assert_eq!(status, if is_kept { 200 } else { 404 }, "{name}: {text}");
    }
    for line in client.lines(&batch, "error_file_id").await {
        let field = if line["custom_id"] == "streamed" { "stream" } else { "background" };
        assert_eq!(line["response"]["body"]["error"]["param"], field, "{line}");
    }
}

/// A file with mistakes in its lines is no batch; requests with mistakes are lines with errors.
#[tokio::test]
async fn lines_are_answered_as_their_url_would_answer_them() {
    let app = TestApp::start().await;
    let client = Client::of(&app);
    let bodies = [
        ("one", chat("one")),
        ("two", with(chat("two"), "n", 2)),
        ("streamed", with(chat("three"), "stream", true)),
        ("unknown model", with(chat("four"), "model", "none")),
        ("unknown parameter", with(chat("five"), "temprature", 1)),
        ("too long", with(chat(&"word ".repeat(400)), "max_tokens", 8)),
    ];
    let content: Vec<String> = bodies.iter().map(|(name, body)| line(name, URL, body)).collect();
    // No end of line after the last, empty ones between, and the mark that some editors write.
    let content = format!("\u{feff}{}", content.join("\r\n\n"));
    let batch = client.done(&client.begin(URL, content.as_bytes()).await).await;
    assert_eq!(batch["status"], "completed", "{batch}");
    assert_eq!(batch["request_counts"], json!({"total": 6, "completed": 2, "failed": 4}));
    for time in ["in_progress_at", "finalizing_at", "completed_at"] {
        assert!(batch[time].is_i64(), "{batch}");
    }
    for time in ["failed_at", "expired_at", "cancelling_at", "cancelled_at", "errors"] {
        assert!(batch[time].is_null(), "{batch}");
    }
    let output = client.lines(&batch, "output_file_id").await;
    assert_eq!(names(&output), ["one", "two"].map(str::to_owned).into());
    for (answer, (name, body)) in output.iter().zip(&bodies) {
        assert_eq!((&answer["custom_id"], &answer["error"]), (&json!(name), &Value::Null));
        let members: Vec<_> = answer.as_object().expect("an object").keys().cloned().collect();
        assert_eq!(members, ["id", "custom_id", "response", "error"]);
        assert!(answer["id"].as_str().is_some_and(|id| id.starts_with("batch_req_")));
        assert_eq!(answer["response"]["status_code"], 200);
        let direct = app.ask(URL, body).await;
        for same in ["object", "model", "choices"] {
            assert_eq!(answer["response"]["body"][same], direct[same], "{name}");
        }
        assert_eq!(
            answer["response"]["body"]["usage"]["completion_tokens"],
            direct["usage"]["completion_tokens"]
        );
    }
    // Several models are no model; what was used is what the answers say together.
    assert_eq!((&batch["model"], &batch["usage"]), (&Value::Null, &usage_of(&output)), "{batch}");
    assert!(batch["usage"]["output_tokens"].as_u64() > Some(0), "{batch}");
    let errors = client.lines(&batch, "error_file_id").await;
    for (error, status, param) in [
        (&errors[0], 400, json!("stream")),
        (&errors[1], 404, json!("model")),
        (&errors[2], 400, json!("temprature")),
        (&errors[3], 400, json!("messages")),
    ] {
        assert_eq!(error["response"]["status_code"], status, "{error}");
        assert_eq!(error["response"]["body"]["error"]["param"], param, "{error}");
    }
    let (_, text) = client.get("/v1/batches").await;
    let list: Value = serde_json::from_str(&text).expect("it is JSON");
    assert_eq!((&list["data"][0], &list["has_more"]), (&batch, &json!(false)));
}

#[tokio::test]
async fn completions_and_embeddings_are_answered_too() {
    let app = TestApp::start().await;
    let client = Client::of(&app);
    for (url, body, object) in [
        ("/v1/completions", json!({"model": CHAT, "prompt": "hi", "max_tokens": 4}), "text_completion"),
        ("/v1/embeddings", json!({"model": EMBED, "input": ["a", "b"]}), "list"),
    ] {
        let batch = client.done(&client.begin(url, line("a", url, &body).as_bytes()).await).await;
        let output = client.lines(&batch, "output_file_id").await;
        assert_eq!(output.len(), 1, "{batch}");
        assert_eq!(output[0]["response"]["body"]["object"], object);
        assert_eq!((&batch["model"], &batch["usage"]), (&body["model"], &usage_of(&output)), "{batch}");
        let (found, expected) =
            (&output[0]["response"]["body"]["usage"], &app.ask(url, &body).await["usage"]);
        for name in ["prompt_tokens", "total_tokens"] {
            assert_eq!(found[name], expected[name], "{name}");
        }
    }
}

/// A server of the version before may have made it while this one was started.
#[tokio::test]
async fn of_a_batch_that_was_made_before_tokens_were_counted_none_are_told() {
    let app = TestApp::start_with(&[("batch-running", "1")]).await;
    let client = Client::of(&app);
    let batch = client.begin(URL, long(3).as_bytes()).await;
    rig::execute(&app, "UPDATE batches SET input_tokens = NULL, output_tokens = NULL").await;
    let batch = client.done(&batch).await;
    assert_eq!((&batch["status"], &batch["usage"]), (&json!("completed"), &Value::Null), "{batch}");
    assert_eq!(batch["request_counts"]["completed"], 3, "{batch}");
}

#[tokio::test]
async fn what_is_wrong_with_a_file_is_told_with_the_line() {
    let app = TestApp::start_with(&[("max-body-size", "64KiB")]).await;
    let client = Client::of(&app);
    let right = line("a", URL, &chat("hi"));
    let long = line("b", URL, &chat(&"x".repeat(64 << 10)));
    for (content, code, number) in [
        (format!("{right}\n{right}\n"), "duplicate_custom_id", json!(2)),
        (format!("\n\n{}\n", right.replace("/chat", "")), "mismatched_endpoint", json!(3)),
        (format!("{right}\n{{\n"), "invalid_json_line", json!(2)),
        (format!("{right}\n{long}\n"), "line_too_long", json!(2)),
        ("\n \n".to_owned(), "empty_file", Value::Null),
    ] {
        let batch = client.done(&client.begin(URL, content.as_bytes()).await).await;
        assert_eq!(batch["status"], "failed", "{batch}");
        let error = &batch["errors"]["data"][0];
        assert_eq!((&error["code"], &error["line"]), (&json!(code), &number), "{batch}");
        assert!(batch["output_file_id"].is_null() && batch["error_file_id"].is_null(), "{batch}");
        assert!(batch["failed_at"].is_i64() && batch["request_counts"]["total"] == 0, "{batch}");
    }
    let batch = client.done(&client.begin(URL, b"\xff\xfe\n").await).await;
    assert_eq!(batch["errors"]["data"][0]["code"], "invalid_json_line", "{batch}");
}

#[tokio::test]
async fn a_cancelled_batch_keeps_what_is_done() {
    let app = TestApp::start_with(&[("batch-running", "2")]).await;
    let client = Client::of(&app);
    let batch = client.begin(URL, long(40).as_bytes()).await;
    client.until(&batch, |batch| batch["request_counts"]["completed"].as_i64() > Some(0)).await;
    let in_use = format!("{}/v1/files/{}", app.url, batch["input_file_id"].as_str().expect("an id"));
    assert_eq!(app.client.delete(&in_use).send().await.expect("it answers").status(), 409);
    let path = format!("/v1/batches/{}/cancel", batch["id"].as_str().expect("an id"));
    let (status, cancelling) = client.post(&path, &json!({})).await;
    assert_eq!((status, &cancelling["status"]), (200, &json!("cancelling")));
    let batch = client.done(&batch).await;
    assert_eq!(batch["status"], "cancelled", "{batch}");
    assert!(batch["cancelling_at"].is_i64() && batch["cancelled_at"].is_i64(), "{batch}");
    let (output, errors) =
        (client.lines(&batch, "output_file_id").await, client.lines(&batch, "error_file_id").await);
    assert_eq!(batch["request_counts"]["completed"], output.len());
    assert!(!output.is_empty() && errors.len() > 1, "{batch}");
    is_in_the_ledger(&app, &batch["usage"]).await;
    assert!(
        errors.iter().all(|line| line["error"]["code"] == "batch_cancelled" && line["response"].is_null())
    );
    assert_eq!(names(&[output, errors].concat()).len(), 40);
    assert_eq!(client.post(&path, &json!({})).await.0, 409);
    assert_eq!(app.client.delete(&in_use).send().await.expect("it answers").status(), 200);
}

#[tokio::test]
async fn what_a_cancelled_batch_is_doing_stops_and_is_paid_for() {
    let app = TestApp::start_with(&[("batch-running", "1")]).await;
    let client = Client::of(&app);
    let many = with(with(with(chat("hi"), "max_tokens", 200), "ignore_eos", true), "n", 64);
    let batch = client.begin(URL, line("one", URL, &many).as_bytes()).await;
    app.engine_is(|stats| stats.running > 0 && stats.generated_tokens > 0).await;
    let path = format!("/v1/batches/{}/cancel", batch["id"].as_str().expect("an id"));
    client.post(&path, &json!({})).await;
    let batch = client.done(&batch).await;
    assert_eq!((&batch["status"], &batch["request_counts"]["completed"]), (&json!("cancelled"), &json!(0)));
    let errors = client.lines(&batch, "error_file_id").await;
    assert_eq!((errors.len(), &errors[0]["error"]["code"]), (1, &json!("batch_cancelled")));
    is_in_the_ledger(&app, &batch["usage"]).await;
    let stats = app.engine_is(|stats| stats.running == 0).await;
    let row = "SELECT completion_tokens FROM usage_records WHERE outcome = 'cancelled'";
    let paid = crate::rig::number(&app, row).await;
    assert_eq!(u64::try_from(paid).expect("no count is negative"), stats.generated_tokens);
    assert!(paid > 0 && paid < 64 * 200, "{paid}");
}

#[tokio::test]
async fn a_batch_whose_window_is_over_keeps_what_is_done() {
    let clock = Clock::manual(Timestamp::from_millis(1_900_000_000_000));
    let app = TestApp::start_by(&[("batch-running", "2")], clock).await;
    let client = Client::of(&app);
    let batch = client.begin(URL, long(60).as_bytes()).await;
    client.until(&batch, |batch| batch["request_counts"]["completed"].as_i64() > Some(0)).await;
    app.auth.clock().advance(Duration::from_secs(86_401));
    let batch = client.done(&batch).await;
    assert_eq!(batch["status"], "expired", "{batch}");
    let (output, errors) =
        (client.lines(&batch, "output_file_id").await, client.lines(&batch, "error_file_id").await);
    assert!(!output.is_empty() && errors.iter().all(|line| line["error"]["code"] == "batch_expired"));
    assert_eq!(names(&[output, errors].concat()).len(), 60);
}

#[tokio::test]
async fn a_key_that_is_taken_away_ends_its_batch() {
    let app = TestApp::start_with(&[("batch-running", "2")]).await;
    let owner = Api::owner(&app).await;
    let (id, key) = owner.own_key(json!({"name": "a"})).await;
    let client = Client { app: &app, token: key.token };
    let batch = client.begin(URL, long(60).as_bytes()).await;
    client.until(&batch, |batch| batch["request_counts"]["completed"].as_i64() > Some(0)).await;
    owner.put(&format!("/me/keys/{id}"), json!({"status": "disabled"})).await.data();
    let client = Client { app: &app, token: owner.token.clone() };
    let batch = client.done(&batch).await;
    assert_eq!(batch["status"], "failed", "{batch}");
    assert_eq!(batch["errors"]["data"][0]["code"], "revoked_api_key", "{batch}");
    let (output, errors) =
        (client.lines(&batch, "output_file_id").await, client.lines(&batch, "error_file_id").await);
    assert!(!output.is_empty() && errors.iter().all(|line| line["error"]["code"] == "batch_failed"));
    assert_eq!(names(&[output, errors].concat()).len(), 60);
    // Another secret for a key is no other key.
    let (id, key) = owner.own_key(json!({"name": "b"})).await;
    let client = Client { app: &app, token: key.token };
    let batch = client.begin(URL, long(8).as_bytes()).await;
    owner.post(&format!("/me/keys/{id}/rotate"), json!({"overlap_seconds": 0})).await.data();
    let client = Client { app: &app, token: owner.token.clone() };
    assert_eq!(client.done(&batch).await["request_counts"]["completed"], 8);
}

#[tokio::test]
async fn each_line_is_in_the_ledger_once_with_what_its_answer_says() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    let (id, key) = owner.own_key(json!({"name": "a"})).await;
    let client = Client { app: &app, token: key.token };
    let content: String = (0..30).map(|n| line(&n.to_string(), URL, &chat(&n.to_string())) + "\n").collect();
    let batch = client.done(&client.begin(URL, content.as_bytes()).await).await;
    let output = client.lines(&batch, "output_file_id").await;
    assert_eq!(names(&output).len(), 30);
    let usage = owner.get("/admin/usage?limit=100").await.data();
    let rows: Vec<&Value> = usage["items"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|row| row["key_id"] == id.as_str())
        .collect();
    assert_eq!(rows.len(), 30);
    for line in &output {
        let own: Vec<_> =
            rows.iter().filter(|row| row["request_id"] == line["response"]["request_id"]).collect();
        assert_eq!(own.len(), 1, "{line}");
        let usage = &line["response"]["body"]["usage"];
        assert_eq!(own[0]["prompt_tokens"], usage["prompt_tokens"]);
        assert_eq!(own[0]["completion_tokens"], usage["completion_tokens"]);
        assert_eq!(own[0]["endpoint"], URL);
    }
}

#[tokio::test]
async fn whoever_waits_for_an_answer_gets_it_before_the_batch_goes_on() {
    let app = TestApp::start_with(&[("max-running", "4"), ("batch-running", "8")]).await;
    let client = Client::of(&app);
    let batch = client.begin(URL, long(200).as_bytes()).await;
    client.until(&batch, |batch| batch["request_counts"]["completed"].as_i64() > Some(0)).await;
    // All places of the engine are the batch's.
    app.engine_is(|stats| stats.running == 4 && stats.waiting >= 4).await;
    for number in 0..4 {
        app.ask(URL, &chat(&number.to_string())).await;
    }
    let now = client.until(&batch, |_| true).await;
    assert_eq!(now["status"], "in_progress", "{now}");
    let path = format!("/v1/batches/{}/cancel", batch["id"].as_str().expect("an id"));
    client.post(&path, &json!({})).await;
    client.done(&batch).await;
}

#[tokio::test]
async fn what_a_user_had_goes_with_the_user() {
    let app = TestApp::start_with(&[("batch-running", "1")]).await;
    let owner = Api::owner(&app).await;
    let (id, user) = owner.colleague("leaving", "user").await;
    let client = Client { app: &app, token: user.token };
    let batch = client.begin(URL, long(60).as_bytes()).await;
    client.until(&batch, |batch| batch["request_counts"]["completed"].as_i64() > Some(0)).await;
    owner.delete(&format!("/admin/users/{id}")).await.data();
    for table in ["batch_lines", "batches", "file_chunks", "files"] {
        while crate::rig::number(&app, &format!("SELECT COUNT(*) FROM {table}")).await > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    app.engine_is(|stats| stats.running == 0 && stats.waiting == 0).await;
}

#[tokio::test]
async fn what_changes_files_and_batches_writes_one_row_each() {
    let app = TestApp::start().await;
    let (client, owner) = (Client::of(&app), Api::owner(&app).await);
    let rows = async |action: &str| {
        let page = owner.get(&format!("/admin/audit?action={action}")).await.data();
        page["items"]
            .as_array()
            .expect("items")
            .iter()
            .map(|row| row["target_id"].clone())
            .collect::<Vec<_>>()
    };
    let batch = client.begin(URL, line("a", URL, &chat("hi")).as_bytes()).await;
    let batch = client.done(&batch).await;
    assert_eq!(rows("file.create").await, [batch["input_file_id"].clone()]);
    assert_eq!(rows("batch.create").await, [batch["id"].clone()]);
    let unused = client.upload(line("a", URL, &chat("hi")).as_bytes()).await;
    assert_eq!(rows("file.create").await.len(), 2);
    let path = format!("{}/v1/files/{}", app.url, unused["id"].as_str().expect("an id"));
    let deleted = app.client.delete(path).headers(bearer(KEY)).send().await.expect("it answers");
    assert_eq!(deleted.status(), 200);
    assert_eq!(rows("file.delete").await, [unused["id"].clone()]);
}

/// As if the server had been killed between an answer that was kept and its line.
#[tokio::test]
async fn what_is_kept_of_a_line_that_is_answered_again_is_kept_once() {
    let app = TestApp::start().await;
    let client = Client::of(&app);
    let stored = with(with(chat("one"), "store", true), "metadata", json!({"job": "a"}));
    let response = json!({"model": CHAT, "input": "one", "temperature": 0, "max_output_tokens": 4});
    for (endpoint, body) in [(URL, stored), ("/v1/responses", response)] {
        let content = [line("1", endpoint, &body), line("2", endpoint, &body)].join("\n");
        let batch = client.begin(endpoint, content.as_bytes()).await;
        let id = batch["id"].as_str().expect("an id");
        // Its lines are not taken away when it is over.
        rig::execute(&app, &format!("UPDATE batches SET is_swept = TRUE WHERE id = '{id}'")).await;
        let first = client.done(&batch).await;
        assert_eq!(first["request_counts"]["completed"], 2, "{first}");
        let kept = "SELECT COUNT(*) FROM responses";
        let before = rig::number(&app, kept).await;
        let lines = format!("UPDATE batch_lines SET status = NULL, output = NULL WHERE batch_id = '{id}'");
        rig::execute(&app, &lines).await;
        let again = "status = 'in_progress', ending = NULL, completed = 0, completed_at = NULL, finalizing_at = NULL, \
            output_file_id = NULL, holder = NULL, held_until = NULL";
        rig::execute(&app, &format!("UPDATE batches SET {again} WHERE id = '{id}'")).await;
        let second = client.done(&first).await;
        assert_eq!(second["request_counts"]["completed"], 2, "{second}");
        assert_eq!(rig::number(&app, kept).await, before, "{endpoint}");
        for line in client.lines(&second, "output_file_id").await {
            let body = &line["response"]["body"];
            let path = format!("{endpoint}/{}", body["id"].as_str().expect("an id"));
            let (status, shown) = client.get(&path).await;
            let shown: Value = serde_json::from_str(&shown).expect("it is JSON");
            assert_eq!((status, &shown["usage"]), (200, &body["usage"]));
        }
    }
    assert_eq!(rig::number(&app, "SELECT COUNT(*) FROM stored_chats").await, 2);
}
