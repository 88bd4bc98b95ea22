//! Authentication, sessions, tokens: one test for each line A of the list of attacks that the platform must stand.

mod passwords;
mod sessions;
mod start;
mod tokens;
