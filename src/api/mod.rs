//! Every public URL but those of `admin/`, in one list.

pub mod health;
pub mod native;
pub mod openai;

use axum::routing::{get, post};
use utoipa_axum::router::OpenApiRouter;

use crate::http::AppState;

/// The URLs of this room. Those that are in the OpenAPI document are added by `routes!`.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .route("/v1/chat/completions", post(openai::chat::create))
        .route("/v1/completions", post(openai::completions::create))
        .route("/v1/embeddings", post(openai::embeddings::create))
        .route("/v1/models", get(openai::models::list))
        .route("/v1/models/{*id}", get(openai::models::retrieve))
        .route("/health", get(health::live))
        .route("/healthz", get(health::live))
        .route("/health/ready", get(health::ready))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .route("/version", get(health::version))
        .merge(native::routes())
}
