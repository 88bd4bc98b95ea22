//! What ends work before it is done, other than its client: a credential that is taken away, and the end of the server.

use std::sync::{Arc, OnceLock};

use crate::auth::{Caller, Permission, Standing};
use crate::http::ApiError;
use crate::shutdown::Shutdown;
use crate::usage::Outcome;

/// What may end one caller's work early. Clones speak of the same work.
#[derive(Clone)]
pub struct Interruption {
    standing: Standing,
    permission: Permission,
    shutdown: Shutdown,
    cause: Arc<OnceLock<Outcome>>,
}

impl Interruption {
    /// Of what a caller does by a permission.
    pub fn of(caller: &Caller, permission: Permission, shutdown: &Shutdown) -> Self {
        let (standing, shutdown) = (caller.standing().clone(), shutdown.clone());
        Self { standing, permission, shutdown, cause: Arc::default() }
    }

    /// Returns when the work must end, with what its client is told.
    pub async fn happened(&self) -> ApiError {
        let (outcome, error) = tokio::select! {
            lost = self.standing.lost(self.permission) => (Outcome::Revoked, lost.into()),
            () = self.shutdown.ended() => (Outcome::Shutdown, ApiError::shutting_down()),
        };
        // Whoever looked first was right.
        let _ = self.cause.set(outcome);
        error
    }

    /// Why the work had to end, if somebody was told that it must.
    pub fn cause(&self) -> Option<Outcome> {
        self.cause.get().copied()
    }
}
