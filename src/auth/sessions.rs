//! Sessions as one sees and ends them: one's own here, and what administrators of users do it with. How they begin and go
//! on is in `session.rs`.

use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use crate::auth::capability::{Act, Deed};
use crate::auth::{AuthError, Caller, Capability, Identity, Permission, Permit};
use crate::clock::Timestamp;
use crate::store::sessions::SessionRow;
use crate::store::{ListRequest, Page, sessions};

/// Columns that a list may be sorted by; the first is the usual.
pub use crate::store::sessions::SORTS;

/// A session: one sign-in on one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Session {
    /// The session's id.
    #[schema(example = "ses_0198c0ffee")]
    pub id: String,
    /// Whose it is.
    #[schema(example = "usr_0198c0ffee")]
    pub user_id: String,
    /// Where it was begun.
    #[schema(example = "192.0.2.7")]
    pub address: String,
    /// What the client called itself.
    #[schema(example = "Mozilla/5.0")]
    pub user_agent: String,
    /// Begun.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// Last refreshed.
    #[schema(value_type = String, format = DateTime)]
    pub last_used_at: Timestamp,
    /// Ends by itself, unless it is refreshed.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
    /// Whether it is the one that asks.
    pub current: bool,
}

impl Session {
    /// As `caller` sees it.
    pub(super) fn of(row: SessionRow, caller: &Caller) -> Self {
        let current = matches!(caller.identity(), Identity::Session { session_id } if *session_id == row.id);
        Self {
            id: row.id,
            user_id: row.user_id,
            address: row.address,
            user_agent: row.user_agent,
            created_at: row.created_at,
            last_used_at: row.last_used_at,
            expires_at: row.expires_at,
            current,
        }
    }
}

/// May see and end one's own sessions.
pub struct OwnSessions(Permit);

impl Capability for OwnSessions {
    const PERMISSION: Permission = Permission::Account;

    fn of(permit: Permit) -> Self {
        Self(permit)
    }
}

impl OwnSessions {
    /// One page of those that go on.
    ///
    /// # Errors
    /// [`AuthError::Page`].
    pub async fn list(&self, request: &ListRequest) -> Result<Page<Session>, AuthError> {
        list_sessions(&self.0, Some(self.user_id()?), request).await
    }

    /// Ends one; it may be the one that asks.
    ///
    /// # Errors
    /// [`AuthError::NotFound`], also for somebody else's.
    pub async fn end(&self, id: &str) -> Result<(), AuthError> {
        revoke_session(self.0.write().await?, id, Some(self.user_id()?), self.0.now()).await
    }

    fn user_id(&self) -> Result<&str, AuthError> {
        let user = self.0.caller().user();
        user.map(|user| user.id.as_str()).ok_or(AuthError::PermissionMissing(Permission::Account))
    }
}

/// One page of the sessions that go on, of one user or of all. What the caller may see was checked by the capability.
pub(super) async fn list_sessions(
    permit: &Permit,
    user_id: Option<&str>,
    request: &ListRequest,
) -> Result<Page<Session>, AuthError> {
    let mut tx = permit.store().read().await?;
    let page = sessions::list_active(&mut tx, user_id, permit.now(), request).await?;
    Ok(page.map(|row| Session::of(row, permit.caller())))
}

/// Ends a session that goes on, if it is of that user, or of any. What the caller may end was checked by the capability.
pub(super) async fn revoke_session(
    mut act: Act,
    id: &str,
    user_id: Option<&str>,
    now: Timestamp,
) -> Result<(), AuthError> {
    let goes_on = |row: &SessionRow| row.revoked_at.is_none() && row.expires_at > now;
    let is_theirs = |row: &SessionRow| user_id.is_none_or(|user_id| user_id == row.user_id);
    let row = sessions::find(&mut act, id).await?.filter(|row| goes_on(row) && is_theirs(row));
    let row = row.ok_or(AuthError::NotFound("session"))?;
    sessions::revoke(&mut act, id, "revoked", now).await?;
    let before = Some(json!(Session::of(row, act.caller())));
    let target = ("session", id.to_owned());
    act.record(Deed { action: "session.revoke", target, before, after: None }).await?;
    act.commit_authority().await
}
