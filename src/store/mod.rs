//! What is kept: users, keys, sessions, models, usage, audit, files and batches, in SQLite or PostgreSQL. Rows and queries, no rules: who
//! may do what is `auth/`'s business.
//!
//! Everything happens in a [`Tx`]. [`Store::read`] sees one moment; [`Store::write`] transactions happen one after the
//! other, on both databases, so that what one checks stays true until it commits, and the audit's chain has one end.

pub mod api_keys;
pub mod audit;
mod backup;
pub mod batches;
mod columns;
mod error;
mod file_writer;
pub mod files;
mod lane;
mod list;
mod lock;
pub mod models;
mod pool;
pub mod responses;
pub mod revisions;
mod schema;
pub mod sessions;
pub mod sign_in_failures;
pub mod signing_keys;
pub mod stored_chats;
pub mod teams;
pub mod tickets;
pub mod usage;
pub mod users;

pub use backup::{BackupError, Replacement};
pub use columns::JsonText;
pub use error::StoreError;
pub use file_writer::FileWriter;
pub use list::{ListRequest, Order, Page, PageError};
pub use lock::ServingLock;
pub use pool::{Store, Survey, Tx};
pub use schema::Migration;
