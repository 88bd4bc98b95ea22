//! `/api/v1/admin/settings`: how the server is set up. It is shown here; it is changed where it was said.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::records::SettingsReader;
use crate::http::{AppState, Envelope, EnvelopeError, Granted};

/// How the server is set up.
#[derive(Debug, Serialize, ToSchema)]
pub struct ServerSettings {
    /// The server's version.
    #[schema(example = "0.1.0")]
    version: &'static str,
    /// Where users, keys and records are kept: `sqlite` or `postgres`.
    #[schema(example = "sqlite")]
    database: &'static str,
    /// Every setting.
    settings: Vec<ShownSetting>,
}

/// A setting.
#[derive(Debug, Serialize, ToSchema)]
pub struct ShownSetting {
    /// Its name.
    #[schema(example = "listen")]
    name: &'static str,
    /// Its value; a secret is masked.
    #[schema(example = "127.0.0.1:8080")]
    value: String,
    /// Where that was said: a flag, a variable, a file, or nowhere (`default`).
    #[schema(example = "--listen")]
    origin: String,
}

/// Shows how the server is set up, secrets masked.
///
/// # Errors
/// 403 without `settings:read`.
#[utoipa::path(get, path = "/api/v1/admin/settings", operation_id = "getSettings", tag = "settings",
    responses((status = 200, description = "The settings", body = Envelope<ServerSettings>)))]
pub async fn read(
    State(state): State<AppState>,
    Granted(reader): Granted<SettingsReader>,
) -> Result<Envelope<ServerSettings>, EnvelopeError> {
    let shown = state.settings().explained.to(&reader).iter().map(|explained| ShownSetting {
        name: explained.name,
        value: explained.value.clone(),
        origin: explained.origin.to_string(),
    });
    Ok(Envelope::of(ServerSettings {
        version: env!("CARGO_PKG_VERSION"),
        database: reader.database(),
        settings: shown.collect(),
    }))
}
