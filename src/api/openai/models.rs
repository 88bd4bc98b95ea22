//! `GET /v1/models` and `GET /v1/models/{id}`; ids may have slashes.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use crate::api::openai::schema::{OpenAiModel, OpenAiModels};
use crate::auth::ModelUser;
use crate::http::{AppState, Granted, OpenAiError};
use crate::manager::{ModelState, ModelStatus};

/// Lists the models the caller may use, loaded or not.
///
/// # Errors
/// For a caller who is not known.
#[utoipa::path(get, path = "/v1/models", operation_id = "openaiListModels", tag = "openai",
    responses((status = 200, description = "The models", body = OpenAiModels)))]
pub async fn list(
    State(app): State<AppState>,
    Granted(user): Granted<ModelUser>,
) -> Result<Json<Value>, OpenAiError> {
    let data: Vec<Value> = app.models(&user).list().iter().map(model).collect();
    Ok(Json(json!({"object": "list", "data": data})))
}

/// Describes one model.
///
/// # Errors
/// 404 `model_not_found`.
#[utoipa::path(get, path = "/v1/models/{*id}", operation_id = "openaiGetModel", tag = "openai",
    params(("id" = String, Path, description = "The name of a model, or another name for it; may have slashes",
        example = "gpt-4o")),
    responses((status = 200, description = "The model", body = OpenAiModel)))]
pub async fn retrieve(
    State(app): State<AppState>,
    Granted(user): Granted<ModelUser>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, OpenAiError> {
    // A name that is not even text is the name of no model.
    let Path(id) = id.unwrap_or_else(|_| Path("\u{fffd}".to_owned()));
    Ok(Json(model(&app.models(&user).named(&id).await?)))
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
