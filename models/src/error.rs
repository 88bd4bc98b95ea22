//! What can go wrong with a model's files and its forward pass.

use std::path::PathBuf;

/// An error of the models crate. Variants are situations a caller can tell apart.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The file is damaged, hostile or not of its format.
    #[error("{path} is not a valid {format} file: {reason}")]
    InvalidFile {
        /// The file.
        path: PathBuf,
        /// `GGUF`, `safetensors`, `config.json`, …
        format: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The folder or file is no model this crate can load.
    #[error("{path} holds no model: {reason}")]
    NoModel {
        /// The folder or file.
        path: PathBuf,
        /// What was looked for.
        reason: String,
    },
    /// The architecture is not supported.
    #[error("architecture `{name}` is not supported; supported are {supported}")]
    UnsupportedArchitecture {
        /// As the file names it.
        name: String,
        /// Comma-separated list.
        supported: String,
    },
    /// A setting of the model that would change its results is not supported.
    #[error("{what} `{value}` is not supported")]
    Unsupported {
        /// The setting.
        what: &'static str,
        /// Its value.
        value: String,
    },
    /// A setting of the model's configuration is missing or impossible.
    #[error("configuration: {0}")]
    Config(String),
    /// A tensor the architecture needs is not there.
    #[error("tensor `{name}` is missing")]
    MissingTensor {
        /// Its name in the file's own convention.
        name: String,
    },
    /// A tensor does not have the shape the architecture needs.
    #[error("tensor `{name}` has shape {found:?}, expected {expected:?}")]
    Shape {
        /// Its name.
        name: String,
        /// What the architecture needs.
        expected: Vec<usize>,
        /// What the file has.
        found: Vec<usize>,
    },
    /// The tokenizer is damaged or of a kind that is not known.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// The chat template is damaged, raised an exception, or went over its limits.
    #[error("chat template: {0}")]
    Template(String),
    /// The batch contradicts itself, the model or the cache.
    #[error("batch: {0}")]
    Batch(String),
    /// The device is not there, or this build has no code for it.
    #[error("device `{device}`: {reason}")]
    Device {
        /// As it was asked for.
        device: String,
        /// Why not.
        reason: String,
    },
    /// An operation failed in the tensor library or a kernel.
    #[error("{0}")]
    Compute(String),
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        // `to_string` of candle's error carries its own context; its backtrace is not for clients.
        Self::Compute(error.to_string())
    }
}

impl From<sconce_kernels::Error> for Error {
    fn from(error: sconce_kernels::Error) -> Self {
        Self::Compute(error.to_string())
    }
}
