//! The first start: what is printed once, where, and that nothing else is needed to get in.

use std::process::Stdio;

use serde_json::json;

use crate::process::{CHAT, Machine, OWNER_PASSWORD, Said, Server};

/// What the line that begins so goes on with.
fn told(banner: &str, label: &str) -> String {
    let line = banner.lines().find_map(|line| line.trim_start().strip_prefix(label));
    line.unwrap_or_else(|| panic!("`{label}` is not there: {banner}")).trim().to_owned()
}

async fn key_works(server: &Server, key: &str) {
    let chat = json!({"model": CHAT, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1});
    let (status, body) = server.post("/v1/chat/completions", key, &chat).await;
    assert_eq!(status, 200, "{body}");
}

#[tokio::test]
async fn the_first_start_shows_a_password_and_a_key_and_the_second_does_not() {
    let machine = Machine::new().await;
    let server = machine.start(&[]).await.expect("it starts");
    let administrator = told(&server.banner, "administrator: ");
    let (username, password) = administrator.split_once(" / ").expect("name and password");
    let key = told(&server.banner, "first API key: ");
    assert!(
        server.banner.contains(&format!("Bearer {key}")),
        "the line to paste has the key: {}",
        server.banner
    );
    assert!(server.banner.contains("shown this once"), "{}", server.banner);
    key_works(&server, &key).await;
    let (status, body) = server.sign_in(username, password).await;
    assert_eq!((status, &body["data"]["user"]["must_change_password"]), (200, &json!(true)), "{body}");
    assert_eq!(body["data"]["user"]["role"], "owner");
    let token = body["data"]["access_token"].as_str().unwrap();
    for path in ["/api/v1/admin/models", "/v1/models"] {
        assert_eq!(server.get(path, token).await.0, 403, "{path}: nothing else before a new password");
    }
    server.kill().await;

    let server = machine.start(&[]).await.expect("it starts again");
    assert!(
        !server.banner.contains("administrator") && !server.banner.contains(password),
        "{}",
        server.banner
    );
    assert!(
        server.banner.contains("$SCONCE_API_KEY") && !server.banner.contains("sk-sconce-"),
        "{}",
        server.banner
    );
    key_works(&server, &key).await;
}

#[tokio::test]
async fn a_password_that_was_given_is_not_repeated() {
    let machine = Machine::new().await;
    let variables = [("SCONCE_ADMIN_USERNAME", "Grace"), ("SCONCE_ADMIN_PASSWORD", OWNER_PASSWORD)];
    let server = machine.start(&variables).await.expect("it starts");
    assert!(!server.banner.contains(OWNER_PASSWORD), "{}", server.banner);
    assert!(!server.banner.contains("must be changed"), "{}", server.banner);
    assert!(told(&server.banner, "administrator: ").starts_with("grace / "), "{}", server.banner);
    let (status, body) = server.sign_in("grace", OWNER_PASSWORD).await;
    assert_eq!((status, &body["data"]["user"]["must_change_password"]), (200, &json!(false)), "{body}");
}

#[tokio::test]
async fn a_weak_password_is_refused_and_nobody_is_made() {
    let machine = Machine::new().await;
    let error = machine.start(&[("SCONCE_ADMIN_PASSWORD", "sconce2026")]).await.map(|server| server.banner);
    let error = error.unwrap_err();
    assert!(error.contains("too easy to guess") && !error.contains("sconce2026"), "{error}");
    assert_eq!(machine.run(&["admin", "list-users"]).await.ok(), "");
}

#[tokio::test]
async fn what_is_shown_once_is_shown_whatever_becomes_of_the_models() {
    let machine = Machine::new().await;
    let folder = machine.path("empty");
    std::fs::create_dir(&folder).unwrap();
    let model = format!("broken={}", folder.display());
    let mut command = machine.command(&["serve", "--listen", "127.0.0.1:0", "--model", &model]);
    command.envs([("SCONCE_OFFLINE", "true"), ("SCONCE_DEVICE", "cpu")]).stdout(Stdio::piped());
    let said = Said::from(command.output().await.unwrap());
    assert_eq!(said.code, Some(1), "{said:?}");
    let (password, key) = (told(&said.out, "administrator: admin / "), told(&said.out, "first API key: "));
    assert!(
        !said.err.contains(&password) && !said.err.contains(&key),
        "secrets reached the log: {}",
        said.err
    );
    let server = machine.start(&[]).await.expect("it starts");
    assert_eq!(server.sign_in("admin", &password).await.0, 200);
    key_works(&server, &key).await;
}
