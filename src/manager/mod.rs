//! Which models there are, where their files come from, what state each is in, and what memory they may take.
//!
//! A model in use is held by a [`ModelLease`]; one that is leased cannot be unloaded. The life of a model is in
//! `lifecycle.rs`; how its files get here in `fetch.rs` and `sources/`; what it may take in `memory.rs`.

mod catalog;
mod digest;
mod error;
mod fetch;
mod file_name;
mod known;
mod lease;
mod lifecycle;
mod loader;
mod memory;
mod progress;
mod registry;
mod shelf;
mod source;
mod sources;
mod state;
mod tally;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sconce_models::Device;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::config::{EngineConfig, ModelsConfig};
use crate::engine::EngineStats;
use crate::manager::known::known_models;
use crate::manager::lease::Leases;
use crate::manager::lifecycle::{Bounds, Lifecycle, Waiting};
use crate::manager::loader::Loader;
use crate::manager::registry::{Registry, Slot, SlotState};

pub use catalog::{Catalog, CatalogEntry, PinnedFile};
pub use error::ManagerError;
pub use fetch::{FetchFailure, Fetcher, Reached};
pub use known::resolve;
pub use lease::{LoadedEntry, ModelLease, Runner};
pub use memory::MachineMemory;
pub use progress::{LogOnly, ProgressSink};
pub use shelf::free_disk;
pub use source::Source;
pub use state::{ModelState, ModelStatus, Progress};

/// The models of this server. Must live inside a tokio runtime.
pub struct ModelManager {
    lifecycle: Arc<Lifecycle>,
    load_wait: Duration,
    housekeeping: Option<tokio::task::JoinHandle<()>>,
}

impl ModelManager {
    /// Reads the catalogue and works out which models are served; loads nothing.
    ///
    /// # Errors
    /// [`ManagerError::Setup`] if a model that is asked for means nothing, the catalogue is damaged, or the data
    /// folder cannot be used.
    pub fn open(
        config: ModelsConfig,
        engine: EngineConfig,
        data_dir: &Path,
    ) -> Result<Arc<Self>, ManagerError> {
        let setup = |reason: String| ManagerError::Setup { reason };
        let catalog = Catalog::open(config.catalog.as_deref()).map_err(setup)?;
        let known = known_models(&config.models, &catalog)?;
        let fetcher = Fetcher::open(&config, data_dir).map_err(setup)?;
        let device = Device::open(config.device).map_err(|error| setup(error.to_string()))?;
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let idle = Arc::new(Notify::new());
        let slots = known.into_iter().map(|model| {
            let names = || std::iter::once(&model.entry.id).chain(&model.entry.aliases);
            let pinned = names().any(|name| config.pinned.contains(name));
            Slot::new(model, pinned, created, Leases::new(Arc::clone(&idle)))
        });
        let registry = Registry { slots: slots.collect(), closing: false };
        if let Some(id) = config.pinned.iter().find(|id| registry.find(id).is_none()) {
            return Err(setup(format!("`pin` names `{id}`, which is not served")));
        }
        // What the device itself can hold is not known here; there a budget in bytes bounds it, or the device does.
        let machine = if device.is_cpu() { MachineMemory::now() } else { None };
        let bounds = Bounds {
            budget: memory::budget(config.memory_budget, machine),
            on_cpu: device.is_cpu(),
            idle_timeout: config.idle_timeout,
        };
        let loader = Loader::new(&config, engine);
        let lifecycle = Lifecycle::new(registry, idle, loader, fetcher, bounds);
        let housekeeping =
            lifecycle.idle_timeout().map(|after| tokio::spawn(Arc::clone(&lifecycle).watch_idle(after)));
        Ok(Arc::new(Self { lifecycle, load_wait: config.load_wait, housekeeping }))
    }

    /// Has downloads reported to `sink` from now on, beside the models' states.
    pub fn report_to(&self, sink: Arc<dyn ProgressSink>) {
        self.lifecycle.set_sink(sink);
    }

    /// Holds the model of this name, fetching and loading it first if it must be (and may be). Many may ask at once:
    /// it is loaded once.
    ///
    /// # Errors
    /// Every variant of [`ManagerError`] but `Setup`; [`ManagerError::Loading`] when it is not there in time, while
    /// loading goes on.
    pub async fn lease(&self, id: &str) -> Result<ModelLease, ManagerError> {
        self.lease_until(id, Some(Instant::now() + self.load_wait)).await
    }

    async fn lease_until(&self, id: &str, deadline: Option<Instant>) -> Result<ModelLease, ManagerError> {
        let mut changes = self.lifecycle.changes();
        let mut waiting = None;
        loop {
            if let Some(lease) = self.lifecycle.try_lease(id, waiting.is_some())? {
                return Ok(lease);
            }
            waiting.get_or_insert_with(|| Waiting::for_model(&self.lifecycle, id));
            let changed = async {
                // The sender lives as long as the manager.
                let _ = changes.changed().await;
            };
            match deadline {
                None => changed.await,
                Some(deadline) => {
                    if tokio::time::timeout_at(deadline, changed).await.is_err() {
                        return Err(ManagerError::Loading {
                            id: id.to_owned(),
                            retry_after: self.retry_after(id),
                        });
                    }
                }
            }
        }
    }

    /// When a model that is on its way may be there: a guess.
    fn retry_after(&self, id: &str) -> Duration {
        match self.status(id).map(|status| status.state) {
            Some(ModelState::Downloading(_)) => Duration::from_secs(30),
            _ => Duration::from_secs(5),
        }
    }

    /// All models that a request may use, in order: those named at start, or the catalogue's defaults and what else of
    /// it is on this machine.
    pub fn list(&self) -> Vec<ModelStatus> {
        let registry = self.lifecycle.registry();
        let fetcher = self.lifecycle.fetcher();
        let usable =
            registry.slots.iter().filter(|slot| slot.may_fetch || fetcher.installed(&slot.entry).is_some());
        usable.map(Slot::status).collect()
    }

    /// One of them.
    pub fn status(&self, id: &str) -> Option<ModelStatus> {
        let registry = self.lifecycle.registry();
        let slot = registry.find(id)?;
        (slot.may_fetch || self.lifecycle.fetcher().installed(&slot.entry).is_some()).then(|| slot.status())
    }

    /// A number that changes whenever a model's state or progress does.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.lifecycle.changes()
    }

    /// Loads a model and waits for it, however long it takes.
    ///
    /// # Errors
    /// As [`ModelManager::lease`], but never [`ManagerError::Loading`].
    pub async fn load(&self, id: &str) -> Result<(), ManagerError> {
        self.lease_until(id, None).await.map(drop)
    }

    /// Unloads a model: no new leases, and back when the last one is dropped and its memory is free. A download is
    /// broken off; a model that is being loaded is unloaded once it is. Pinned models are unloaded too. A failure is
    /// forgotten: the next lease tries again at once.
    ///
    /// # Errors
    /// [`ManagerError::Unknown`].
    pub async fn unload(&self, id: &str) -> Result<(), ManagerError> {
        let mut changes = self.lifecycle.changes();
        loop {
            // The lock must be gone before anything is waited for.
            let (is_busy, drain) = {
                let mut registry = self.lifecycle.registry();
                let slot =
                    registry.find_mut(id).ok_or_else(|| ManagerError::Unknown { id: id.to_owned() })?;
                match slot.state {
                    SlotState::Absent => return Ok(()),
                    SlotState::Failed { .. } => {
                        slot.forget_failure();
                        (false, None)
                    }
                    SlotState::Downloading { .. } => {
                        self.lifecycle.abort_download(&mut registry, id);
                        (false, None)
                    }
                    SlotState::Ready(_) => (false, self.lifecycle.begin_drain(&mut registry, id)),
                    SlotState::Loading | SlotState::Draining => (true, None),
                }
            };
            if is_busy {
                // The sender lives as long as the manager.
                let _ = changes.changed().await;
                continue;
            }
            self.lifecycle.changed();
            if let Some(drain) = drain {
                // On a task of its own: whoever asked may lose patience, the model is unloaded all the same.
                let lifecycle = Arc::clone(&self.lifecycle);
                let _ = tokio::spawn(async move { lifecycle.finish_drain(drain).await }).await;
            }
        }
    }

    /// Pins a model, or unpins it.
    ///
    /// # Errors
    /// [`ManagerError::Unknown`].
    pub fn pin(&self, id: &str, pinned: bool) -> Result<(), ManagerError> {
        let mut registry = self.lifecycle.registry();
        let slot = registry.find_mut(id).ok_or_else(|| ManagerError::Unknown { id: id.to_owned() })?;
        slot.pinned = pinned;
        drop(registry);
        self.lifecycle.changed();
        self.lifecycle.idle.notify_one();
        Ok(())
    }

    /// Loads the models that are served from the start, one after the other, in order. Gives those that could not be,
    /// with the reason; the server may well run without them.
    pub async fn preload(&self) -> Vec<(String, ManagerError)> {
        let ids: Vec<_> = {
            let registry = self.lifecycle.registry();
            registry.slots.iter().filter(|slot| slot.preload).map(|slot| slot.entry.id.clone()).collect()
        };
        let mut failures = Vec::new();
        for id in ids {
            if let Err(error) = self.load(&id).await {
                failures.push((id, error));
            }
        }
        failures
    }

    /// Unloads everything and loads nothing more. Leases that are still out are waited for: drop them, or bound the
    /// wait.
    pub async fn shutdown(&self) {
        let ids: Vec<_> = {
            let mut registry = self.lifecycle.registry();
            registry.closing = true;
            registry.slots.iter().map(|slot| slot.entry.id.clone()).collect()
        };
        self.lifecycle.changed();
        for id in ids {
            // All ids are known.
            let _ = self.unload(&id).await;
        }
    }

    /// The figures of every running engine.
    pub fn engines(&self) -> Vec<(String, EngineStats)> {
        self.lifecycle.engines()
    }
}

impl Drop for ModelManager {
    fn drop(&mut self) {
        if let Some(task) = &self.housekeeping {
            task.abort();
        }
    }
}
