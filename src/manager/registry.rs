//! The models of this server and the state each is in: plain data behind one lock, no waiting, no work.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sconce_models::{GenerationDefaults, Inspection, ModelSpec};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::engine::EngineStats;
use crate::manager::desired::{Desired, FollowNotice, Recipe};
use crate::manager::lease::{Leases, LoadedEntry, ModelLease, Runner, Waiting};
use crate::manager::profile::Profile;
use crate::manager::source::Source;
use crate::manager::{ManagerError, ModelState, ModelStatus, Progress};

/// News of a download that are older than this say nothing of how long it will take.
const STALE: Duration = Duration::from_secs(5);

/// A model of this server.
pub(super) struct Slot {
    /// What is to be true of it.
    pub desired: Desired,
    /// Whether it is no longer wanted at all: it goes once nobody holds it.
    pub is_leaving: bool,
    pub pinned: bool,
    /// Whether it is to be loaded as soon as that can begin, though nobody asks for it.
    pub to_load: bool,
    state: SlotState,
    /// When it came into its state, in seconds since 1970.
    since: u64,
    /// What its state is the state of: differs from what is desired while a change is on its way.
    pub made_from: Recipe,
    /// Its shape, once it has been loaded.
    pub spec: Option<ModelSpec>,
    /// What else was found out then.
    pub profile: Option<Arc<Profile>>,
    pub findings: Findings,
    /// Bytes set aside for it, from before it is loaded until after its memory is free again.
    pub reserved: u64,
    /// Failures in a row: how long to wait before the next try.
    pub failures: u32,
    /// What went wrong last; forgotten once it is well, or another.
    pub last_error: Option<String>,
    /// The try to bring it up that may speak for it; 0 is none.
    pub attempt: u64,
    /// How often it was unloaded by hand: who waited for it since before then is not to bring it back.
    pub called_off: u64,
    pub leases: Arc<Leases>,
}

/// Where a model stands, with what belongs to that state.
pub(super) enum SlotState {
    Absent,
    Downloading { progress: Progress, heard: Instant, aim: Aim, task: Option<AbortHandle> },
    Loading,
    Ready(Arc<LoadedEntry>),
    Draining(Drained),
    Failed { error: ManagerError, detail: String, retry_at: Instant },
}

/// What its files say, once they were looked at: to be loaded, or to be described.
pub(super) enum Findings {
    NotLooked,
    /// Not to be looked at again until something is done about them.
    Unreadable,
    Known(Arc<Inspection>),
}

/// What a model is being brought up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aim {
    /// Its files are to be on this machine.
    Files,
    /// It is to answer.
    Model,
}

/// Why a model is being unloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Drained {
    /// Somebody wants it unloaded: a request is told so.
    ByHand,
    /// It was idle, makes room, or comes back as another: a request waits a moment and brings it back.
    InPassing,
}

/// Who asks for a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    /// Sees what is enabled, by every name.
    Client,
    /// Sees everything; may have it fetched, and tried again at once.
    Administrator,
}

impl Slot {
    pub(super) fn new(desired: Desired, leases: Arc<Leases>) -> Self {
        Self {
            made_from: desired.recipe(),
            pinned: desired.pinned,
            to_load: false,
            desired,
            is_leaving: false,
            state: SlotState::Absent,
            since: now(),
            spec: None,
            profile: None,
            findings: Findings::NotLooked,
            reserved: 0,
            failures: 0,
            last_error: None,
            attempt: 0,
            called_off: 0,
            leases,
        }
    }

    pub(super) fn id(&self) -> &str {
        self.desired.id()
    }

    pub(super) fn state(&self) -> &SlotState {
        &self.state
    }

    /// Puts it into another state; gives the one it was in.
    pub(super) fn enter(&mut self, state: SlotState) -> SlotState {
        self.since = now();
        std::mem::replace(&mut self.state, state)
    }

    /// Its download has news; a change within the state.
    pub(super) fn hear(&mut self, news: &Progress) -> bool {
        let SlotState::Downloading { progress, heard, .. } = &mut self.state else { return false };
        progress.clone_from(news);
        *heard = Instant::now();
        true
    }

    /// Failed → Absent: the next lease tries again at once.
    pub(super) fn forget_failure(&mut self) {
        self.failures = 0;
        if matches!(self.state, SlotState::Failed { .. }) {
            self.enter(SlotState::Absent);
        }
    }

    /// Takes on what is now desired of it.
    pub(super) fn adopt(&mut self, desired: Desired) {
        let old = std::mem::replace(&mut self.desired, desired);
        let new = &self.desired;
        let is_another = old.recipe() != new.recipe();
        let is_new = self.is_leaving || is_another || (!old.enabled && new.enabled) || !old.preload;
        self.is_leaving = false;
        self.to_load = new.preload && new.enabled && (self.to_load || is_new);
        if old.pinned != new.pinned {
            self.pinned = new.pinned;
        }
        if is_another {
            self.spec = None;
            self.profile = None;
            self.findings = Findings::NotLooked;
            self.last_error = None;
            self.failures = 0;
        }
    }

    /// Whether its state is that of something that is no longer desired.
    pub(super) fn is_outdated(&self) -> bool {
        self.made_from != self.desired.recipe()
    }

    /// Whether it is to answer clients.
    pub(super) fn is_wanted(&self) -> bool {
        self.desired.enabled && !self.is_leaving
    }

    /// Whether it could be unloaded at once to make room.
    pub(super) fn is_evictable(&self) -> bool {
        matches!(self.state, SlotState::Ready(_)) && !self.pinned && !self.leases.is_in_use()
    }

    /// Whether its thread has ended though it is meant to run.
    pub(super) fn is_lost(&self) -> bool {
        match &self.state {
            SlotState::Ready(entry) => entry.runner.is_lost(),
            _ => false,
        }
    }

    /// One more lease, with what a request that says nothing gets now.
    pub(super) fn lease(&self, entry: &Arc<LoadedEntry>) -> ModelLease {
        self.leases.take(entry, self.defaults(&entry.defaults))
    }

    /// What a request that says nothing gets, where the model's files suggest this.
    pub(super) fn defaults(&self, files: &GenerationDefaults) -> GenerationDefaults {
        self.desired.sampling.over(files, &self.desired.entry.sampling)
    }

    /// A request that waits for it from now on.
    pub(super) fn wait(&self) -> Waiting {
        Waiting::new(&self.leases, self.called_off)
    }

    /// Everything of its status but what only the disk knows.
    pub(super) fn status(&self) -> ModelStatus {
        let loaded = match &self.state {
            SlotState::Ready(entry) => Some(&entry.spec),
            // What was read once stays true while the model is away.
            _ => self.spec.as_ref(),
        };
        let profile = match &self.state {
            SlotState::Ready(entry) => Some(&entry.profile),
            _ => self.profile.as_ref(),
        };
        let entry = &self.desired.entry;
        ModelStatus {
            id: entry.id.clone(),
            aliases: entry.aliases.clone(),
            sources: entry.sources.iter().map(Source::shown).collect(),
            kind: loaded.map(|spec| spec.kind).or(entry.kind),
            state: self.public_state(),
            since: self.since,
            last_error: self.error_now(),
            spec: loaded.cloned(),
            profile: profile.cloned(),
            created: self.desired.created,
            pinned: self.pinned,
            enabled: self.desired.enabled,
            is_registered: self.desired.is_registered,
            may_fetch: self.desired.may_fetch,
            is_leaving: self.is_leaving,
            leases: self.leases.count(),
            is_on_disk: false,
            bytes: entry.bytes(),
            memory_bytes: self.reserved,
        }
    }

    fn error_now(&self) -> Option<String> {
        if self.is_lost() { Some(LOST.to_owned()) } else { self.last_error.clone() }
    }

    fn public_state(&self) -> ModelState {
        if self.is_lost() {
            return ModelState::Failed { reason: LOST.to_owned() };
        }
        match &self.state {
            SlotState::Absent => ModelState::Absent,
            SlotState::Downloading { progress, heard, .. } => {
                let mut progress = progress.clone();
                if heard.elapsed() > STALE {
                    progress.eta_seconds = None;
                }
                ModelState::Downloading(progress)
            }
            SlotState::Loading => ModelState::Loading,
            SlotState::Ready(_) => ModelState::Ready,
            SlotState::Draining(_) => ModelState::Draining,
            SlotState::Failed { error, .. } => ModelState::Failed { reason: error.reason() },
        }
    }
}

const LOST: &str = "its engine stopped unexpectedly; it is loaded again when it is next asked for";

/// All models, in the order in which they are listed.
#[derive(Default)]
pub(super) struct Registry {
    pub slots: Vec<Slot>,
    /// What the configuration says, whatever was registered over it.
    pub configured: Vec<Desired>,
    /// What was said of the definitions that are followed now.
    pub notices: Vec<FollowNotice>,
    /// Set once: nothing is loaded any more.
    pub closing: bool,
}

impl Registry {
    /// The model of exactly this id, wanted or not.
    pub(super) fn slot(&self, id: &str) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.id() == id)
    }

    /// The same, to change it.
    pub(super) fn slot_mut(&mut self, id: &str) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| slot.id() == id)
    }

    /// The model that this name leads to, for who asks.
    pub(super) fn find(&self, asker: Asker, name: &str) -> Option<&Slot> {
        let sees = |slot: &&Slot| asker == Asker::Administrator || slot.is_wanted();
        let named = self.slots.iter().filter(sees).find(|slot| slot.id() == name);
        named.or_else(|| {
            let mut wanted = self.slots.iter().filter(|slot| slot.is_wanted());
            wanted.find(|slot| slot.desired.entry.aliases.iter().any(|alias| alias == name))
        })
    }

    pub(super) fn find_mut(&mut self, asker: Asker, name: &str) -> Option<&mut Slot> {
        let id = self.find(asker, name)?.id().to_owned();
        self.slot_mut(&id)
    }

    /// Takes a model out that is no longer wanted and of which nothing is left.
    pub(super) fn remove(&mut self, id: &str) {
        self.slots.retain(|slot| slot.id() != id);
    }

    /// Bytes set aside for all models but this one.
    pub(super) fn reserved_by_others(&self, id: &str) -> u64 {
        self.sum(|slot| slot.id() != id)
    }

    /// Bytes that unloading idle models, and waiting for those being unloaded, would give.
    pub(super) fn reclaimable(&self, id: &str) -> u64 {
        self.sum(|slot| {
            slot.id() != id && (slot.is_evictable() || matches!(slot.state, SlotState::Draining(_)))
        })
    }

    fn sum(&self, of: impl Fn(&Slot) -> bool) -> u64 {
        self.slots.iter().filter(|slot| of(slot)).fold(0_u64, |sum, slot| sum.saturating_add(slot.reserved))
    }

    /// The idle model that was used least recently.
    pub(super) fn least_recently_used(&self, except: &str) -> Option<&Slot> {
        let idle = self.slots.iter().filter(|slot| slot.is_evictable() && slot.id() != except);
        idle.min_by_key(|slot| slot.leases.last_used())
    }

    pub(super) fn any_draining(&self) -> bool {
        self.slots.iter().any(|slot| matches!(slot.state, SlotState::Draining(_)))
    }

    pub(super) fn engines(&self) -> Vec<(String, EngineStats)> {
        let running = self.slots.iter().filter_map(|slot| match &slot.state {
            SlotState::Ready(entry) => Some((slot, entry)),
            _ => None,
        });
        running
            .filter_map(|(slot, entry)| match &entry.runner {
                Runner::Engine(engine) => Some((slot.id().to_owned(), engine.stats())),
                Runner::Embedder(_) => None,
            })
            .collect()
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
