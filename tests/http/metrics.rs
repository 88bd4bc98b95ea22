//! `/metrics`, read as routers read it.

use serde_json::json;

use crate::app::{CHAT, TestApp};

/// The value of every series of a family.
fn series<'a>(page: &'a str, family: &str) -> Vec<(&'a str, f64)> {
    page.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '))
        .filter(|(name, _)| name.split('{').next() == Some(family))
        .map(|(name, value)| (name, value.parse().expect("a number")))
        .collect()
}

#[tokio::test]
async fn routers_find_one_series_for_each_of_their_gauges() {
    let app = TestApp::start().await;
    app.ask("/v1/completions", &json!({"model": CHAT, "prompt": [303], "max_tokens": 4, "ignore_eos": true}))
        .await;
    let response = app.get("/metrics").send().await.expect("an answer");
    assert!(
        response.headers()["content-type"].to_str().expect("text").starts_with("text/plain; version=0.0.4")
    );
    let page = response.text().await.expect("text");
    for gauge in [
        "vllm:num_requests_waiting",
        "vllm:num_requests_running",
        "vllm:kv_cache_usage_perc",
        "vllm:gpu_cache_usage_perc",
        "vllm:cache_config_info",
        "vllm:lora_requests_info",
        "vllm:prefix_cache_queries_total",
        "vllm:prefix_cache_hits_total",
    ] {
        let found = series(&page, gauge);
        assert_eq!(found.len(), 1, "{gauge}: {found:?}");
        assert_eq!(page.matches(&format!("# TYPE {gauge} ")).count(), 1, "{gauge}");
    }
    let usage = series(&page, "vllm:kv_cache_usage_perc")[0].1;
    assert!((0.0..=1.0).contains(&usage));
    let config = series(&page, "vllm:cache_config_info")[0].0;
    assert!(config.contains("block_size=\"32\"") && config.contains("num_gpu_blocks=\""), "{config}");
    for family in
        ["vllm:generation_tokens_total", "vllm:prompt_tokens_total", "vllm:num_incoming_requests_total"]
    {
        assert!(series(&page, family).iter().any(|(_, value)| *value >= 1.0), "{family}");
    }
    for family in
        ["vllm:time_to_first_token_seconds", "vllm:e2e_request_latency_seconds", "vllm:request_prompt_tokens"]
    {
        assert!(page.contains(&format!("{family}_bucket{{model_name=\"{CHAT}\"")), "{family}");
    }
    for family in ["sconce_engine_steps_total", "sconce_drafted_tokens_total", "sconce_accepted_tokens_total"]
    {
        let found = series(&page, family);
        assert!(found.iter().any(|(name, _)| name.contains("{model=\"tiny\"}")), "{family}: {found:?}");
    }
    let states = series(&page, "sconce_model_state");
    assert!(states.iter().any(|(name, _)| name.contains("model=\"tiny\",state=\"ready\"")), "{states:?}");
}

#[tokio::test]
async fn the_version_is_told() {
    let app = TestApp::start().await;
    let version: serde_json::Value =
        app.get("/version").send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!(version, json!({"version": env!("CARGO_PKG_VERSION")}));
}
