//! Makes true what is desired: takes new definitions on, and brings each model nearer to what is wanted of it.
//!
//! Nothing here waits. What takes time (a drain, a download, a load) runs on its own, and asks [`Lifecycle::settle`]
//! again when it is over; so it does not matter in which state a model is when the wish for it changes.

use std::sync::Arc;

use crate::manager::definition::ModelDefinition;
use crate::manager::desired::{FollowNotice, desired};
use crate::manager::lease::Leases;
use crate::manager::lifecycle::Lifecycle;
use crate::manager::registry::{Aim, Drained, Registry, Slot, SlotState};

impl Lifecycle {
    /// Takes on what is to be true from now on.
    pub(super) fn follow(self: &Arc<Self>, definitions: Vec<ModelDefinition>) -> Vec<FollowNotice> {
        let mut registry = self.registry();
        if registry.closing {
            return Vec::new();
        }
        let (models, notices) = desired(&registry.configured, definitions, &self.catalog);
        let mut before = std::mem::take(&mut registry.slots);
        for model in models {
            let known = before.iter().position(|slot| slot.id() == model.id());
            let slot = match known.map(|index| before.remove(index)) {
                Some(mut slot) => {
                    slot.adopt(model);
                    slot
                }
                None => {
                    let to_load = model.preload && model.enabled;
                    let mut slot = Slot::new(model, Leases::new(Arc::clone(&self.idle)));
                    slot.to_load = to_load;
                    slot
                }
            };
            registry.slots.push(slot);
        }
        for slot in &mut before {
            slot.is_leaving = true;
            slot.to_load = false;
        }
        registry.slots.append(&mut before);
        let ids: Vec<_> = registry.slots.iter().map(|slot| slot.id().to_owned()).collect();
        for id in ids {
            self.settle(&mut registry, &id);
        }
        let known = std::mem::replace(&mut registry.notices, notices.clone());
        drop(registry);
        for notice in notices.iter().filter(|notice| !known.contains(notice)) {
            tracing::warn!("{notice}");
        }
        self.changed();
        self.idle.notify_one();
        notices
    }

    /// Brings a model nearer to what is wanted of it, as far as its state allows at once.
    pub(super) fn settle(self: &Arc<Self>, registry: &mut Registry, id: &str) {
        let closing = registry.closing;
        let Some(slot) = registry.slot_mut(id) else { return };
        let is_current = slot.is_wanted() && !slot.is_outdated();
        match slot.state() {
            // Files may be fetched for a model that is not enabled yet.
            SlotState::Downloading { aim: Aim::Files, .. } if !slot.is_leaving && !slot.is_outdated() => {}
            SlotState::Downloading { .. } if !is_current => self.abort_download(slot),
            SlotState::Ready(_) if !is_current => {
                if let Some(drain) = self.begin_drain(slot, Drained::InPassing) {
                    tracing::info!(model = id, "unloaded: its registration has changed");
                    self.drain_by_and_by(drain);
                }
            }
            SlotState::Failed { .. } if slot.is_leaving || slot.is_outdated() => slot.forget_failure(),
            _ => {}
        }
        if slot.is_leaving && matches!(slot.state(), SlotState::Absent) {
            registry.remove(id);
        } else if slot.to_load && slot.is_wanted() && !closing {
            let may_begin = matches!(slot.state(), SlotState::Absent | SlotState::Failed { .. });
            if may_begin {
                self.begin(slot, Aim::Model, true);
            }
        }
    }
}
