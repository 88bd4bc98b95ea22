//! `/api/v1/admin/models`: which models there are to be, and what has become of them.

mod change;
mod shape;

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::{FutureExt, Stream, StreamExt, stream};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::IntoParams;

use crate::admin::models::change::{blank, configured};
use crate::auth::models::{ModelAdmin, ModelViewer, RegisteredModel};
use crate::auth::{AuthError, Capability};
use crate::error::Code;
use crate::http::{
    ApiError, AppState, Envelope, EnvelopeError, Granted, Interruption, Listed, Nothing, PageQuery, Paged,
    Path, Typed, sse,
};
use crate::manager::{ManagerError, ModelManager, ModelStatus};
use crate::store::{ListRequest, Order, Page};

pub use change::{CreateModel, UpdateModel};
pub use shape::{ModelStatusView, ModelView, StateName};

/// Which models a list shows.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ModelFilter {
    /// In id, aliases and description.
    search: Option<String>,
    /// In this state.
    #[param(inline)]
    state: Option<StateName>,
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
        if is_there(own.as_ref(), &status) {
            views.push(ModelView::of(own, &status));
        }
    }
    let search = filter.search.as_deref().map(str::to_lowercase);
    views.retain(|view| {
        filter.state.is_none_or(|state| state == view.status.state)
            && filter.enabled.is_none_or(|enabled| enabled == view.enabled)
            && search.as_deref().is_none_or(|text| view.contains(text))
    });
    Ok(Envelope::of(page_of(views, &page.request(&["id", "created_at"])?)?.into()))
}

/// One that was deleted may still finish what it runs: it is there for those alone.
fn is_there(registered: Option<&RegisteredModel>, status: &ModelStatus) -> bool {
    registered.is_some() || !status.is_registered
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
    app.registry().check_sources(rest.sources()).await?;
    rest.apply(&mut model)?;
    app.registry().check(&model)?;
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
    let (registered, status) = (viewer.find(&id).await?, app.registry().seen_by(&viewer).one(&id));
    let status = status.filter(|status| is_there(registered.as_ref(), status));
    Ok(Envelope::of(ModelView::of(registered, &status.ok_or(ManagerError::Unknown { id })?)))
}

/// Changes a model: what the body leaves out stays. One that only the configuration names is thereby registered.
///
/// Null empties what can be empty: `sha256`, `context_length`, `defaults` and `limits`.
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
    let registry = app.registry();
    // Before the change begins: a name may have to be looked up, and all who write would wait for that.
    registry.check_sources(change.sources()).await?;
    let without = match admin.find(&id).await? {
        Some(_) => None,
        None => registry.operated_by(&admin).one(&id).filter(|status| !status.is_registered),
    };
    let model = admin.update(&id, without.as_ref().map(configured), |model| {
        change.apply(model)?;
        registry.check(model)
    });
    let model = model.await?.ok_or(ManagerError::Unknown { id })?;
    Ok(Envelope::of(settled(&app, model).await?))
}

/// Takes a model out of the registry. What runs on it finishes.
///
/// Its files stay on the disk, since other models and other programs may use the same ones: in the folders of the settings
/// `hub-cache` and `data-dir`, where they may be deleted by hand once no model names them.
#[utoipa::path(delete, path = "/api/v1/admin/models/{modelId}", operation_id = "deleteModel", tag = "models",
    params(("modelId" = String, Path, description = "Its id; a slash in it is written %2F")),
    responses((status = 200, description = "It is gone", body = Envelope<Nothing>)))]
pub async fn delete(
    State(app): State<AppState>,
    Granted(admin): Granted<ModelAdmin>,
    Path(id): Path<String>,
) -> Result<Envelope<Nothing>, EnvelopeError> {
    let manager = app.registry().operated_by(&admin);
    let is_configured = || manager.one(&id).is_some_and(|status| !status.is_registered);
    if admin.find(&id).await?.is_none() && is_configured() {
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
