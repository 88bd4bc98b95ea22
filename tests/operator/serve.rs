//! The server as its operator starts and ends it.

use serde_json::json;

use crate::process::{CHAT, Machine, OWNER_PASSWORD};

#[tokio::test]
async fn a_log_that_nobody_reads_keeps_nobody_from_being_served_or_the_server_from_ending() {
    let machine = Machine::new().await;
    let variables = [("SCONCE_ADMIN_PASSWORD", OWNER_PASSWORD), ("SCONCE_LOG", "debug")];
    let server = machine.start_unheard(&variables).await.unwrap();
    let token = server.owner_token().await;
    let body = json!({"model": CHAT, "max_tokens": 2, "messages": [{"role": "user", "content": "hello"}]});
    let (status, answer) = server.post("/api/v1/chat/completions", &token, &body).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(server.end().await, Some(0));
}

#[tokio::test]
async fn variables_that_are_no_settings_are_told_and_a_log_filter_is_checked() {
    let machine = Machine::new().await;
    let mut check = machine.command(&["check-config"]);
    check.env("SCONCE_LISTN", "127.0.0.1:1").env("SCONCE_PORT", "tcp://10.0.0.1:80");
    let said = crate::process::Said::from(check.output().await.unwrap()).ok();
    assert!(said.contains("SCONCE_LISTN is no setting") && !said.contains("SCONCE_PORT"), "{said}");
    let refused = machine.run(&["check-config", "--log", "foo=bar="]).await.refused();
    assert!(refused.contains("`log`") && refused.contains("filter"), "{refused}");
}
