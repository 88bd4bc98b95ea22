//! The exchange of a caller for a capability: the one place where a permission opens a door.
//!
//! To make a capability: a struct round a [`Permit`], with [`Capability`] for it. A handler takes it as
//! `http::Granted<MyCapability>`, and is not reached by anybody else.
//!
//! The one thing to know: a permit is what the caller had when they came. Whatever changes something is an [`Act`], begun
//! by [`Permit::write`], and goes by who they are in the transaction that changes it: between the two they may have waited
//! for long, and been disabled.

use std::ops::{Deref, DerefMut};

use crate::auth::{Auth, AuthError, Caller, ChainReport, Checkpoint, Permission, verify_chain};
use crate::clock::Timestamp;
use crate::store::audit::{self, AuditEvent};
use crate::store::{Store, StoreError, Tx};

/// Proof that a caller held the permission of a capability when they came. Only the exchange makes one.
pub struct Permit {
    caller: Caller,
    auth: Auth,
    wanted: Wanted,
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

/// What a capability takes.
#[derive(Clone, Copy)]
struct Wanted {
    permission: Permission,
    before_password_change: bool,
}

impl Wanted {
    fn check(self, caller: &Caller) -> Result<(), AuthError> {
        match caller.require(self.permission) {
            Err(AuthError::PasswordChangeRequired)
                if self.before_password_change && caller.permissions().has(self.permission) =>
            {
                Ok(())
            }
            checked => checked,
        }
    }
}

impl Caller {
    /// Exchanges the caller for a capability. A refusal is written to the audit.
    ///
    /// # Errors
    /// As [`Caller::require`].
    pub async fn exchange<C: Capability>(self, auth: &Auth) -> Result<C, AuthError> {
        let wanted = Wanted { permission: C::PERMISSION, before_password_change: C::BEFORE_PASSWORD_CHANGE };
        if let Err(refusal) = wanted.check(&self) {
            return Err(self.refused(auth, C::PERMISSION, refusal).await);
        }
        Ok(C::of(Permit { caller: self, auth: auth.clone(), wanted }))
    }

    /// Checks one permission; a refusal is written to the audit.
    pub(super) async fn permit(&self, auth: &Auth, permission: Permission) -> Result<(), AuthError> {
        match self.require(permission) {
            Err(refusal) => Err(self.refused(auth, permission, refusal).await),
            Ok(()) => Ok(()),
        }
    }

    async fn refused(&self, auth: &Auth, permission: Permission, refusal: AuthError) -> AuthError {
        auth.refused_caller(self, ("permission", Some(permission.name())), &refusal).await;
        refusal
    }
}

impl Permit {
    /// Who acts, as they were when they came.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The doorkeeper.
    pub(super) fn auth(&self) -> &Auth {
        &self.auth
    }

    /// The database, to look into.
    pub(super) fn store(&self) -> ReadOnly<'_> {
        ReadOnly(self.auth.store())
    }

    /// The present, as expiries see it.
    pub(super) fn now(&self) -> Timestamp {
        self.auth.clock().now()
    }

    /// Begins to change something: when the turn to write has come the caller is looked up again, and must still be
    /// somebody who may.
    ///
    /// # Errors
    /// Why the credential is no longer good; as [`Caller::require`]; [`AuthError::Store`].
    pub(super) async fn write(&self) -> Result<Act, AuthError> {
        let mut tx = self.auth.store().write().await?;
        let checked = match self.auth.as_of(&mut tx, &self.caller).await {
            Ok(caller) => self.wanted.check(&caller).map(|()| caller),
            Err(error) => Err(error),
        };
        match checked {
            Ok(caller) => Ok(Act { tx, caller, auth: self.auth.clone() }),
            Err(refusal) => {
                // The row of the refusal needs the turn, too.
                drop(tx);
                self.note_refusal(("permission", Some(self.wanted.permission.name())), &refusal).await;
                Err(refusal)
            }
        }
    }

    /// Passes an outcome on. If the caller may not do this to that target, the refusal is written to the audit first.
    pub(super) async fn or_record_refusal<T>(
        &self,
        target: (&'static str, Option<&str>),
        outcome: Result<T, AuthError>,
    ) -> Result<T, AuthError> {
        if let Err(refusal @ (AuthError::NotAbove(_) | AuthError::Conflict(_))) = &outcome {
            self.note_refusal(target, refusal).await;
        }
        outcome
    }

    /// Writes to the audit that the caller was refused.
    pub(super) async fn note_refusal(&self, target: (&'static str, Option<&str>), refusal: &AuthError) {
        self.auth.refused_caller(&self.caller, target, refusal).await;
    }
}

/// The database, for those who only look.
pub(super) struct ReadOnly<'a>(&'a Store);

impl ReadOnly<'_> {
    /// As [`Store::read`].
    pub(super) async fn read(&self) -> Result<Tx, StoreError> {
        self.0.read().await
    }

    /// As [`Store::read_long`].
    pub(super) async fn read_long(&self) -> Result<Tx, StoreError> {
        self.0.read_long().await
    }

    /// As [`Store::kind`].
    pub(super) fn kind(&self) -> &'static str {
        self.0.kind()
    }

    /// Looks at the whole audit, as [`verify_chain`].
    pub(super) async fn verify_chain(&self, earlier: Option<&Checkpoint>) -> Result<ChainReport, StoreError> {
        verify_chain(self.0, earlier).await
    }
}

/// Somebody doing something: a transaction, and who they are in it. Without a commit nothing of it happens.
pub(super) struct Act {
    tx: Tx,
    caller: Caller,
    auth: Auth,
}

impl Deref for Act {
    type Target = Tx;

    fn deref(&self) -> &Tx {
        &self.tx
    }
}

impl DerefMut for Act {
    fn deref_mut(&mut self) -> &mut Tx {
        &mut self.tx
    }
}

impl Act {
    /// Who acts, as the transaction sees them: what they may do is decided by this.
    pub(super) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Writes to the audit what the caller did. `before` and `after` hold no secret.
    pub(super) async fn record(&mut self, deed: Deed) -> Result<(), AuthError> {
        let now = self.auth.clock().now();
        let event = self.caller.event(now, deed.action, (deed.target.0, Some(&deed.target.1)));
        audit::append(&mut self.tx, AuditEvent { before: deed.before, after: deed.after, ..event }).await?;
        Ok(())
    }

    /// Makes it happen.
    pub(super) async fn commit(self) -> Result<(), AuthError> {
        Ok(self.tx.commit().await?)
    }

    /// The same for a change of who may do what; here it counts at once, on other replicas when they next look.
    pub(super) async fn commit_authority(self) -> Result<(), AuthError> {
        self.auth.commit_authority(self.tx).await
    }

    /// The same for a change of the registered models.
    pub(super) async fn commit_models(self) -> Result<(), AuthError> {
        self.auth.commit_models(self.tx).await
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
