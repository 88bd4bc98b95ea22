//! What administrators do, under `/api/v1/admin`. Each handler exchanges the caller for a capability of `auth/`, which is
//! where a permission is checked; a handler has no other way to the database.

mod audit;
mod keys;
mod models;
mod settings;
mod signing_keys;
mod teams;
mod usage;
mod users;

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
        .routes(routes!(users::list, users::create))
        .routes(routes!(users::read, users::update, users::delete))
        .routes(routes!(users::sessions, users::end_sessions))
        .routes(routes!(users::end_session))
        .routes(routes!(keys::list, keys::create))
        .routes(routes!(keys::read, keys::update, keys::delete))
        .routes(routes!(keys::rotate))
        .routes(routes!(teams::list, teams::create))
        .routes(routes!(teams::read, teams::update, teams::delete))
        .routes(routes!(teams::members))
        .routes(routes!(teams::add_member, teams::remove_member))
        .routes(routes!(signing_keys::rotate))
        .routes(routes!(audit::list))
        .routes(routes!(audit::verify))
        .routes(routes!(usage::list))
        .routes(routes!(usage::totals))
        .routes(routes!(usage::export))
        .routes(routes!(settings::read))
}
