//! `/api/v1/admin/models`: which models there are to be, and what has become of them.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::{FutureExt, Stream, StreamExt, stream};
use serde::de::Error;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;
use utoipa::{IntoParams, PartialSchema, ToSchema};

use crate::auth::models::{
    ModelAdmin, ModelLimits, ModelSpecification, ModelViewer, RegisteredModel, Visibility,
};
use crate::auth::{AuthError, Capability};
use crate::clock::Timestamp;
use crate::error::Code;
use crate::http::openapi::joined;
use crate::http::{
    ApiError, AppState, Envelope, EnvelopeError, Granted, Interruption, Listed, Nothing, PageQuery, Paged,
    Path, Typed, sse,
};
use crate::manager::{ManagerError, ModelManager, ModelState, ModelStatus, Progress};
use crate::store::{ListRequest, Order, Page};

/// A model: what it is to be, and what has become of it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ModelView {
    /// The name clients ask for.
    #[schema(example = "smollm2")]
    id: String,
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
    enabled: bool,
    /// Loaded as soon as it is registered, and at start.
    preload: bool,
    /// `registry`, or `configuration` for one that only the server's settings or the catalogue name.
    #[schema(example = "registry")]
    origin: &'static str,
    /// When it was registered.
    #[schema(value_type = Option<String>, format = DateTime)]
    created_at: Option<Timestamp>,
    /// Who registered it.
    created_by: Option<String>,
    /// When it was last changed.
    #[schema(value_type = Option<String>, format = DateTime)]
    updated_at: Option<Timestamp>,
    /// What has become of it on this replica.
    status: ModelStatusView,
}

/// What has become of a model on this replica.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ModelStatusView {
    /// `absent`, `downloading`, `loading`, `ready`, `draining` or `failed`.
    #[schema(example = "ready")]
    state: &'static str,
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

/// Values for parameters that a request leaves open.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelDefaults {
    /// Within 0 and 2.
    #[schema(example = 0.2, minimum = 0, maximum = 2)]
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
    /// Above 0, and 1 at most.
    #[schema(exclusive_minimum = 0, maximum = 1)]
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f32>,
    /// How many tokens are chosen among.
    #[serde(skip_serializing_if = "Option::is_none")]
    top_k: Option<u32>,
    /// 1 changes nothing.
    #[schema(exclusive_minimum = 0, maximum = 10)]
    #[serde(skip_serializing_if = "Option::is_none")]
    repetition_penalty: Option<f32>,
}

/// A model to register.
#[derive(Debug)]
pub struct CreateModel {
    id: String,
    rest: UpdateModel,
}

/// What a model to register has beside what can be changed of it.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only the description of the API is made from it")]
struct ModelName {
    /// The name clients will ask for.
    #[schema(example = "smollm2", min_length = 1, max_length = 128)]
    id: String,
}

impl PartialSchema for CreateModel {
    fn schema() -> RefOr<Schema> {
        joined("A model to register.", ModelName::schema(), UpdateModel::schema())
    }
}

impl ToSchema for CreateModel {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        UpdateModel::schemas(schemas);
    }
}

/// Read in two parts, since serde refuses unknown fields only where nothing is flattened.
impl<'de> Deserialize<'de> for CreateModel {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut fields = serde_json::Map::deserialize(deserializer)?;
        let id = fields.remove("id").ok_or_else(|| D::Error::missing_field("id"))?;
        let id = String::deserialize(id).map_err(|error| D::Error::custom(format_args!("`id`: {error}")))?;
        let rest = UpdateModel::deserialize(Value::Object(fields)).map_err(D::Error::custom)?;
        Ok(Self { id, rest })
    }
}

/// What is to be changed of a model; what is left out stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UpdateModel {
    /// Where it may be had: `hf:owner/repository@revision/file`, `modelscope:…`, `https://…`, `pip:…`, or a path below a
    /// model root; tried in order. Empty: as the catalogue says for this name.
    #[schema(example = json!(["hf:owner/repository@main/model.gguf"]), max_items = 16)]
    sources: Option<Vec<String>>,
    /// Other names that lead to it.
    #[schema(example = json!(["gpt-4o"]), max_items = 64)]
    aliases: Option<Vec<String>>,
    /// For people.
    #[schema(max_length = 2000)]
    description: Option<String>,
    /// SHA-256 of its only file, 64 hexadecimal digits; null for none.
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    sha256: Option<Option<String>>,
    /// A context length below its own; null for its own.
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<u32>, minimum = 1)]
    context_length: Option<Option<u32>>,
    /// Values for parameters that a request leaves open.
    defaults: Option<ModelDefaults>,
    /// The most that a request may ask for.
    limits: Option<ModelLimits>,
    /// Who sees it.
    visibility: Option<Visibility>,
    /// The teams that see it, where not everyone does.
    #[schema(max_items = 100)]
    team_ids: Option<Vec<String>>,
    /// Never unloaded to make room.
    pinned: Option<bool>,
    /// Not enabled: as if it were not there.
    enabled: Option<bool>,
    /// Loaded as soon as it is registered, and at start.
    preload: Option<bool>,
}

/// Tells a field that is null from one that is left out.
fn present<'de, T: Deserialize<'de>, D: serde::Deserializer<'de>>(field: D) -> Result<Option<T>, D::Error> {
    T::deserialize(field).map(Some)
}

impl UpdateModel {
    fn apply(self, model: &mut ModelSpecification) -> Result<(), AuthError> {
        fn set<T>(field: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *field = value;
            }
        }
        set(&mut model.sources, self.sources);
        set(&mut model.aliases, self.aliases);
        set(&mut model.description, self.description);
        set(&mut model.sha256, self.sha256);
        set(&mut model.context_length, self.context_length);
        set(&mut model.defaults, self.defaults.map(|defaults| json!(defaults)));
        set(&mut model.limits, self.limits);
        set(&mut model.visibility, self.visibility);
        set(&mut model.team_ids, self.team_ids);
        set(&mut model.pinned, self.pinned);
        set(&mut model.enabled, self.enabled);
        set(&mut model.preload, self.preload);
        check(model)
    }
}

fn check(model: &ModelSpecification) -> Result<(), AuthError> {
    if model.description.chars().count() > 2000 {
        return Err(AuthError::invalid("description", "must have at most 2000 characters"));
    }
    // Lines may end, nothing else may happen in a text: NUL, above all, no database need understand.
    if model.description.contains(|character: char| character.is_control() && !"\n\t".contains(character)) {
        return Err(AuthError::invalid("description", "must be plain text"));
    }
    for (field, texts) in [("sources", &model.sources), ("team_ids", &model.team_ids)] {
        if texts.iter().any(|text| text.contains(char::is_control)) {
            return Err(AuthError::invalid(field, "must be lines of text"));
        }
    }
    if model.team_ids.len() > 100 {
        return Err(AuthError::invalid("team_ids", "must name at most 100 teams"));
    }
    if model.visibility == Visibility::Everyone && !model.team_ids.is_empty() {
        return Err(AuthError::invalid("team_ids", "needs `visibility` to be `teams`"));
    }
    let limits = &model.limits;
    if limits.max_tokens == Some(0) || limits.n == Some(0) {
        return Err(AuthError::invalid("limits", "must be at least 1"));
    }
    if limits.temperature.is_some_and(|most| !(0.0..=2.0).contains(&most)) {
        return Err(AuthError::invalid("limits.temperature", "must be within 0 and 2"));
    }
    Ok(())
}

fn blank(id: String) -> ModelSpecification {
    ModelSpecification {
        id,
        sources: Vec::new(),
        aliases: Vec::new(),
        description: String::new(),
        sha256: None,
        context_length: None,
        defaults: json!({}),
        limits: ModelLimits::default(),
        visibility: Visibility::Everyone,
        team_ids: Vec::new(),
        pinned: false,
        enabled: true,
        preload: false,
    }
}

impl ModelView {
    fn of(registered: Option<RegisteredModel>, status: &ModelStatus) -> Self {
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

/// What the configuration says of a model that is not registered.
fn configured(status: &ModelStatus) -> ModelSpecification {
    ModelSpecification {
        aliases: status.aliases.clone(),
        pinned: status.pinned,
        enabled: status.enabled,
        ..blank(status.id.clone())
    }
}

impl ModelStatusView {
    fn of(status: &ModelStatus) -> Self {
        Self {
            state: state_name(&status.state),
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
        }
    }
}

fn state_name(state: &ModelState) -> &'static str {
    match state {
        ModelState::Absent => "absent",
        ModelState::Downloading(_) => "downloading",
        ModelState::Loading => "loading",
        ModelState::Ready => "ready",
        ModelState::Draining => "draining",
        ModelState::Failed { .. } => "failed",
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

/// Which models a list shows.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ModelFilter {
    /// In id, aliases and description.
    search: Option<String>,
    /// In this state: `absent`, `downloading`, `loading`, `ready`, `draining`, `failed`.
    state: Option<String>,
    /// Those that are enabled, or those that are not.
    enabled: Option<bool>,
}

/// Lists the models, registered and configured.
#[utoipa::path(get, path = "/api/v1/admin/models", operation_id = "listModels", tag = "models", params(PageQuery, ModelFilter),
    responses((status = 200, description = "One page of the models", body = Envelope<Paged<ModelView>>)))]
pub async fn list(
    State(app): State<AppState>,
    Granted(viewer): Granted<ModelViewer>,
    Listed { page, filter }: Listed<ModelFilter>,
) -> Result<Envelope<Paged<ModelView>>, EnvelopeError> {
    let manager = app.registry().seen_by(&viewer);
    let registered = viewer.all().await?;
    let mut views: Vec<ModelView> = Vec::new();
    for status in manager.all() {
        let own = registered.iter().find(|model| model.specification.id == status.id).cloned();
        views.push(ModelView::of(own, &status));
    }
    let search = filter.search.as_deref().map(str::to_lowercase);
    views.retain(|view| {
        filter.state.as_deref().is_none_or(|state| state == view.status.state)
            && filter.enabled.is_none_or(|enabled| enabled == view.enabled)
            && search.as_deref().is_none_or(|text| view.contains(text))
    });
    Ok(Envelope::of(page_of(views, &page.request(&["id", "created_at"])?)?.into()))
}

impl ModelView {
    fn contains(&self, text: &str) -> bool {
        let mut texts = [&self.id, &self.description].into_iter().chain(&self.aliases);
        texts.any(|own| own.to_lowercase().contains(text))
    }
}

/// There are few models: they are sorted here, and a cursor is the id that the page before ended with.
fn page_of(mut views: Vec<ModelView>, request: &ListRequest) -> Result<Page<ModelView>, AuthError> {
    match request.sort {
        "created_at" => views.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id))),
        _ => views.sort_by(|a, b| a.id.cmp(&b.id)),
    }
    if request.order == Order::Descending {
        views.reverse();
    }
    if let Some(cursor) = &request.cursor {
        let Some(end) = views.iter().position(|view| view.id == *cursor) else {
            return Err(AuthError::invalid("cursor", "is not one that this list gave out"));
        };
        views.drain(..=end);
    }
    let limit = request.limit as usize;
    let more = views.len() > limit;
    views.truncate(limit);
    let next = views.last().filter(|_| more).map(|view| view.id.clone());
    Ok(Page { items: views, next })
}

/// Registers a model.
#[utoipa::path(post, path = "/api/v1/admin/models", operation_id = "createModel", tag = "models",
    request_body = CreateModel,
    responses((status = 201, description = "It is registered", body = Envelope<ModelView>)))]
pub async fn create(
    State(app): State<AppState>,
    Granted(admin): Granted<ModelAdmin>,
    Typed(CreateModel { id, rest }): Typed<CreateModel>,
) -> Result<(StatusCode, Envelope<ModelView>), EnvelopeError> {
    let mut model = blank(id);
    rest.apply(&mut model)?;
    app.registry().check(&model).await?;
    let model = admin.create(model).await?;
    Ok(Envelope::created(settled(&app, model).await?))
}

/// A model that was just written, as it is now.
async fn settled(app: &AppState, model: RegisteredModel) -> Result<ModelView, EnvelopeError> {
    let status = app.registry().adopt(&model.specification.id).await?;
    Ok(ModelView::of(Some(model), &status.unwrap_or_default()))
}

/// Shows a model.
#[utoipa::path(get, path = "/api/v1/admin/models/{modelId}", operation_id = "getModel", tag = "models",
    params(("modelId" = String, Path, description = "Its id; a slash in it is written %2F")),
    responses((status = 200, description = "The model", body = Envelope<ModelView>)))]
pub async fn read(
    State(app): State<AppState>,
    Granted(viewer): Granted<ModelViewer>,
    Path(id): Path<String>,
) -> Result<Envelope<ModelView>, EnvelopeError> {
    let status = app.registry().seen_by(&viewer).one(&id).ok_or(ManagerError::Unknown { id: id.clone() })?;
    Ok(Envelope::of(ModelView::of(viewer.find(&id).await?, &status)))
}

/// Changes a model. One that only the configuration names is thereby registered.
#[utoipa::path(put, path = "/api/v1/admin/models/{modelId}", operation_id = "updateModel", tag = "models",
    params(("modelId" = String, Path, description = "Its id; a slash in it is written %2F")),
    request_body = UpdateModel,
    responses((status = 200, description = "It is changed", body = Envelope<ModelView>)))]
pub async fn update(
    State(app): State<AppState>,
    Granted(admin): Granted<ModelAdmin>,
    Path(id): Path<String>,
    Typed(change): Typed<UpdateModel>,
) -> Result<Envelope<ModelView>, EnvelopeError> {
    let mut model = match admin.find(&id).await? {
        Some(registered) => registered.specification,
        None => {
            let status = app.registry().operated_by(&admin).one(&id);
            configured(&status.ok_or(ManagerError::Unknown { id })?)
        }
    };
    change.apply(&mut model)?;
    app.registry().check(&model).await?;
    let model = admin.update(model).await?;
    Ok(Envelope::of(settled(&app, model).await?))
}

/// Takes a model out of the registry. What runs on it finishes; its files stay on disk.
#[utoipa::path(delete, path = "/api/v1/admin/models/{modelId}", operation_id = "deleteModel", tag = "models",
    params(("modelId" = String, Path, description = "Its id; a slash in it is written %2F")),
    responses((status = 200, description = "It is gone", body = Envelope<Nothing>)))]
pub async fn delete(
    State(app): State<AppState>,
    Granted(admin): Granted<ModelAdmin>,
    Path(id): Path<String>,
) -> Result<Envelope<Nothing>, EnvelopeError> {
    let manager = app.registry().operated_by(&admin);
    if admin.find(&id).await?.is_none() && manager.one(&id).is_some() {
        let message = "the model is named by the server's configuration: disable it, or take it out there";
        return Err(ApiError::new(Code::StateConflict, message).into());
    }
    admin.delete(&id).await?;
    app.registry().adopt(&id).await?;
    Ok(Envelope::of(Nothing))
}

/// Something to be done with a model on this replica.
#[derive(Debug, Clone, Copy)]
enum Action {
    Load,
    Unload,
    Pull,
}

impl Action {
    const fn name(self) -> &'static str {
        match self {
            Self::Load => "model.load",
            Self::Unload => "model.unload",
            Self::Pull => "model.pull",
        }
    }

    async fn run(self, manager: &ModelManager, id: &str) -> Result<(), ManagerError> {
        match self {
            Self::Load => manager.load(id).await,
            Self::Unload => manager.unload(id).await,
            Self::Pull => manager.pull(id).await,
        }
    }
}

/// Loads a model on this replica, fetching it first if it must.
///
/// Answers at once; with `Accept: text/event-stream` it goes on with the model's state and progress until it is there.
#[utoipa::path(post, path = "/api/v1/admin/models/{modelId}/load", operation_id = "loadModel", tag = "models",
    params(("modelId" = String, Path, description = "Its id; a slash in it is written %2F")),
    responses((status = 200, description = "It is loaded", body = Envelope<ModelStatusView>),
        (status = 202, description = "It is on its way", body = Envelope<ModelStatusView>)))]
pub async fn load(
    State(app): State<AppState>,
    Granted(admin): Granted<ModelAdmin>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, EnvelopeError> {
    act(app, admin, id, &headers, Action::Load).await
}

/// Unloads a model on this replica once nobody uses it, or breaks off its download.
///
/// Answers at once; with `Accept: text/event-stream` it goes on with the model's state until it is gone.
#[utoipa::path(post, path = "/api/v1/admin/models/{modelId}/unload", operation_id = "unloadModel", tag = "models",
    params(("modelId" = String, Path, description = "Its id; a slash in it is written %2F")),
    responses((status = 200, description = "It is unloaded", body = Envelope<ModelStatusView>),
        (status = 202, description = "It is on its way", body = Envelope<ModelStatusView>)))]
pub async fn unload(
    State(app): State<AppState>,
    Granted(admin): Granted<ModelAdmin>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, EnvelopeError> {
    act(app, admin, id, &headers, Action::Unload).await
}

/// Fetches a model's files to this replica without loading it.
///
/// Answers at once; with `Accept: text/event-stream` it goes on with the progress until they are there.
#[utoipa::path(post, path = "/api/v1/admin/models/{modelId}/pull", operation_id = "pullModel", tag = "models",
    params(("modelId" = String, Path, description = "Its id; a slash in it is written %2F")),
    responses((status = 200, description = "Its files are here", body = Envelope<ModelStatusView>),
        (status = 202, description = "They are on their way", body = Envelope<ModelStatusView>)))]
pub async fn pull(
    State(app): State<AppState>,
    Granted(admin): Granted<ModelAdmin>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, EnvelopeError> {
    act(app, admin, id, &headers, Action::Pull).await
}

async fn act(
    app: AppState,
    admin: ModelAdmin,
    id: String,
    headers: &HeaderMap,
    action: Action,
) -> Result<Response, EnvelopeError> {
    let manager = Arc::clone(app.registry().operated_by(&admin));
    let status = || manager.one(&id).ok_or(ManagerError::Unknown { id: id.clone() });
    status()?;
    admin.record(action.name(), &id).await?;
    let mut changes = manager.watch();
    // On a task of its own: whoever asked may leave, it goes on all the same.
    let (own, name) = (Arc::clone(&manager), id.clone());
    let mut task = tokio::spawn(async move { action.run(&own, &name).await });
    let wants_events = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    if wants_events.is_some_and(|accept| accept.contains("text/event-stream")) {
        let interruption = Interruption::of(admin.caller(), ModelAdmin::PERMISSION, app.shutdown());
        return Ok(sse::events(&app, interruption, progress(manager, id, task), sse::envelope_error));
    }
    // It has begun, or is over, or cannot be.
    tokio::select! {
        biased;
        outcome = &mut task => {
            outcome.map_err(|_| ApiError::internal())??;
            Ok(Envelope::of(ModelStatusView::of(&status()?)).into_response())
        }
        _ = changes.changed() => Ok(Envelope::accepted(ModelStatusView::of(&status()?)).into_response()),
    }
}

type Outcome = tokio::task::JoinHandle<Result<(), ManagerError>>;

/// The model's status whenever it changes, until the work on it is over; last how it then is, or why it failed.
fn progress(
    manager: Arc<ModelManager>,
    id: String,
    task: Outcome,
) -> impl Stream<Item = Result<Vec<Value>, ApiError>> + Send {
    let changes = manager.watch_one(&id).map(|status| Ok(vec![event(&status)]));
    let last = async move {
        task.await.map_err(|_| ApiError::internal())??;
        Ok::<_, ApiError>(manager.one(&id).iter().map(event).collect::<Vec<_>>())
    };
    // Both the end of the changes and the last word.
    let last = last.shared();
    changes.take_until(last.clone()).chain(stream::once(last))
}

fn event(status: &ModelStatus) -> Value {
    json!({"id": status.id, "status": ModelStatusView::of(status)})
}
