//! What administrators do with models: say which there are to be, see all of them, fetch, load, unload, pin.
//!
//! Who may do so is not decided here, nor whether a source may be used (`policy.rs`).

use std::sync::Arc;

use futures_util::{Stream, stream};
use tokio::task::JoinHandle;

use crate::manager::definition::ModelDefinition;
use crate::manager::desired::FollowNotice;
use crate::manager::lifecycle::Step;
use crate::manager::registry::{Asker, Drained, SlotState};
use crate::manager::{ManagerError, ModelManager, ModelStatus, SourcePolicy};

impl ModelManager {
    /// Makes these definitions true: all registered models, each time. They stand in the place of configured models of
    /// the same id; one that goes away gives such a model its place back.
    ///
    /// Returns at once; what takes time goes on by itself. Names, pins, sampling and context of models that are not
    /// loaded change at once. A change of source, checksum or context length unloads a loaded model when those who use
    /// it are done, and the next lease loads it anew. A model that is gone or disabled is not there for clients from
    /// now on, finishes what it runs and is unloaded. A definition that is as it was changes nothing.
    ///
    /// Gives what an administrator may want to put right.
    pub fn follow(&self, definitions: Vec<ModelDefinition>) -> Vec<FollowNotice> {
        self.lifecycle.follow(definitions)
    }

    /// Which sources a definition may name that comes over the network. A definition's local paths are held to it also
    /// when they are read.
    pub fn source_policy(&self) -> &SourcePolicy {
        self.lifecycle.fetcher().policy()
    }

    /// Every model, for administrators: also those that are disabled, on their way out, or cannot be used because
    /// their files are not here and a request may not have them fetched.
    pub fn all(&self) -> Vec<ModelStatus> {
        self.lifecycle.statuses(|_| true)
    }

    /// One of them, by its id.
    pub fn one(&self, id: &str) -> Option<ModelStatus> {
        self.lifecycle.statuses(|slot| slot.id() == id).pop()
    }

    /// The status of one model, by its id, now and whenever it changes; ends when there is no such model any more.
    /// What changes faster than it is read is skipped.
    pub fn watch_one(self: &Arc<Self>, id: &str) -> impl Stream<Item = ModelStatus> + Send + use<> {
        let state = (Arc::clone(self), id.to_owned(), self.watch(), None::<ModelStatus>);
        stream::unfold(state, |(manager, id, mut changes, last)| async move {
            loop {
                changes.mark_unchanged();
                let now = manager.one(&id)?;
                if last.as_ref() != Some(&now) {
                    return Some((now.clone(), (manager, id, changes, Some(now))));
                }
                // The sender lives in the manager.
                let _ = changes.changed().await;
            }
        })
    }

    /// Fetches a model's files without loading it, and waits for them, however long it takes: also of a model that is
    /// disabled, or that a request may not have fetched.
    ///
    /// # Errors
    /// [`ManagerError::Unknown`], [`ManagerError::Failed`]; [`ManagerError::Draining`] if it was called off.
    pub async fn pull(&self, id: &str) -> Result<(), ManagerError> {
        let mut changes = self.lifecycle.changes();
        let mut waiting = None;
        while let Some(step) = self.lifecycle.try_pull(id, waiting.as_ref())? {
            if let Step::Wait(place @ Some(_)) = step {
                waiting = place;
            }
            // The sender lives as long as the manager.
            let _ = changes.changed().await;
        }
        Ok(())
    }

    /// Loads a model and waits for it, however long it takes; fetches it, if it must. A failure before is forgotten.
    ///
    /// # Errors
    /// As [`ModelManager::lease`], but never [`ManagerError::Loading`]; [`ManagerError::Disabled`].
    pub async fn load(&self, id: &str) -> Result<(), ManagerError> {
        self.lease_until(id, Asker::Administrator, None).await.map(drop)
    }

    /// Unloads a model: no new leases, and back when the last one is dropped and its memory is free. A download is
    /// broken off; a model that is being loaded is unloaded once it is. Pinned models are unloaded too. A failure is
    /// forgotten: the next lease tries again at once.
    ///
    /// # Errors
    /// [`ManagerError::Unknown`].
    pub async fn unload(&self, id: &str) -> Result<(), ManagerError> {
        let unknown = || ManagerError::Unknown { id: id.to_owned() };
        let id = {
            let registry = self.lifecycle.registry();
            registry.find(Asker::Administrator, id).ok_or_else(unknown)?.id().to_owned()
        };
        let mut changes = self.lifecycle.changes();
        loop {
            // The lock must be gone before anything is waited for.
            let (is_busy, drain) = {
                let mut registry = self.lifecycle.registry();
                // It was on its way out, and has gone.
                let Some(slot) = registry.slot_mut(&id) else { return Ok(()) };
                slot.to_load = false;
                match slot.state() {
                    SlotState::Absent => return Ok(()),
                    SlotState::Failed { .. } => {
                        slot.forget_failure();
                        (false, None)
                    }
                    SlotState::Downloading { .. } => {
                        slot.called_off += 1;
                        self.lifecycle.abort_download(slot);
                        (false, None)
                    }
                    SlotState::Ready(_) => {
                        slot.called_off += 1;
                        (false, self.lifecycle.begin_drain(slot, Drained::ByHand))
                    }
                    SlotState::Draining(Drained::InPassing) => {
                        slot.called_off += 1;
                        slot.enter(SlotState::Draining(Drained::ByHand));
                        (false, None)
                    }
                    SlotState::Loading | SlotState::Draining(Drained::ByHand) => (true, None),
                }
            };
            if is_busy {
                // The sender lives as long as the manager.
                let _ = changes.changed().await;
                continue;
            }
            self.lifecycle.changed();
            if let Some(drain) = drain {
                self.lifecycle.finish_drain_whoever_waits(drain).await;
            }
        }
    }

    /// Unloads a model that nobody uses, as if it had been idle for long enough: whoever asks for it next brings it back,
    /// and waits for that. Gives what ends when its memory is free; nothing if it was away, or on its way out, already.
    ///
    /// # Errors
    /// [`ManagerError::Unknown`]; [`ManagerError::Kept`] for one that is used or pinned.
    pub fn let_go(&self, id: &str) -> Result<Option<JoinHandle<()>>, ManagerError> {
        let drain = {
            let mut registry = self.lifecycle.registry();
            let slot = registry.find_mut(Asker::Administrator, id);
            let slot = slot.ok_or_else(|| ManagerError::Unknown { id: id.to_owned() })?;
            let kept = |why| Err(ManagerError::Kept { id: slot.id().to_owned(), why });
            match slot.state() {
                SlotState::Absent | SlotState::Failed { .. } | SlotState::Draining(_) => return Ok(None),
                SlotState::Downloading { .. } | SlotState::Loading => return kept("is being loaded"),
                SlotState::Ready(_) if slot.pinned => return kept("is pinned"),
                SlotState::Ready(_) if !slot.is_evictable() => return kept("is in use"),
                SlotState::Ready(_) => self.lifecycle.begin_drain(slot, Drained::InPassing),
            }
        };
        Ok(drain.map(|drain| {
            tracing::info!(model = drain.id, "unloaded: it was said that it is not needed");
            self.lifecycle.drain_by_and_by(drain)
        }))
    }

    /// Pins a model, or unpins it, until its definition says otherwise.
    ///
    /// # Errors
    /// [`ManagerError::Unknown`].
    pub fn pin(&self, id: &str, pinned: bool) -> Result<(), ManagerError> {
        let mut registry = self.lifecycle.registry();
        let slot = registry.find_mut(Asker::Administrator, id);
        slot.ok_or_else(|| ManagerError::Unknown { id: id.to_owned() })?.pinned = pinned;
        drop(registry);
        self.lifecycle.changed();
        self.lifecycle.idle.notify_one();
        Ok(())
    }
}
