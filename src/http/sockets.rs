//! How many WebSockets each user has open. Each may hold a message that has not yet come to its end, so that one user's
//! connections must be fewer than all that there may be.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::auth::Caller;
use crate::error::Code;
use crate::http::ApiError;

/// Most that one user may have open.
const MOST: usize = 256;

/// When to come back.
const LATER: Duration = Duration::from_secs(5);

/// The WebSockets that are open, by user. Clones count the same ones.
#[derive(Debug, Clone, Default)]
pub struct Sockets(Arc<Mutex<HashMap<String, usize>>>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct OpenSocket {
    all: Sockets,
    user: String,
}

impl Sockets {
    /// Counts one more. Those who are no users (a configured key) count as one.
    ///
    /// # Errors
    /// 429 when the caller's user has as many as there may be.
    pub fn open(&self, caller: &Caller) -> Result<OpenSocket, ApiError> {
        self.open_of(caller.user().map_or("", |user| user.id.as_str()))
    }

    fn open_of(&self, user: &str) -> Result<OpenSocket, ApiError> {
        let mut counts = self.counts();
        let count = counts.entry(user.to_owned()).or_default();
        if *count >= MOST {
            let message =
                format!("{MOST} WebSockets of this user are open: close one, or send turns on those");
            return Err(ApiError::new(Code::RateLimited, message).retry_after(LATER));
        }
        *count += 1;
        Ok(OpenSocket { all: self.clone(), user: user.to_owned() })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OpenSocket {
    fn drop(&mut self) {
        let mut counts = self.all.counts();
        if let Some(count) = counts.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_user_has_so_many_and_no_more() {
        let sockets = Sockets::default();
        let mut open: Vec<_> = (0..MOST).map(|_| sockets.open_of("ada").expect("there is room")).collect();
        assert_eq!(sockets.open_of("ada").expect_err("there is none").number(), 42901);
        let other = sockets.open_of("bob").expect("that is somebody else");
        open.pop();
        drop((sockets.open_of("ada").expect("one was closed"), other));
        drop(open);
        assert!(sockets.counts().is_empty());
    }
}
