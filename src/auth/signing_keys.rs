//! The keys that sign access tokens, as they are kept: made at the first start, read by every replica, rotated by an
//! owner. With a configured secret there is one key, and nothing of it is kept.

use std::sync::PoisonError;
use std::time::Instant;

use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use crate::auth::capability::Deed;
use crate::auth::token::{Claims, TokenKeys};
use crate::auth::{ACCESS_LIFETIME, Auth, AuthError, Capability, POLL, Permission, Permit};
use crate::clock::Timestamp;
use crate::store::{Tx, signing_keys};

/// May rotate the keys that sign access tokens.
pub struct SigningKeyAdmin(Permit);

impl Capability for SigningKeyAdmin {
    const PERMISSION: Permission = Permission::OwnerOnly;

    fn of(permit: Permit) -> Self {
        Self(permit)
    }
}

/// What a rotation did.
#[derive(Debug, Serialize, ToSchema)]
pub struct SigningKeyRotated {
    /// The key that signs from now on; its tokens name it as `kid`.
    #[schema(example = "sig_0198c0ffee")]
    pub id: String,
    /// Until then tokens are accepted that an earlier key signed.
    #[schema(value_type = String, format = DateTime, example = "2030-01-31T12:15:00.000Z")]
    pub earlier_accepted_until: Timestamp,
}

impl SigningKeyAdmin {
    /// Makes a new key. What the key before it signed is accepted for as long as an access token lasts, so that nobody is
    /// signed out.
    ///
    /// # Errors
    /// [`AuthError::Conflict`] if the key is the configuration's.
    pub async fn rotate(&self) -> Result<SigningKeyRotated, AuthError> {
        let auth = self.0.auth();
        if auth.config().jwt_secret.is_some() {
            return Err(AuthError::Conflict(
                "the signing key is `jwt-secret` of the configuration: change it there and start again",
            ));
        }
        let mut act = self.0.write().await?;
        let now = self.0.now();
        let until = now.after(ACCESS_LIFETIME);
        let earlier = signing_keys::all(&mut act).await?;
        let earlier = earlier.into_iter().find(|key| key.retires_at.is_none()).map(|key| key.id);
        signing_keys::retire_all(&mut act, until, now).await?;
        let key = TokenKeys::generate(now);
        signing_keys::insert(&mut act, &key).await?;
        let deed = Deed {
            action: "signing_key.rotate",
            target: ("signing_key", key.id.clone()),
            before: Some(json!({"id": earlier})),
            after: Some(json!({"id": key.id, "earlier_accepted_until": until})),
        };
        act.record(deed).await?;
        act.commit_authority().await?;
        auth.read_signing_keys().await?;
        Ok(SigningKeyRotated { id: key.id, earlier_accepted_until: until })
    }
}

impl Auth {
    /// Reads the keys that sign, and makes the first.
    pub(super) async fn read_signing_keys(&self) -> Result<(), AuthError> {
        if let Some(secret) = &self.config().jwt_secret {
            self.tokens().replace(vec![TokenKeys::configured(secret)]);
            return Ok(());
        }
        let mut tx = self.store().read().await?;
        let mut keys = signing_keys::all(&mut tx).await?;
        drop(tx);
        if !keys.iter().any(|key| key.retires_at.is_none()) {
            let mut tx = self.store().write().await?;
            keys = signing_keys::all(&mut tx).await?;
            // Another replica may have been quicker.
            if !keys.iter().any(|key| key.retires_at.is_none()) {
                let key = TokenKeys::generate(self.clock().now());
                signing_keys::insert(&mut tx, &key).await?;
                keys.insert(0, key);
            }
            tx.commit().await?;
        }
        self.tokens().replace(keys);
        Ok(())
    }

    /// Reads the keys that sign, as another replica may have changed them.
    pub(super) async fn read_signing_keys_again(&self, tx: &mut Tx) -> Result<(), AuthError> {
        if self.config().jwt_secret.is_none() {
            self.tokens().replace(signing_keys::all(tx).await?);
        }
        Ok(())
    }

    /// Checks an access token. If its key is not known the keys are read again, now and then: another replica may have
    /// made it a moment ago.
    pub(super) async fn verify(&self, token: &str) -> Result<Claims, AuthError> {
        if self.tokens().lacks_key_of(token) && self.may_ask_for_keys() {
            // Without the database the keys that are known go on.
            let _ = self.read_signing_keys().await;
        }
        self.tokens().verify(token, self.clock().now())
    }

    /// Whether the last time is long enough ago: whoever makes tokens up must not keep the database busy.
    fn may_ask_for_keys(&self) -> bool {
        let mut last = self.0.keys_asked_for.lock().unwrap_or_else(PoisonError::into_inner);
        let may = last.is_none_or(|last| last.elapsed() >= POLL);
        if may {
            *last = Some(Instant::now());
        }
        may
    }
}
