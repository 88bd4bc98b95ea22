//! `GET /`, `GET /api/tags`, `GET /api/ps`, `POST /api/show` and `GET /api/version`: that there is a server, and which models
//! it has.

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};

use crate::api::ollama::description::Described;
use crate::api::ollama::{known_name, schema};
use crate::api::openai::fields::{Fields, ParameterError, string};
use crate::auth::ModelUser;
use crate::clock::Timestamp;
use crate::http::state::Models;
use crate::http::{AnyJsonBody, AppState, Granted, OllamaError};
use crate::manager::{ModelState, ModelStatus};

/// The version of Ollama whose protocol this is: clients ask before they use what is new in it.
const SPOKEN: &str = "0.12.11";

/// When a model goes by itself.
const NEVER: &str = "9999-12-31T23:59:59Z";

/// Says that somebody is here: what Ollama's clients look for, without a key, before they ask for anything. In the words of
/// the protocol, which some compare.
#[utoipa::path(get, path = "/", operation_id = "ollamaRoot", tag = "ollama", security(()),
    responses((status = 200, description = "Its protocol is spoken here", body = String, content_type = "text/plain",
        example = "Ollama is running")))]
pub async fn root() -> &'static str {
    "Ollama is running"
}

/// Lists the models that the caller may use, loaded or not.
///
/// # Errors
/// For a caller who is not known.
#[utoipa::path(get, path = "/api/tags", operation_id = "ollamaListModels", tag = "ollama",
    responses((status = 200, description = "The models", body = schema::Tags)))]
pub async fn tags(
    State(app): State<AppState>,
    Granted(user): Granted<ModelUser>,
) -> Result<Json<Value>, OllamaError> {
    let models = app.models(&user);
    let mut listed = Vec::new();
    for status in models.list() {
        let mut model = entry(&models, &status).await;
        model.insert("modified_at".to_owned(), json!(modified(&status)));
        model.insert("size".to_owned(), json!(status.bytes.unwrap_or(0)));
        listed.push(model);
    }
    Ok(Json(json!({ "models": listed })))
}

/// Lists those of them that are loaded.
///
/// # Errors
/// For a caller who is not known.
#[utoipa::path(get, path = "/api/ps", operation_id = "ollamaListRunningModels", tag = "ollama",
    responses((status = 200, description = "The models", body = schema::Running)))]
pub async fn running(
    State(app): State<AppState>,
    Granted(user): Granted<ModelUser>,
) -> Result<Json<Value>, OllamaError> {
    let models = app.models(&user);
    let mut all = models.list();
    all.retain(|model| matches!(model.state, ModelState::Ready | ModelState::Draining));
    let mut listed = Vec::new();
    for status in all {
        let mut model = entry(&models, &status).await;
        model.insert("size".to_owned(), json!(status.memory_bytes));
        model.insert("size_vram".to_owned(), json!(status.memory_bytes));
        model.insert("expires_at".to_owned(), json!(NEVER));
        let context = status.spec.as_ref().map(|spec| spec.context_length);
        model.extend(context.map(|context| ("context_length".to_owned(), json!(context))));
        listed.push(model);
    }
    Ok(Json(json!({ "models": listed })))
}

/// Describes one model, without loading it.
///
/// # Errors
/// 404 for one that is not there, or not visible.
#[utoipa::path(post, path = "/api/show", operation_id = "ollamaShowModel", tag = "ollama",
    request_body(content = schema::ShowRequest, example = json!({"model": "llama3.2"})),
    responses((status = 200, description = "The model", body = schema::Shown)))]
pub async fn show(
    State(app): State<AppState>,
    Granted(user): Granted<ModelUser>,
    AnyJsonBody(body): AnyJsonBody,
) -> Result<Json<Value>, OllamaError> {
    let name = read(body)?;
    let models = app.models(&user);
    let status = models.named(&known_name(&models, &name)).await?;
    let described = Described::of(&models, &status).await;
    Ok(Json(json!({
        "modelfile": described.modelfile(),
        "parameters": described.parameters(),
        "template": described.template().unwrap_or_default(),
        "license": described.license().unwrap_or_default(),
        "details": described.details(),
        "model_info": described.information(),
        "capabilities": described.capabilities(),
        "modified_at": modified(&status),
    })))
}

/// Tells which version of Ollama's protocol is spoken.
///
/// # Errors
/// For a caller who is not known.
#[utoipa::path(get, path = "/api/version", operation_id = "ollamaVersion", tag = "ollama",
    responses((status = 200, description = "The version", body = schema::Version)))]
pub async fn version(Granted(_): Granted<ModelUser>) -> Json<Value> {
    Json(json!({"version": SPOKEN}))
}

/// Reads the name out of a body; `name` is the older one of it.
fn read(body: Value) -> Result<String, ParameterError> {
    let mut fields = Fields::of(body, "")?;
    let older = fields.string("name")?;
    let name = match (older, fields.string("model")?) {
        (Some(older), Some(newer)) if older != newer => {
            return Err(ParameterError::invalid("name", "is the older name of `model`; send one of them"));
        }
        (older, newer) => newer.or(older).map(Value::from),
    };
    let name = match name {
        Some(name) => name,
        None => fields.required("model")?,
    };
    fields.boolean("verbose")?;
    fields.refuse(&[("system", "nothing is changed here"), ("template", "nothing is changed here")])?;
    drop(fields.object("options")?);
    fields.finish()?;
    string(name, || "model".to_owned())
}

/// What both lists say of a model.
async fn entry(models: &Models<'_>, status: &ModelStatus) -> Map<String, Value> {
    let mut entry = Map::new();
    for (name, value) in [
        ("name", json!(status.id)),
        ("model", json!(status.id)),
        // Tells one entry from another; nobody here counts the bytes of its files for it.
        ("digest", json!(blake3::hash(status.id.as_bytes()).to_hex().as_str())),
        ("details", Described::of(models, status).await.details()),
    ] {
        entry.insert(name.to_owned(), value);
    }
    entry
}

/// When it was added to this server.
fn modified(status: &ModelStatus) -> String {
    Timestamp::from_millis(i64::try_from(status.created).unwrap_or(0).saturating_mul(1000)).to_string()
}
