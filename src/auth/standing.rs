//! Whether a credential goes on being good. Held by what lasts: a stream, a WebSocket.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::auth::subject::Shown;
use crate::auth::{Auth, AuthError, Caller};

/// How often it is looked at by the clock alone: an expiry is nobody's act.
const TICK: Duration = Duration::from_millis(500);

/// Whether a credential goes on being good. Cheap to clone.
#[derive(Clone)]
pub struct Standing(Option<Arc<Watched>>);

struct Watched {
    auth: Auth,
    shown: Shown,
}

impl Standing {
    /// Of a credential that nobody can take away.
    pub(super) fn for_ever() -> Self {
        Self(None)
    }

    pub(super) fn of(auth: Auth, shown: Shown) -> Self {
        Self(Some(Arc::new(Watched { auth, shown })))
    }

    /// What was shown; nothing of one that nobody can take away.
    pub(super) fn shown(&self) -> Option<&Shown> {
        self.0.as_ref().map(|watched| &watched.shown)
    }

    /// Whether it was an access token, and that has expired meanwhile.
    pub fn has_expired(&self) -> bool {
        let Some(watched) = &self.0 else { return false };
        watched.shown.until.is_some_and(|until| until <= watched.auth.clock().now())
    }

    /// The caller as things stand now, of which nothing is noted.
    ///
    /// # Errors
    /// Why the credential is no longer good, or not there.
    pub async fn renewed(&self, caller: &Caller) -> Result<Caller, AuthError> {
        match &self.0 {
            Some(watched) => watched.auth.as_of_now(&watched.shown, caller.origin()).await,
            None => Ok(caller.clone()),
        }
    }

    /// When to look again.
    pub fn changes(&self) -> Changes {
        Changes(self.0.as_ref().map(|watched| watched.auth.changes()))
    }
}

/// Changes of who may do what.
pub struct Changes(Option<watch::Receiver<u64>>);

impl Changes {
    /// Returns at the next one, and now and then without one.
    pub async fn next(&mut self) {
        let changed = async {
            match &mut self.0 {
                // The sender lives as long as there is an `Auth`.
                Some(changes) => changes.changed().await.is_ok(),
                None => std::future::pending().await,
            }
        };
        let _ = tokio::time::timeout(TICK, changed).await;
    }
}
