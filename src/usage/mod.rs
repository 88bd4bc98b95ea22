//! What requests used, written down: one row for each request that reached an engine, however it ended.
//!
//! A request holds a [`Tally`] from before it is given to an engine: what cannot be written down is not begun. Rows are
//! written by one task, [`Scribe`], in batches; a place is free again when its row is in the database.

mod error;
mod recorder;
mod scribe;
mod tally;

pub use error::UsageError;
pub use recorder::{Aside, Recorder, Unwritten};
pub use scribe::Scribe;
pub use tally::{Outcome, Tally, Tokens};
