//! The exchange of a caller for a capability: the one place where a permission opens a door.
//!
//! To make a capability: a struct round a [`Permit`], with [`Capability`] for it. A handler takes it as
//! `http::Granted<MyCapability>`, and is not reached by anybody else.

use crate::auth::{Auth, AuthError, Caller, Permission};
use crate::clock::Timestamp;
use crate::store::audit::{self, AuditEvent};
use crate::store::{Store, Tx};

/// Proof that a caller holds the permission of a capability. Only the exchange makes one.
pub struct Permit {
    caller: Caller,
    auth: Auth,
}

/// Something that a caller with a permission is exchanged for.
pub trait Capability: Sized + Send {
    /// The permission it takes.
    const PERMISSION: Permission;

    /// Whether it is also for those who must change their password first.
    const BEFORE_PASSWORD_CHANGE: bool = false;

    /// What the caller gets for it.
    fn of(permit: Permit) -> Self;
}

impl Caller {
    /// Exchanges the caller for a capability. A refusal is written to the audit.
    ///
    /// # Errors
    /// As [`Caller::require`], and [`AuthError::Store`].
    pub async fn exchange<C: Capability>(self, auth: &Auth) -> Result<C, AuthError> {
        match self.permit(auth, C::PERMISSION).await {
            Err(AuthError::PasswordChangeRequired)
                if C::BEFORE_PASSWORD_CHANGE && self.permissions().has(C::PERMISSION) => {}
            permitted => permitted?,
        }
        Ok(C::of(Permit { caller: self, auth: auth.clone() }))
    }
}

impl Permit {
    /// Who acts.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The doorkeeper.
    pub(super) fn auth(&self) -> &Auth {
        &self.auth
    }

    /// The database.
    pub(super) fn store(&self) -> &Store {
        self.auth.store()
    }

    /// The present, as expiries see it.
    pub(super) fn now(&self) -> Timestamp {
        self.auth.clock().now()
    }

    /// Writes to the audit what the caller did, in the transaction that does it. `before` and `after` hold no secret.
    pub(super) async fn record(&self, tx: &mut Tx, deed: Deed) -> Result<(), AuthError> {
        let event = self.caller.event(self.now(), deed.action, (deed.target.0, Some(&deed.target.1)));
        audit::append(tx, AuditEvent { before: deed.before, after: deed.after, ..event }).await?;
        Ok(())
    }

    /// Passes an outcome on. If the caller may not do this to that target, the refusal is written to the audit first.
    pub(super) async fn or_record_refusal<T>(
        &self,
        target: (&'static str, Option<&str>),
        outcome: Result<T, AuthError>,
    ) -> Result<T, AuthError> {
        if let Err(AuthError::NotAbove(_)) = outcome {
            let event = self.caller.event(self.now(), "access.refused", target);
            let mut tx = self.store().write().await?;
            audit::append(&mut tx, AuditEvent { outcome: "refused", ..event }).await?;
            tx.commit().await?;
        }
        outcome
    }
}

/// What a caller did, for the audit.
pub(super) struct Deed {
    /// Such as `user.create`.
    pub action: &'static str,
    /// What it was done to: kind and id.
    pub target: (&'static str, String),
    /// As it was.
    pub before: Option<serde_json::Value>,
    /// As it is now.
    pub after: Option<serde_json::Value>,
}
