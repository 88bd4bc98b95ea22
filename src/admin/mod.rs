//! What administrators do, under `/api/v1/admin`. Each handler exchanges the caller for a capability of `auth/`, which is
//! where a permission is checked; a handler has no other way to the database.

mod models;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::AppState;

/// The URLs of this room.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(models::list, models::create))
        .routes(routes!(models::read, models::update, models::delete))
        .routes(routes!(models::load))
        .routes(routes!(models::unload))
        .routes(routes!(models::pull))
}
