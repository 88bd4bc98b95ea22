//! Two real servers on one PostgreSQL: what is done through one is known to the other. On SQLite there is no second one,
//! and it says so.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod database;
mod process;

use std::time::{Duration, Instant};

use database::Backend;
use futures_util::StreamExt;
use process::{CHAT, Machine, OWNER_PASSWORD, Server, client, golden};
use serde_json::{Value, json};

/// What is done elsewhere counts here after a second, and two more where other tests take of the machine.
const BOUND: Duration = Duration::from_secs(3);

/// Two servers; on SQLite none, once it has been seen that a second one is refused.
async fn two() -> Option<(Machine, Server, Machine, Server)> {
    let one = Machine::new().await;
    let first = one.serve().await;
    let other = one.beside();
    if Backend::under_test() == Backend::Sqlite {
        let error = other.start(&[]).await.map(|server| server.banner).unwrap_err();
        assert!(error.contains("used by another sconce server"), "{error}");
        return None;
    }
    let second =
        other.start(&[("SCONCE_MODEL_ROOT", golden("").to_str().unwrap())]).await.expect("it starts");
    Some((one, first, other, second))
}

/// The owner's token and a key of theirs, made through a server: id and secret.
async fn key(server: &Server, token: &str) -> (String, String) {
    let users = server.all("/api/v1/admin/users", token).await;
    let body = json!({"user_id": users[0]["id"], "name": "a test's"});
    let (status, body) = server.post("/api/v1/admin/keys", token, &body).await;
    assert_eq!(status, 201, "{body}");
    let text = |name: &str| body["data"][name].as_str().unwrap_or_else(|| panic!("{body}")).to_owned();
    (text("id"), text("key"))
}

/// Asks until the answer is such; fails when it takes longer than the bound.
async fn within_the_bound(since: Instant, mut ask: impl AsyncFnMut() -> Result<(), String>) {
    while let Err(answer) = ask().await {
        assert!(since.elapsed() < BOUND, "{answer}");
    }
}

fn chat(tokens: u32, stream: bool) -> Value {
    json!({"model": CHAT, "messages": [{"role": "user", "content": "hi"}], "max_tokens": tokens, "ignore_eos": true,
        "stream": stream})
}

#[tokio::test]
async fn a_key_disabled_through_one_is_refused_by_the_other_within_a_second() {
    let Some((_one, first, _other, second)) = two().await else { return };
    let token = first.owner_token().await;
    let (id, secret) = key(&first, &token).await;
    let path = format!("/api/v1/admin/keys/{id}");
    for (status, expected) in [("disabled", 401), ("enabled", 200), ("disabled", 401)] {
        let (answer, body) = first.put(&path, &token, &json!({"status": status})).await;
        assert_eq!(answer, 200, "{body}");
        let since = Instant::now();
        within_the_bound(since, async || {
            let (status, body) = second.post("/v1/chat/completions", &secret, &chat(1, false)).await;
            if status == expected { Ok(()) } else { Err(format!("{status} {body}")) }
        })
        .await;
    }
    let (status, body) = second.get("/api/v1/me", &secret).await;
    assert_eq!((status, &body["code"]), (401, &json!(40108)), "{body}");
}

#[tokio::test]
async fn a_stream_on_one_ends_when_its_key_is_disabled_through_the_other() {
    let Some((_one, first, _other, second)) = two().await else { return };
    let token = first.owner_token().await;
    let (id, secret) = key(&first, &token).await;
    let request = client().post(format!("{}/v1/completions", second.url)).bearer_auth(&secret);
    // Many long answers one beside the other: it would go on for minutes.
    let body = json!({"model": CHAT, "prompt": "hi", "n": 64, "max_tokens": 200, "ignore_eos": true, "stream": true});
    let mut stream = request.json(&body).send().await.unwrap().bytes_stream();
    let first_piece = stream.next().await.expect("it flows").unwrap();
    assert!(first_piece.starts_with(b"data: "), "{first_piece:?}");
    let (answer, body) =
        first.put(&format!("/api/v1/admin/keys/{id}"), &token, &json!({"status": "disabled"})).await;
    assert_eq!(answer, 200, "{body}");
    let since = Instant::now();
    let mut text = String::new();
    while let Some(Ok(bytes)) = stream.next().await {
        text.push_str(&String::from_utf8_lossy(&bytes));
    }
    assert!(since.elapsed() < BOUND, "it went on for {:?}", since.elapsed());
    assert!(
        text.contains("revoked_api_key") && !text.contains("[DONE]"),
        "{}",
        &text[text.len().saturating_sub(500)..]
    );
}

#[tokio::test]
async fn a_session_begun_on_one_goes_on_on_the_other_and_ends_on_both() {
    let Some((_one, first, _other, second)) = two().await else { return };
    let (_, body) = first.sign_in("admin", OWNER_PASSWORD).await;
    let (access, refresh) = (&body["data"]["access_token"], &body["data"]["refresh_token"]);
    assert_eq!(second.get("/api/v1/me", access.as_str().unwrap()).await.0, 200);
    let (status, body) = second.post("/api/v1/auth/refresh", "", &json!({"refresh_token": refresh})).await;
    assert_eq!(status, 200, "{body}");
    let fresh = body["data"]["access_token"].as_str().unwrap().to_owned();
    assert_eq!(first.get("/api/v1/me", &fresh).await.0, 200);
    let (status, body) = second.post("/api/v1/auth/logout", &fresh, &json!({})).await;
    assert_eq!(status, 200, "{body}");
    let since = Instant::now();
    within_the_bound(since, async || {
        let (status, body) = first.get("/api/v1/me", &fresh).await;
        if status == 401 { Ok(()) } else { Err(format!("{status} {body}")) }
    })
    .await;
}

#[tokio::test]
async fn a_model_registered_through_one_appears_on_the_other() {
    let Some((one, _, other, second)) = two().await else { return };
    // The first is started anew, with the folder allowed that the second has allowed too.
    let root = golden("");
    let first = one.start(&[("SCONCE_MODEL_ROOT", root.to_str().unwrap())]).await.expect("it starts");
    let token = first.owner_token().await;
    let source = golden("qwen2").to_str().unwrap().to_owned();
    let body = json!({"id": "second-model", "sources": [source], "aliases": ["gpt-4o"]});
    let (status, body) = first.post("/api/v1/admin/models", &token, &body).await;
    assert_eq!(status, 201, "{body}");
    let since = Instant::now();
    let mut asked = chat(1, false);
    asked["model"] = json!("gpt-4o");
    // It is not said how soon; only that it comes.
    loop {
        let (status, body) = second.post("/v1/chat/completions", &token, &asked).await;
        if status == 200 {
            break assert_eq!(body["model"], "gpt-4o");
        }
        assert!(since.elapsed() < Duration::from_secs(60), "{status} {body}");
    }
    drop((other, first));
}

#[tokio::test]
async fn what_the_command_line_does_is_known_to_all() {
    let Some((one, first, other, second)) = two().await else { return };
    let token = first.owner_token().await;
    let key = other.run(&["admin", "create-key"]).await.ok();
    for server in [&first, &second] {
        assert_eq!(server.get("/api/v1/me", key.trim()).await.0, 200);
        // From now on it remembers whose the token is.
        assert_eq!(server.get("/api/v1/me", &token).await.0, 200);
    }
    one.run(&["admin", "reset-password"]).await.ok();
    let since = Instant::now();
    for server in [&first, &second] {
        within_the_bound(since, async || {
            let (status, body) = server.get("/api/v1/me", &token).await;
            if status == 401 { Ok(()) } else { Err(format!("{status} {body}")) }
        })
        .await;
    }
}
