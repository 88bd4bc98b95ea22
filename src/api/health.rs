//! What routers, probes and collectors ask, without a key: alive, ready, figures, version.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, StatusCode};
use sconce_models::KvCache;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::{Caller, Permission};
use crate::engine::EngineStats;
use crate::http::{ApiError, AppState};
use crate::manager::{ModelState, ModelStatus};
use crate::telemetry::metrics as names;
use crate::telemetry::metrics::Sample;

/// Whether new work is welcome.
#[derive(Debug, Serialize, ToSchema)]
pub struct Readiness {
    /// `ready`, `loading` or `draining`.
    #[schema(example = "ready")]
    status: &'static str,
    /// The models of this replica that everybody sees.
    models: Vec<ModelReadiness>,
    /// How many others there are.
    others: Vec<OtherModels>,
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

/// Models that not everybody sees.
#[derive(Debug, Serialize, ToSchema)]
struct OtherModels {
    /// As of the others.
    #[schema(example = "ready")]
    state: &'static str,
    /// How many are so.
    #[schema(example = 2)]
    count: usize,
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
        example = json!({"status": "loading", "models": [{"id": "gpt-4o", "state": "downloading"}], "others": []}))))]
pub async fn ready(State(app): State<AppState>) -> (StatusCode, Json<Readiness>) {
    let table = app.registry().table();
    let (mut models, mut counts) = (Vec::new(), BTreeMap::new());
    for model in app.model_states() {
        let state = state_name(&model);
        match table.is_public(&model.id) {
            true => models.push(ModelReadiness { id: model.id, state }),
            false => *counts.entry(state).or_insert(0) += 1,
        }
    }
    let others = counts.into_iter().map(|(state, count)| OtherModels { state, count }).collect();
    let (code, status) = match (app.is_ready(), app.shutdown().is_draining()) {
        (true, _) => (StatusCode::OK, "ready"),
        (false, true) => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        (false, false) => (StatusCode::SERVICE_UNAVAILABLE, "loading"),
    };
    (code, Json(Readiness { status, models, others }))
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
///
/// Nobody need show who they are. Figures by model are there for the models that everybody sees; of the others for those
/// who may see all models: with the permission `models:read`.
#[utoipa::path(get, path = "/metrics", operation_id = "getMetrics", tag = "probes", security(()),
    responses((status = 200, description = "The figures", body = String, content_type = "text/plain",
        example = "vllm:num_requests_running 2\nvllm:num_requests_waiting 0\n")))]
pub async fn metrics(
    State(app): State<AppState>,
    caller: Result<Caller, ApiError>,
) -> ([(HeaderName, &'static str); 1], String) {
    let (engines, models) = (app.engines(), app.model_states());
    let mut samples = totals(&engines);
    samples.extend(per_model(&engines));
    samples.extend(states(&models));
    let mut page = app.metrics().render(&samples);
    if caller.and_then(|caller| Ok(caller.require(Permission::ModelsRead)?)).is_err() {
        let table = app.registry().table();
        let public = models.iter().map(|model| model.id.as_str()).filter(|id| table.is_public(id)).collect();
        page = without_hidden(&page, &public);
    }
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page)
}

/// The lines of a page that name no model, or a public one: not one that is gone, either.
fn without_hidden(page: &str, public: &BTreeSet<&str>) -> String {
    let named = |line: &str| {
        let labels = ["model=\"", "model_name=\""].iter().find_map(|label| line.split_once(label))?.1;
        labels.split('"').next().map(str::to_owned)
    };
    let is_shown = |line: &&str| {
        line.starts_with('#') || named(line).is_none_or(|model| public.contains(model.as_str()))
    };
    page.split_inclusive('\n').filter(is_shown).collect()
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
    let figures: [Figure; 6] = [
        (names::FREE_BLOCKS, |stats| stats.free_blocks as f64),
        (names::TOTAL_BLOCKS, |stats| stats.total_blocks as f64),
        (names::STEPS, |stats| stats.steps as f64),
        (names::DRAFTED_TOKENS, |stats| stats.drafted_tokens as f64),
        (names::ACCEPTED_TOKENS, |stats| stats.accepted_tokens as f64),
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
