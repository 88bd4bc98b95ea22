//! `/api/v1/admin/signing-keys`: the keys that sign access tokens. They themselves are never shown.

use crate::auth::{SigningKeyAdmin, SigningKeyRotated};
use crate::http::{Envelope, EnvelopeError, Granted};

/// Makes a new key that signs access tokens.
///
/// Nobody is signed out: what the key before it signed is accepted until it expires.
///
/// # Errors
/// 40902 if the key is set in the configuration.
#[utoipa::path(post, path = "/api/v1/admin/signing-keys/rotate", operation_id = "rotateSigningKey", tag = "settings",
    responses((status = 200, description = "Rotated", body = Envelope<SigningKeyRotated>)))]
pub async fn rotate(
    Granted(keys): Granted<SigningKeyAdmin>,
) -> Result<Envelope<SigningKeyRotated>, EnvelopeError> {
    Ok(Envelope::of(keys.rotate().await?))
}
