//! Every public URL but those of `admin/`, in one list.

pub mod health;
mod inference;
pub mod native;
pub mod openai;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::AppState;

/// The URLs of this room. Those that are in the OpenAPI document are added by `routes!`.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(openai::chat::create))
        .routes(routes!(openai::completions::create))
        .routes(routes!(openai::embeddings::create))
        .routes(routes!(openai::responses::create))
        .routes(routes!(openai::responses::retrieve, openai::responses::delete))
        .routes(routes!(openai::responses::cancel))
        .routes(routes!(openai::responses::input_items))
        .routes(routes!(openai::responses::input_tokens))
        .routes(routes!(openai::models::list))
        .routes(routes!(openai::models::retrieve))
        .routes(routes!(health::live))
        .routes(routes!(health::healthz))
        .routes(routes!(health::ready))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
        .routes(routes!(health::version))
        .merge(native::routes())
}
