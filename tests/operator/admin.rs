//! `sconce admin`: the way in for whoever runs the machine, beside a running server and without one.

use std::time::{Duration, Instant};

use sconce::auth::PlainKey;
use serde_json::{Value, json};

use crate::process::{CHAT, Machine, OWNER, OWNER_PASSWORD, Said, Server};

/// The one line on standard output.
fn made(said: Said) -> String {
    let out = said.ok();
    assert_eq!(out.lines().count(), 1, "{out}");
    out.trim_end().to_owned()
}

/// The audit's last row.
async fn last_row(machine: &Machine) -> Value {
    let said = machine.run(&["audit", "export"]).await.ok();
    serde_json::from_str(said.lines().last().expect("there is a row")).expect("it is JSON")
}

/// Asks until the answer is this one; a change made elsewhere is known within a second.
async fn within_a_second(server: &Server, token: &str, expected: (u16, u64)) {
    let start = Instant::now();
    loop {
        let (status, body) = server.get("/api/v1/me", token).await;
        if (status, body["code"].as_u64().unwrap()) == expected {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(3), "{status} {body}");
    }
}

#[tokio::test]
async fn a_reset_password_lets_in_and_ends_what_was_before_beside_a_running_server() {
    let machine = Machine::new().await;
    let server = machine.serve().await;
    let before = server.owner_token().await;
    // From now on the server remembers whose it is.
    assert_eq!(server.get("/api/v1/me", &before).await.0, 200);
    for _ in 0..6 {
        server.sign_in(OWNER, "somebody guesses").await;
    }
    let (status, body) = server.sign_in(OWNER, OWNER_PASSWORD).await;
    assert_eq!((status, &body["code"]), (429, &json!(42904)), "the account is throttled");

    let said = machine.run(&["admin", "reset-password"]).await;
    assert!(said.err.starts_with("admin: "), "{said:?}");
    let password = made(said);
    within_a_second(&server, &before, (401, 40104)).await;
    let (status, body) = server.sign_in(OWNER, &password).await;
    assert_eq!((status, &body["data"]["user"]["must_change_password"]), (200, &json!(true)), "{body}");
    let (status, _) = server.sign_in(OWNER, OWNER_PASSWORD).await;
    assert_eq!(status, 401, "the old password is gone");
    let rows = machine.run(&["audit", "export"]).await.ok();
    let rows: Vec<Value> = rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let row = rows.iter().find(|row| row["action"] == "user.password_reset").expect("it is on record");
    assert_eq!((&row["actor_kind"], &row["target_kind"]), (&json!("system"), &json!("user")), "{row}");
    assert!(!rows.iter().any(|row| row.to_string().contains(&password)), "the audit knows the password");
    machine.run(&["audit", "verify"]).await.ok();
}

#[tokio::test]
async fn a_user_who_was_made_signs_in_and_must_change_the_password() {
    let machine = Machine::new().await;
    let server = machine.serve().await;
    let password = made(machine.run(&["admin", "create-user", "Margaret", "--role", "auditor"]).await);
    let (status, body) = server.sign_in("margaret", &password).await;
    let user = &body["data"]["user"];
    assert_eq!(
        (status, &user["role"], &user["must_change_password"]),
        (200, &json!("auditor"), &json!(true))
    );

    let given = "a kettle that whistles";
    let said =
        machine.run_with(&["admin", "create-user", "grace", "--password-stdin"], &format!("{given}\n")).await;
    assert_eq!(said.ok(), "", "a given password is not repeated");
    let (status, body) = server.sign_in("grace", given).await;
    let user = &body["data"]["user"];
    assert_eq!((status, &user["role"], &user["must_change_password"]), (200, &json!("user"), &json!(false)));

    let users = machine.run(&["admin", "list-users"]).await.ok();
    let words: Vec<Vec<&str>> = users.lines().map(|line| line.split_whitespace().take(3).collect()).collect();
    assert_eq!(
        words,
        [["admin", "owner", "active"], ["grace", "user", "active"], ["margaret", "auditor", "active"]]
    );
}

#[tokio::test]
async fn a_user_who_cannot_be_made_is_refused_with_the_reason() {
    let machine = Machine::new().await;
    machine.run(&["migrate"]).await.ok();
    let error = machine.run(&["admin", "create-user", "first"]).await.refused();
    assert!(error.contains("--role owner"), "{error}");
    made(machine.run(&["admin", "create-user", "first", "--role", "owner"]).await);
    for (words, input, reason) in [
        (&["admin", "create-user", "FIRST"][..], "", "exists already"),
        (&["admin", "create-user", "a b"], "", "letters"),
        (&["admin", "create-user", "b", "--password-stdin"], "short\n", "8 characters"),
        (&["admin", "create-user", "b", "--password-stdin"], "password1\n", "easy to guess"),
        (&["admin", "reset-password", "nobody"], "", "no such user"),
        (&["admin", "create-key", "--user", "nobody"], "", "no such user"),
    ] {
        let error = machine.run_with(words, input).await.refused();
        assert!(error.contains(reason), "{words:?}: {error}");
    }
    let said = machine.run(&["admin", "create-user", "b", "--role", "root"]).await;
    assert!(said.code == Some(2) && said.err.contains("owner, admin, operator"), "{said:?}");
    // The first server that starts makes no second owner.
    let server = machine.serve().await;
    assert!(!server.banner.contains("administrator"), "{}", server.banner);
    assert_eq!(server.sign_in(OWNER, OWNER_PASSWORD).await.0, 401);
}

#[tokio::test]
async fn without_a_name_only_a_single_owner_is_meant() {
    let machine = Machine::new().await;
    machine.run(&["migrate"]).await.ok();
    let error = machine.run(&["admin", "reset-password"]).await.refused();
    assert!(error.contains("no owner yet"), "{error}");
    made(machine.run(&["admin", "create-user", "one", "--role", "owner"]).await);
    made(machine.run(&["admin", "reset-password"]).await);
    made(machine.run(&["admin", "create-user", "two", "--role", "owner"]).await);
    for words in [&["admin", "reset-password"][..], &["admin", "create-key"]] {
        let error = machine.run(words).await.refused();
        assert!(error.contains("several owners"), "{error}");
    }
    made(machine.run(&["admin", "reset-password", "two"]).await);
}

#[tokio::test]
async fn a_key_that_was_made_works_at_once_within_its_scopes() {
    let machine = Machine::new().await;
    let server = machine.serve().await;
    let key = made(machine.run(&["admin", "create-key"]).await);
    assert!(PlainKey::parse(&key).is_some(), "it is a key, and nothing else: {key}");
    let chat = json!({"model": CHAT, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1});
    assert_eq!(server.post("/v1/chat/completions", &key, &chat).await.0, 200);
    let (_, me) = server.get("/api/v1/me", &key).await;
    assert_eq!(me["data"]["permissions"], json!(["inference"]), "{me}");
    let row = last_row(&machine).await;
    assert_eq!((&row["action"], &row["actor_kind"]), (&json!("key.create"), &json!("system")), "{row}");
    assert!(!row.to_string().contains(&key[16..]), "the audit knows the key: {row}");

    made(machine.run(&["admin", "create-user", "margaret"]).await);
    let words = ["admin", "create-key", "--user", "margaret", "--name", "laptop", "--scope", "account"];
    let key = made(machine.run(&words).await);
    let (status, me) = server.get("/api/v1/me", &key).await;
    assert_eq!((status, &me["data"]["permissions"]), (200, &json!(["account"])), "{me}");
    let error = machine
        .run(&["admin", "create-key", "--user", "margaret", "--scope", "users:manage"])
        .await
        .refused();
    assert!(error.contains("users:manage") && error.contains("role user"), "{error}");
}

#[tokio::test]
async fn a_key_ends_when_it_was_said_to() {
    let machine = Machine::new().await;
    machine.run(&["migrate"]).await.ok();
    made(machine.run(&["admin", "create-user", "one", "--role", "owner"]).await);
    for (expires, text) in [("30d", None), ("2999-01-31T12:00:00Z", Some("2999-01-31T12:00:00.000Z"))] {
        made(machine.run(&["admin", "create-key", "--expires", expires]).await);
        let row = last_row(&machine).await;
        let end = sconce::clock::Timestamp::parse(row["after"]["expires_at"].as_str().unwrap()).unwrap();
        let made = sconce::clock::Timestamp::parse(row["at"].as_str().unwrap()).unwrap();
        match text {
            Some(text) => assert_eq!(end.to_string(), text),
            // The end is reckoned a moment before the row is written.
            None => assert!((29..=30).contains(&(end.since(made).as_secs() / 86_400)), "{row}"),
        }
    }
    let error = machine.run(&["admin", "create-key", "--expires", "2001-01-31T12:00:00Z"]).await.refused();
    assert!(error.contains("in the past"), "{error}");
    let said = machine.run(&["admin", "create-key", "--expires", "soon"]).await;
    assert_eq!(said.code, Some(2), "{said:?}");
}
