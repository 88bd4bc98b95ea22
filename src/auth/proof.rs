//! A user name and a password → the user, or nothing. An unknown user and a wrong password differ in nothing that shows.

use std::net::IpAddr;

use secrecy::SecretString;
use serde_json::json;

use crate::auth::throttle::{Attempt, KNOWN_FOR};
use crate::auth::{Auth, AuthError, Origin, known_username};
use crate::clock::Timestamp;
use crate::store::audit::{self, AuditEvent};
use crate::store::users::UserRow;
use crate::store::{sessions, users};

/// A user who knew the password.
pub(super) struct Proven {
    /// As it was when the password was checked. Whoever changes something must look whether that still holds.
    pub(super) user: UserRow,
    /// To be forgotten once the user is let in.
    pub(super) attempt: Attempt,
}

impl Proven {
    /// Whether the user is still there, with the password that was checked.
    pub(super) fn still_holds(&self, user: Option<UserRow>) -> Result<UserRow, AuthError> {
        user.filter(|user| user.password_hash == self.user.password_hash).ok_or(AuthError::WrongPassword)
    }
}

impl Auth {
    /// Checks a password; a failure is counted, and written to the audit under `action`.
    ///
    /// # Errors
    /// [`AuthError::WrongPassword`], also for an unknown user; [`AuthError::Throttled`], [`AuthError::Busy`].
    pub(super) async fn prove(
        &self,
        username: &str,
        password: SecretString,
        origin: &Origin,
        action: &'static str,
    ) -> Result<Proven, AuthError> {
        let name = known_username(username).ok();
        // Who must wait is told so before they stand in the queue.
        self.look(name.as_deref(), origin.address).await?;
        // From here to the end of a failure few are at work at once: many attempts at the same moment count as many.
        let place = self.passwords().place().await?;
        let (user, attempt) = self.look(name.as_deref(), origin.address).await?;
        let hash = user.as_ref().map(|user| user.password_hash.clone());
        let matches = place.verify(password, hash).await?;
        match user {
            Some(user) if matches => Ok(Proven { user, attempt }),
            user => {
                self.failed(&attempt, user.as_ref(), name.as_deref(), origin, action).await?;
                Err(AuthError::WrongPassword)
            }
        }
    }

    /// The user of this name, and whether their password may be tried now from there.
    async fn look(
        &self,
        name: Option<&str>,
        address: IpAddr,
    ) -> Result<(Option<UserRow>, Attempt), AuthError> {
        let now = self.clock().now();
        let mut tx = self.store().read().await?;
        let user = match name {
            Some(name) => users::find_by_username(&mut tx, name).await?,
            None => None,
        };
        // Asked for nobody, too: it takes a moment.
        let id = user.as_ref().map_or("", |user| user.id.as_str());
        let since = now.before(KNOWN_FOR);
        let known = sessions::is_known_address(&mut tx, id, &address.to_string(), since).await?;
        let attempt = Attempt::new(name, known, address);
        attempt.check(&mut tx, now).await?;
        Ok((user, attempt))
    }

    async fn failed(
        &self,
        attempt: &Attempt,
        user: Option<&UserRow>,
        name: Option<&str>,
        origin: &Origin,
        action: &'static str,
    ) -> Result<(), AuthError> {
        let mut tx = self.store().write().await?;
        let now = self.clock().now();
        let wait = attempt.note_failure(&mut tx, now).await?;
        let name = match (user, name) {
            (Some(user), _) => user.username.clone(),
            (None, name) => masked(name.unwrap_or_default()),
        };
        let after = json!({"username": name, "blocked_seconds": wait.as_secs()});
        let event = anonymous_event(now, action, user.map(|user| user.id.as_str()), origin);
        audit::append(&mut tx, AuditEvent { outcome: "refused", after: Some(after), ..event }).await?;
        Ok(tx.commit().await?)
    }
}

/// The beginning of a name that no user has: it may be a password typed in the wrong place.
fn masked(name: &str) -> String {
    format!("{}…", name.chars().take(2).collect::<String>())
}

/// A row of the audit for somebody who has not shown who they are, and what they want of a user.
pub(super) fn anonymous_event(
    at: Timestamp,
    action: &'static str,
    user_id: Option<&str>,
    origin: &Origin,
) -> AuditEvent {
    AuditEvent {
        at,
        actor_kind: "anonymous",
        actor_id: None,
        actor_name: "anonymous".to_owned(),
        action,
        target_kind: "user",
        target_id: user_id.map(str::to_owned),
        outcome: "done",
        before: None,
        after: None,
        address: origin.address.to_string(),
        request_id: origin.request_id.clone(),
    }
}
