//! Which models there are, where their files come from, what state each is in, and what memory they may take.
//!
//! A model in use is held by a [`ModelLease`]; one that is leased cannot be unloaded. The life of a model is in
//! `lifecycle.rs`; what administrators want of it in `definition.rs` and `follow.rs`, what they do with it in
//! `administration.rs`; how its files get here in `fetch.rs` and `sources/`; what it may take in `memory.rs`.

mod administration;
mod catalog;
mod definition;
mod description;
mod desired;
mod digest;
mod error;
mod fetch;
mod file_name;
mod follow;
mod known;
mod lease;
mod lifecycle;
mod loader;
mod memory;
mod pace;
mod policy;
mod profile;
mod progress;
mod registry;
mod room;
mod roots;
mod sampling;
mod self_test;
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
use crate::manager::desired::Desired;
use crate::manager::known::known_models;
use crate::manager::lease::Leases;
use crate::manager::lifecycle::{Bounds, Lifecycle, Step};
use crate::manager::loader::Loader;
use crate::manager::registry::{Asker, Registry, Slot};

pub use catalog::{Catalog, CatalogEntry, PinnedFile};
pub use definition::{Checksum, InvalidDefinition, ModelDefinition};
pub use description::Description;
pub use desired::FollowNotice;
pub use error::ManagerError;
pub use fetch::{FetchFailure, Fetcher, Reached};
pub use known::resolve;
pub use lease::{LoadedEntry, ModelLease, Runner};
pub use memory::MachineMemory;
pub use policy::{SourcePolicy, SourceRefusal};
pub use profile::Profile;
pub use progress::{LogOnly, ProgressSink};
pub use sampling::{CALL_FORMATS, SamplingDefaults};
pub use self_test::{Check, SelfTest};
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
        let configured = known.into_iter().map(|model| Desired::configured(model, &config.pinned, created));
        let configured: Vec<_> = configured.collect();
        let slots = configured.iter().map(|model| Slot::new(model.clone(), Leases::new(Arc::clone(&idle))));
        let registry = Registry { slots: slots.collect(), configured, ..Registry::default() };
        if let Some(id) = config.pinned.iter().find(|id| registry.find(Asker::Client, id).is_none()) {
            return Err(setup(format!("`pin` names `{id}`, which is not served")));
        }
        // What the device itself can hold is not known here; there a budget in bytes bounds it, or the device does.
        let machine = if device.is_cpu() { MachineMemory::now() } else { None };
        let bounds =
            Bounds { budget: memory::budget(config.memory_budget, machine), on_cpu: device.is_cpu() };
        let loader = Loader::new(&config, engine);
        let lifecycle = Lifecycle::new(registry, idle, (catalog, fetcher), loader, bounds);
        let housekeeping =
            config.idle_timeout.map(|after| tokio::spawn(Arc::clone(&lifecycle).watch_idle(after)));
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
    /// Every variant of [`ManagerError`] but `Setup` and `Disabled`; [`ManagerError::Loading`] when it is not there in
    /// time, while loading goes on.
    pub async fn lease(&self, id: &str) -> Result<ModelLease, ManagerError> {
        self.lease_until(id, Asker::Client, Some(Instant::now() + self.load_wait)).await
    }

    async fn lease_until(
        &self,
        id: &str,
        asker: Asker,
        deadline: Option<Instant>,
    ) -> Result<ModelLease, ManagerError> {
        let mut changes = self.lifecycle.changes();
        let mut waiting = None;
        loop {
            match self.lifecycle.try_lease(id, asker, waiting.as_ref())? {
                Step::Lease(lease) => return Ok(lease),
                Step::Wait(None) => {}
                Step::Wait(place) => waiting = place,
            }
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
                            state: Box::new(self.status(id).map(|status| status.state).unwrap_or_default()),
                        });
                    }
                }
            }
        }
    }

    /// When a model that is on its way may be there: from the progress, else a guess.
    fn retry_after(&self, id: &str) -> Duration {
        match self.status(id).map(|status| status.state) {
            Some(ModelState::Downloading(progress)) => {
                Duration::from_secs(progress.eta_seconds.unwrap_or(30).clamp(1, 600))
            }
            _ => Duration::from_secs(5),
        }
    }

    /// All models that a request may use, in order: those named at start, or the catalogue's defaults and what else of
    /// it is on this machine, and those that are registered.
    pub fn list(&self) -> Vec<ModelStatus> {
        self.usable(|slot| slot.is_wanted())
    }

    /// One of them, by any of its names.
    pub fn status(&self, name: &str) -> Option<ModelStatus> {
        let id = self.lifecycle.registry().find(Asker::Client, name)?.id().to_owned();
        self.usable(|slot| slot.id() == id && slot.is_wanted()).pop()
    }

    fn usable(&self, of: impl Fn(&Slot) -> bool) -> Vec<ModelStatus> {
        let mut found = self.lifecycle.statuses(of);
        found.retain(|status| status.may_be_used());
        found
    }

    /// A number that changes whenever a model's state or progress does.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.lifecycle.changes()
    }

    /// Loads the models that are served from the start, one after the other, in order. Gives those that could not be,
    /// with the reason; the server may well run without them.
    pub async fn preload(&self) -> Vec<(String, ManagerError)> {
        let ids: Vec<_> = {
            let registry = self.lifecycle.registry();
            let slots = registry.slots.iter().filter(|slot| slot.desired.preload && slot.is_wanted());
            slots.map(|slot| slot.id().to_owned()).collect()
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
            registry.slots.iter().map(|slot| slot.id().to_owned()).collect()
        };
        self.lifecycle.changed();
        for id in ids {
            // One that is no longer known has gone by itself.
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
