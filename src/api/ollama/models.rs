//! `GET /api/tags`, `GET /api/ps`, `POST /api/show` and `GET /api/version`: which models there are, as far as it is known
//! here. What Ollama knows beyond that is left out or empty, not made up.

use axum::Json;
use axum::extract::State;
use sconce_models::{ModelKind, ModelSpec};
use serde_json::{Map, Value, json};

use crate::api::ollama::{known_name, schema};
use crate::api::openai::fields::{Fields, ParameterError, string};
use crate::auth::ModelUser;
use crate::clock::Timestamp;
use crate::generate::format::Format;
use crate::http::{AnyJsonBody, AppState, Granted, OllamaError};
use crate::manager::{ModelState, ModelStatus};

/// The version of Ollama whose protocol this is: clients ask before they use what is new in it.
const SPOKEN: &str = "0.12.11";

/// When a model goes by itself.
const NEVER: &str = "9999-12-31T23:59:59Z";

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
    let listed = |status: &ModelStatus| {
        let mut model = entry(status);
        model.insert("modified_at".to_owned(), json!(modified(status)));
        model.insert("size".to_owned(), json!(status.bytes.unwrap_or(0)));
        Value::Object(model)
    };
    let models: Vec<Value> = app.models(&user).list().iter().map(listed).collect();
    Ok(Json(json!({ "models": models })))
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
    let listed = |status: &ModelStatus| {
        let mut model = entry(status);
        model.insert("size".to_owned(), json!(status.memory_bytes));
        model.insert("size_vram".to_owned(), json!(status.memory_bytes));
        model.insert("expires_at".to_owned(), json!(NEVER));
        let context = status.spec.as_ref().map(|spec| spec.context_length);
        model.extend(context.map(|context| ("context_length".to_owned(), json!(context))));
        Value::Object(model)
    };
    let all = app.models(&user).list();
    let running = all.iter().filter(|model| matches!(model.state, ModelState::Ready | ModelState::Draining));
    let models: Vec<Value> = running.map(listed).collect();
    Ok(Json(json!({ "models": models })))
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
    let template = status.profile.as_ref().and_then(|profile| profile.chat_template.clone());
    Ok(Json(json!({
        "modelfile": "",
        "parameters": "",
        "template": template.unwrap_or_default(),
        "license": "",
        "details": details(&status),
        "model_info": status.spec.as_ref().map(information).unwrap_or_default(),
        "capabilities": capabilities(&status),
        "modified_at": modified(&status),
    })))
}

/// What a model can do, in Ollama's words, as far as it is known.
fn capabilities(status: &ModelStatus) -> Vec<&'static str> {
    let mut known = match status.kind {
        Some(ModelKind::Causal) => vec!["completion"],
        Some(ModelKind::Embedding) => return vec!["embedding"],
        _ => return Vec::new(),
    };
    let Some(profile) = status.profile.as_deref() else { return known };
    if let Some(template) = profile.chat_template.as_deref() {
        // Others can be told of functions in words, but were not trained to call them.
        if template.contains("tools") || profile.tool_format.is_some() {
            known.push("tools");
        }
        if Format::of(template, profile.tool_format.as_deref()).thoughts().is_some() {
            known.push("thinking");
        }
    }
    if profile.features.infill.is_some() {
        known.push("insert");
    }
    known
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
fn entry(status: &ModelStatus) -> Map<String, Value> {
    let mut entry = Map::new();
    for (name, value) in [
        ("name", json!(status.id)),
        ("model", json!(status.id)),
        // Tells one entry from another; nobody here counts the bytes of its files for it.
        ("digest", json!(blake3::hash(status.id.as_bytes()).to_hex().as_str())),
        ("details", details(status)),
    ] {
        entry.insert(name.to_owned(), value);
    }
    entry
}

fn details(status: &ModelStatus) -> Value {
    let family = status.spec.as_ref().map(|spec| spec.architecture.clone()).unwrap_or_default();
    let families: Vec<&str> = Some(family.as_str()).filter(|family| !family.is_empty()).into_iter().collect();
    let weights = status.profile.as_ref().map(|profile| profile.quantisation.clone()).unwrap_or_default();
    json!({"parent_model": "", "format": format(status), "family": family, "families": families,
        "parameter_size": "", "quantization_level": weights})
}

/// What its files are, as far as their names tell.
fn format(status: &ModelStatus) -> &'static str {
    let is_gguf = status.sources.iter().any(|source| source.to_lowercase().contains(".gguf"));
    if is_gguf { "gguf" } else { "safetensors" }
}

fn information(spec: &ModelSpec) -> Map<String, Value> {
    let mut known = Map::new();
    known.insert("general.architecture".to_owned(), json!(spec.architecture));
    for (name, number) in [
        ("context_length", spec.context_length),
        ("embedding_length", spec.hidden_size),
        ("block_count", spec.layers),
        ("attention.head_count", spec.heads),
        ("attention.head_count_kv", spec.kv_heads),
        ("attention.key_length", spec.head_dim),
        ("vocab_size", spec.vocab_size),
    ] {
        known.insert(format!("{}.{name}", spec.architecture), json!(number));
    }
    known
}

/// When it was added to this server.
fn modified(status: &ModelStatus) -> String {
    Timestamp::from_millis(i64::try_from(status.created).unwrap_or(0).saturating_mul(1000)).to_string()
}
