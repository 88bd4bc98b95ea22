//! A model manager with real (tiny) models in a temporary folder, for tests of what it does with them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sconce::config::{Config, Environment, RawConfig};
use sconce::engine::EngineHandle;
use sconce::manager::{ManagerError, ModelLease, ModelManager, ModelState, ModelStatus, Runner};
use tempfile::TempDir;
use tokio::time::timeout;

/// Far longer than anything here takes: a test that waits for it has failed.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Makes one model far larger than the rounding of the numbers.
pub const CACHE: &str = "16MiB";

pub fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models/tests/golden").join(name)
}

pub fn llama() -> String {
    golden("gguf/llama/llama.Q8_0.gguf").to_str().unwrap().to_owned()
}

/// A manager with its folder.
pub struct House {
    pub manager: Arc<ModelManager>,
    pub folder: TempDir,
}

impl std::ops::Deref for House {
    type Target = ModelManager;

    fn deref(&self) -> &ModelManager {
        &self.manager
    }
}

pub fn try_house(settings: &[(&str, &str)]) -> Result<House, ManagerError> {
    let folder = tempfile::tempdir().unwrap();
    let mut raw = RawConfig::default()
        .with("device", "cpu")
        .with("cache-memory", CACHE)
        .with("model-root", golden("").to_str().unwrap());
    for (name, value) in settings {
        raw = raw.with(name, *value);
    }
    let home = folder.path().to_str().unwrap().to_owned();
    let config = Config::load_from(raw, &Environment::from_iter([("HOME".into(), home)])).unwrap();
    let manager = ModelManager::open(config.models, config.engine, &config.data_dir)?;
    Ok(House { manager, folder })
}

pub fn house(settings: &[(&str, &str)]) -> House {
    try_house(settings).unwrap()
}

/// One model under several names, with this much memory for all.
pub fn several(names: &[&str], more: &[(&str, &str)]) -> House {
    let arguments: Vec<_> = names.iter().map(|name| format!("{name}={}", llama())).collect();
    let mut settings: Vec<_> = arguments.iter().map(|argument| ("model", argument.as_str())).collect();
    settings.extend(more);
    house(&settings)
}

impl House {
    /// Waits until this is true of all models, as an administrator sees them.
    pub async fn until(&self, wanted: impl Fn(&[ModelStatus]) -> bool) {
        let mut changes = self.watch();
        let waiting = async {
            while !wanted(&self.all()) {
                changes.changed().await.unwrap();
            }
        };
        timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{:#?}", self.all()));
    }

    pub fn state(&self, id: &str) -> ModelState {
        self.one(id).unwrap().state
    }

    pub async fn wait_for(&self, id: &str, wanted: impl Fn(&ModelState) -> bool) {
        let mut changes = self.watch();
        let waiting = async {
            while !wanted(&self.state(id)) {
                changes.changed().await.unwrap();
            }
        };
        timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{id} is {:?}", self.state(id)));
    }
}

pub fn engine(lease: &ModelLease) -> &EngineHandle {
    match &lease.runner {
        Runner::Engine(engine) => engine,
        Runner::Embedder(_) => panic!("a causal model runs on an engine"),
    }
}
