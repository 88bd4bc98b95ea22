//! The life of a model: Absent → Downloading → Loading → Ready → Draining → Absent, or Failed.

use sconce_models::{ModelKind, ModelSpec};
use serde::Serialize;

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
}

/// Where a model stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ModelState {
    /// Known, not in memory (its files may be on disk).
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
        /// What to tell the administrator.
        reason: String,
    },
}

/// A model as lists show it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelStatus {
    /// The name clients ask for.
    pub id: String,
    /// What it does, once known (from the catalogue or its files).
    pub kind: Option<ModelKind>,
    /// Where it stands.
    pub state: ModelState,
    /// Its shape, once read.
    pub spec: Option<ModelSpec>,
    /// Seconds since 1970 when it was added to this server.
    pub created: u64,
    /// Never unloaded to make room.
    pub pinned: bool,
    /// Requests holding it now.
    pub leases: usize,
}
