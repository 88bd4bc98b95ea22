//! `/api/v1/me/keys`: one's own API keys. Those of others are not there, whoever asks. The rules are in `auth/keys.rs`.

use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::auth::keys::{
    ApiKey, ApiKeyChange, ApiKeyWithSecret, KeyStatus, NewApiKey, OwnKeys, Rotation, SORTS,
};
use crate::http::{Envelope, EnvelopeError, Granted, Listed, Nothing, PageQuery, Paged, Path, Small, Typed};

/// Which keys a list shows.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct OwnKeyQuery {
    /// Of this status.
    status: Option<KeyStatus>,
    /// With this text in name or first characters.
    #[param(max_length = 200)]
    search: Option<String>,
}

/// Lists one's keys. A key itself is not shown.
///
/// # Errors
/// 403 without `account`.
#[utoipa::path(get, path = "/api/v1/me/keys", operation_id = "listMyKeys", tag = "me",
    params(PageQuery, OwnKeyQuery),
    responses((status = 200, description = "A page of one's keys", body = Envelope<Paged<ApiKey>>)))]
pub async fn list(
    Granted(keys): Granted<OwnKeys>,
    Listed { page, filter }: Listed<OwnKeyQuery>,
) -> Result<Envelope<Paged<ApiKey>>, EnvelopeError> {
    let request = page.request(SORTS)?;
    Ok(Envelope::of(keys.list(filter.status, filter.search, &request).await?.into()))
}

/// Makes a key. The key itself is shown in this answer alone.
///
/// # Errors
/// 403 without `account`, and for scopes beyond one's own; 409 for too many keys.
#[utoipa::path(post, path = "/api/v1/me/keys", operation_id = "createMyKey", tag = "me",
    request_body = NewApiKey,
    responses((status = 201, description = "The key", body = Envelope<ApiKeyWithSecret>)))]
pub async fn create(
    Granted(keys): Granted<OwnKeys>,
    Typed(new): Typed<NewApiKey>,
) -> Result<(StatusCode, Envelope<ApiKeyWithSecret>), EnvelopeError> {
    Ok(Envelope::created(keys.create(new).await?))
}

/// Changes a key: enables or disables it, and whatever else the body names.
///
/// # Errors
/// 403 without `account`, and for scopes beyond one's own; 404.
#[utoipa::path(put, path = "/api/v1/me/keys/{keyId}", operation_id = "updateMyKey", tag = "me",
    params(("keyId" = String, Path, description = "The key's id")),
    request_body = ApiKeyChange,
    responses((status = 200, description = "The key as changed", body = Envelope<ApiKey>)))]
pub async fn update(
    Granted(keys): Granted<OwnKeys>,
    Path(id): Path<String>,
    Typed(change): Typed<ApiKeyChange>,
) -> Result<Envelope<ApiKey>, EnvelopeError> {
    Ok(Envelope::of(keys.update(&id, change).await?))
}

/// Deletes a key.
///
/// # Errors
/// 403 without `account`; 404.
#[utoipa::path(delete, path = "/api/v1/me/keys/{keyId}", operation_id = "deleteMyKey", tag = "me",
    params(("keyId" = String, Path, description = "The key's id")),
    responses((status = 200, description = "The key is deleted", body = Envelope<Nothing>)))]
pub async fn delete(
    Granted(keys): Granted<OwnKeys>,
    Path(id): Path<String>,
) -> Result<Envelope<Nothing>, EnvelopeError> {
    keys.delete(&id).await?;
    Ok(Envelope::of(Nothing))
}

/// Exchanges a key for a new one, shown in this answer alone. The old one is accepted beside it for a while.
///
/// # Errors
/// 403 without `account`; 404.
#[utoipa::path(post, path = "/api/v1/me/keys/{keyId}/rotate", operation_id = "rotateMyKey", tag = "me",
    params(("keyId" = String, Path, description = "The key's id")),
    request_body = Option<Rotation>,
    responses((status = 200, description = "The new key", body = Envelope<ApiKeyWithSecret>)))]
pub async fn rotate(
    Granted(keys): Granted<OwnKeys>,
    Path(id): Path<String>,
    rotation: Option<Small<Rotation>>,
) -> Result<Envelope<ApiKeyWithSecret>, EnvelopeError> {
    let Small(rotation) = rotation.unwrap_or(Small(Rotation::default()));
    Ok(Envelope::of(keys.rotate(&id, rotation).await?))
}
