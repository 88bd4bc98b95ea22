//! `/api/v1/me`: who one is, as the server sees it.

use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::{Caller, Identity, Permission};
use crate::http::{Envelope, EnvelopeError};

/// Who is calling.
#[derive(Debug, Serialize, ToSchema)]
pub struct Me {
    /// The user's id; none for the key from the configuration.
    #[schema(example = "usr_0198c0ffee")]
    id: Option<String>,
    /// What one signs in with.
    #[schema(example = "ada")]
    username: Option<String>,
    /// `owner`, `admin`, `operator`, `auditor` or `user`.
    #[schema(example = "user")]
    role: Option<String>,
    /// What was shown: `session`, `api_key` or `configured_key`.
    #[schema(example = "session")]
    signed_in_by: &'static str,
    /// What may be done with it.
    permissions: Vec<&'static str>,
    /// The ids of the teams whose models one sees.
    teams: Vec<String>,
    /// Nothing else is accepted before the password is changed.
    must_change_password: bool,
}

/// Says who is calling.
///
/// # Errors
/// 401 without a good credential.
#[utoipa::path(get, path = "/api/v1/me", operation_id = "getMe", tag = "me",
    responses((status = 200, description = "Who is calling", body = Envelope<Me>)))]
pub async fn read(caller: Caller) -> Result<Envelope<Me>, EnvelopeError> {
    let user = caller.user();
    Ok(Envelope::of(Me {
        id: user.map(|user| user.id.clone()),
        username: user.map(|user| user.username.clone()),
        role: user.map(|user| user.role.to_string()),
        signed_in_by: match caller.identity() {
            Identity::Session { .. } => "session",
            Identity::ApiKey { .. } => "api_key",
            Identity::ConfiguredKey => "configured_key",
            Identity::Anonymous => "anonymous",
        },
        permissions: caller.permissions().iter().map(Permission::name).collect(),
        teams: caller.teams().to_vec(),
        must_change_password: user.is_some_and(|user| user.must_change_password),
    }))
}
