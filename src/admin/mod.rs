//! What administrators do, under `/api/v1/admin`. Each handler exchanges the caller for a capability of `auth/`, which is
//! where a permission is checked; a handler has no other way to the database.

use utoipa_axum::router::OpenApiRouter;

use crate::http::AppState;

/// The URLs of this room.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
}
