//! The places models come from. Each file here knows one kind; `fetch.rs` tries them in turn.
//!
//! What all HTTP sources share is here: which files of a listing make up a model, and the table of what to fetch.

pub(crate) mod address;
pub(crate) mod client;
pub(crate) mod download;
pub(crate) mod https;
pub(crate) mod hub;
pub(crate) mod modelscope;
pub(crate) mod pip;
pub(crate) mod wheel;

use std::io;
use std::time::Duration;

use reqwest::Url;

use crate::manager::catalog::PinnedFile;
use crate::manager::file_name::FileName;
use crate::manager::shelf::Shelf;
use crate::manager::sources::client::HttpClient;

/// Why a source did not give the model.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    /// It cannot be reached, or does not answer.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// It answers, but not with this.
    #[error("{0}")]
    Refused(String),
    /// It may not be asked, or read: an address or a path that is not allowed.
    #[error("{0}")]
    NotAllowed(String),
    /// What it sent is not what it should be.
    #[error("{0}")]
    Wrong(String),
    /// Nothing may be fetched from a network.
    #[error("offline")]
    Offline,
    /// This machine's disk.
    #[error("{what}: {source}")]
    Disk {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// There is no room for it.
    #[error("{0}")]
    NoRoom(String),
}

impl SourceError {
    /// Wraps what the disk said.
    pub(crate) fn disk(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        |source| Self::Disk { what, source }
    }
}

/// A file at a source.
#[derive(Debug, Clone)]
pub(crate) struct RemoteFile {
    /// Its name inside the model, here.
    pub name: FileName,
    /// Where it is.
    pub url: Url,
    /// Its size, if known before it is asked for.
    pub bytes: Option<u64>,
    /// SHA-256 that it must have, if known before.
    pub sha256: Option<String>,
}

/// What a listing says of a file.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    /// Its name in the repository.
    pub name: FileName,
    /// Its size.
    pub bytes: Option<u64>,
    /// SHA-256 of its content.
    pub sha256: Option<String>,
}

/// The longest a listing may take: a source that is slower counts as unreachable.
pub(crate) const LISTING_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest listing that is read.
pub(crate) const LISTING_BYTES: usize = 8 << 20;
/// The most files a model may have.
const MOST_FILES: usize = 1024;

/// Which files of a repository make up the model: the safetensors weights of its top folder with everything a loader
/// reads beside them.
///
/// # Errors
/// [`SourceError::Refused`] if there are none; GGUF files are named, for one of them has to be chosen.
pub(crate) fn choose(listing: Vec<Listed>) -> Result<Vec<Listed>, SourceError> {
    let is_top = |file: &Listed| file.name.parent().is_empty();
    let weights: Vec<_> =
        listing.iter().filter(|file| is_top(file) && file.name.as_str().ends_with(".safetensors")).collect();
    if weights.is_empty() {
        let mut ggufs: Vec<_> =
            listing.iter().map(|file| file.name.as_str()).filter(|name| name.ends_with(".gguf")).collect();
        ggufs.truncate(20);
        return Err(SourceError::Refused(match ggufs.as_slice() {
            [] => "it holds neither safetensors nor GGUF files".into(),
            names => format!("name one of its files: {}", names.join(", ")),
        }));
    }
    // Some repositories hold the same weights twice, under the name of another framework's own layout.
    let has_usual = weights.iter().any(|file| file.name.as_str().starts_with("model"));
    let wanted = |file: &Listed| {
        let name = file.name.as_str();
        let is_beside = name.ends_with(".json")
            || name.ends_with(".jinja")
            || name == "merges.txt"
            || name == "vocab.txt";
        match file.name.parent() {
            "" if name.ends_with(".safetensors") => !has_usual || name.starts_with("model"),
            "" => is_beside,
            // sentence-transformers keeps the settings of its modules in numbered folders.
            folder => is_beside && !folder.contains('/') && folder.starts_with(|c: char| c.is_ascii_digit()),
        }
    };
    let chosen: Vec<_> = listing.iter().filter(|file| wanted(file)).cloned().collect();
    if chosen.len() > MOST_FILES {
        return Err(SourceError::Refused(format!("it has more than {MOST_FILES} files")));
    }
    Ok(chosen)
}

/// The pin of a file: by its name, or the only one for the only file.
///
/// # Errors
/// [`SourceError::Refused`] if the model is pinned but this file is not.
pub(crate) fn pin_of<'a>(
    pins: &'a [PinnedFile],
    name: &FileName,
    is_only: bool,
) -> Result<Option<&'a PinnedFile>, SourceError> {
    match pins {
        [] => Ok(None),
        [pin] if is_only => Ok(Some(pin)),
        _ => match pins.iter().find(|pin| pin.path == *name) {
            Some(pin) => Ok(Some(pin)),
            None => Err(SourceError::Refused(format!("the model's pins name no file `{name}`"))),
        },
    }
}

/// A file that a source names: what it is called there and here, and what it must be.
pub(crate) struct NamedFile<'a> {
    /// Its name at the source.
    pub there: FileName,
    /// Its name inside the model.
    pub here: FileName,
    /// Its pin, if the model has pins.
    pub pin: Option<&'a PinnedFile>,
}

impl NamedFile<'_> {
    /// Its size and SHA-256, as far as they are pinned.
    pub(crate) fn pinned(&self) -> (Option<u64>, Option<String>) {
        (self.pin.and_then(|pin| pin.bytes), self.pin.map(|pin| pin.sha256.clone()))
    }
}

/// What every way of fetching shares.
pub(crate) struct Means<'a> {
    /// Asks servers.
    pub client: &'a HttpClient,
    /// Where models and half files are kept.
    pub shelf: &'a Shelf,
    /// Largest model.
    pub max_bytes: u64,
    /// A transfer that brings nothing for this long is broken off and resumed.
    pub stall_timeout: Duration,
}

/// One file that a source names, or all shards of a sharded one, each with its pin.
pub(crate) fn shards_with_pins<'a>(
    file: &FileName,
    pins: &'a [PinnedFile],
) -> Result<Vec<NamedFile<'a>>, SourceError> {
    let shards = file.shards();
    let is_only = shards.len() == 1;
    let here = |there: &FileName| there.below(there.parent()).unwrap_or_else(|| there.clone());
    shards
        .into_iter()
        .map(|there| {
            let here = here(&there);
            let pin = pin_of(pins, &here, is_only)?;
            Ok(NamedFile { there, here, pin })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(names: &[&str]) -> Result<Vec<String>, String> {
        let listing =
            names.iter().map(|name| Listed { name: name.parse().unwrap(), bytes: None, sha256: None });
        match choose(listing.collect()) {
            Ok(files) => Ok(files.into_iter().map(|file| file.name.to_string()).collect()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn of_a_repository_only_what_a_loader_reads_is_fetched() {
        let all = [
            ".gitattributes",
            "1_Pooling/config.json",
            "README.md",
            "config.json",
            "model.safetensors",
            "consolidated.safetensors",
            "onnx/model.onnx",
            "onnx/config.json",
            "original/1.json",
            "pytorch_model.bin",
            "tokenizer.json",
            "chat_template.jinja",
            "x/y/model.safetensors",
        ];
        let expected = [
            "1_Pooling/config.json",
            "config.json",
            "model.safetensors",
            "tokenizer.json",
            "chat_template.jinja",
        ];
        assert_eq!(chosen(&all).unwrap(), expected);
        assert_eq!(chosen(&["weights.safetensors"]).unwrap(), ["weights.safetensors"]);
        assert!(chosen(&["a.Q4.gguf", "b.Q8.gguf"]).unwrap_err().contains("a.Q4.gguf, b.Q8.gguf"));
        assert!(chosen(&["README.md"]).is_err());
    }

    #[test]
    fn a_pinned_model_gives_no_other_file() {
        let pin =
            |name: &str| PinnedFile { path: name.parse().unwrap(), bytes: Some(1), sha256: "0".repeat(64) };
        let one = [pin("a.gguf")];
        assert!(pin_of(&one, &"renamed.gguf".parse().unwrap(), true).unwrap().is_some());
        let two = [pin("a.gguf"), pin("b.gguf")];
        assert!(pin_of(&two, &"c.gguf".parse().unwrap(), false).is_err());
        assert!(pin_of(&[], &"c.gguf".parse().unwrap(), true).unwrap().is_none());
    }
}
