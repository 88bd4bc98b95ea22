//! Who makes room for whom: models that nobody uses are unloaded when memory is short, or when they were idle too long.
//!
//! How much a model takes is worked out in `memory.rs`; how it is unloaded in `lifecycle.rs`.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::manager::lifecycle::{Failure, Lifecycle};
use crate::manager::memory::{MachineMemory, MemoryNeed, MemoryPlan};
use crate::manager::registry::Drained;

impl Lifecycle {
    /// Sets memory aside for a model, unloading idle ones, least recently used first, until it fits.
    pub(super) async fn make_room(
        self: &Arc<Self>,
        id: &str,
        need: MemoryNeed,
    ) -> Result<MemoryPlan, Failure> {
        let mut changes = self.changes();
        loop {
            let now =
                if self.bounds.on_cpu { MachineMemory::now().map(|machine| machine.available) } else { None };
            let drained = {
                let mut registry = self.registry();
                let is_wanted = registry.slot(id).is_some_and(|slot| slot.is_wanted() && !slot.is_outdated());
                if registry.closing || !is_wanted {
                    return Err(Failure::Stopped);
                }
                let reclaimable = registry.reclaimable(id);
                let left =
                    self.bounds.budget.map(|budget| budget.saturating_sub(registry.reserved_by_others(id)));
                let free = least_of(left, now);
                let within_reach = free.map(|free| free.saturating_add(reclaimable));
                let plan = need.within(free);
                if free.is_none_or(|free| plan.total() <= free) {
                    if let Some(slot) = registry.slot_mut(id) {
                        slot.reserved = plan.total();
                    }
                    return Ok(plan);
                }
                if let Some(available) = within_reach.filter(|reach| need.least().total() > *reach) {
                    return Err(Failure::Memory { needed: need.least(), available });
                }
                match registry.least_recently_used(id).map(|slot| slot.id().to_owned()) {
                    Some(idle) => {
                        let slot = registry.slot_mut(&idle);
                        Some(slot.and_then(|slot| self.begin_drain(slot, Drained::InPassing)))
                    }
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
            idle.map(|slot| (slot.id().to_owned(), slot.leases.last_used() + idle_timeout)).collect();
        for (id, _) in times.iter().filter(|(_, at)| *at <= now) {
            let drain = registry.slot_mut(id).and_then(|slot| self.begin_drain(slot, Drained::InPassing));
            if let Some(drain) = drain {
                tracing::info!(model = id, "unloaded: nobody used it for {} s", idle_timeout.as_secs());
                self.drain_by_and_by(drain);
            }
        }
        times.into_iter().map(|(_, at)| at).filter(|at| *at > now).min()
    }
}

/// The smaller of two limits, where one may not be known.
fn least_of(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (known, None) | (None, known) => known,
    }
}
