//! The models of this server and the state each is in: plain data behind one lock, no waiting, no work.

use std::sync::Arc;

use sconce_models::ModelSpec;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::engine::EngineStats;
use crate::manager::catalog::CatalogEntry;
use crate::manager::known::KnownModel;
use crate::manager::lease::{Leases, LoadedEntry, Runner};
use crate::manager::{ManagerError, ModelState, ModelStatus, Progress};

/// A model of this server.
pub(super) struct Slot {
    pub entry: CatalogEntry,
    pub may_fetch: bool,
    pub preload: bool,
    pub pinned: bool,
    pub created: u64,
    pub state: SlotState,
    /// Its shape, once it has been loaded.
    pub spec: Option<ModelSpec>,
    /// Bytes set aside for it, from before it is loaded until after its memory is free again.
    pub reserved: u64,
    /// Failures in a row: how long to wait before the next try.
    pub failures: u32,
    /// Counts the tries to bring it up, so that one that was given up cannot speak for a later one.
    pub attempt: u64,
    pub leases: Arc<Leases>,
    /// Requests that wait for it to come up: it is not unloaded before they had it.
    pub waiting: usize,
}

/// Where a model stands, with what belongs to that state.
pub(super) enum SlotState {
    Absent,
    Downloading { progress: Progress, task: Option<AbortHandle> },
    Loading,
    Ready(Arc<LoadedEntry>),
    Draining,
    Failed { error: ManagerError, detail: String, retry_at: Instant },
}

impl Slot {
    pub(super) fn new(known: KnownModel, pinned: bool, created: u64, leases: Arc<Leases>) -> Self {
        Self {
            entry: known.entry,
            may_fetch: known.may_fetch,
            preload: known.preload,
            pinned,
            created,
            state: SlotState::Absent,
            spec: None,
            reserved: 0,
            failures: 0,
            attempt: 0,
            leases,
            waiting: 0,
        }
    }

    /// Failed → Absent: the next lease tries again at once.
    pub(super) fn forget_failure(&mut self) {
        self.state = SlotState::Absent;
        self.failures = 0;
    }

    /// Whether it could be unloaded at once to make room.
    pub(super) fn is_evictable(&self) -> bool {
        matches!(self.state, SlotState::Ready(_))
            && !self.pinned
            && self.leases.count() == 0
            && self.waiting == 0
    }

    /// Whether its engine's thread has ended though it is meant to run.
    pub(super) fn is_lost(&self) -> bool {
        match &self.state {
            SlotState::Ready(entry) => match &entry.runner {
                Runner::Engine(engine) => engine.watch().has_changed().is_err(),
                Runner::Embedder(_) => false,
            },
            _ => false,
        }
    }

    pub(super) fn status(&self) -> ModelStatus {
        let loaded = match &self.state {
            SlotState::Ready(entry) => Some(&entry.spec),
            // What was read once stays true while the model is away.
            _ => self.spec.as_ref(),
        };
        ModelStatus {
            id: self.entry.id.clone(),
            kind: loaded.map(|spec| spec.kind).or(self.entry.kind),
            state: self.public_state(),
            spec: loaded.cloned(),
            created: self.created,
            pinned: self.pinned,
            leases: self.leases.count(),
        }
    }

    fn public_state(&self) -> ModelState {
        if self.is_lost() {
            let reason =
                "its engine stopped unexpectedly; it is loaded again when it is next asked for".into();
            return ModelState::Failed { reason };
        }
        match &self.state {
            SlotState::Absent => ModelState::Absent,
            SlotState::Downloading { progress, .. } => ModelState::Downloading(progress.clone()),
            SlotState::Loading => ModelState::Loading,
            SlotState::Ready(_) => ModelState::Ready,
            SlotState::Draining => ModelState::Draining,
            SlotState::Failed { detail, .. } => ModelState::Failed { reason: detail.clone() },
        }
    }
}

/// All models, in the order in which they are listed.
#[derive(Default)]
pub(super) struct Registry {
    pub slots: Vec<Slot>,
    /// Set once: nothing is loaded any more.
    pub closing: bool,
}

impl Registry {
    /// The model of exactly this name, or with it among its other names.
    pub(super) fn find(&self, name: &str) -> Option<&Slot> {
        self.position(name).map(|index| &self.slots[index])
    }

    pub(super) fn find_mut(&mut self, name: &str) -> Option<&mut Slot> {
        self.position(name).map(|index| &mut self.slots[index])
    }

    fn position(&self, name: &str) -> Option<usize> {
        let named = self.slots.iter().position(|slot| slot.entry.id == name);
        named.or_else(|| {
            self.slots.iter().position(|slot| slot.entry.aliases.iter().any(|alias| alias == name))
        })
    }

    /// Bytes set aside for all models but this one.
    pub(super) fn reserved_by_others(&self, id: &str) -> u64 {
        self.sum(|slot| slot.entry.id != id)
    }

    /// Bytes that unloading idle models, and waiting for those being unloaded, would give.
    pub(super) fn reclaimable(&self, id: &str) -> u64 {
        self.sum(|slot| {
            slot.entry.id != id && (slot.is_evictable() || matches!(slot.state, SlotState::Draining))
        })
    }

    fn sum(&self, of: impl Fn(&Slot) -> bool) -> u64 {
        self.slots.iter().filter(|slot| of(slot)).fold(0_u64, |sum, slot| sum.saturating_add(slot.reserved))
    }

    /// The idle model that was used least recently.
    pub(super) fn least_recently_used(&self, except: &str) -> Option<&Slot> {
        let idle = self.slots.iter().filter(|slot| slot.is_evictable() && slot.entry.id != except);
        idle.min_by_key(|slot| slot.leases.last_used())
    }

    pub(super) fn any_draining(&self) -> bool {
        self.slots.iter().any(|slot| matches!(slot.state, SlotState::Draining))
    }

    pub(super) fn engines(&self) -> Vec<(String, EngineStats)> {
        let running = self.slots.iter().filter_map(|slot| match &slot.state {
            SlotState::Ready(entry) => Some((slot, entry)),
            _ => None,
        });
        running
            .filter_map(|(slot, entry)| match &entry.runner {
                Runner::Engine(engine) => Some((slot.entry.id.clone(), engine.stats())),
                Runner::Embedder(_) => None,
            })
            .collect()
    }
}
