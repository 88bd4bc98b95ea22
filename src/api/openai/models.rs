//! `GET /v1/models` and `GET /v1/models/{id}`; ids may have slashes.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::Uri;
use serde_json::{Value, json};

use crate::api::anthropic;
use crate::api::anthropic::version::ProtocolVersion;
use crate::api::openai::capabilities;
use crate::api::openai::schema::{OpenAiModelDocument, OpenAiModels};
use crate::auth::ModelUser;
use crate::http::{ApiError, AppState, Granted, Query, RequestContext, Surface};
use crate::manager::{ModelState, ModelStatus};

/// Lists the models the caller may use, loaded or not.
///
/// # Errors
/// For a caller who is not known.
#[utoipa::path(get, path = "/v1/models", operation_id = "openaiListModels", tag = "openai",
    responses((status = 200, description = "The models; to those who send `anthropic-version`, a page of those that \
        answer messages, as Anthropic lists them", body = OpenAiModels)))]
pub async fn list(
    State(app): State<AppState>,
    Granted(user): Granted<ModelUser>,
    _version: ProtocolVersion,
    uri: Uri,
) -> Result<Json<Value>, ApiError> {
    let models = app.models(&user).list();
    if is_anthropics() {
        let Query(page) = Query::of_text(uri.query().unwrap_or_default())?;
        return Ok(Json(json!(anthropic::models::page(&models, &page)?)));
    }
    let data: Vec<Value> = models.iter().map(model).collect();
    Ok(Json(json!({"object": "list", "data": data})))
}

/// Describes one model, and what it can do.
///
/// # Errors
/// 404 `model_not_found`.
#[utoipa::path(get, path = "/v1/models/{*id}", operation_id = "openaiGetModel", tag = "openai",
    params(("id" = String, Path, description = "The name of a model, or another name for it; may have slashes",
        example = "gpt-4o")),
    responses((status = 200, description = "The model", body = OpenAiModelDocument)))]
pub async fn retrieve(
    State(app): State<AppState>,
    Granted(user): Granted<ModelUser>,
    _version: ProtocolVersion,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, ApiError> {
    // A name that is not even text is the name of no model.
    let Path(id) = id.unwrap_or_else(|_| Path("\u{fffd}".to_owned()));
    let models = app.models(&user);
    let found = models.named(&id).await?;
    if is_anthropics() {
        return Ok(Json(json!(anthropic::models::Model::from(&found))));
    }
    let mut shown = model(&found);
    shown["capabilities"] = capabilities::document(&found, &models.limits(&found.id));
    Ok(Json(shown))
}

/// Whether an Anthropic client asks.
fn is_anthropics() -> bool {
    RequestContext::current().surface == Surface::Anthropic
}

fn model(status: &ModelStatus) -> Value {
    json!({
        "id": status.id,
        "object": "model",
        "created": status.created,
        "owned_by": "sconce",
        "root": status.id,
        "parent": null,
        "max_model_len": status.spec.as_ref().map(|spec| spec.context_length),
        "kind": status.kind,
        "status": standing(&status.state),
    })
}

/// Where a model stands, as far as it is everybody's business: not from where it is fetched.
fn standing(state: &ModelState) -> Value {
    let mut standing = serde_json::to_value(state).unwrap_or_default();
    if let Some(members) = standing.as_object_mut() {
        members.remove("source");
    }
    standing
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::Progress;

    #[test]
    fn clients_see_how_far_a_download_is_and_not_from_where() {
        let source = "https://models.example/private/model.gguf".to_owned();
        let progress = Progress { source, bytes: 7, files: 1, ..Progress::default() };
        let status = ModelStatus { state: ModelState::Downloading(progress), ..ModelStatus::default() };
        let shown = model(&status);
        assert_eq!(
            (&shown["status"]["state"], &shown["status"]["bytes"]),
            (&json!("downloading"), &json!(7))
        );
        assert!(!shown.to_string().contains("private"), "{shown}");
    }
}
