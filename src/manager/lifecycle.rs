//! Absent → Downloading → Loading → Ready → Draining → Absent, or Failed: how a model goes from one to the next.
//!
//! Who makes room for whom is in `room.rs`; what happens when the desired state changes, in `follow.rs`. The registry's
//! lock is never held across an await. One model is loaded at a time; downloads run beside each other.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::engine::EngineStats;
use crate::error::Code;
use crate::manager::catalog::{Catalog, CatalogEntry};
use crate::manager::fetch::{FetchFailure, Fetcher};
use crate::manager::lease::{Leases, LoadedEntry, ModelLease, Waiting};
use crate::manager::loader::{LoadFailure, Loader, blocking};
use crate::manager::memory::{MemoryPlan, mib};
use crate::manager::progress::ProgressSink;
use crate::manager::registry::{Aim, Asker, Drained, Findings, Registry, Slot, SlotState};
use crate::manager::{LogOnly, ManagerError, ModelStatus, Progress};

/// How long after the n-th failure in a row a model is tried again: doubling from this, up to the longest.
const FIRST_RETRY: Duration = Duration::from_secs(2);
const LONGEST_RETRY: Duration = Duration::from_secs(300);
/// How long the memory of an unloaded model may take to be given back before it is counted as free anyway.
const THREAD_END: Duration = Duration::from_secs(30);

/// The manager's inside: shared by its handle and its tasks.
pub(super) struct Lifecycle {
    registry: Mutex<Registry>,
    version: watch::Sender<u64>,
    /// A model became idle: timers are to be set anew.
    pub idle: Arc<Notify>,
    loader: Loader,
    fetcher: Fetcher,
    pub catalog: Catalog,
    /// Models are loaded one after the other: two that load at once would each see the memory of the other as free.
    turn: tokio::sync::Mutex<()>,
    /// Files are looked at one model after the other, however many ask at once.
    pub looking: tokio::sync::Mutex<()>,
    /// Attempts to bring a model up, of all models and all times: one that was broken off may still have a step to take when
    /// its model was taken away and came again, and must not take the new one's attempt for its own.
    attempts: AtomicU64,
    pub bounds: Bounds,
    sink: Mutex<Arc<dyn ProgressSink>>,
}

/// What a manager's life is bounded by.
pub(super) struct Bounds {
    pub budget: Option<u64>,
    pub on_cpu: bool,
}

/// Why a model did not come up.
pub(super) enum Failure {
    Load(LoadFailure),
    Fetch(FetchFailure),
    Memory {
        needed: MemoryPlan,
        available: u64,
    },
    /// Nobody wants it any more.
    Stopped,
}

impl From<LoadFailure> for Failure {
    fn from(failure: LoadFailure) -> Self {
        Self::Load(failure)
    }
}

impl Lifecycle {
    pub(super) fn new(
        registry: Registry,
        idle: Arc<Notify>,
        sources: (Catalog, Fetcher),
        loader: Loader,
        bounds: Bounds,
    ) -> Arc<Self> {
        let (catalog, fetcher) = sources;
        Arc::new(Self {
            registry: Mutex::new(registry),
            version: watch::Sender::new(0),
            idle,
            loader,
            fetcher,
            catalog,
            turn: tokio::sync::Mutex::new(()),
            looking: tokio::sync::Mutex::new(()),
            attempts: AtomicU64::new(0),
            bounds,
            sink: Mutex::new(Arc::new(LogOnly)),
        })
    }

    pub(super) fn registry(&self) -> MutexGuard<'_, Registry> {
        // A panic while the lock is held leaves plain data behind, not a broken invariant.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_sink(&self, sink: Arc<dyn ProgressSink>) {
        *self.sink.lock().unwrap_or_else(PoisonError::into_inner) = sink;
    }

    fn sink(&self) -> Arc<dyn ProgressSink> {
        Arc::clone(&self.sink.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    pub(super) fn changed(&self) {
        self.version.send_modify(|version| *version += 1);
    }

    /// A lease if the model is ready; starts to bring it up if it is absent; else a place among those who wait, for
    /// whoever has none yet: wait for a change, ask again. `waited` is that place; who has waited takes a failure for
    /// an answer, and not for a reason to try again.
    pub(super) fn try_lease(
        self: &Arc<Self>,
        name: &str,
        asker: Asker,
        waited: Option<&Waiting>,
    ) -> Result<Step, ManagerError> {
        let mut registry = self.registry();
        let closing = registry.closing;
        let slot =
            registry.find_mut(asker, name).ok_or_else(|| ManagerError::Unknown { id: name.to_owned() })?;
        let id = slot.id().to_owned();
        if !slot.is_wanted() {
            return Err(ManagerError::Disabled { id });
        }
        forget_if_lost(slot);
        let waited = waited.filter(|waited| waited.is_for(&slot.leases));
        let wait = |slot: &Slot| Ok(Step::Wait(waited.is_none().then(|| slot.wait())));
        let was_called_off = waited.is_some_and(|waited| waited.called_off != slot.called_off);
        match slot.state() {
            SlotState::Ready(entry) => return Ok(Step::Lease(slot.lease(entry))),
            SlotState::Draining(Drained::ByHand) => return Err(ManagerError::Draining { id }),
            SlotState::Draining(Drained::InPassing) | SlotState::Downloading { .. } | SlotState::Loading => {
                return wait(slot);
            }
            SlotState::Failed { error, .. } if waited.is_some() => return Err(error.clone()),
            SlotState::Failed { error, retry_at, .. }
                if asker == Asker::Client && Instant::now() < *retry_at =>
            {
                return Err(error.clone());
            }
            SlotState::Absent if was_called_off => return Err(ManagerError::Draining { id }),
            SlotState::Failed { .. } | SlotState::Absent => {}
        }
        if closing {
            return Err(ManagerError::Draining { id });
        }
        let may_fetch = slot.desired.may_fetch || asker == Asker::Administrator;
        let step = wait(slot);
        self.begin(slot, Aim::Model, may_fetch);
        drop(registry);
        self.changed();
        step
    }

    /// Starts to fetch a model's files, if they are not on their way already. None means that they are here.
    pub(super) fn try_pull(
        self: &Arc<Self>,
        name: &str,
        waited: Option<&Waiting>,
    ) -> Result<Option<Step>, ManagerError> {
        let mut registry = self.registry();
        let closing = registry.closing;
        let slot = registry
            .find_mut(Asker::Administrator, name)
            .ok_or_else(|| ManagerError::Unknown { id: name.to_owned() })?;
        let id = slot.id().to_owned();
        let waited = waited.filter(|waited| waited.is_for(&slot.leases));
        let was_called_off = waited.is_some_and(|waited| waited.called_off != slot.called_off);
        match slot.state() {
            SlotState::Downloading { .. } => {
                return Ok(Some(Step::Wait(waited.is_none().then(|| slot.wait()))));
            }
            SlotState::Loading | SlotState::Ready(_) | SlotState::Draining(_) => return Ok(None),
            SlotState::Failed { error, .. } if waited.is_some() => return Err(error.clone()),
            SlotState::Absent if was_called_off => return Err(ManagerError::Draining { id }),
            SlotState::Absent
                if waited.is_some() && self.fetcher.installed(&slot.desired.entry).is_some() =>
            {
                return Ok(None);
            }
            SlotState::Failed { .. } | SlotState::Absent => {}
        }
        if closing {
            return Err(ManagerError::Draining { id });
        }
        let place = waited.is_none().then(|| slot.wait());
        self.begin(slot, Aim::Files, true);
        drop(registry);
        self.changed();
        Ok(Some(Step::Wait(place)))
    }

    /// Absent or Failed → Downloading: brings a model up as it is now desired.
    pub(super) fn begin(self: &Arc<Self>, slot: &mut Slot, aim: Aim, may_fetch: bool) {
        slot.attempt = self.attempts.fetch_add(1, Ordering::Relaxed) + 1;
        slot.made_from = slot.desired.recipe();
        // Its files may become others.
        if matches!(slot.findings, Findings::Unreadable) {
            slot.findings = Findings::NotLooked;
        }
        if aim == Aim::Model {
            slot.to_load = false;
        }
        let attempt = Attempt { id: slot.id().to_owned(), number: slot.attempt, aim, may_fetch };
        // The task's first step waits for the registry, which the caller holds.
        let task = tokio::spawn(Arc::clone(self).bring_up(attempt)).abort_handle();
        let progress = Progress::default();
        slot.enter(SlotState::Downloading { progress, heard: Instant::now(), aim, task: Some(task) });
    }

    /// Brings a model from Downloading to Ready, Absent (if only its files were wanted) or Failed.
    async fn bring_up(self: Arc<Self>, attempt: Attempt) {
        let outcome = match attempt.aim {
            Aim::Files => self.fetch(&attempt).await.map(|_| None),
            Aim::Model => self.try_bring_up(&attempt).await.map(Some),
        };
        let mut registry = self.registry();
        let slot = registry.slot_mut(&attempt.id).filter(|slot| slot.attempt == attempt.number);
        let Some(slot) = slot else { return };
        let is_outdated = slot.is_outdated();
        match outcome {
            Ok(entry) => {
                if !is_outdated {
                    slot.failures = 0;
                    slot.last_error = None;
                    slot.spec = entry.as_ref().map(|entry| entry.spec.clone()).or(slot.spec.take());
                    slot.profile = entry.as_ref().map(|entry| entry.profile.clone()).or(slot.profile.take());
                }
                slot.leases.touch();
                slot.enter(entry.map_or(SlotState::Absent, SlotState::Ready));
            }
            // How something fares that is no longer desired is nobody's concern.
            Err(failure) if is_outdated || matches!(failure, Failure::Stopped) => {
                slot.reserved = 0;
                slot.enter(SlotState::Absent);
            }
            Err(failure) => {
                slot.reserved = 0;
                slot.failures = slot.failures.saturating_add(1);
                let state = failed(&attempt.id, failure, slot.failures);
                if let SlotState::Failed { detail, .. } = &state {
                    tracing::error!(model = attempt.id, "{detail}");
                    slot.last_error = Some(detail.clone());
                }
                slot.enter(state);
            }
        }
        self.settle(&mut registry, &attempt.id);
        drop(registry);
        self.changed();
        self.idle.notify_one();
    }

    /// Has the model's files on this machine.
    async fn fetch(self: &Arc<Self>, attempt: &Attempt) -> Result<(CatalogEntry, PathBuf), Failure> {
        let entry = {
            let registry = self.registry();
            registry.slot(&attempt.id).ok_or(Failure::Stopped)?.desired.entry.clone()
        };
        let lifecycle = Arc::clone(self);
        let news = Arc::new(StateSink { lifecycle, attempt: attempt.number, outside: self.sink() });
        let path = self.fetcher.ensure(&entry, attempt.may_fetch, news).await.map_err(Failure::Fetch)?;
        Ok((entry, path))
    }

    async fn try_bring_up(self: &Arc<Self>, attempt: &Attempt) -> Result<Arc<LoadedEntry>, Failure> {
        let id = attempt.id.as_str();
        let (entry, path) = self.fetch(attempt).await?;
        let context_length = {
            let mut registry = self.registry();
            let closing = registry.closing;
            let slot = registry.slot_mut(id).filter(|slot| slot.attempt == attempt.number && !closing);
            let slot = slot.ok_or(Failure::Stopped)?;
            slot.enter(SlotState::Loading);
            slot.desired.context_length
        };
        self.changed();

        let _turn = self.turn.lock().await;
        let started = Instant::now();
        let loader = self.loader.bounded(context_length);
        let inspector = loader.clone();
        let place = path.clone();
        let inspected = blocking(move || inspector.inspect(&place)).await?;
        let plan = self.make_room(id, inspected.need).await?;
        match self.bounds.budget {
            Some(budget) => tracing::info!(model = id, "{plan}; all models may take {} MiB", mib(budget)),
            None => tracing::info!(model = id, "{plan}"),
        }
        let (name, files) = (id.to_owned(), inspected.files);
        let loaded = blocking(move || loader.load(&name, &files, plan)).await?;
        if !self.fetcher.may_be_read(&path, &entry) {
            return Err(Failure::Fetch(FetchFailure {
                reason: "its files moved while they were read".into(),
                detail: format!("{} leads elsewhere than it did before it was read", path.display()),
                code: Code::SourceNotAllowed,
            }));
        }
        if let Some(slot) = self.registry().slot_mut(id).filter(|slot| slot.attempt == attempt.number) {
            slot.findings =
                if slot.is_outdated() { Findings::NotLooked } else { Findings::Known(inspected.inspection) };
        }
        tracing::info!(model = id, "ready after {:.1} s", started.elapsed().as_secs_f32());
        Ok(Arc::new(loaded))
    }

    /// Ready → Draining: no new leases from here on.
    pub(super) fn begin_drain(&self, slot: &mut Slot, why: Drained) -> Option<Drain> {
        if !matches!(slot.state(), SlotState::Ready(_)) {
            return None;
        }
        let SlotState::Ready(entry) = slot.enter(SlotState::Draining(why)) else { return None };
        Some(Drain { id: slot.id().to_owned(), entry, leases: Arc::clone(&slot.leases) })
    }

    /// Draining → Absent, once nobody holds the model and its memory is given back.
    pub(super) async fn finish_drain(self: &Arc<Self>, drain: Drain) {
        drain.leases.none_left().await;
        let thread = drain.entry.runner.thread();
        drop(drain.entry);
        if tokio::time::timeout(THREAD_END, thread.over()).await.is_err() {
            tracing::warn!(
                model = drain.id,
                "its thread has not ended {} s after it was unloaded",
                THREAD_END.as_secs()
            );
        }
        let mut registry = self.registry();
        if let Some(slot) = registry.slot_mut(&drain.id) {
            slot.enter(SlotState::Absent);
            slot.reserved = 0;
        }
        self.settle(&mut registry, &drain.id);
        drop(registry);
        self.changed();
    }

    /// The same for whoever may lose patience: the model is unloaded all the same.
    pub(super) async fn finish_drain_whoever_waits(self: &Arc<Self>, drain: Drain) {
        let lifecycle = Arc::clone(self);
        let _ = tokio::spawn(async move { lifecycle.finish_drain(drain).await }).await;
    }

    /// The same on a task of its own, for whoever does not wait for it, or not yet.
    pub(super) fn drain_by_and_by(self: &Arc<Self>, drain: Drain) -> JoinHandle<()> {
        let lifecycle = Arc::clone(self);
        tokio::spawn(async move {
            lifecycle.changed();
            lifecycle.finish_drain(drain).await;
        })
    }

    /// Downloading → Absent: breaks a download off; its partial file stays and is resumed next time.
    pub(super) fn abort_download(&self, slot: &mut Slot) {
        if let SlotState::Downloading { task: Some(task), .. } = slot.state() {
            task.abort();
            slot.attempt = 0;
            slot.enter(SlotState::Absent);
        }
    }

    pub(super) fn engines(&self) -> Vec<(String, EngineStats)> {
        self.registry().engines()
    }

    pub(super) fn loader(&self) -> &Loader {
        &self.loader
    }

    pub(super) fn fetcher(&self) -> &Fetcher {
        &self.fetcher
    }

    /// The status of models, each with what the disk says of it; the disk is asked without the registry's lock.
    pub(super) fn statuses(&self, of: impl Fn(&Slot) -> bool) -> Vec<ModelStatus> {
        let found: Vec<_> = {
            let registry = self.registry();
            let slots = registry.slots.iter().filter(|slot| of(slot));
            slots.map(|slot| (slot.status(), slot.desired.entry.clone())).collect()
        };
        let complete = |(mut status, entry): (ModelStatus, CatalogEntry)| {
            if let Some(standing) = self.fetcher.standing(&entry) {
                status.is_on_disk = true;
                status.bytes = standing.bytes.or(status.bytes);
            }
            status
        };
        found.into_iter().map(complete).collect()
    }
}

/// The state after a failure, and when to try again.
fn failed(id: &str, failure: Failure, failures: u32) -> SlotState {
    let id = id.to_owned();
    let doubled = FIRST_RETRY.saturating_mul(1 << failures.saturating_sub(1).min(16));
    let later = Instant::now() + doubled.min(LONGEST_RETRY);
    let (error, detail, retry_at) = match failure {
        Failure::Load(LoadFailure { reason, detail, code })
        | Failure::Fetch(FetchFailure { reason, detail, code }) => {
            (ManagerError::Failed { id, reason, code }, detail, later)
        }
        Failure::Memory { needed, available } => {
            let (needed_mib, available_mib) = (mib(needed.total()), available >> 20);
            let error = ManagerError::OutOfMemory { id, needed_mib, available_mib };
            // Nothing is wrong with the model: as soon as there is room, it may come.
            let detail = format!("it needs {needed_mib} MiB ({needed}), {available_mib} MiB can be had");
            (error, detail, Instant::now())
        }
        Failure::Stopped => return SlotState::Absent,
    };
    SlotState::Failed { error, detail, retry_at }
}

/// A model on its way from Ready to Absent.
pub(super) struct Drain {
    pub id: String,
    entry: Arc<LoadedEntry>,
    leases: Arc<Leases>,
}

/// One try to bring a model up.
struct Attempt {
    id: String,
    number: u64,
    aim: Aim,
    may_fetch: bool,
}

/// What whoever asks for a model has to do.
pub(super) enum Step {
    /// Use it.
    Lease(ModelLease),
    /// Wait for a change, in this place if it has none yet, and ask again.
    Wait(Option<Waiting>),
}

/// An engine that has ended by itself is not its files' fault: the next lease loads it again.
fn forget_if_lost(slot: &mut Slot) {
    if slot.is_lost() {
        tracing::error!(model = slot.id(), "its engine stopped unexpectedly");
        slot.enter(SlotState::Absent);
        slot.reserved = 0;
    }
}

/// Writes a download's progress into the model's state, and passes it on.
struct StateSink {
    lifecycle: Arc<Lifecycle>,
    attempt: u64,
    outside: Arc<dyn ProgressSink>,
}

impl ProgressSink for StateSink {
    fn notice(&self, model: &str, text: &str) {
        self.outside.notice(model, text);
    }

    fn progress(&self, model: &str, progress: &Progress) {
        {
            let mut registry = self.lifecycle.registry();
            let slot = registry.slot_mut(model).filter(|slot| slot.attempt == self.attempt);
            if !slot.is_some_and(|slot| slot.hear(progress)) {
                return;
            }
        }
        self.lifecycle.changed();
        self.outside.progress(model, progress);
    }

    fn end(&self, model: &str) {
        self.outside.end(model);
    }
}
