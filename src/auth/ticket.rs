//! Tickets: what a browser, which cannot send a header with a WebSocket, shows in the address instead. Good once and for
//! half a minute, so that it is worth nothing where addresses are logged.
//!
//! A ticket stands for the credential it was got with: what ends that, ends it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::auth::opaque_token::{OpaqueToken, TokenKind};
use crate::auth::subject::{Shown, SubjectKey};
use crate::auth::{Auth, AuthError, Caller, Identity, Origin, Permission};
use crate::clock::Timestamp;
use crate::store::{StoreError, tickets};

/// How long a ticket is good.
const LIFETIME: Duration = Duration::from_secs(30);

/// A ticket, to be given out.
pub struct Ticket {
    /// What to show.
    pub token: OpaqueToken,
    /// How long it is good.
    pub lifetime: Duration,
}

/// The credential that a ticket stands for, as it is kept. Holds no more than what finds it again.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Grant {
    ApiKey {
        hash: String,
    },
    Session {
        session_id: String,
        user_id: String,
        version: i64,
        /// When the access token expires, in milliseconds since 1970.
        until: Option<i64>,
    },
    ConfiguredKey,
    Anonymous,
}

impl Grant {
    fn of(caller: &Caller) -> Self {
        let Some(shown) = caller.standing().shown() else {
            return match caller.identity() {
                Identity::ConfiguredKey => Self::ConfiguredKey,
                _ => Self::Anonymous,
            };
        };
        match shown.key.clone() {
            SubjectKey::ApiKey(hash) => Self::ApiKey { hash },
            SubjectKey::Session { session_id, user_id, version } => {
                Self::Session { session_id, user_id, version, until: shown.until.map(Timestamp::millis) }
            }
        }
    }
}

impl Auth {
    /// Gives a caller who may use models a ticket.
    ///
    /// # Errors
    /// [`AuthError::PermissionMissing`], [`AuthError::ScopeMissing`], [`AuthError::PasswordChangeRequired`].
    pub async fn issue_ticket(&self, caller: &Caller) -> Result<Ticket, AuthError> {
        caller.permit(self, Permission::Inference).await?;
        let token = OpaqueToken::generate(TokenKind::Ticket);
        let grant = serde_json::to_string(&Grant::of(caller)).map_err(|error| damaged(&error))?;
        let mut tx = self.store().append().await?;
        let now = self.clock().now();
        tickets::forget_expired(&mut tx, now).await?;
        tickets::insert(&mut tx, &token.hash(), &grant, now.after(LIFETIME)).await?;
        tx.commit().await?;
        Ok(Ticket { token, lifetime: LIFETIME })
    }

    /// Takes a ticket; gives whoever got it, as if they showed here and now what they got it with.
    ///
    /// # Errors
    /// [`AuthError::TicketInvalid`]; or why the credential it stands for is no longer good.
    pub async fn redeem_ticket(&self, ticket: &str, origin: Origin) -> Result<Caller, AuthError> {
        let redeemed = self.redeem(ticket, origin.clone()).await;
        if let Err(refusal @ AuthError::TicketInvalid) = &redeemed {
            self.refused_stranger(refusal, &origin);
        }
        redeemed
    }

    async fn redeem(&self, ticket: &str, origin: Origin) -> Result<Caller, AuthError> {
        let token = OpaqueToken::parse(TokenKind::Ticket, ticket).ok_or(AuthError::TicketInvalid)?;
        let hash = token.hash();
        // A guess does not stand in the way of those who write.
        let mut tx = self.store().read().await?;
        if !tickets::exists(&mut tx, &hash).await? {
            return Err(AuthError::TicketInvalid);
        }
        drop(tx);
        let mut tx = self.store().append().await?;
        let grant = tickets::take(&mut tx, &hash, self.clock().now()).await?;
        tx.commit().await?;
        let grant = grant.ok_or(AuthError::TicketInvalid)?;
        let shown = match serde_json::from_str(&grant).map_err(|error| damaged(&error))? {
            Grant::ApiKey { hash } => Shown { key: SubjectKey::ApiKey(hash), until: None },
            Grant::Session { session_id, user_id, version, until } => {
                let key = SubjectKey::Session { session_id, user_id, version };
                Shown { key, until: until.map(Timestamp::from_millis) }
            }
            Grant::ConfiguredKey if self.config().api_key.is_some() => {
                return Ok(self.of_inference_only(Identity::ConfiguredKey, origin));
            }
            Grant::ConfiguredKey => return Err(AuthError::TicketInvalid),
            Grant::Anonymous => return self.anonymous(origin).ok_or(AuthError::TicketInvalid),
        };
        let caller = self.let_in(shown, origin).await?;
        match caller.standing().has_expired() {
            true => Err(AuthError::AccessTokenExpired),
            false => Ok(caller),
        }
    }
}

fn damaged(error: &serde_json::Error) -> AuthError {
    AuthError::Store(StoreError::Damaged { table: "tickets", reason: error.to_string() })
}
