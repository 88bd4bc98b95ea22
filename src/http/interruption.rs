//! What ends work before it is done, other than its client: what it takes that is taken away, and the end of the server.
//!
//! The one thing to know: it asks who the caller is now, from where, and which model they may use now, not what was so when
//! the work began.

use std::sync::{Arc, OnceLock};

use crate::auth::{AuthError, Caller, Permission};
use crate::http::{ApiError, Registry};
use crate::shutdown::Shutdown;
use crate::usage::Outcome;

/// What may end one caller's work early. Clones speak of the same work.
#[derive(Clone)]
pub struct Interruption {
    caller: Caller,
    permission: Permission,
    /// Whether an access token that expires ends the work, too.
    ends_with_token: bool,
    model: Option<Arc<UsedModel>>,
    shutdown: Shutdown,
    cause: Arc<OnceLock<Cause>>,
    /// Of the work that this is a part of.
    outer: Option<Arc<OnceLock<Cause>>>,
}

/// Why work had to end: for the records, and for its client.
#[derive(Clone)]
struct Cause {
    outcome: Outcome,
    error: ApiError,
}

/// A model that is being used.
struct UsedModel {
    registry: Arc<Registry>,
    id: String,
    asked_for: String,
}

impl Interruption {
    /// Of a connection that a caller opened by a permission: it ends with the access token that opened it.
    pub fn of(caller: &Caller, permission: Permission, shutdown: &Shutdown) -> Self {
        Self {
            caller: caller.clone(),
            permission,
            ends_with_token: true,
            model: None,
            shutdown: shutdown.clone(),
            cause: Arc::default(),
            outer: None,
        }
    }

    /// Of one request that a caller makes by a permission: it goes on though its access token expires meanwhile.
    pub fn of_request(caller: &Caller, permission: Permission, shutdown: &Shutdown) -> Self {
        Self { ends_with_token: false, ..Self::of(caller, permission, shutdown) }
    }

    /// Of that part of the work that uses the model `id`, which was asked for as `name`.
    #[must_use]
    pub fn using(&self, registry: &Arc<Registry>, id: &str, name: &str) -> Self {
        let model =
            UsedModel { registry: Arc::clone(registry), id: id.to_owned(), asked_for: name.to_owned() };
        Self {
            model: Some(Arc::new(model)),
            cause: Arc::default(),
            outer: Some(Arc::clone(&self.cause)),
            ..self.clone()
        }
    }

    /// Returns when the work must end, with what its client is told.
    pub async fn happened(&self) -> ApiError {
        let look = async {
            tokio::select! {
                error = self.lost() => Cause { outcome: Outcome::Revoked, error },
                () = self.shutdown.ended() => Cause {
                    outcome: Outcome::Shutdown,
                    error: ApiError::shutting_down(),
                },
            }
        };
        first(&self.cause, look).await.error
    }

    /// Whether the work must end, looked at anew, with what its client is told. A part of it may have seen so before.
    pub async fn has_happened(&self) -> Option<ApiError> {
        if let Some(known) = self.cause.get() {
            return Some(known.error.clone());
        }
        let seen = tokio::select! {
            // The end of the server waits for no database.
            biased;
            () = self.shutdown.ended() => Cause {
                outcome: Outcome::Shutdown,
                error: ApiError::shutting_down(),
            },
            allowed = self.check() => Cause { outcome: Outcome::Revoked, error: allowed.err()? },
        };
        Some(self.cause.get_or_init(|| seen).error.clone())
    }

    /// Returns when the caller may not do this any more. Within a second of it, wherever it was changed. While the database
    /// cannot be reached, what was allowed stays allowed.
    async fn lost(&self) -> ApiError {
        let mut changes = self.caller.standing().changes();
        let mut tables = self.model.as_ref().map(|model| model.registry.watch());
        loop {
            if let Err(lost) = self.check().await {
                return lost;
            }
            let table_changed = async {
                match &mut tables {
                    // The sender lives in the registry.
                    Some(tables) => tables.changed().await.is_ok(),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = changes.next() => {}
                _ = table_changed => {}
            }
        }
    }

    async fn check(&self) -> Result<(), ApiError> {
        let standing = self.caller.standing();
        if self.ends_with_token && standing.has_expired() {
            return Err(AuthError::AccessTokenExpired.into());
        }
        let caller = match standing.renewed(&self.caller).await {
            Err(AuthError::Store(_)) => return Ok(()),
            renewed => renewed?,
        };
        caller.require(self.permission)?;
        let Some(model) = &self.model else { return Ok(()) };
        model.registry.table().check(&caller, &model.id, &model.asked_for)
    }

    /// Why the work had to end, if somebody was told that it must.
    pub fn cause(&self) -> Option<Outcome> {
        self.cause.get().or_else(|| self.outer.as_ref()?.get()).map(|cause| cause.outcome)
    }
}

/// What was found first, by whoever looked. What was taken away may be back a moment later: work that has begun to end
/// goes on ending all the same, and nobody waits until it is taken away again.
async fn first<T: Clone>(found: &OnceLock<T>, look: impl Future<Output = T>) -> T {
    if let Some(known) = found.get() {
        return known.clone();
    }
    let seen = look.await;
    found.get_or_init(|| seen).clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_found_once_is_not_waited_for_again() {
        let found = OnceLock::new();
        assert_eq!(first(&found, std::future::ready(1)).await, 1);
        assert_eq!(first(&found, std::future::pending()).await, 1);
        // Two looked at once: the first to see it was right.
        let other = OnceLock::new();
        let late = async {
            first(&other, std::future::ready(2)).await;
            3
        };
        assert_eq!(first(&other, late).await, 2);
    }
}
