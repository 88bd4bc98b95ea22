//! Absent → Downloading → Loading → Ready → Draining → Absent, or Failed: every change of state happens here.
//!
//! The registry's lock is never held across an await. One model is loaded at a time; downloads run beside each other.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::engine::EngineStats;
use crate::manager::fetch::{FetchFailure, Fetcher};
use crate::manager::lease::{Leases, LoadedEntry, ModelLease, Runner};
use crate::manager::loader::{LoadFailure, Loader, blocking};
use crate::manager::memory::{MachineMemory, MemoryNeed, MemoryPlan, mib};
use crate::manager::progress::ProgressSink;
use crate::manager::registry::{Registry, SlotState};
use crate::manager::{LogOnly, ManagerError, Progress};

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
    /// Models are loaded one after the other: two that load at once would each see the memory of the other as free.
    turn: tokio::sync::Mutex<()>,
    budget: Option<u64>,
    on_cpu: bool,
    idle_timeout: Option<Duration>,
    sink: Mutex<Arc<dyn ProgressSink>>,
}

/// What a manager's life is bounded by.
pub(super) struct Bounds {
    pub budget: Option<u64>,
    pub on_cpu: bool,
    pub idle_timeout: Option<Duration>,
}

/// Why a model did not come up.
enum Failure {
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
        loader: Loader,
        fetcher: Fetcher,
        bounds: Bounds,
    ) -> Arc<Self> {
        Arc::new(Self {
            registry: Mutex::new(registry),
            version: watch::Sender::new(0),
            idle,
            loader,
            fetcher,
            turn: tokio::sync::Mutex::new(()),
            budget: bounds.budget,
            on_cpu: bounds.on_cpu,
            idle_timeout: bounds.idle_timeout,
            sink: Mutex::new(Arc::new(LogOnly)),
        })
    }

    pub(super) fn registry(&self) -> MutexGuard<'_, Registry> {
        // A panic while the lock is held leaves plain data behind, not a broken invariant.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn fetcher(&self) -> &Fetcher {
        &self.fetcher
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

    /// A lease if the model is ready; starts to bring it up if it is absent. None means: wait for a change, ask again.
    /// `is_waiting` says that the caller has waited for it already, so that a failure is an answer and not a reason to
    /// try again.
    pub(super) fn try_lease(
        self: &Arc<Self>,
        name: &str,
        is_waiting: bool,
    ) -> Result<Option<ModelLease>, ManagerError> {
        let mut registry = self.registry();
        let closing = registry.closing;
        let slot = registry.find_mut(name).ok_or_else(|| ManagerError::Unknown { id: name.to_owned() })?;
        if slot.is_lost() {
            // Not its files' fault: the next lease, which may be this one, loads it again.
            tracing::error!(model = slot.entry.id, "the engine stopped unexpectedly");
            slot.state = SlotState::Absent;
            slot.reserved = 0;
        }
        let id = slot.entry.id.clone();
        match &slot.state {
            SlotState::Ready(entry) => return Ok(Some(slot.leases.take(entry))),
            SlotState::Draining => return Err(ManagerError::Draining { id }),
            SlotState::Downloading { .. } | SlotState::Loading => return Ok(None),
            SlotState::Failed { error, retry_at, .. } if is_waiting || Instant::now() < *retry_at => {
                return Err(error.clone());
            }
            // It was on its way when the caller began to wait, and somebody stopped it.
            SlotState::Absent if is_waiting => return Err(ManagerError::Draining { id }),
            SlotState::Failed { .. } | SlotState::Absent => {}
        }
        if closing {
            return Err(ManagerError::Draining { id });
        }
        slot.attempt += 1;
        slot.state = SlotState::Downloading { progress: Progress::default(), task: None };
        let task = tokio::spawn(Arc::clone(self).bring_up(id, slot.attempt));
        if let SlotState::Downloading { task: handle, .. } = &mut slot.state {
            *handle = Some(task.abort_handle());
        }
        drop(registry);
        self.changed();
        Ok(None)
    }

    /// Brings a model from Downloading to Ready or Failed.
    async fn bring_up(self: Arc<Self>, id: String, attempt: u64) {
        let outcome = self.try_bring_up(&id, attempt).await;
        let mut registry = self.registry();
        let Some(slot) = registry.find_mut(&id).filter(|slot| slot.attempt == attempt) else { return };
        match outcome {
            Ok(entry) => {
                slot.failures = 0;
                slot.leases.touch();
                slot.spec = Some(entry.spec.clone());
                slot.state = SlotState::Ready(entry);
            }
            Err(Failure::Stopped) => {
                slot.reserved = 0;
                slot.state = SlotState::Absent;
            }
            Err(failure) => {
                slot.reserved = 0;
                slot.failures = slot.failures.saturating_add(1);
                slot.state = failed(&id, failure, slot.failures);
                if let SlotState::Failed { detail, .. } = &slot.state {
                    tracing::error!(model = id, "{detail}");
                }
            }
        }
        drop(registry);
        self.changed();
        self.idle.notify_one();
    }

    async fn try_bring_up(self: &Arc<Self>, id: &str, attempt: u64) -> Result<Arc<LoadedEntry>, Failure> {
        let (entry, may_fetch) = {
            let registry = self.registry();
            let slot = registry.find(id).ok_or(Failure::Stopped)?;
            (slot.entry.clone(), slot.may_fetch)
        };
        let news = Arc::new(StateSink { lifecycle: Arc::clone(self), attempt, outside: self.sink() });
        let path = self.fetcher.ensure(&entry, may_fetch, news).await.map_err(Failure::Fetch)?;
        {
            let mut registry = self.registry();
            let closing = registry.closing;
            let slot = registry.find_mut(id).filter(|slot| slot.attempt == attempt && !closing);
            slot.ok_or(Failure::Stopped)?.state = SlotState::Loading;
        }
        self.changed();

        let _turn = self.turn.lock().await;
        let started = Instant::now();
        let loader = self.loader.clone();
        let inspected = blocking(move || loader.inspect(&path)).await?;
        let plan = self.make_room(id, inspected.need).await?;
        match self.budget {
            Some(budget) => tracing::info!(model = id, "{plan}; all models may take {} MiB", mib(budget)),
            None => tracing::info!(model = id, "{plan}"),
        }
        let (loader, name) = (self.loader.clone(), id.to_owned());
        let mut loaded = blocking(move || loader.load(&name, &inspected.files, plan)).await?;
        entry.sampling.complete(&mut loaded.defaults);
        tracing::info!(model = id, "ready after {:.1} s", started.elapsed().as_secs_f32());
        Ok(Arc::new(loaded))
    }

    /// Sets memory aside for a model, unloading idle ones, least recently used first, until it fits.
    async fn make_room(&self, id: &str, need: MemoryNeed) -> Result<MemoryPlan, Failure> {
        let mut changes = self.changes();
        loop {
            let now = if self.on_cpu { MachineMemory::now().map(|machine| machine.available) } else { None };
            let drained = {
                let mut registry = self.registry();
                if registry.closing {
                    return Err(Failure::Stopped);
                }
                let reclaimable = registry.reclaimable(id);
                let left = self.budget.map(|budget| budget.saturating_sub(registry.reserved_by_others(id)));
                let free = least_of(left, now);
                let within_reach = free.map(|free| free.saturating_add(reclaimable));
                let plan = need.within(free);
                if free.is_none_or(|free| plan.total() <= free) {
                    if let Some(slot) = registry.find_mut(id) {
                        slot.reserved = plan.total();
                    }
                    return Ok(plan);
                }
                if let Some(available) = within_reach.filter(|reach| need.least().total() > *reach) {
                    return Err(Failure::Memory { needed: need.least(), available });
                }
                match registry.least_recently_used(id).map(|slot| slot.entry.id.clone()) {
                    Some(idle) => Some(self.begin_drain(&mut registry, &idle)),
                    None if registry.any_draining() => None,
                    // What could have been unloaded was taken into use in the meantime.
                    None => {
                        return Err(Failure::Memory { needed: need.least(), available: free.unwrap_or(0) });
                    }
                }
            };
            match drained {
                Some(Some(drain)) => {
                    tracing::info!(model = drain.id, "unloaded to make room for {id}");
                    self.changed();
                    self.finish_drain(drain).await;
                }
                _ => {
                    // The sender lives in `self`.
                    let _ = changes.changed().await;
                }
            }
        }
    }

    /// Ready → Draining: no new leases from here on.
    pub(super) fn begin_drain(&self, registry: &mut Registry, id: &str) -> Option<Drain> {
        let slot = registry.find_mut(id)?;
        if !matches!(slot.state, SlotState::Ready(_)) {
            return None;
        }
        let SlotState::Ready(entry) = std::mem::replace(&mut slot.state, SlotState::Draining) else {
            return None;
        };
        Some(Drain { id: slot.entry.id.clone(), entry, leases: Arc::clone(&slot.leases) })
    }

    /// Draining → Absent, once nobody holds the model and its memory is given back.
    pub(super) async fn finish_drain(&self, drain: Drain) {
        drain.leases.none_left().await;
        let thread = match &drain.entry.runner {
            Runner::Engine(engine) => Some(engine.watch()),
            Runner::Embedder(_) => None,
        };
        drop(drain.entry);
        if let Some(mut thread) = thread {
            let ended = async { while thread.changed().await.is_ok() {} };
            if tokio::time::timeout(THREAD_END, ended).await.is_err() {
                tracing::warn!(
                    model = drain.id,
                    "its engine has not ended {} s after it was unloaded",
                    THREAD_END.as_secs()
                );
            }
        }
        let mut registry = self.registry();
        if let Some(slot) = registry.find_mut(&drain.id) {
            slot.state = SlotState::Absent;
            slot.reserved = 0;
        }
        drop(registry);
        self.changed();
    }

    /// Breaks off a download; its partial file stays and is resumed next time.
    pub(super) fn abort_download(&self, registry: &mut Registry, id: &str) {
        if let Some(slot) = registry.find_mut(id)
            && let SlotState::Downloading { task: Some(task), .. } = &slot.state
        {
            task.abort();
            slot.attempt += 1;
            slot.state = SlotState::Absent;
        }
    }

    /// Unloads models that nobody used for the idle time-out, for as long as the manager lives.
    pub(super) async fn watch_idle(self: Arc<Self>, idle_timeout: Duration) {
        loop {
            let next = self.unload_idle(idle_timeout);
            let told = self.idle.notified();
            match next {
                Some(at) => {
                    // Whichever comes first: the next model's time, or news that sets it anew.
                    let _ = tokio::time::timeout_at(at, told).await;
                }
                None => told.await,
            }
        }
    }

    /// Starts to unload what has been idle long enough; says when to look again.
    fn unload_idle(self: &Arc<Self>, idle_timeout: Duration) -> Option<Instant> {
        let now = Instant::now();
        let mut registry = self.registry();
        let idle = registry.slots.iter().filter(|slot| slot.is_evictable());
        let times: Vec<_> =
            idle.map(|slot| (slot.entry.id.clone(), slot.leases.last_used() + idle_timeout)).collect();
        for (id, _) in times.iter().filter(|(_, at)| *at <= now) {
            if let Some(drain) = self.begin_drain(&mut registry, id) {
                tracing::info!(model = id, "unloaded: nobody used it for {} s", idle_timeout.as_secs());
                let lifecycle = Arc::clone(self);
                tokio::spawn(async move {
                    lifecycle.changed();
                    lifecycle.finish_drain(drain).await;
                });
            }
        }
        times.into_iter().map(|(_, at)| at).filter(|at| *at > now).min()
    }

    pub(super) fn idle_timeout(&self) -> Option<Duration> {
        self.idle_timeout
    }

    pub(super) fn engines(&self) -> Vec<(String, EngineStats)> {
        self.registry().engines()
    }
}

/// The state after a failure, and when to try again.
fn failed(id: &str, failure: Failure, failures: u32) -> SlotState {
    let id = id.to_owned();
    let doubled = FIRST_RETRY.saturating_mul(1 << failures.saturating_sub(1).min(16));
    let later = Instant::now() + doubled.min(LONGEST_RETRY);
    let (error, detail, retry_at) = match failure {
        Failure::Load(LoadFailure { reason, detail }) | Failure::Fetch(FetchFailure { reason, detail }) => {
            (ManagerError::Failed { id, reason }, detail, later)
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

/// The smaller of two limits, where one may not be known.
fn least_of(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (known, None) | (None, known) => known,
    }
}

/// A request that waits for a model; counted until it is dropped.
pub(super) struct Waiting {
    lifecycle: Arc<Lifecycle>,
    name: String,
}

impl Waiting {
    pub(super) fn for_model(lifecycle: &Arc<Lifecycle>, name: &str) -> Self {
        if let Some(slot) = lifecycle.registry().find_mut(name) {
            slot.waiting += 1;
        }
        Self { lifecycle: Arc::clone(lifecycle), name: name.to_owned() }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(slot) = self.lifecycle.registry().find_mut(&self.name) {
            slot.waiting -= 1;
        }
        self.lifecycle.idle.notify_one();
    }
}

/// A model on its way from Ready to Absent.
pub(super) struct Drain {
    id: String,
    entry: Arc<LoadedEntry>,
    leases: Arc<Leases>,
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
            let Some(slot) = registry.find_mut(model).filter(|slot| slot.attempt == self.attempt) else {
                return;
            };
            let SlotState::Downloading { progress: shown, .. } = &mut slot.state else { return };
            shown.clone_from(progress);
        }
        self.lifecycle.changed();
        self.outside.progress(model, progress);
    }

    fn end(&self, model: &str) {
        self.outside.end(model);
    }
}
