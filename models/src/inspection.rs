//! What can be said of a model before its weights are read: for the memory plan, for listing what lies in a folder, and for
//! people and their tools.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::plan::Plan;
use crate::weights::{Metadata, read_bounded};
use crate::{
    Arithmetic, ChatTemplate, Device, Error, GenerationDefaults, ModelFiles, ModelSpec,
    sentence_transformers, weights,
};

/// Most bytes of a licence that are read.
const MAX_LICENSE_BYTES: u64 = 1 << 20;

/// What the files say, read from headers alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// The model's shape and the memory its weights will take.
    pub spec: ModelSpec,
    /// Bytes of all weight files.
    pub file_bytes: u64,
    /// Most common weight type, by bytes: `Q4_1`, `F16`, …
    pub quantisation: String,
    /// Numbers in all tensors.
    pub parameters: u64,
    /// What the files say of themselves. Nothing depends on it: what is damaged in it is left out, and is for
    /// [`crate::load`] to refuse.
    pub card: Card,
}

/// What a model's files say of themselves.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Card {
    /// The conversation format, in its own words.
    pub chat_template: Option<String>,
    /// What is suggested for sampling.
    pub defaults: GenerationDefaults,
    /// The licence: the text that lies beside the weights, or the name that a GGUF file gives.
    pub license: Option<Arc<str>>,
    /// The metadata of a GGUF file, by name: numbers, truth values and short texts.
    pub metadata: Map<String, Value>,
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
    Ok(Inspection {
        spec,
        file_bytes: file_bytes(files)?,
        quantisation: opened.weights.dominant_type(),
        parameters: opened.weights.parameters(),
        card: Card::read(files, opened.metadata.as_ref()),
    })
}

impl Card {
    fn read(files: &ModelFiles, metadata: Option<&Metadata>) -> Self {
        let template = ChatTemplate::find(files, metadata).ok().flatten();
        let license = match (files, metadata) {
            (ModelFiles::Safetensors { folder, .. }, _) => license_in(folder),
            (_, Some(metadata)) => metadata.text("general.license").ok().flatten().map(Arc::from),
            _ => None,
        };
        Self {
            chat_template: template.map(|template| template.source().to_owned()),
            defaults: GenerationDefaults::read(files).unwrap_or_default(),
            license,
            metadata: metadata.map(Metadata::short_values).unwrap_or_default(),
        }
    }
}

/// The licence that lies in a folder, under one of its usual names. Whoever may see the model is shown it: a link to what
/// does not belong to the model is none.
fn license_in(folder: &Path) -> Option<Arc<str>> {
    let folder = folder.canonicalize().ok()?;
    let blobs = hub_blobs(&folder);
    let is_of_model = |path: &PathBuf| {
        path.starts_with(&folder) || blobs.as_ref().is_some_and(|blobs| path.starts_with(blobs))
    };
    let path = ["LICENSE", "LICENSE.txt", "LICENSE.md"]
        .into_iter()
        .filter_map(|name| folder.join(name).canonicalize().ok())
        .find(|path| is_of_model(path) && path.is_file())?;
    let text = read_bounded(&path, "licence", MAX_LICENSE_BYTES).ok()?;
    Some(String::from_utf8_lossy(&text).into())
}

/// Where the hub's cache keeps the files of a model of which this folder is a snapshot: that consists of links to them.
fn hub_blobs(folder: &Path) -> Option<PathBuf> {
    let snapshots = folder.parent().filter(|parent| parent.ends_with("snapshots"))?;
    Some(snapshots.parent()?.join("blobs"))
}

fn file_bytes(files: &ModelFiles) -> Result<u64, Error> {
    let (ModelFiles::Gguf { shards, .. } | ModelFiles::Safetensors { shards, .. }) = files;
    shards.iter().try_fold(0, |sum, path| {
        let metadata =
            std::fs::metadata(path).map_err(|source| Error::Read { path: path.clone(), source })?;
        Ok(sum + metadata.len())
    })
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_licence_is_of_the_models_own_files() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let [own, snapshot, blobs] =
            ["own", "models--a--b/snapshots/1", "models--a--b/blobs"].map(|name| root.join(name));
        for folder in [&own, &snapshot, &blobs] {
            std::fs::create_dir_all(folder).unwrap();
        }
        std::fs::write(root.join("secret"), "secret").unwrap();
        std::fs::write(blobs.join("123"), "of the hub").unwrap();

        symlink("../secret", own.join("LICENSE")).unwrap();
        assert_eq!(license_in(&own), None);
        std::fs::write(own.join("terms"), "linked").unwrap();
        symlink("terms", own.join("LICENSE.txt")).unwrap();
        assert_eq!(license_in(&own).as_deref(), Some("linked"));

        symlink("../../../secret", snapshot.join("LICENSE")).unwrap();
        assert_eq!(license_in(&snapshot), None);
        symlink("../../blobs/123", snapshot.join("LICENSE.md")).unwrap();
        assert_eq!(license_in(&snapshot).as_deref(), Some("of the hub"));
    }
}
