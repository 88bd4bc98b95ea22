//! A new password for oneself. The only thing, but for signing out, that is allowed to somebody who must change it first.

use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use crate::auth::capability::Deed;
use crate::auth::opaque_token::{OpaqueToken, TokenKind};
use crate::auth::session::give_out;
use crate::auth::{AuthError, Caller, Capability, Identity, Passwords, Permission, Permit, SignedIn};
use crate::clock::Timestamp;
use crate::store::sessions::SessionRow;
use crate::store::users::UserRow;
use crate::store::{StoreError, Tx, sessions, users};

const ACTION: &str = "user.password_change";

/// May give oneself another password.
pub struct PasswordChanger(Permit);

impl Capability for PasswordChanger {
    const PERMISSION: Permission = Permission::Account;
    const BEFORE_PASSWORD_CHANGE: bool = true;

    fn of(permit: Permit) -> Self {
        Self(permit)
    }
}

impl PasswordChanger {
    /// Gives the caller another password and ends all their sessions but this one, of which all earlier tokens end too:
    /// the new ones are returned. To a key, which has no session, none are.
    ///
    /// # Errors
    /// [`AuthError::WeakPassword`]; [`AuthError::WrongPassword`] and [`AuthError::Throttled`] for the present one.
    pub async fn change(
        &self,
        current: SecretString,
        new: SecretString,
    ) -> Result<Option<SignedIn>, AuthError> {
        let (caller, auth) = (self.0.caller(), self.0.auth());
        let user = caller.user().ok_or(AuthError::PermissionMissing(Permission::Account))?;
        let is_the_same = current.expose_secret() == new.expose_secret();
        check_new(&new, &user.username, is_the_same)?;
        let proven = auth.prove(&user.username, current, caller.origin(), ACTION).await?;
        let password_hash = auth.passwords().hash(new).await?;

        let mut act = self.0.write().await?;
        let now = auth.clock().now();
        let mut row = proven.still_holds(users::find(&mut act, &user.id).await?)?;
        row.password_hash = password_hash;
        row.must_change_password = false;
        row.token_version += 1;
        row.updated_at = now;
        users::update(&mut act, &row).await?;
        proven.attempt.forget(&mut act).await?;
        let (ended, kept) = keep_only_this(&mut act, caller, &row, now).await?;
        let after = Some(json!({"username": row.username, "sessions_ended": ended}));
        let target = ("user", row.id.clone());
        act.record(Deed { action: ACTION, target, before: None, after }).await?;
        act.commit_authority().await?;
        kept.map(|(session, token)| auth.signed_in(&row, &session, token, now)).transpose()
    }
}

fn check_new(new: &SecretString, username: &str, is_the_same: bool) -> Result<(), AuthError> {
    const FIELD: &str = "new_password";
    Passwords::check_new(new, username).map_err(|error| error.of_password_in(FIELD))?;
    match is_the_same {
        true => Err(AuthError::WeakPassword { field: FIELD, reason: "must not be the present one" }),
        false => Ok(()),
    }
}

/// Ends the other sessions, and gives this one, if there is one, a refresh token in place of all it had.
async fn keep_only_this(
    tx: &mut Tx,
    caller: &Caller,
    user: &UserRow,
    now: Timestamp,
) -> Result<(u64, Option<(SessionRow, OpaqueToken)>), StoreError> {
    let kept = match caller.identity() {
        Identity::Session { session_id } => Some(session_id.as_str()),
        _ => None,
    };
    let ended = sessions::revoke_all_but(tx, &user.id, kept, "password_changed", now).await?;
    let Some(id) = kept else { return Ok((ended, None)) };
    let Some(session) = sessions::find(tx, id).await? else { return Ok((ended, None)) };
    sessions::forget_tokens(tx, id).await?;
    let token = OpaqueToken::generate(TokenKind::Refresh);
    give_out(tx, &token, id, now).await?;
    Ok((ended, Some((session, token))))
}
