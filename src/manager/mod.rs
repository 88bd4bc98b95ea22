//! Which models there are, where their files come from, what state each is in, and what memory they may take.
//!
//! A model in use is held by a [`ModelLease`]; one that is leased cannot be unloaded.

mod error;
mod lease;
mod state;

pub use error::ManagerError;
pub use lease::{ModelLease, Runner};
pub use state::{ModelState, ModelStatus, Progress};
