//! What can be said of a model before its weights are read: for the memory plan, and for listing what lies in a folder.

use crate::plan::Plan;
use crate::{Arithmetic, Device, Error, ModelFiles, ModelSpec, sentence_transformers, weights};

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

/// Reads headers and configuration, not weights. `spec.weights_bytes` is what the tensors take in the files, which is
/// what they take in memory but for a few per cent; `spec.fingerprint` is empty.
///
/// # Errors
/// As [`crate::load`], for what can be seen without the weights.
pub fn inspect(files: &ModelFiles) -> Result<Inspection, Error> {
    let opened = weights::open(files, &Device::cpu(), Arithmetic::Integer)?;
    let plan = Plan::new(&opened.config, sentence_transformers::read(files)?)?;
    let spec = ModelSpec { weights_bytes: opened.weights.total_bytes(), ..plan.spec() };
    Ok(Inspection { spec, file_bytes: file_bytes(files)?, quantisation: opened.weights.dominant_type() })
}

fn file_bytes(files: &ModelFiles) -> Result<u64, Error> {
    let (ModelFiles::Gguf { shards, .. } | ModelFiles::Safetensors { shards, .. }) = files;
    shards.iter().try_fold(0, |sum, path| {
        let metadata =
            std::fs::metadata(path).map_err(|source| Error::Read { path: path.clone(), source })?;
        Ok(sum + metadata.len())
    })
}
