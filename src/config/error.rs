//! What is wrong with the settings. Shown to the operator at start, never to a client.

use std::path::PathBuf;

/// An error of the settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value cannot be what it is meant to be.
    #[error("setting `{name}` ({origin}): {reason}")]
    Value {
        /// The setting.
        name: &'static str,
        /// Where the value was found.
        origin: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A settings or secrets file cannot be used.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Settings contradict each other.
    #[error("{0}")]
    Contradiction(String),
}
