//! What can be said of a model without loading it: what its files say, and what is wanted of it.

use std::sync::Arc;

use sconce_models::{GenerationDefaults, Inspection};

use crate::manager::ModelManager;
use crate::manager::lifecycle::Lifecycle;
use crate::manager::loader::blocking;
use crate::manager::registry::{Findings, Slot};

/// A model whose files are on this machine, as far as they and its registration say what it is.
#[derive(Debug, Clone)]
pub struct Description {
    /// What its files say.
    pub inspection: Arc<Inspection>,
    /// How it samples where a request does not say.
    pub defaults: GenerationDefaults,
    /// A context length below its own that an administrator wants.
    pub context_length: Option<usize>,
    /// Its licence: the text or the name that its files give, else the catalogue's word.
    pub license: Option<Arc<str>>,
}

impl ModelManager {
    /// Describes a model, by its id; none if its files are not here, or cannot be read. They are looked at once, for as
    /// long as the model is the same: what cannot be read, until it is next to be fetched or loaded.
    pub async fn describe(&self, id: &str) -> Option<Description> {
        if !self.lifecycle.is_looked_at(id) {
            let (lifecycle, id) = (Arc::clone(&self.lifecycle), id.to_owned());
            // Whoever asks may lose patience, and the next is not to begin anew.
            let _ = tokio::spawn(async move { lifecycle.look_at(&id).await }).await;
        }
        self.lifecycle.described(id)
    }
}

impl Lifecycle {
    /// Whether there is nothing more to find out about a model.
    fn is_looked_at(&self, id: &str) -> bool {
        self.registry().slot(id).is_none_or(|slot| !matches!(slot.findings, Findings::NotLooked))
    }

    fn described(&self, id: &str) -> Option<Description> {
        let registry = self.registry();
        let slot = registry.slot(id)?;
        let Findings::Known(inspection) = &slot.findings else { return None };
        Some(Description::of(slot, Arc::clone(inspection)))
    }

    /// Reads the headers of a model's files, if nobody did before, and keeps with the model what they say, or that they
    /// say nothing.
    async fn look_at(&self, id: &str) {
        let _turn = self.looking.lock().await;
        if self.is_looked_at(id) {
            return;
        }
        let (entry, recipe, context_length) = {
            let registry = self.registry();
            let Some(slot) = registry.slot(id) else { return };
            (slot.desired.entry.clone(), slot.desired.recipe(), slot.desired.context_length)
        };
        let Some(path) = self.fetcher().installed(&entry) else { return };
        let (loader, place) = (self.loader().bounded(context_length), path.clone());
        let findings = match blocking(move || loader.inspect(&place)).await {
            Ok(inspected) if self.fetcher().may_be_read(&path, &entry) => {
                Findings::Known(inspected.inspection)
            }
            Ok(_) => Findings::Unreadable,
            Err(failure) => {
                tracing::debug!(model = id, "it cannot be described: {}", failure.detail);
                Findings::Unreadable
            }
        };
        // It may have become another in the meantime, or been loaded.
        let mut registry = self.registry();
        let slot = registry.slot_mut(id).filter(|slot| slot.desired.recipe() == recipe);
        if let Some(slot) = slot.filter(|slot| matches!(slot.findings, Findings::NotLooked)) {
            slot.findings = findings;
        }
    }
}

impl Description {
    fn of(slot: &Slot, inspection: Arc<Inspection>) -> Self {
        let entry = &slot.desired.entry;
        let catalogs = Some(entry.license.as_str()).filter(|license| !license.is_empty()).map(Arc::from);
        Self {
            defaults: slot.defaults(&inspection.card.defaults),
            context_length: slot.desired.context_length,
            license: inspection.card.license.clone().or(catalogs),
            inspection,
        }
    }
}
