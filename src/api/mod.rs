//! Every public URL, in one list.

pub mod health;
pub mod openai;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

use crate::http::{AppState, layers};

/// All routes with all layers.
pub fn router(state: AppState) -> Router {
    let routes = Router::new()
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
        .route("/version", get(health::version));
    let settings = state.settings();
    let neighbourhood = layers::Neighbourhood {
        address: settings.address,
        trusted_proxies: Arc::clone(&settings.trusted_proxies),
    };
    layers::wrap(routes, neighbourhood).with_state(state)
}
