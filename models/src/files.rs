//! Which files make up a model, and what can be said of it before its weights are read.

use std::path::{Path, PathBuf};

use crate::{Error, ModelSpec};

/// A model on disk, recognised by what lies there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelFiles {
    /// A GGUF file, or the first of its shards (`…-00001-of-0000N.gguf`) with all of them in order.
    Gguf {
        /// All shards in order; one path for an unsharded file.
        shards: Vec<PathBuf>,
        /// A `tokenizer.json` beside it, preferred over the file's own metadata.
        tokenizer: Option<PathBuf>,
    },
    /// A folder with `config.json` and one or more `*.safetensors`.
    Safetensors {
        /// The folder.
        folder: PathBuf,
        /// The weight files in order.
        shards: Vec<PathBuf>,
    },
}

impl ModelFiles {
    /// Recognises what lies at `path`: a `.gguf` file, or a folder that holds one GGUF model or a safetensors model.
    ///
    /// # Errors
    /// [`Error::NoModel`] if it is neither, or a shard is missing; [`Error::Read`] if it cannot be looked at.
    pub fn find(path: &Path) -> Result<Self, Error> {
        let _ = path;
        todo!("models helper")
    }
}

/// What the files say, read from headers alone.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// The model's shape and the memory its weights will take.
    pub spec: ModelSpec,
    /// Bytes of all weight files.
    pub file_bytes: u64,
    /// Most common weight type, by bytes: `Q4_1`, `F16`, …
    pub quantisation: String,
}

/// Reads headers and configuration, not weights: for the memory plan before a load.
///
/// # Errors
/// As [`crate::load`].
pub fn inspect(files: &ModelFiles) -> Result<Inspection, Error> {
    let _ = files;
    todo!("models helper")
}
