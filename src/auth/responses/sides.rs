//! Answers of which only a part is wanted: what was answered, or what was asked.
//!
//! The one thing to know: they are read and taken apart one after the other, so that there is never more than one of them in
//! memory, however many are wanted.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::task::spawn_blocking;

use crate::auth::AuthError;
use crate::auth::responses::{OwnResponses, REACH, StoredResponse, check_kind, damaged};
use crate::clock::Timestamp;
pub use crate::store::responses::Sides;
use crate::store::responses::{self, ResponseRow};

/// Longer texts are taken apart aside: meanwhile an async thread would serve nobody.
const MOST_AT_ONCE: usize = 1 << 20;

impl OwnResponses {
    /// Reads those of them that are there, of each the sides that are wanted, and gives what `take` takes of it. They are
    /// kept as long as one that is made now.
    ///
    /// # Errors
    /// [`AuthError::Invalid`] for more than a conversation may have; [`AuthError::Store`].
    pub async fn read_each<T: Send + 'static>(
        &self,
        wanted: &BTreeMap<String, Sides>,
        retention: Duration,
        take: impl Fn(StoredResponse) -> T + Clone + Send + Sync + 'static,
    ) -> Result<Vec<T>, AuthError> {
        let now = self.now();
        let (mut kept, mut taken, mut bytes) = (Vec::new(), Vec::new(), 0i64);
        for (id, sides) in wanted {
            check_kind(id)?;
            // One by one: the database is not held while a row is taken apart.
            let mut tx = self.auth.store().read().await?;
            let row = responses::find_sides(&mut tx, &self.owner, id, now, *sides).await?;
            drop(tx);
            let Some(row) = row else { continue };
            bytes = bytes.saturating_add(i64::try_from(length(&row)).unwrap_or(i64::MAX));
            if bytes > REACH.bytes {
                return Err(AuthError::invalid(
                    "input",
                    "refers to items of responses that are too long together",
                ));
            }
            kept.push((id.as_str(), row.expires_at));
            taken.push(read(row, now, take.clone()).await?);
        }
        self.prolong(&kept, now, retention).await?;
        Ok(taken)
    }
}

/// Bytes of what was read.
fn length(row: &ResponseRow) -> usize {
    row.body.len() + row.input.len()
}

/// Takes a row apart.
async fn read<T: Send + 'static>(
    row: ResponseRow,
    now: Timestamp,
    take: impl FnOnce(StoredResponse) -> T + Send + 'static,
) -> Result<T, AuthError> {
    let is_short = length(&row) <= MOST_AT_ONCE;
    let work = move || StoredResponse::of(row, now).map(take);
    if is_short {
        return work();
    }
    spawn_blocking(work).await.map_err(|_| damaged("it cannot be read".to_owned()))?
}
