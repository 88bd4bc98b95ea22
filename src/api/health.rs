//! What routers, probes and collectors ask, without a key: alive, ready, figures, version.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, StatusCode};
use sconce_models::KvCache;
use serde::Serialize;
use utoipa::ToSchema;

use crate::engine::EngineStats;
use crate::http::AppState;
use crate::manager::{ModelState, ModelStatus};
use crate::telemetry::metrics as names;
use crate::telemetry::metrics::Sample;

/// Whether new work is welcome.
#[derive(Debug, Serialize, ToSchema)]
pub struct Readiness {
    /// `ready`, `loading` or `draining`.
    #[schema(example = "ready")]
    status: &'static str,
    /// The models of this replica.
    models: Vec<ModelReadiness>,
}

/// Where a model stands.
#[derive(Debug, Serialize, ToSchema)]
struct ModelReadiness {
    /// The name clients ask for.
    #[schema(example = "gpt-4o")]
    id: String,
    /// `absent`, `downloading`, `loading`, `ready`, `draining` or `failed`.
    #[schema(example = "ready")]
    state: &'static str,
}

/// Which program this is.
#[derive(Debug, Serialize, ToSchema)]
pub struct Version {
    /// As in a release's name.
    #[schema(example = "0.1.0")]
    version: &'static str,
}

/// Says that the process answers.
#[utoipa::path(get, path = "/health", operation_id = "getHealth", tag = "probes", security(()),
    responses((status = 200, description = "It does")))]
pub async fn live() -> StatusCode {
    StatusCode::OK
}

/// The same as `/health`.
#[utoipa::path(get, path = "/healthz", operation_id = "getHealthz", tag = "probes", security(()),
    responses((status = 200, description = "The process answers")))]
pub async fn healthz() -> StatusCode {
    live().await
}

/// Says whether new work is welcome, and if not, why.
#[utoipa::path(get, path = "/health/ready", operation_id = "getReadiness", tag = "probes", security(()), responses(
    (status = 200, description = "It is", body = Readiness),
    (status = 503, description = "It is not, or not yet", body = Readiness,
        example = json!({"status": "loading", "models": [{"id": "gpt-4o", "state": "downloading"}]}))))]
pub async fn ready(State(app): State<AppState>) -> (StatusCode, Json<Readiness>) {
    let models = app.model_states();
    let models = models
        .iter()
        .map(|model| ModelReadiness { id: model.id.clone(), state: state_name(model) })
        .collect();
    let (code, status) = match (app.is_ready(), app.shutdown().is_draining()) {
        (true, _) => (StatusCode::OK, "ready"),
        (false, true) => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        (false, false) => (StatusCode::SERVICE_UNAVAILABLE, "loading"),
    };
    (code, Json(Readiness { status, models }))
}

/// The same as `/health/ready`.
#[utoipa::path(get, path = "/readyz", operation_id = "getReadyz", tag = "probes", security(()), responses(
    (status = 200, description = "New work is welcome", body = Readiness),
    (status = 503, description = "It is not, or not yet", body = Readiness)))]
pub async fn readyz(state: State<AppState>) -> (StatusCode, Json<Readiness>) {
    ready(state).await
}

/// Says which program this is.
#[utoipa::path(get, path = "/version", operation_id = "getVersion", tag = "probes", security(()),
    responses((status = 200, description = "Its version", body = Version)))]
pub async fn version() -> Json<Version> {
    Json(Version { version: env!("CARGO_PKG_VERSION") })
}

/// Gives the figures of this replica, in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", operation_id = "getMetrics", tag = "probes", security(()),
    responses((status = 200, description = "The figures", body = String, content_type = "text/plain",
        example = "vllm:num_requests_running 2\nvllm:num_requests_waiting 0\n")))]
pub async fn metrics(State(app): State<AppState>) -> ([(HeaderName, &'static str); 1], String) {
    let engines = app.engines();
    let mut samples = totals(&engines);
    samples.extend(per_model(&engines));
    samples.extend(states(&app.model_states()));
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.metrics().render(&samples))
}

type Engines = [(String, EngineStats)];

/// The figures routers read: one series each, over all models.
fn totals(engines: &Engines) -> Vec<Sample> {
    let count =
        |figure: fn(&EngineStats) -> usize| engines.iter().map(|(_, stats)| figure(stats)).sum::<usize>();
    let add =
        |figure: fn(&EngineStats) -> u64| engines.iter().map(|(_, stats)| figure(stats)).sum::<u64>() as f64;
    let (total, free) = (count(|stats| stats.total_blocks), count(|stats| stats.free_blocks));
    let usage = if total == 0 { 0.0 } else { 1.0 - free as f64 / total as f64 };
    let (queries, hits) = (add(|stats| stats.prefix_queries), add(|stats| stats.prefix_hits));
    vec![
        Sample::only(names::WAITING, count(|stats| stats.waiting) as f64),
        Sample::only(names::RUNNING, count(|stats| stats.running) as f64),
        Sample::only(names::KV_USAGE, usage),
        Sample::only(names::KV_USAGE_OLD, usage),
        Sample {
            name: names::CACHE_CONFIG,
            labels: vec![
                ("block_size", KvCache::BLOCK_SIZE.to_string()),
                ("num_gpu_blocks", total.to_string()),
            ],
            value: 1.0,
        },
        Sample {
            name: names::LORA_INFO,
            labels: vec![
                ("max_lora", "0".to_owned()),
                ("running_lora_adapters", String::new()),
                ("waiting_lora_adapters", String::new()),
            ],
            value: start_of_process(),
        },
        Sample::only(names::PREFIX_QUERIES, queries),
        Sample::only(names::PREFIX_QUERIES_OLD, queries),
        Sample::only(names::PREFIX_HITS, hits),
        Sample::only(names::PREFIX_HITS_OLD, hits),
    ]
}

/// The adapters are as they were when the process began: readers take the newest.
fn start_of_process() -> f64 {
    static START: OnceLock<f64> = OnceLock::new();
    *START
        .get_or_init(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()))
}

type Figure = (&'static str, fn(&EngineStats) -> f64);

fn per_model(engines: &Engines) -> Vec<Sample> {
    let figures: [Figure; 4] = [
        (names::FREE_BLOCKS, |stats| stats.free_blocks as f64),
        (names::TOTAL_BLOCKS, |stats| stats.total_blocks as f64),
        (names::STEPS, |stats| stats.steps as f64),
        (names::PREEMPTIONS, |stats| stats.preemptions as f64),
    ];
    let samples = figures.iter().flat_map(|(name, figure)| {
        engines.iter().map(|(id, stats)| Sample {
            name,
            labels: vec![("model", id.clone())],
            value: figure(stats),
        })
    });
    samples.collect()
}

fn states(models: &[ModelStatus]) -> Vec<Sample> {
    let sample = |model: &ModelStatus| Sample {
        name: names::MODEL_STATE,
        labels: vec![("model", model.id.clone()), ("state", state_name(model).to_owned())],
        value: 1.0,
    };
    models.iter().map(sample).collect()
}

fn state_name(model: &ModelStatus) -> &'static str {
    match model.state {
        ModelState::Absent => "absent",
        ModelState::Downloading(_) => "downloading",
        ModelState::Loading => "loading",
        ModelState::Ready => "ready",
        ModelState::Draining => "draining",
        ModelState::Failed { .. } => "failed",
    }
}
