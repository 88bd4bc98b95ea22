//! `/api/v1/me/password`: another password for oneself.

use secrecy::SecretString;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::api::native::auth::Tokens;
use crate::auth::PasswordChanger;
use crate::http::{Envelope, EnvelopeError, Granted, Typed};

/// The password one has, and the one to have.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PasswordChange {
    /// The present one.
    #[schema(example = "tidal-mosaic-quarry-41", format = Password)]
    current_password: String,
    /// The new one: at least 8 characters, and not easily guessed.
    #[schema(example = "velvet-anchor-sundial-7", format = Password, min_length = 8)]
    new_password: String,
}

/// Changes one's own password.
///
/// Ends all other sessions, and all earlier tokens of this one: use those in the answer. Asked for with an API key, the
/// answer has none.
///
/// # Errors
/// 40102 for a wrong present password, 40016 for a weak new one, 42904 after too many wrong ones.
#[utoipa::path(post, path = "/api/v1/me/password", operation_id = "changePassword", tag = "me",
    request_body = PasswordChange,
    responses((status = 200, description = "Changed", body = Envelope<Option<Tokens>>)))]
pub async fn change(
    Granted(password): Granted<PasswordChanger>,
    Typed(body): Typed<PasswordChange>,
) -> Result<Envelope<Option<Tokens>>, EnvelopeError> {
    let (current, new) = (SecretString::from(body.current_password), SecretString::from(body.new_password));
    let signed_in = password.change(current, new).await?;
    Ok(Envelope::of(signed_in.map(Tokens::from)))
}
