//! The life of a model: Absent → Downloading → Loading → Ready → Draining → Absent, or Failed.

use std::sync::Arc;

use sconce_models::{ModelKind, ModelSpec};
use serde::Serialize;

use crate::manager::profile::Profile;

/// How far a download is.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct Progress {
    /// The source being tried.
    pub source: String,
    /// File being fetched.
    pub file: String,
    /// Its number, from 1.
    pub file_number: usize,
    /// Files in all.
    pub files: usize,
    /// Bytes of all files fetched so far.
    pub bytes: u64,
    /// Bytes of all files, if known.
    pub total_bytes: Option<u64>,
    /// How long it will take at its present pace; none while that would be a guess.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<u64>,
}

/// Where a model stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ModelState {
    /// Known, not in memory (its files may be on disk).
    #[default]
    Absent,
    /// Its files are being fetched.
    Downloading(Progress),
    /// Its weights are being read.
    Loading,
    /// It answers.
    Ready,
    /// It answers those it is answering, and nobody else.
    Draining,
    /// It cannot be used.
    Failed {
        /// For everybody: no paths, no addresses. Administrators find more in [`ModelStatus::last_error`].
        reason: String,
    },
}

impl ModelState {
    /// Its name in the API.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Downloading(_) => "downloading",
            Self::Loading => "loading",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Failed { .. } => "failed",
        }
    }
}

/// A model as lists show it. What clients may see of it is theirs to choose who show it: sources, paths in
/// `last_error` and models that are not enabled are for administrators.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ModelStatus {
    /// The name clients ask for.
    pub id: String,
    /// Other names that lead to it.
    pub aliases: Vec<String>,
    /// Where it comes from; addresses without their queries.
    pub sources: Vec<String>,
    /// What it does, once known (from the catalogue or its files).
    pub kind: Option<ModelKind>,
    /// Where it stands.
    pub state: ModelState,
    /// When it came into this state, in seconds since 1970.
    pub since: u64,
    /// What went wrong last, for administrators; forgotten once the model is well.
    pub last_error: Option<String>,
    /// Its shape, once read.
    pub spec: Option<ModelSpec>,
    /// What else was found out when it was loaded.
    #[serde(skip)]
    pub profile: Option<Arc<Profile>>,
    /// Seconds since 1970 when it was added to this server.
    pub created: u64,
    /// Never unloaded to make room.
    pub pinned: bool,
    /// Whether clients may use it.
    pub enabled: bool,
    /// Whether an administrator registered it, and not the configuration.
    pub is_registered: bool,
    /// Whether a request may have it fetched, if its files are not here.
    #[serde(skip)]
    pub may_fetch: bool,
    /// Whether it is no longer wanted, and goes when those who hold it are done.
    pub is_leaving: bool,
    /// Requests holding it now.
    pub leases: usize,
    /// Whether its files are on this machine.
    pub is_on_disk: bool,
    /// Bytes of its files: on this machine, or as they are pinned.
    pub bytes: Option<u64>,
    /// Memory set aside for it.
    pub memory_bytes: u64,
}

impl ModelStatus {
    /// Whether a request for it can succeed: its files are here, or may be fetched for it.
    pub(super) fn may_be_used(&self) -> bool {
        self.may_fetch || self.is_on_disk
    }
}
