//! What requests use is written down, to the token, however they end.

use std::net::{IpAddr, Ipv4Addr};

use sconce::auth::Origin;
use sconce::clock::Clock;
use sconce::engine::EngineStats;
use sconce::error::{Code, Failure};
use sconce::store::usage::{self, UsageFilter, UsageRow};
use sconce::store::{ListRequest, Order};
use sconce::usage::{Outcome, Recorder, Tokens, UsageError};
use serde_json::json;

use crate::api::Api;
use crate::app::{CHAT, EMBED, KEY, TestApp, chat, golden, long, read_events, with};
use crate::rig;

const NATIVE: &str = "/api/v1/chat/completions";
const CHAT_V1: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";

/// All rows, oldest first, once everything that was begun is written.
async fn rows(app: &TestApp) -> Vec<UsageRow> {
    app.usage.flushed().await;
    let mut tx = rig::store(app).await.read().await.expect("it reads");
    let all = ListRequest { limit: 1000, cursor: None, sort: "at", order: Order::Ascending };
    usage::list(&mut tx, &UsageFilter::default(), &all).await.expect("they are there").items
}

fn outcomes(rows: &[UsageRow]) -> Vec<&str> {
    rows.iter().map(|row| row.outcome.as_str()).collect()
}

/// The rows say what the engine did, to the token.
fn assert_exact(rows: &[UsageRow], figures: &EngineStats) {
    let sum = |of: fn(&UsageRow) -> i64| {
        let own = rows.iter().filter(|row| row.model == CHAT);
        u64::try_from(own.map(of).sum::<i64>()).expect("no count is negative")
    };
    assert_eq!(sum(|row| row.completion_tokens), figures.generated_tokens, "{rows:?}");
    assert_eq!(sum(|row| row.prompt_tokens), figures.prefix_queries, "{rows:?}");
    assert_eq!(sum(|row| row.cached_tokens), figures.prefix_hits, "{rows:?}");
}

#[tokio::test]
async fn the_sum_of_all_rows_is_what_the_engine_counted_however_requests_ended() {
    let app = TestApp::start_with(&[("max-running", "1")]).await;
    let finished = [
        (NATIVE, chat("Hello")),
        (NATIVE, with(chat("Hello"), "stream", true)),
        (CHAT_V1, with(chat("Hello again, with a longer text that is found in the cache"), "n", 3)),
        (CHAT_V1, with(with(chat("Hello"), "stream", true), "ignore_eos", true)),
        (TEXT, json!({"model": CHAT, "prompt": [[303, 324], [14, 15, 16]], "max_tokens": 5, "n": 2})),
        (TEXT, json!({"model": CHAT, "prompt": "echo", "echo": true, "logprobs": 1, "max_tokens": 0})),
    ];
    for (path, body) in &finished {
        assert_eq!(app.post(path, body).await.text().await.map(|text| text.is_empty()).ok(), Some(false));
    }
    // What a stop text cuts off was made all the same.
    let whole = app.ask(NATIVE, &with(chat("Hello"), "ignore_eos", true)).await;
    let text = whole["data"]["choices"][0]["message"]["content"].as_str().expect("a text");
    let stop: String = text.chars().skip(2).take(2).collect();
    app.ask(NATIVE, &with(with(chat("Hello"), "ignore_eos", true), "stop", stop)).await;
    // Streams that are left at once and after some events; whole answers that are left while one runs and five wait.
    for number in [0, 1, 5, 40] {
        let mut stream = app.post(TEXT, &long(8)).await.bytes_stream();
        read_events(&mut stream, number).await;
    }
    let left = (0..6).map(|_| {
        let request = app.client.post(format!("{}{TEXT}", app.url)).json(&with(long(64), "stream", false));
        tokio::spawn(request.send())
    });
    let left: Vec<_> = left.collect();
    app.engine_is(|stats| stats.waiting == 5).await;
    left.iter().for_each(tokio::task::JoinHandle::abort);
    // Two prompts of one request are two of the engine's.
    let figures = app.is_idle_after(finished.len() as u64 + 1 + 2 + 4 + 6).await;
    let rows = rows(&app).await;
    assert_eq!(rows.len(), finished.len() + 2 + 4 + 6, "{:?}", outcomes(&rows));
    assert_exact(&rows, &figures);
    assert!(figures.finished_abandoned >= 6 && figures.generated_tokens > 300, "{figures:?}");
    let queued_only = rows.iter().filter(|row| row.prompt_tokens == 0).count();
    assert!(queued_only >= 1, "who only waited pays nothing: {rows:?}");
}

#[tokio::test]
async fn rows_say_who_asked_for_what_and_how_it_ended() {
    let app = TestApp::start_with(&[("model-root", &golden("").to_string_lossy())]).await;
    let owner = Api::owner(&app).await;
    let registered = owner
        .post(
            "/admin/models",
            json!({"id": "local", "aliases": ["gpt-4o"], "sources": [golden("llama").to_string_lossy()]}),
        )
        .await;
    assert_eq!(registered.status, 201, "{}", registered.text);
    let user = owner.get("/me").await.data()["id"].as_str().expect("an id").to_owned();
    let (key_id, by_key) = owner.own_key(json!({"name": "laptop"})).await;
    let body = with(with(chat("Hello"), "ignore_eos", true), "model", "gpt-4o");
    let answer = by_key.post("/chat/completions", body.clone()).await;
    let id = answer.headers["x-request-id"].to_str().expect("text").to_owned();
    let usage = answer.data()["usage"].clone();
    owner.post("/chat/completions", with(body.clone(), "ignore_eos", false)).await.data();
    app.ask("/v1/embeddings", &json!({"model": EMBED, "input": ["one", "two words"]})).await;
    let tight = with(with(body, "model", CHAT), "max_tokens", 1);
    app.ask(CHAT_V1, &tight).await;

    let rows = rows(&app).await;
    let [first, second, embedding, plain] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!((first.model.as_str(), first.asked_for.as_str()), ("local", "gpt-4o"));
    assert_eq!((first.request_id.as_str(), first.endpoint.as_str()), (id.as_str(), NATIVE));
    assert_eq!((first.user_id.as_deref(), first.key_id.as_deref()), (Some(&*user), Some(&*key_id)));
    assert_eq!(usage["prompt_tokens"], first.prompt_tokens);
    assert_eq!(usage["completion_tokens"], first.completion_tokens);
    assert_eq!((first.outcome.as_str(), first.completion_tokens), ("length", 24));
    assert!(first.duration_ms >= 0 && first.id.starts_with("use_"));
    assert_eq!((second.user_id.as_deref(), &second.key_id), (Some(&*user), &None));
    assert_eq!((embedding.model.as_str(), embedding.endpoint.as_str()), (EMBED, "/v1/embeddings"));
    assert_eq!((embedding.outcome.as_str(), embedding.completion_tokens), ("stop", 0));
    assert!(embedding.prompt_tokens >= 3, "{embedding:?}");
    assert_eq!((&plain.user_id, plain.outcome.as_str()), (&None, "length"), "the configured key is nobody's");
    let shown = owner.get("/admin/usage?sort=at").await.data();
    assert_eq!(shown["items"][0]["request_id"], id);
    assert_eq!(owner.get("/me/usage").await.data()["items"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn what_no_engine_was_asked_for_leaves_no_row() {
    let app = TestApp::start().await;
    for body in [
        with(chat("x"), "model", "nobody"),
        with(chat("x"), "model", EMBED),
        with(chat("x"), "temperature", 9),
        chat(&"word ".repeat(400)),
    ] {
        assert_ne!(app.post(NATIVE, &body).await.status().as_u16(), 200, "{body}");
    }
    assert_eq!(rows(&app).await, Vec::new());
}

#[tokio::test]
async fn a_request_that_takes_too_long_and_one_that_is_left_say_so() {
    let app = TestApp::start_with(&[("request-timeout", "1ms")]).await;
    assert_eq!(app.post(TEXT, &with(long(64), "stream", false)).await.status().as_u16(), 504);
    assert_eq!(outcomes(&rows(&app).await), ["timeout"]);

    let app = TestApp::start().await;
    drop(app.post(TEXT, &long(64)).await);
    let figures = app.is_idle_after(1).await;
    let rows = rows(&app).await;
    assert_eq!(outcomes(&rows), ["client_gone"]);
    assert_exact(&rows, &figures);
}

#[tokio::test]
async fn the_end_of_the_server_waits_until_all_is_written() {
    let mut app = TestApp::start().await;
    let store = rig::store(&app).await;
    let body = with(with(long(32), "logprobs", 5), "stream", true);
    let _unread = app.post(TEXT, &body).await;
    app.shutdown.end();
    app.ended().await.expect("it ends well");
    let mut tx = store.read().await.expect("it reads");
    let all = ListRequest { limit: 10, cursor: None, sort: "at", order: Order::Ascending };
    let rows = usage::list(&mut tx, &UsageFilter::default(), &all).await.expect("they are there").items;
    assert_eq!(outcomes(&rows), ["shutdown"]);
    assert!(rows[0].completion_tokens > 0);
}

#[tokio::test]
async fn rows_wait_for_the_database_and_what_cannot_wait_any_more_is_not_begun() {
    let app = TestApp::start().await;
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let origin =
        Origin { address, request: String::new(), request_id: "req_1".to_owned(), user_agent: String::new() };
    let caller = app.auth.authenticate(Some(KEY), origin).await.expect("the key is good");
    let store = rig::store(&app).await;
    let (recorder, scribe) = Recorder::open(store.clone(), Clock::System);
    let begin = || recorder.begin(&caller, "model", "model", "/v1/completions");

    let mut tallies = Vec::new();
    let refusal = loop {
        match begin() {
            Ok(tally) => tallies.push(tally),
            Err(refusal) => break refusal,
        }
    };
    assert_eq!((tallies.len(), refusal), (4096, UsageError::TooManyRunning));
    assert_eq!(refusal.code(), Code::RateLimited);
    // A place that was not used is free at once.
    drop(tallies.pop());
    tallies.push(begin().expect("there is a place"));

    // The database is gone.
    store.close().await;
    let scribe = tokio::spawn(scribe.run());
    for tally in tallies {
        tally.settle(Outcome::Stop, std::future::ready(Tokens { prompt: 3, cached: 1, completion: 2 }));
    }
    while begin().err() != Some(UsageError::NotRecorded) {
        tokio::task::yield_now().await;
    }
    assert_eq!(begin().expect_err("it is full").code(), Code::DatabaseUnavailable);
    assert_eq!(*recorder.written().borrow(), 0);
    scribe.abort();
}
