//! What the person at the machine does with the program itself: `sconce migrate`, `backup`, `restore`, `admin`, `audit`;
//! on both databases where it concerns both.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../database/mod.rs"]
mod database;
#[path = "../process/mod.rs"]
mod process;

mod admin;
mod audit;
mod backup;
mod first_run;
mod migrate;
mod responses;
mod serve;
