//! `/api/v1/admin/keys`: everybody's API keys. The rules are in `auth/keys.rs`.

use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use crate::auth::Permission;
use crate::auth::keys::{
    ApiKey, ApiKeyChange, ApiKeyWithSecret, KeyAdmin, KeyReader, KeyStatus, NewApiKey, Rotation,
};
use crate::clock::Timestamp;
use crate::http::{Envelope, EnvelopeError, Granted, Listed, Nothing, PageQuery, Paged, Path, Small, Typed};
use crate::store::api_keys::{ApiKeyFilter, SORTS};

/// Which keys a list shows.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct KeyQuery {
    /// Of this user.
    user_id: Option<String>,
    /// That work for this team.
    team_id: Option<String>,
    /// Of this status.
    status: Option<KeyStatus>,
    /// With this text in name or first characters.
    #[param(max_length = 200)]
    search: Option<String>,
}

/// A key to be made for a user.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewApiKeyOfUser {
    /// Whose it is to be.
    #[schema(example = "usr_019aabcdef0123456789abcdef012345")]
    user_id: String,
    /// For people.
    #[schema(example = "laptop", min_length = 1, max_length = 128)]
    name: String,
    /// What may be done with it: `["inference"]` if it is left out. Only what its owner and its maker may do themselves.
    #[schema(min_items = 1, example = json!(["inference"]))]
    scopes: Option<Vec<Permission>>,
    /// The models it may use; null for all that its owner sees.
    #[schema(max_items = 100)]
    models: Option<Vec<String>>,
    /// The networks, or single addresses, it may be used from; null for all.
    #[schema(max_items = 100, example = json!(["10.0.0.0/8"]))]
    cidrs: Option<Vec<String>>,
    /// The team it works for: one that its owner is in.
    team_id: Option<String>,
    /// Not accepted from then on; null for never.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    /// Whether it is accepted: `enabled` if it is left out.
    status: Option<KeyStatus>,
}

/// Lists the keys of everybody. A key itself is not shown.
///
/// # Errors
/// 403 without `keys:read`.
#[utoipa::path(get, path = "/api/v1/admin/keys", operation_id = "listKeys", tag = "keys",
    params(PageQuery, KeyQuery),
    responses((status = 200, description = "A page of the keys", body = Envelope<Paged<ApiKey>>)))]
pub async fn list(
    Granted(keys): Granted<KeyReader>,
    Listed { page, filter }: Listed<KeyQuery>,
) -> Result<Envelope<Paged<ApiKey>>, EnvelopeError> {
    let request = page.request(SORTS)?;
    let filter = ApiKeyFilter {
        user_id: filter.user_id,
        team_id: filter.team_id,
        status: filter.status.map(|status| status.name().to_owned()),
        search: filter.search,
    };
    Ok(Envelope::of(keys.list(&filter, &request).await?.into()))
}

/// Makes a key for a user. The key itself is shown in this answer alone.
///
/// # Errors
/// 403 without `keys:manage`, for users who may do as much as the caller, and for scopes beyond those of caller or owner;
/// 409 if the user has too many keys.
#[utoipa::path(post, path = "/api/v1/admin/keys", operation_id = "createKey", tag = "keys",
    request_body = NewApiKeyOfUser,
    responses((status = 201, description = "The key", body = Envelope<ApiKeyWithSecret>)))]
pub async fn create(
    Granted(keys): Granted<KeyAdmin>,
    Typed(new): Typed<NewApiKeyOfUser>,
) -> Result<(StatusCode, Envelope<ApiKeyWithSecret>), EnvelopeError> {
    let NewApiKeyOfUser { user_id, name, scopes, models, cidrs, team_id, expires_at, status } = new;
    let new = NewApiKey { name, scopes, models, cidrs, team_id, expires_at, status };
    Ok(Envelope::created(keys.create(&user_id, new).await?))
}

/// Shows a key, without the key itself.
///
/// # Errors
/// 403 without `keys:read`; 404.
#[utoipa::path(get, path = "/api/v1/admin/keys/{keyId}", operation_id = "getKey", tag = "keys",
    params(("keyId" = String, Path, description = "The key's id")),
    responses((status = 200, description = "The key", body = Envelope<ApiKey>)))]
pub async fn read(
    Granted(keys): Granted<KeyReader>,
    Path(id): Path<String>,
) -> Result<Envelope<ApiKey>, EnvelopeError> {
    Ok(Envelope::of(keys.find(&id).await?))
}

/// Changes a key: enables or disables it, and whatever else the body names. It counts everywhere within a second.
///
/// # Errors
/// 403 without `keys:manage`, and by the rules for making one; 404.
#[utoipa::path(put, path = "/api/v1/admin/keys/{keyId}", operation_id = "updateKey", tag = "keys",
    params(("keyId" = String, Path, description = "The key's id")),
    request_body = ApiKeyChange,
    responses((status = 200, description = "The key as changed", body = Envelope<ApiKey>)))]
pub async fn update(
    Granted(keys): Granted<KeyAdmin>,
    Path(id): Path<String>,
    Typed(change): Typed<ApiKeyChange>,
) -> Result<Envelope<ApiKey>, EnvelopeError> {
    Ok(Envelope::of(keys.update(&id, change).await?))
}

/// Deletes a key.
///
/// # Errors
/// 403 without `keys:manage`, and for users who may do as much as the caller; 404.
#[utoipa::path(delete, path = "/api/v1/admin/keys/{keyId}", operation_id = "deleteKey", tag = "keys",
    params(("keyId" = String, Path, description = "The key's id")),
    responses((status = 200, description = "The key is deleted", body = Envelope<Nothing>)))]
pub async fn delete(
    Granted(keys): Granted<KeyAdmin>,
    Path(id): Path<String>,
) -> Result<Envelope<Nothing>, EnvelopeError> {
    keys.delete(&id).await?;
    Ok(Envelope::of(Nothing))
}

/// Exchanges a key for a new one, shown in this answer alone. The old one is accepted beside it for a while.
///
/// # Errors
/// 403 without `keys:manage`, and by the rules for making one; 404.
#[utoipa::path(post, path = "/api/v1/admin/keys/{keyId}/rotate", operation_id = "rotateKey", tag = "keys",
    params(("keyId" = String, Path, description = "The key's id")),
    request_body = Option<Rotation>,
    responses((status = 200, description = "The new key", body = Envelope<ApiKeyWithSecret>)))]
pub async fn rotate(
    Granted(keys): Granted<KeyAdmin>,
    Path(id): Path<String>,
    rotation: Option<Small<Rotation>>,
) -> Result<Envelope<ApiKeyWithSecret>, EnvelopeError> {
    let Small(rotation) = rotation.unwrap_or(Small(Rotation::default()));
    Ok(Envelope::of(keys.rotate(&id, rotation).await?))
}
