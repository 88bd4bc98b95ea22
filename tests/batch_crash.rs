//! The server killed (`kill -9`) in the middle of a batch: each request has exactly one result afterwards, and the ledger
//! has each exactly once.
//!
//! On PostgreSQL also: a replica killed while another looks on, which goes on with what it held.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod database;
#[path = "common/form.rs"]
mod form;
mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use database::Backend;
use form::{is_over, line, read_lines, with_form};
use process::{CHAT, Machine, Server, client};
use serde_json::{Value, json};

const URL: &str = "/v1/chat/completions";

/// Requests of the batch; two of them are refused.
const LINES: usize = 500;
const REFUSED: [usize; 2] = [77, 401];

/// The server is killed once so many have their results.
const MOMENTS: [i64; 3] = [1, 150, 390];

fn requests() -> String {
    let request = |number: usize| {
        // Answers of different lengths, so that they are not all written at once.
        let mut body = json!({"model": CHAT, "max_tokens": 4 + number % 13, "ignore_eos": true, "seed": number,
            "messages": [{"role": "user", "content": format!("number {number}")}]});
        if REFUSED.contains(&number) {
            body["model"] = "none".into();
        }
        line(&format!("request {number}"), URL, &body) + "\n"
    };
    (0..LINES).map(request).collect()
}

/// A key of the owner's: id and secret.
async fn key(server: &Server) -> (String, String) {
    let token = server.owner_token().await;
    let (status, made) = server.post("/api/v1/me/keys", &token, &json!({"name": "a batch's"})).await;
    assert_eq!(status, 201, "{made}");
    let text = |name: &str| made["data"][name].as_str().unwrap().to_owned();
    (text("id"), text("key"))
}

/// Makes a batch; its path.
async fn begin(server: &Server, secret: &str) -> String {
    let request = client().post(format!("{}/v1/files", server.url)).bearer_auth(secret);
    let request =
        with_form(request, &[("purpose", "batch")], Some(("requests.jsonl", requests().as_bytes())));
    let file: Value = request.send().await.unwrap().json().await.unwrap();
    let new = json!({"input_file_id": file["id"], "endpoint": URL, "completion_window": "24h"});
    let (status, batch) = server.post("/v1/batches", secret, &new).await;
    assert_eq!(status, 200, "{batch}");
    format!("/v1/batches/{}", batch["id"].as_str().unwrap())
}

/// The batch once so many lines have results.
async fn until(server: &Server, secret: &str, path: &str, count: i64) -> Value {
    loop {
        let (status, batch) = server.get(path, secret).await;
        assert_eq!(status, 200, "{batch}");
        let counts = &batch["request_counts"];
        if counts["completed"].as_i64().unwrap() + counts["failed"].as_i64().unwrap() >= count {
            return batch;
        }
        assert!(!is_over(&batch), "{batch}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn ended(server: &Server, secret: &str, path: &str) -> Value {
    loop {
        let (_, batch) = server.get(path, secret).await;
        if is_over(&batch) {
            return batch;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn lines(server: &Server, secret: &str, id: &Value) -> Vec<Value> {
    let url = format!("{}/v1/files/{}/content", server.url, id.as_str().unwrap());
    let answer = client().get(url).bearer_auth(secret).send().await.unwrap();
    read_lines(&answer.text().await.unwrap())
}

/// Each request has one result, and the ledger has each once, with what its answer says.
async fn is_whole(machine: &Machine, server: &Server, (id, secret): (&str, &str), batch: &Value) {
    assert_eq!(batch["status"], "completed", "{batch}");
    let answered = LINES - REFUSED.len();
    assert_eq!(
        batch["request_counts"],
        json!({"total": LINES, "completed": answered, "failed": REFUSED.len()})
    );
    let output = lines(server, secret, &batch["output_file_id"]).await;
    let refused = lines(server, secret, &batch["error_file_id"]).await;
    assert_eq!((output.len(), refused.len()), (answered, REFUSED.len()));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let all = || output.iter().chain(&refused);
    let names: BTreeSet<_> = all().map(|line| text(&line["custom_id"])).collect();
    let expected: BTreeSet<_> = (0..LINES).map(|number| format!("request {number}")).collect();
    assert_eq!(names, expected);
    assert_eq!(all().map(|line| text(&line["id"])).collect::<BTreeSet<_>>().len(), LINES);

    let said: BTreeMap<String, String> = output
        .iter()
        .map(|line| {
            let usage = &line["response"]["body"]["usage"];
            let tokens = format!("{} {}", usage["prompt_tokens"], usage["completion_tokens"]);
            (text(&line["response"]["request_id"]), tokens)
        })
        .collect();
    let ledger = machine
        .ask_database(&format!(
            "SELECT request_id || '=' || prompt_tokens || ' ' || completion_tokens FROM usage_records \
             WHERE key_id = '{id}'"
        ))
        .await;
    assert_eq!(ledger.len(), answered, "one row for each answer");
    let ledger: BTreeMap<String, String> = ledger
        .iter()
        .map(|row| row.split_once('=').unwrap())
        .map(|(id, tokens)| (id.into(), tokens.into()))
        .collect();
    assert_eq!(ledger, said);
    let counted = "SELECT COALESCE(SUM(prompt_tokens), 0) || ' ' || COALESCE(SUM(cached_tokens), 0) || ' ' || \
        COALESCE(SUM(completion_tokens), 0) FROM usage_records WHERE key_id = ";
    let counted = machine.ask_database(&format!("{counted}'{id}'")).await;
    let usage = &batch["usage"];
    let cached = &usage["input_tokens_details"]["cached_tokens"];
    assert_eq!(counted, [format!("{} {cached} {}", usage["input_tokens"], usage["output_tokens"])]);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_500_requests_has_one_result_and_is_counted_once_whenever_the_server_is_killed() {
    let machine = Machine::new().await;
    let mut server = machine.serve().await;
    let (id, secret) = key(&server).await;
    let path = begin(&server, &secret).await;
    for count in MOMENTS {
        let batch = until(&server, &secret, &path, count).await;
        assert!(!is_over(&batch), "it was over before it was killed: {batch}");
        server.kill().await;
        if Backend::under_test() == Backend::Sqlite {
            assert_eq!(machine.ask_database("PRAGMA integrity_check").await, ["ok"]);
        }
        server = machine.serve().await;
    }
    let batch = ended(&server, &secret, &path).await;
    is_whole(&machine, &server, (&id, &secret), &batch).await;
    // What is asked for to end, ends: and the batch goes on after the next start.
    let path = begin(&server, &secret).await;
    until(&server, &secret, &path, 10).await;
    assert_eq!(server.end().await, Some(0));
    let server = machine.serve().await;
    let batch = ended(&server, &secret, &path).await;
    assert_eq!(batch["request_counts"]["total"], LINES);
    let results = [&batch["output_file_id"], &batch["error_file_id"]];
    assert_eq!(
        lines(&server, &secret, results[0]).await.len() + lines(&server, &secret, results[1]).await.len(),
        LINES
    );
    let count = format!("SELECT CAST(COUNT(*) AS TEXT) FROM usage_records WHERE key_id = '{id}'");
    let expected = 2 * (LINES - REFUSED.len());
    assert_eq!(machine.ask_database(&count).await, [expected.to_string()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_dies_is_succeeded_by_another() {
    if Backend::under_test() == Backend::Sqlite {
        // There is no other: `tests/replicas.rs` sees to that.
        return;
    }
    let one = Machine::new().await;
    let first = one.serve().await;
    let (id, secret) = key(&first).await;
    let path = begin(&first, &secret).await;
    until(&first, &secret, &path, 20).await;
    let other = one.beside();
    let second = other.serve().await;
    until(&second, &secret, &path, 60).await;
    first.kill().await;
    let batch = ended(&second, &secret, &path).await;
    is_whole(&other, &second, (&id, &secret), &batch).await;
}
