//! Why a model cannot be had.

use std::time::Duration;

use crate::error::{Code, Failure};

/// An error of the manager.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ManagerError {
    /// No model of that name is known.
    #[error("the model `{id}` does not exist; GET /v1/models lists those that do")]
    Unknown {
        /// As it was asked for.
        id: String,
    },
    /// It is on its way, but did not arrive while the request could wait.
    #[error("the model `{id}` is still loading; try again in {} s", retry_after.as_secs().max(1))]
    Loading {
        /// Its name.
        id: String,
        /// A guess from the progress.
        retry_after: Duration,
    },
    /// It could not be fetched or loaded.
    #[error("the model `{id}` cannot be used: {reason}")]
    Failed {
        /// Its name.
        id: String,
        /// For the client: no paths, no addresses.
        reason: String,
        /// What kind of fault it is.
        code: Code,
    },
    /// It does not fit into memory beside those in use.
    #[error("the model `{id}` needs {needed_mib} MiB of memory, {available_mib} MiB can be had")]
    OutOfMemory {
        /// Its name.
        id: String,
        /// Weights, cache and scratch.
        needed_mib: u64,
        /// What is left of the budget when all idle models are gone.
        available_mib: u64,
    },
    /// The server's own set-up is wrong; only at start.
    #[error("{reason}")]
    Setup {
        /// For the operator.
        reason: String,
    },
    /// It is registered but not enabled; only administrators learn so.
    #[error("the model `{id}` is disabled; enable it first")]
    Disabled {
        /// Its name.
        id: String,
    },
    /// It is being unloaded.
    #[error("the model `{id}` is being unloaded; try again shortly")]
    Draining {
        /// Its name.
        id: String,
    },
}

impl ManagerError {
    /// Why, without the model's name before it where that is known anyway.
    pub(super) fn reason(&self) -> String {
        match self {
            Self::Failed { reason, .. } => reason.clone(),
            other => other.to_string(),
        }
    }
}

impl Failure for ManagerError {
    fn code(&self) -> Code {
        match self {
            Self::Unknown { .. } => Code::ModelNotFound,
            Self::Loading { .. } | Self::Draining { .. } => Code::ModelLoading,
            Self::Failed { code, .. } => *code,
            Self::Disabled { .. } => Code::StateConflict,
            Self::OutOfMemory { .. } => Code::ModelOutOfMemory,
            Self::Setup { .. } => Code::Internal,
        }
    }

    fn param(&self) -> Option<&str> {
        Some("model")
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Loading { retry_after, .. } => Some(*retry_after),
            Self::Draining { .. } => Some(Duration::from_secs(1)),
            Self::OutOfMemory { .. } => Some(Duration::from_secs(10)),
            _ => None,
        }
    }
}
