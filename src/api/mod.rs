//! Every public URL but those of `admin/`, in one list.

mod anthropic;
pub mod health;
mod inference;
pub mod native;
pub mod ollama;
pub mod openai;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::AppState;

/// The URLs of this room. Those that are in the OpenAPI document are added by `routes!`.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(openai::chat::create, openai::chat::stored::list))
        .routes(routes!(
            openai::chat::stored::retrieve,
            openai::chat::stored::update,
            openai::chat::stored::delete
        ))
        .routes(routes!(openai::chat::stored::messages))
        .routes(routes!(openai::completions::create))
        .routes(routes!(openai::embeddings::create))
        .routes(routes!(openai::files::create, openai::files::list))
        .routes(routes!(openai::files::retrieve, openai::files::delete))
        .routes(routes!(openai::files::content))
        .routes(routes!(openai::batches::create, openai::batches::list))
        .routes(routes!(openai::batches::retrieve))
        .routes(routes!(openai::batches::cancel))
        .routes(routes!(openai::responses::create))
        .routes(routes!(openai::responses::retrieve, openai::responses::delete))
        .routes(routes!(openai::responses::cancel))
        .routes(routes!(openai::responses::input_items))
        .routes(routes!(openai::responses::input_tokens))
        .routes(routes!(openai::rerank::rerank))
        .routes(routes!(openai::rerank::rerank_v2))
        .routes(routes!(openai::rerank::score))
        .routes(routes!(openai::tokenize::tokenize))
        .routes(routes!(openai::tokenize::detokenize))
        .routes(routes!(openai::tokenize::render))
        .routes(routes!(openai::models::list))
        .routes(routes!(openai::models::retrieve))
        .routes(routes!(health::live))
        .routes(routes!(health::healthz))
        .routes(routes!(health::ready))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
        .routes(routes!(health::version))
        .merge(anthropic::routes())
        .merge(native::routes())
}
