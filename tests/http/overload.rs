//! More than can be done is answered with 429 and a time to come back; never with 5xx, never with a hang.

use futures_util::future::join_all;

use crate::app::{TestApp, long, read_error};

#[tokio::test]
async fn a_full_queue_is_an_answer() {
    let app = TestApp::start_with(&[("max-running", "1"), ("max-waiting", "2")]).await;
    let answers = join_all((0..24).map(|_| async { app.post("/v1/completions", &long(1)).await })).await;
    let (taken, refused): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|answer| answer.status().is_success());
    assert!(!taken.is_empty() && !refused.is_empty(), "{} taken, {} refused", taken.len(), refused.len());
    for answer in refused {
        let wait =
            answer.headers()["retry-after"].to_str().expect("text").parse::<u64>().expect("whole seconds");
        assert!(wait >= 1);
        let (status, error) = read_error(answer).await;
        assert_eq!((status, error["code"].as_str()), (429, Some("model_overloaded")));
        assert_eq!(error["type"], "rate_limit_error");
    }
    let requests = taken.len() as u64;
    for answer in taken {
        let text = answer.text().await.expect("it can be read");
        assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    }
    app.is_idle_after(requests).await;
}

#[tokio::test]
async fn health_and_metrics_answer_while_the_engine_is_busy() {
    let app = TestApp::start().await;
    let busy = app.post("/v1/completions", &long(64)).await;
    for path in ["/health", "/health/ready", "/metrics", "/version", "/v1/models"] {
        assert_eq!(app.get(path).send().await.expect("an answer").status().as_u16(), 200, "{path}");
    }
    drop(busy);
    app.is_idle_after(1).await;
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_given_up() {
    let app = TestApp::start_with(&[("request-timeout", "1ms")]).await;
    let body = crate::app::with(long(64), "stream", false);
    let (status, error) = app.refused("/v1/completions", &body).await;
    assert_eq!((status, error["code"].as_str()), (504, Some("timeout")));
    app.is_idle_after(1).await;
}
