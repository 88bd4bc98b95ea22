//! Batches, done: requests in a file, answered one after the other by what nobody else needs.
//!
//! A batch is worked on by one replica at a time (`runner.rs`), which finds its lines (`validate.rs`), answers them
//! (`line.rs`) and writes its files (`output.rs`). The one thing to know: the result of a line and what it used are one
//! transaction, written as the batch's holder; so whatever breaks off, each line has one result and is counted once.

mod job;
mod line;
mod output;
mod runner;
mod splitter;
mod sweeper;
mod validate;

pub use runner::Runner;
