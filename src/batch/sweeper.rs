//! Takes away what nobody needs any more: the content of deleted files, and the lines of batches that are over. A little
//! at a time, so that nobody waits long for the database.

use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::store::{Store, StoreError, Tx, batches, files};

/// How long nothing comes of a file before it is taken for given up.
const SILENCE: Duration = Duration::from_secs(600);

/// Pieces of a file, and lines, that go at once.
const PIECES: i64 = 32;
const LINES: i64 = 500;

/// Between two of these, and when there was nothing to take away.
const BREATH: Duration = Duration::from_millis(20);
const REST: Duration = Duration::from_secs(5);

/// Takes away until it is dropped.
pub(super) async fn run(store: &Store, clock: &Clock) {
    let mut failing = false;
    loop {
        let pause = match step(store, clock).await {
            Ok(is_busy) => {
                failing = false;
                if is_busy { BREATH } else { REST }
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "what is not needed any more cannot be taken away; it is tried again");
                }
                REST
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Marks files as deleted whose time is over, and those of which nothing has come for so long.
pub(super) async fn mark(tx: &mut Tx, now: Timestamp, silence: Duration) -> Result<(), StoreError> {
    files::delete_outdated(tx, now, now.before(silence)).await?;
    Ok(())
}

/// Whether there was something to take away.
async fn step(store: &Store, clock: &Clock) -> Result<bool, StoreError> {
    let mut read = store.read().await?;
    let file = files::one_deleted(&mut read).await?;
    let batch = batches::one_to_sweep(&mut read).await?;
    let is_outdated = files::is_any_outdated(&mut read, clock.now(), clock.now().before(SILENCE)).await?;
    drop(read);
    if file.is_none() && batch.is_none() && !is_outdated {
        return Ok(false);
    }
    let mut tx = store.append().await?;
    mark(&mut tx, clock.now(), SILENCE).await?;
    if let Some(file) = file {
        files::forget_some(&mut tx, &file, PIECES).await?;
    }
    if let Some(batch) = batch
        && batches::forget_lines(&mut tx, &batch, LINES).await? < LINES.unsigned_abs()
    {
        batches::swept(&mut tx, &batch).await?;
    }
    tx.commit().await?;
    Ok(true)
}
