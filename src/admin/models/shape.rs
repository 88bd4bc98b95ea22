//! A model as administrators see it: what it is to be, and what has become of it on this replica.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::admin::models::change::{ModelDefaults, configured};
use crate::auth::models::{ModelLimits, RegisteredModel, Visibility};
use crate::clock::Timestamp;
use crate::manager::{Check, ModelState, ModelStatus, Progress, SelfTest};

/// A model: what it is to be, and what has become of it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ModelView {
    /// The name clients ask for.
    #[schema(example = "smollm2")]
    pub(super) id: String,
    /// Other names that lead to it.
    #[schema(example = json!(["gpt-4o"]))]
    aliases: Vec<String>,
    /// Where it may be had, tried in order; addresses are shown without their queries.
    #[schema(example = json!(["hf:owner/repository@main/model.gguf"]))]
    sources: Vec<String>,
    /// For people.
    description: String,
    /// SHA-256 of its only file.
    sha256: Option<String>,
    /// A context length below its own.
    context_length: Option<u32>,
    /// Values for parameters that a request leaves open.
    #[schema(value_type = ModelDefaults)]
    defaults: Value,
    /// The most that a request may ask for.
    limits: ModelLimits,
    /// Who sees it.
    visibility: Visibility,
    /// The teams that see it, where not everyone does.
    team_ids: Vec<String>,
    /// Never unloaded to make room.
    pinned: bool,
    /// Not enabled: as if it were not there.
    pub(super) enabled: bool,
    /// Loaded as soon as it is registered, and at start.
    preload: bool,
    /// `registry`, or `configuration` for one that only the server's settings or the catalogue name.
    #[schema(example = "registry")]
    origin: &'static str,
    /// When it was registered.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(super) created_at: Option<Timestamp>,
    /// Who registered it.
    created_by: Option<String>,
    /// When it was last changed.
    #[schema(value_type = Option<String>, format = DateTime)]
    updated_at: Option<Timestamp>,
    /// What has become of it on this replica.
    pub(super) status: ModelStatusView,
}

/// What has become of a model on this replica.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ModelStatusView {
    /// Where it stands.
    #[schema(example = "ready")]
    pub(super) state: StateName,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    since: Timestamp,
    /// How far its download is.
    progress: Option<ProgressView>,
    /// What went wrong last.
    last_error: Option<String>,
    /// `causal` (chat and completions), `embedding` …, once known.
    #[schema(value_type = Option<String>, example = "causal")]
    kind: Option<Value>,
    /// The longest context it takes, once known.
    max_context_length: Option<u64>,
    /// Whether its files are on this machine.
    is_on_disk: bool,
    /// Bytes of its files, if known.
    bytes: Option<u64>,
    /// Memory it takes now.
    memory_bytes: u64,
    /// Requests that use it now.
    requests: u64,
    /// How its own test went when it was loaded.
    self_test: Option<SelfTestView>,
}

/// How a model's own test went.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SelfTestView {
    /// A plain conversation is shown by the model's template.
    template: CheckView,
    /// So are functions, a call and its result.
    tools: CheckView,
    /// What the template writes after an answer is what ends one.
    end_of_turn: CheckView,
}

/// How one check went.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct CheckView {
    /// `passed`, `failed`, or `not_applicable`.
    #[schema(example = "passed")]
    result: &'static str,
    /// What is wrong, or why there is nothing to check.
    reason: Option<String>,
}

impl From<&SelfTest> for SelfTestView {
    fn from(test: &SelfTest) -> Self {
        Self {
            template: (&test.template).into(),
            tools: (&test.tools).into(),
            end_of_turn: (&test.end_of_turn).into(),
        }
    }
}

impl From<&Check> for CheckView {
    fn from(check: &Check) -> Self {
        let (result, reason) = match check {
            Check::Passed => ("passed", None),
            Check::NotApplicable { reason } => ("not_applicable", Some(reason.clone())),
            Check::Failed { reason } => ("failed", Some(reason.clone())),
        };
        Self { result, reason }
    }
}

/// How far a download is.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ProgressView {
    /// The source it comes from.
    source: String,
    /// The file being fetched.
    file: String,
    /// Its number, from 1.
    file_number: u64,
    /// Files in all.
    files: u64,
    /// Bytes fetched so far.
    bytes: u64,
    /// Bytes in all, if known.
    total_bytes: Option<u64>,
    /// Seconds left, if that can be told.
    eta_seconds: Option<u64>,
}

impl ModelView {
    /// Of both halves; without a registered one it is as the configuration says.
    pub(super) fn of(registered: Option<RegisteredModel>, status: &ModelStatus) -> Self {
        let origin = if registered.is_some() { "registry" } else { "configuration" };
        let (created_at, created_by, updated_at) = registered.as_ref().map_or((None, None, None), |model| {
            (Some(model.created_at), Some(model.created_by.clone()), Some(model.updated_at))
        });
        let model = registered.map_or_else(|| configured(status), |registered| registered.specification);
        Self {
            sources: if model.sources.is_empty() { status.sources.clone() } else { shown(&model.sources) },
            id: model.id,
            aliases: model.aliases,
            description: model.description,
            sha256: model.sha256,
            context_length: model.context_length,
            defaults: model.defaults,
            limits: model.limits,
            visibility: model.visibility,
            team_ids: model.team_ids,
            pinned: model.pinned,
            enabled: model.enabled,
            preload: model.preload,
            origin,
            created_at,
            created_by,
            updated_at,
            status: ModelStatusView::of(status),
        }
    }
}

/// An address may hold a token in its query.
fn shown(sources: &[String]) -> Vec<String> {
    sources.iter().map(|source| source.split('?').next().unwrap_or_default().to_owned()).collect()
}

impl ModelStatusView {
    /// For administrators.
    pub(super) fn of(status: &ModelStatus) -> Self {
        Self {
            state: (&status.state).into(),
            since: Timestamp::from_millis(i64::try_from(status.since).unwrap_or(0).saturating_mul(1000)),
            progress: match &status.state {
                ModelState::Downloading(progress) => Some(progress.into()),
                _ => None,
            },
            last_error: status.last_error.clone(),
            kind: status.kind.map(|kind| json!(kind)),
            max_context_length: status.spec.as_ref().map(|spec| spec.context_length as u64),
            is_on_disk: status.is_on_disk,
            bytes: status.bytes,
            memory_bytes: status.memory_bytes,
            requests: status.leases as u64,
            self_test: status.profile.as_ref().map(|profile| (&profile.self_test).into()),
        }
    }
}

/// Where a model stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StateName {
    /// Known, not in memory.
    Absent,
    /// Its files are being fetched.
    Downloading,
    /// Its weights are being read.
    Loading,
    /// It answers.
    Ready,
    /// It answers those it is answering, and nobody else.
    Draining,
    /// It cannot be used.
    Failed,
}

impl From<&ModelState> for StateName {
    fn from(state: &ModelState) -> Self {
        match state {
            ModelState::Absent => Self::Absent,
            ModelState::Downloading(_) => Self::Downloading,
            ModelState::Loading => Self::Loading,
            ModelState::Ready => Self::Ready,
            ModelState::Draining => Self::Draining,
            ModelState::Failed { .. } => Self::Failed,
        }
    }
}

impl From<&Progress> for ProgressView {
    fn from(progress: &Progress) -> Self {
        Self {
            source: progress.source.clone(),
            file: progress.file.clone(),
            file_number: progress.file_number as u64,
            files: progress.files as u64,
            bytes: progress.bytes,
            total_bytes: progress.total_bytes,
            eta_seconds: progress.eta_seconds,
        }
    }
}

impl ModelView {
    /// Whether a search finds it.
    pub(super) fn contains(&self, text: &str) -> bool {
        let mut texts = [&self.id, &self.description].into_iter().chain(&self.aliases);
        texts.any(|own| own.to_lowercase().contains(text))
    }
}
