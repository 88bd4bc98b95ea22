//! Sessions: signing in, refreshing, signing out. A session is a family of refresh tokens, of which each can be exchanged
//! once.
//!
//! The exchange of a used token means that two have it, so the session ends; but for a few seconds after the first
//! exchange the same successor is given again, because answers get lost.

use std::collections::BTreeSet;
use std::time::Duration;

use secrecy::SecretString;
use serde_json::json;

use crate::auth::opaque_token::{OpaqueToken, TokenKind};
use crate::auth::proof::anonymous_event;
use crate::auth::{ACCESS_LIFETIME, Auth, AuthError, Caller, Identity, Origin, Role, new_id};
use crate::clock::Timestamp;
use crate::store::audit::{self, AuditEvent};
use crate::store::sessions::{RefreshTokenRow, SessionRow};
use crate::store::users::UserRow;
use crate::store::{StoreError, Tx, sessions, users};

/// A session that is not refreshed for this long ends.
pub const IDLE_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);

/// The longest that a session lasts, however often it is refreshed.
pub const LONGEST_LIFETIME: Duration = Duration::from_secs(90 * 24 * 3600);

/// A used refresh token is answered once more for this long, with the same successor.
pub const GRACE: Duration = Duration::from_secs(10);

/// How long it is remembered that a session ended, or that a refresh token was used.
const KEPT: Duration = LONGEST_LIFETIME;

/// What somebody who signed in gets.
pub struct SignedIn {
    /// A JSON Web Token.
    pub access_token: SecretString,
    /// How long it is accepted.
    pub access_lifetime: Duration,
    /// For the next one.
    pub refresh_token: OpaqueToken,
    /// How long that is accepted.
    pub refresh_lifetime: Duration,
    /// Who they are.
    pub user: SignedInUser,
}

/// Who signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedInUser {
    /// `usr_…`
    pub id: String,
    /// What one signs in with.
    pub username: String,
    /// What people call them.
    pub display_name: String,
    /// Where they can be reached.
    pub email: Option<String>,
    /// Their role.
    pub role: Role,
    /// Nothing but a new password is accepted from them.
    pub must_change_password: bool,
}

/// Who signs out, and of what.
pub struct SignOut<'a> {
    /// Whoever showed an access token.
    pub caller: Option<&'a Caller>,
    /// A refresh token of the session to end.
    pub refresh_token: Option<&'a str>,
    /// All sessions of the user, not only this one.
    pub everywhere: bool,
}

impl Auth {
    /// Begins a session.
    ///
    /// # Errors
    /// [`AuthError::WrongPassword`], also for an unknown user; [`AuthError::Throttled`]; [`AuthError::AccountDisabled`],
    /// only to those who know the password.
    pub async fn sign_in(
        &self,
        username: &str,
        password: SecretString,
        origin: &Origin,
    ) -> Result<SignedIn, AuthError> {
        let proven = self.prove(username, password, origin, "user.sign_in_failed").await?;
        let mut tx = self.store().write().await?;
        let now = self.clock().now();
        let mut user = proven.still_holds(users::find(&mut tx, &proven.user.id).await?)?;
        if user.status != "active" {
            let event = anonymous_event(now, "user.sign_in_failed", Some(&user.id), origin);
            let after = json!({"username": user.username, "status": user.status});
            audit::append(&mut tx, AuditEvent { outcome: "refused", after: Some(after), ..event }).await?;
            tx.commit().await?;
            return Err(AuthError::AccountDisabled);
        }
        proven.attempt.forget(&mut tx).await?;
        sessions::forget_ended(&mut tx, &user.id, now.before(KEPT)).await?;
        let session = new_session(&user.id, origin, now);
        sessions::insert(&mut tx, &session).await?;
        let token = OpaqueToken::generate(TokenKind::Refresh);
        give_out(&mut tx, &token, &session.id, now).await?;
        user.last_login_at = Some(now);
        users::update(&mut tx, &user).await?;
        let event = user_event(now, "user.sign_in", ("session", &session.id), &user, origin);
        audit::append(&mut tx, event).await?;
        tx.commit().await?;
        self.signed_in(&user, &session, token, now)
    }

    /// Exchanges a refresh token for its successor and a new access token.
    ///
    /// # Errors
    /// [`AuthError::RefreshTokenInvalid`]; [`AuthError::RefreshTokenReused`], and the session is ended.
    pub async fn refresh(&self, token: &str, origin: &Origin) -> Result<SignedIn, AuthError> {
        let refreshed = self.exchange(token, origin).await;
        if let Err(refusal @ AuthError::RefreshTokenInvalid) = &refreshed {
            self.refused_stranger(refusal, origin);
        }
        refreshed
    }

    async fn exchange(&self, token: &str, origin: &Origin) -> Result<SignedIn, AuthError> {
        let (token, _) = self.find_by_token(token).await?;
        let mut tx = self.store().write().await?;
        let now = self.clock().now();
        let (row, mut session, user) =
            find_family(&mut tx, &token, now).await?.ok_or(AuthError::RefreshTokenInvalid)?;
        let successor = token.successor(&row.seed)?;
        match row.used_at {
            None => {
                session.expires_at = ends_at(session.created_at, now);
                sessions::use_token(&mut tx, &row.hash, now).await?;
                sessions::forget_used_tokens(&mut tx, &session.id, now.before(KEPT)).await?;
                give_out(&mut tx, &successor, &session.id, now).await?;
                sessions::touch(&mut tx, &session.id, now, session.expires_at).await?;
                tx.commit().await?;
            }
            Some(used_at) if now.since(used_at) <= GRACE && is_unused(&mut tx, &successor).await? => {}
            Some(_) => {
                self.end_stolen(tx, &session, &user, origin, now).await?;
                return Err(AuthError::RefreshTokenReused);
            }
        }
        self.signed_in(&user, &session, successor, now)
    }

    /// A refresh token and what is kept of it, whatever became of it. Only reads, so that a guess does not stand in the way
    /// of those who write.
    async fn find_by_token(&self, text: &str) -> Result<(OpaqueToken, RefreshTokenRow), AuthError> {
        let token = OpaqueToken::parse(TokenKind::Refresh, text).ok_or(AuthError::RefreshTokenInvalid)?;
        let mut tx = self.store().read().await?;
        let row = sessions::find_token(&mut tx, &token.hash()).await?;
        Ok((token, row.ok_or(AuthError::RefreshTokenInvalid)?))
    }

    async fn end_stolen(
        &self,
        mut tx: Tx,
        session: &SessionRow,
        user: &UserRow,
        origin: &Origin,
        now: Timestamp,
    ) -> Result<(), AuthError> {
        tracing::warn!(
            user = user.id,
            session = session.id,
            "a refresh token was used twice; its session is ended"
        );
        sessions::revoke(&mut tx, &session.id, "reused", now).await?;
        let after = json!({"username": user.username, "because": "a refresh token was used twice"});
        let event = anonymous_event(now, "session.revoke", None, origin);
        let (target_kind, target_id) = ("session", Some(session.id.clone()));
        audit::append(&mut tx, AuditEvent { target_kind, target_id, after: Some(after), ..event }).await?;
        self.commit_authority(tx).await
    }

    /// Ends the session of a caller, of a refresh token, or all sessions of their users. Gives how many ended.
    ///
    /// # Errors
    /// [`AuthError::RefreshTokenInvalid`]; [`AuthError::Conflict`] if there is no session.
    pub async fn sign_out(&self, request: SignOut<'_>, origin: &Origin) -> Result<u64, AuthError> {
        let mut ending = BTreeSet::new();
        if let Some(Identity::Session { session_id }) = request.caller.map(Caller::identity) {
            ending.insert(session_id.clone());
        }
        if let Some(text) = request.refresh_token {
            ending.insert(self.find_by_token(text).await?.1.session_id);
        }
        if ending.is_empty() {
            return Err(AuthError::Conflict("an API key has no session that could be ended"));
        }
        let mut tx = self.store().write().await?;
        let (now, mut ended) = (self.clock().now(), 0);
        for id in ending {
            let Some(session) = sessions::find(&mut tx, &id).await? else { continue };
            let Some(user) = users::find(&mut tx, &session.user_id).await? else { continue };
            ended += match request.everywhere {
                true => end_all(&mut tx, user.clone(), now).await?,
                false => sessions::revoke(&mut tx, &id, "signed_out", now).await?,
            };
            let event = user_event(now, "user.sign_out", ("session", &id), &user, origin);
            let after = Some(json!({"everywhere": request.everywhere}));
            audit::append(&mut tx, AuditEvent { after, ..event }).await?;
        }
        self.commit_authority(tx).await?;
        Ok(ended)
    }

    pub(super) fn signed_in(
        &self,
        user: &UserRow,
        session: &SessionRow,
        refresh_token: OpaqueToken,
        now: Timestamp,
    ) -> Result<SignedIn, AuthError> {
        let access_token = self.tokens().issue(&user.id, &session.id, user.token_version, now)?;
        let role = user.role.parse().map_err(|reason| StoreError::Damaged { table: "users", reason })?;
        Ok(SignedIn {
            access_token: SecretString::from(access_token),
            access_lifetime: ACCESS_LIFETIME,
            refresh_token,
            refresh_lifetime: session.expires_at.since(now),
            user: SignedInUser {
                id: user.id.clone(),
                username: user.username.clone(),
                display_name: user.display_name.clone(),
                email: user.email.clone(),
                role,
                must_change_password: user.must_change_password,
            },
        })
    }
}

fn new_session(user_id: &str, origin: &Origin, now: Timestamp) -> SessionRow {
    SessionRow {
        id: new_id("ses"),
        user_id: user_id.to_owned(),
        address: origin.address.to_string(),
        user_agent: origin.user_agent.clone(),
        created_at: now,
        last_used_at: now,
        expires_at: ends_at(now, now),
        revoked_at: None,
        revoked_because: None,
    }
}

/// When a session that is used now ends by itself.
fn ends_at(created_at: Timestamp, now: Timestamp) -> Timestamp {
    now.after(IDLE_LIFETIME).min(created_at.after(LONGEST_LIFETIME))
}

/// Keeps what is kept of a refresh token that is about to be given out.
pub(super) async fn give_out(
    tx: &mut Tx,
    token: &OpaqueToken,
    session_id: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let row = RefreshTokenRow {
        hash: token.hash(),
        session_id: session_id.to_owned(),
        seed: OpaqueToken::new_seed(),
        created_at: now,
        used_at: None,
    };
    sessions::insert_token(tx, &row).await
}

/// What is known of a token, its session and its user, if both still go on.
async fn find_family(
    tx: &mut Tx,
    token: &OpaqueToken,
    now: Timestamp,
) -> Result<Option<(RefreshTokenRow, SessionRow, UserRow)>, StoreError> {
    let Some(row) = sessions::find_token(tx, &token.hash()).await? else { return Ok(None) };
    let session = sessions::find(tx, &row.session_id).await?;
    let session = session.filter(|session| session.revoked_at.is_none() && session.expires_at > now);
    let Some(session) = session else { return Ok(None) };
    let user = users::find(tx, &session.user_id).await?.filter(|user| user.status == "active");
    Ok(user.map(|user| (row, session, user)))
}

/// Whether a token was given out and nobody has used it.
async fn is_unused(tx: &mut Tx, token: &OpaqueToken) -> Result<bool, StoreError> {
    let row = sessions::find_token(tx, &token.hash()).await?;
    Ok(row.is_some_and(|row| row.used_at.is_none()))
}

/// Ends all sessions of a user, and whatever access tokens there are.
async fn end_all(tx: &mut Tx, mut user: UserRow, now: Timestamp) -> Result<u64, StoreError> {
    let ended = sessions::revoke_all_but(tx, &user.id, None, "signed_out", now).await?;
    user.token_version += 1;
    users::update(tx, &user).await?;
    Ok(ended)
}

/// A row of the audit for a user who has shown who they are, though not by an access token.
fn user_event(
    at: Timestamp,
    action: &'static str,
    target: (&'static str, &str),
    user: &UserRow,
    origin: &Origin,
) -> AuditEvent {
    AuditEvent {
        at,
        actor_kind: "user",
        actor_id: Some(user.id.clone()),
        actor_name: user.username.clone(),
        action,
        target_kind: target.0,
        target_id: Some(target.1.to_owned()),
        outcome: "done",
        before: None,
        after: None,
        address: origin.address.to_string(),
        request_id: origin.request_id.clone(),
    }
}
