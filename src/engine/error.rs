//! Why the engine refused or lost a request.

use std::time::Duration;

use crate::error::{Code, Failure};

/// An error of the engine.
#[derive(Debug, Clone, thiserror::Error, PartialEq)]
pub enum EngineError {
    /// As many requests wait as may.
    #[error("the model's queue is full, {waiting} requests are waiting; try again in {} s", retry_after.as_secs().max(1))]
    QueueFull {
        /// Requests waiting.
        waiting: usize,
        /// From the measured drain rate.
        retry_after: Duration,
    },
    /// The request waited, or ran, longer than it may.
    #[error("the request's time ran out before it was complete")]
    DeadlineExceeded,
    /// The request can never run with this cache.
    #[error("the prompt and its answer need {needed} tokens of cache, the model has {available}")]
    TooLong {
        /// Prompt plus one token.
        needed: usize,
        /// What the whole cache holds.
        available: usize,
    },
    /// The request itself is wrong.
    #[error("{reason}")]
    Invalid {
        /// The field at fault.
        param: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// What the answer must belong to became too complex to be followed.
    #[error("the grammar of the answer became too complex: {reason}")]
    Grammar {
        /// What was too much.
        reason: String,
    },
    /// The engine is being stopped.
    #[error("the model is being unloaded")]
    Stopping,
    /// The forward pass failed for this request; others go on.
    #[error("the model failed on this request")]
    Failed {
        /// For the log.
        reason: String,
    },
    /// The engine thread is gone.
    #[error("the model stopped unexpectedly")]
    Lost,
}

impl Failure for EngineError {
    fn code(&self) -> Code {
        match self {
            Self::QueueFull { .. } => Code::ModelOverloaded,
            Self::Invalid { .. } | Self::Grammar { .. } => Code::InvalidValue,
            Self::Stopping => Code::ModelLoading,
            Self::DeadlineExceeded => Code::Timeout,
            Self::TooLong { .. } => Code::ContextLengthExceeded,
            Self::Failed { .. } => Code::EngineFault,
            Self::Lost => Code::EngineLost,
        }
    }

    fn param(&self) -> Option<&str> {
        match self {
            Self::Invalid { param, .. } => Some(param),
            _ => None,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::QueueFull { retry_after, .. } => Some(*retry_after),
            Self::Stopping => Some(Duration::from_secs(1)),
            _ => None,
        }
    }
}
