//! When keys were last used: noted in memory for each request, written a few seconds later, many at once.
//!
//! The one thing to know: it is for people, and decides nothing. What was noted and not yet written is lost with the
//! process, and of very many keys used at once some are noted later.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::auth::{Auth, AuthError};
use crate::clock::Timestamp;
use crate::store::api_keys;

/// How often it is written.
const EVERY: Duration = Duration::from_secs(5);

/// Most keys noted between two writings.
const MOST: usize = 10_000;

/// What was noted and not yet written.
#[derive(Default)]
pub(super) struct LastUsed(Mutex<HashMap<String, Timestamp>>);

impl LastUsed {
    /// Notes that a key was used.
    pub(super) fn note(&self, key_id: &str, at: Timestamp) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = noted.get_mut(key_id) {
            *last = at.max(*last);
        } else if noted.len() < MOST {
            noted.insert(key_id.to_owned(), at);
        }
    }

    fn take(&self) -> HashMap<String, Timestamp> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Auth {
    /// Writes now and then when keys were last used, until it is dropped; the last is for
    /// [`Auth::write_last_used`].
    pub async fn keep_last_used(self) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            ticks.tick().await;
            match self.write_last_used().await {
                Ok(()) => failing = false,
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "when keys were last used cannot be written; it is tried again");
                    }
                }
            }
        }
    }

    /// Writes when keys were last used. What cannot be written now stays noted.
    ///
    /// # Errors
    /// [`AuthError::Store`].
    pub async fn write_last_used(&self) -> Result<(), AuthError> {
        let noted = self.0.last_used.take();
        if noted.is_empty() {
            return Ok(());
        }
        let written = self.write_all(&noted).await;
        let again = match &written {
            Ok(left) => left.iter().filter_map(|id| noted.get_key_value(id)).collect(),
            Err(_) => Vec::from_iter(&noted),
        };
        for (id, at) in again {
            self.0.last_used.note(id, *at);
        }
        written.map(drop)
    }

    /// Gives those that somebody is changing just now.
    async fn write_all(&self, noted: &HashMap<String, Timestamp>) -> Result<Vec<String>, AuthError> {
        let mut tx = self.store().append().await?;
        let mut left = Vec::new();
        for (id, at) in noted {
            if !api_keys::touch(&mut tx, id, *at).await? {
                left.push(id.clone());
            }
        }
        tx.commit().await?;
        Ok(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_time_is_kept_and_the_number_of_keys_is_bounded() {
        let (used, at) = (LastUsed::default(), Timestamp::from_millis);
        for millis in [5, 9, 7] {
            used.note("a", at(millis));
        }
        for number in 0..MOST {
            used.note(&number.to_string(), at(1));
        }
        used.note("a", at(11));
        let noted = used.take();
        assert_eq!((noted.len(), noted["a"]), (MOST, at(11)));
        assert!(used.take().is_empty());
    }
}
