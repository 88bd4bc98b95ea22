//! What a model can do, for programs: the document within `GET /v1/models/{id}`.
//!
//! Made of what its files say, what was found out when it was loaded, and what the API takes. What is not known before
//! that is null.

use std::sync::OnceLock;

use sconce_models::{Activation, Cuts, ModelKind, ModelSpec};
use serde_json::{Map, Value, json};
use utoipa::PartialSchema;

use crate::api::openai::schema;
use crate::auth::models::ModelLimits;
use crate::generate::format::Format;
use crate::manager::{ModelStatus, Profile};

/// The document of one model.
pub fn document(status: &ModelStatus, limits: &ModelLimits) -> Value {
    let Some(kind) = status.kind else { return Value::Null };
    let (spec, profile) = (status.spec.as_ref(), status.profile.as_deref());
    let format = profile.and_then(|profile| {
        Some(Format::of(profile.chat_template.as_deref()?, profile.tool_format.as_deref()))
    });
    json!({
        "context_length": spec.map(|spec| spec.context_length),
        "modalities": {"input": ["text"], "output": [output(kind)]},
        "endpoints": endpoints(kind, profile),
        "dialects": dialects(kind),
        "parameters": parameters(kind),
        "limits": limits,
        "architecture": spec.map(|spec| &spec.architecture),
        "quantisation": profile.map(|profile| &profile.quantisation),
        "weights_bytes": spec.map(|spec| spec.weights_bytes),
        "cache_bytes_per_token": cache(kind, spec, profile),
        "chat_template": profile.map(|profile| profile.chat_template.is_some()),
        "tool_calls": format.map(|format| format.calls()),
        "reasoning": format.and_then(|format| format.thoughts()),
        "infill": profile.map(|profile| profile.features.infill.is_some()),
        "embedding": (kind == ModelKind::Embedding).then(|| embedding(spec, profile)),
        "ranking": (kind == ModelKind::CrossEncoder).then(|| ranking(profile)),
        "self_test": profile.map(|profile| &profile.self_test),
    })
}

fn output(kind: ModelKind) -> &'static str {
    match kind {
        ModelKind::Causal => "text",
        ModelKind::Embedding => "embedding",
        ModelKind::CrossEncoder => "score",
    }
}

/// Whose protocols it can be asked in; Ollama's only where that is on.
fn dialects(kind: ModelKind) -> &'static [&'static str] {
    match kind {
        ModelKind::Causal => &["openai", "anthropic", "ollama"],
        ModelKind::Embedding => &["openai", "ollama"],
        ModelKind::CrossEncoder => &["cohere", "jina"],
    }
}

/// Where it can be asked; a model without a format for conversations holds none.
fn endpoints(kind: ModelKind, profile: Option<&Profile>) -> Vec<&'static str> {
    let chats = profile.is_none_or(|profile| profile.chat_template.is_some());
    let mut endpoints = match kind {
        ModelKind::Causal if chats => {
            vec!["/v1/chat/completions", "/v1/chat/completions/render", "/v1/responses", "/v1/messages"]
        }
        ModelKind::Causal => Vec::new(),
        ModelKind::Embedding => vec!["/v1/embeddings"],
        ModelKind::CrossEncoder => vec!["/v1/rerank", "/v2/rerank", "/v1/score"],
    };
    if kind == ModelKind::Causal {
        endpoints.push("/v1/completions");
    }
    endpoints.extend(["/v1/tokenize", "/v1/detokenize"]);
    endpoints
}

/// The parameters that are taken, by endpoint: those of the description of the API.
fn parameters(kind: ModelKind) -> Value {
    static KNOWN: OnceLock<[Value; 3]> = OnceLock::new();
    let [causal, embedding, ranking] = KNOWN.get_or_init(|| {
        [
            json!({"/v1/chat/completions": names::<schema::ChatCompletionRequest>(),
                "/v1/completions": names::<schema::CompletionRequest>()}),
            json!({"/v1/embeddings": names::<schema::EmbeddingRequest>()}),
            json!({"/v1/rerank": names::<schema::RerankRequest>(), "/v1/score": names::<schema::ScoreRequest>()}),
        ]
    });
    match kind {
        ModelKind::Causal => causal.clone(),
        ModelKind::Embedding => embedding.clone(),
        ModelKind::CrossEncoder => ranking.clone(),
    }
}

/// The members of a described request.
fn names<T: PartialSchema>() -> Vec<String> {
    let schema = serde_json::to_value(T::schema()).unwrap_or_default();
    schema["properties"].as_object().map(Map::keys).into_iter().flatten().cloned().collect()
}

/// Only what generates text keeps anything of it.
fn cache(kind: ModelKind, spec: Option<&ModelSpec>, profile: Option<&Profile>) -> Option<u64> {
    match kind {
        ModelKind::Causal => Some(profile?.cache_bytes_per_token(spec?)),
        ModelKind::Embedding | ModelKind::CrossEncoder => None,
    }
}

fn embedding(spec: Option<&ModelSpec>, profile: Option<&Profile>) -> Value {
    let own = profile.map(|profile| &profile.features.embedding);
    json!({
        "dimensions": spec.map(|spec| spec.embedding_size),
        "shorter_dimensions": own.map(|own| match &own.cuts {
            Cuts::None => json!([]),
            Cuts::Any => json!("any"),
            Cuts::To(lengths) => json!(lengths),
        }),
        "pooling": own.map(|own| own.pooling),
        "normalised": own.map(|own| own.normalised),
        "prompt_names": own.map(|own| own.prompts.keys().collect::<Vec<_>>()),
        "default_prompt_name": own.and_then(|own| own.default_prompt.as_ref()),
    })
}

fn ranking(profile: Option<&Profile>) -> Value {
    let name = |activation| match activation {
        Activation::Sigmoid => "sigmoid",
        Activation::Identity => "identity",
    };
    json!({"activation": profile.map(|profile| name(profile.features.activation))})
}
