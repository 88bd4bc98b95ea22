//! A client that leaves stops its work, and the memory is free again.

use futures_util::future::join_all;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::app::{KEY, TestApp, long, read_events, with};

#[tokio::test]
async fn a_stream_that_is_left_after_three_events_is_stopped() {
    let app = TestApp::start().await;
    let mut stream = app.post("/v1/completions", &long(32)).await.bytes_stream();
    read_events(&mut stream, 3).await;
    drop(stream);
    let figures = app.is_idle_after(1).await;
    assert_eq!((figures.finished_abandoned, figures.finished_length), (1, 0), "{figures:?}");
    assert!(figures.generated_tokens < 32 * 240, "{figures:?}");
}

#[tokio::test]
async fn a_hundred_abandoned_streams_leave_nothing_behind() {
    let app = TestApp::start().await;
    let abandoned = join_all((0..100).map(|number| {
        let app = &app;
        async move {
            let mut stream = app.post("/v1/completions", &long(2)).await.bytes_stream();
            read_events(&mut stream, number % 4).await;
        }
    }));
    abandoned.await;
    let figures = app.is_idle_after(100).await;
    assert!(figures.finished_abandoned > 50, "{figures:?}");
    // And it still answers.
    assert_eq!(
        app.events("/v1/completions", &with(long(1), "max_tokens", 3)).await.finish_reason(0).as_deref(),
        Some("length")
    );
}

#[tokio::test]
async fn a_client_that_leaves_while_it_waits_for_a_whole_answer_stops_it_too() {
    let app = TestApp::start().await;
    let body = with(long(32), "stream", false).to_string();
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut connection = TcpStream::connect(app.address()).await.expect("it listens");
    connection.write_all(head.as_bytes()).await.expect("it is taken");
    connection.write_all(body.as_bytes()).await.expect("it is taken");
    app.engine_is(|stats| stats.running > 0).await;
    drop(connection);
    let figures = app.is_idle_after(1).await;
    assert_eq!(figures.finished_abandoned, 1, "{figures:?}");
}

#[tokio::test]
async fn a_client_that_leaves_while_it_is_queued_is_taken_out_of_the_queue() {
    let app = TestApp::start_with(&[("max-running", "1")]).await;
    // One sequence at a time: the second request waits until the first is left.
    let mut running = app.post("/v1/completions", &long(32)).await.bytes_stream();
    read_events(&mut running, 1).await;
    let queued =
        app.client.post(format!("{}/v1/completions", app.url)).json(&with(long(32), "stream", false));
    let queued = tokio::spawn(queued.send());
    app.engine_is(|stats| stats.waiting == 1).await;
    queued.abort();
    app.engine_is(|stats| stats.waiting == 0).await;
    drop(running);
    let figures = app.is_idle_after(2).await;
    assert_eq!(figures.finished_abandoned, 2, "{figures:?}");
}
