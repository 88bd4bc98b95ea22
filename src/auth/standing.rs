//! Whether a credential goes on being good. Held by what lasts: a stream, a WebSocket.

use std::sync::Arc;
use std::time::Duration;

use crate::auth::subject::SubjectKey;
use crate::auth::{Auth, AuthError, Permission};

/// How often it is looked at by the clock alone: an expiry is nobody's act.
const TICK: Duration = Duration::from_millis(500);

/// Whether a credential goes on being good. Cheap to clone.
#[derive(Clone)]
pub struct Standing(Option<Arc<Watched>>);

struct Watched {
    auth: Auth,
    key: SubjectKey,
}

impl Standing {
    /// Of a credential that nobody can take away.
    pub(super) fn for_ever() -> Self {
        Self(None)
    }

    pub(super) fn of(auth: Auth, key: SubjectKey) -> Self {
        Self(Some(Arc::new(Watched { auth, key })))
    }

    /// What the credential names; nothing of one that nobody can take away.
    pub(super) fn key(&self) -> Option<&SubjectKey> {
        self.0.as_ref().map(|watched| &watched.key)
    }

    /// Returns when the credential is no longer good, with the reason. Within a second of it, wherever it was changed.
    /// While the database cannot be reached, what was good stays good.
    pub async fn ended(&self) -> AuthError {
        self.ended_or_without(None).await
    }

    /// The same, but also when a permission is gone, by another role of the user or other scopes of the key.
    pub async fn lost(&self, permission: Permission) -> AuthError {
        self.ended_or_without(Some(permission)).await
    }

    async fn ended_or_without(&self, permission: Option<Permission>) -> AuthError {
        let Some(watched) = &self.0 else { return std::future::pending().await };
        let mut changes = watched.auth.changes();
        loop {
            let checked = match (watched.auth.check(&watched.key).await, permission) {
                (Ok(subject), Some(permission)) => subject.require(permission),
                (checked, _) => checked.map(drop),
            };
            match checked {
                Ok(()) | Err(AuthError::Store(_)) => {}
                Err(gone) => return gone,
            }
            // The sender lives in `auth`.
            let _ = tokio::time::timeout(TICK, changes.changed()).await;
        }
    }
}
