//! The end: running answers may finish, new work is not begun, and what takes too long is cut with an error event.

use futures_util::StreamExt;
use serde_json::json;

use crate::app::{Events, TestApp, long, read_events, with};

#[tokio::test]
async fn a_drain_lets_a_stream_finish() {
    let mut app = TestApp::start().await;
    let mut stream = app.post("/v1/completions", &long(4)).await.bytes_stream();
    read_events(&mut stream, 1).await;
    app.shutdown.drain();
    let mut rest = Vec::new();
    while let Some(bytes) = stream.next().await {
        rest.extend_from_slice(&bytes.expect("it can be read"));
    }
    let text = String::from_utf8(rest).expect("text");
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    app.ended().await.expect("it ends well");
}

#[tokio::test]
async fn the_end_cuts_a_stream_with_an_error_event_and_without_done() {
    let mut app = TestApp::start().await;
    // Far more than sockets hold, and read only afterwards: it cannot be over before the end.
    let body = with(with(long(32), "logprobs", 5), "model", crate::app::CHAT);
    let mut stream = app.post("/v1/completions", &body).await.bytes_stream();
    read_events(&mut stream, 1).await;
    app.shutdown.end();
    let mut rest = Vec::new();
    while let Some(bytes) = stream.next().await {
        rest.extend_from_slice(&bytes.expect("it can be read"));
    }
    let text = String::from_utf8_lossy(&rest).into_owned();
    let last = text.trim_end().rsplit("\n\n").next().expect("a last event");
    let last = Events::read(last);
    assert!(!text.contains("[DONE]"));
    assert_eq!(last.data[0]["error"]["code"], "unavailable", "{last:?}");
    app.ended().await.expect("it ends well");
}

#[tokio::test]
async fn the_end_answers_those_who_wait_for_a_whole_answer() {
    let mut app = TestApp::start().await;
    let body = with(long(64), "stream", false);
    let request = app.client.post(format!("{}/v1/completions", app.url)).json(&body).send();
    let waiting = tokio::spawn(request);
    app.engine_is(|stats| stats.running > 0).await;
    app.shutdown.end();
    let response = waiting.await.expect("it did not panic").expect("an answer");
    let status = response.status().as_u16();
    // It may just have been done.
    assert!(status == 503 || status == 200, "{status}");
    app.ended().await.expect("it ends well");
}

#[tokio::test]
async fn readiness_goes_before_the_end() {
    let mut app = TestApp::start_with(&[("drain-timeout", "1h")]).await;
    let ready = app.get("/health/ready").send().await.expect("an answer");
    assert_eq!(ready.status().as_u16(), 200);
    let body: serde_json::Value = ready.json().await.expect("JSON");
    assert_eq!(body["status"], "ready");
    assert_eq!(body["models"][0], json!({"id": "tiny", "state": "ready"}));
    app.shutdown.drain();
    app.ended().await.expect("it ends at once when nothing runs");
}
