//! Clients that ask for a stream and never read it.

use sconce::error::Code;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use crate::app::{KEY, TestApp, long};

/// Keeps little of what it does not read, and asks for more than is kept on the way.
#[tokio::test]
async fn f9_a_stream_that_nobody_reads_is_cut_and_the_engine_is_free() {
    let app = TestApp::start_with(&[("slow-client-timeout", "100ms")]).await;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("it can be small");
    let mut connection =
        socket.connect(app.address().parse().expect("an address")).await.expect("it listens");
    let body = long(64).to_string();
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    connection.write_all(head.as_bytes()).await.expect("it is taken");
    // Not one byte is read before the engine has given the request up.
    let figures = app.is_idle_after(1).await;
    assert_eq!((figures.finished_abandoned, figures.finished_length), (1, 0), "{figures:?}");
    let metrics = app.get("/metrics").send().await.expect("an answer").text().await.expect("text");
    let cut = metrics.lines().find_map(|line| line.strip_prefix("sconce_slow_clients_total "));
    assert!(cut.is_some_and(|count| count.parse::<f64>().is_ok_and(|count| count >= 1.0)), "{cut:?}");
    // Whoever reads on after all learns that there is no more.
    let mut rest = String::new();
    connection.read_to_string(&mut rest).await.expect("what was kept, and the end");
    let last = rest.lines().rfind(|line| line.starts_with("data: ")).expect("an event");
    assert!(last.contains("\"error\"") && last.contains(Code::Timeout.name()), "{last}");
    assert!(!rest.contains("[DONE]"));
}
