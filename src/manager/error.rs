//! Why a model cannot be had.

use std::time::Duration;

use serde_json::{Value, json};

use crate::error::{Code, Failure};
use crate::manager::ModelState;

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
        /// Where it stands.
        state: Box<ModelState>,
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
    /// It is not unloaded, since it is needed; only administrators learn so.
    #[error("the model `{id}` {why}: it is not unloaded")]
    Kept {
        /// Its name.
        id: String,
        /// What it is instead.
        why: &'static str,
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
            Self::Disabled { .. } | Self::Kept { .. } => Code::StateConflict,
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

    fn data(&self) -> Option<Value> {
        let (id, state) = match self {
            Self::Loading { id, state, .. } => (id, &**state),
            Self::Draining { id } => (id, &ModelState::Draining),
            _ => return None,
        };
        let wait = self.retry_after().map(|wait| wait.as_millis() as u64);
        Some(json!({"loading": loading(id, state), "retry_after_ms": wait}))
    }
}

/// How far a model is that is on its way, for clients: not where it comes from.
fn loading(id: &str, state: &ModelState) -> Value {
    let progress = match state {
        ModelState::Downloading(progress) => Some(progress),
        _ => None,
    };
    let total = progress.and_then(|progress| progress.total_bytes);
    let fraction = |(bytes, total): (u64, u64)| (bytes as f64 / total as f64).min(1.0);
    json!({
        "model": id,
        "state": state.name(),
        "progress": progress.map(|progress| progress.bytes).zip(total.filter(|total| *total > 0)).map(fraction),
        "bytes": progress.map(|progress| progress.bytes),
        "total_bytes": total,
        "eta_seconds": progress.and_then(|progress| progress.eta_seconds),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::Progress;

    #[test]
    fn who_must_wait_is_told_how_far_it_is() {
        let progress = Progress {
            source: "https://secret.example/x?token=y".into(),
            bytes: 30,
            total_bytes: Some(120),
            eta_seconds: Some(9),
            ..Progress::default()
        };
        let retry_after = Duration::from_secs(9);
        let of = |state| {
            ManagerError::Loading { id: "m".into(), retry_after, state: Box::new(state) }
                .data()
                .expect("there is some")
        };
        assert_eq!(
            of(ModelState::Downloading(progress)),
            json!({"loading": {"model": "m", "state": "downloading", "progress": 0.25, "bytes": 30, "total_bytes": 120,
                "eta_seconds": 9}, "retry_after_ms": 9000})
        );
        let loading = of(ModelState::Loading);
        assert_eq!(
            (&loading["loading"]["state"], &loading["loading"]["progress"]),
            (&json!("loading"), &Value::Null)
        );
        let draining = ManagerError::Draining { id: "m".into() }.data().expect("there is some");
        assert_eq!(draining["loading"]["state"], "draining");
        assert_eq!(ManagerError::Unknown { id: "m".into() }.data(), None);
    }
}
