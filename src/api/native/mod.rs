//! Our own protocol under `/api/v1`, for everybody who may use models: chat, sign-in, oneself. Answers are in the
//! envelope of `http/envelope.rs`. What administrators do is in `admin/`.

mod auth;
mod chat;
pub mod chat_types;
mod keys;
mod me;
mod password;
mod sessions;
mod stream;
mod usage;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::AppState;

/// The URLs of this room.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(auth::login))
        .routes(routes!(auth::refresh))
        .routes(routes!(auth::logout))
        .routes(routes!(auth::ticket))
        .routes(routes!(chat::create))
        .routes(routes!(stream::open))
        .routes(routes!(me::read))
        .routes(routes!(keys::list, keys::create))
        .routes(routes!(keys::update, keys::delete))
        .routes(routes!(keys::rotate))
        .routes(routes!(password::change))
        .routes(routes!(sessions::list))
        .routes(routes!(sessions::end))
        .routes(routes!(usage::list))
        .routes(routes!(usage::totals))
}
