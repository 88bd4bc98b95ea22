//! Answers of `/v1/responses` over the end of the server: what was kept is there again and can be gone on from; what was
//! being made in the background when the server was killed has failed, and says so.

use serde_json::{Value, json};

use crate::process::{CHAT, Machine};

const PATH: &str = "/v1/responses";

fn ask(input: &str) -> Value {
    json!({"model": CHAT, "input": input, "temperature": 0, "max_output_tokens": 8})
}

#[tokio::test]
async fn answers_are_there_after_the_server_was_killed() {
    let machine = Machine::new().await;
    let server = machine.serve().await;
    let token = server.owner_token().await;
    let (status, first) = server.post(PATH, &token, &ask("Hello")).await;
    assert_eq!(status, 200, "{first}");
    let mut background = ask("Hello again");
    background["background"] = true.into();
    let (_, made) = server.post(PATH, &token, &background).await;
    assert_eq!(made["status"], "queued", "{made}");
    server.kill().await;
    // As if it had been killed in the middle of it, whichever was quicker.
    let id = made["id"].as_str().unwrap();
    machine
        .tamper(&format!(
            "UPDATE responses SET status = 'in_progress', beat_at = created_at - 61000 WHERE id = '{id}'"
        ))
        .await;

    let server = machine.serve().await;
    let token = server.owner_token().await;
    let path = format!("{PATH}/{}", first["id"].as_str().unwrap());
    assert_eq!(server.get(&path, &token).await, (200, first.clone()));
    let (_, failed) = server.get(&format!("{PATH}/{id}"), &token).await;
    assert_eq!((&failed["status"], &failed["error"]["code"]), (&json!("failed"), &json!("server_error")));
    let mut next = ask("And?");
    next["previous_response_id"] = first["id"].clone();
    let (status, second) = server.post(PATH, &token, &next).await;
    assert_eq!(status, 200, "{second}");
    assert!(second["usage"]["input_tokens"].as_u64() > first["usage"]["input_tokens"].as_u64());
}
