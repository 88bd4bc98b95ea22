//! What can be said of a model without loading it: what its files say, and what is wanted of it.

use std::sync::Arc;

use sconce_models::{GenerationDefaults, Inspection};

use crate::manager::ModelManager;
use crate::manager::lifecycle::Lifecycle;
use crate::manager::loader::blocking;
use crate::manager::registry::Slot;

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
    /// long as the model is the same.
    pub async fn describe(&self, id: &str) -> Option<Description> {
        if let Some(known) = self.lifecycle.described(id) {
            return Some(known);
        }
        self.lifecycle.look_at(id).await;
        self.lifecycle.described(id)
    }
}

impl Lifecycle {
    fn described(&self, id: &str) -> Option<Description> {
        let registry = self.registry();
        let slot = registry.slot(id)?;
        let inspection = slot.inspection.clone()?;
        Some(Description::of(slot, inspection))
    }

    /// Reads the headers of a model's files, and keeps what they say with the model.
    async fn look_at(&self, id: &str) {
        let (entry, recipe, context_length) = {
            let registry = self.registry();
            let Some(slot) = registry.slot(id) else { return };
            (slot.desired.entry.clone(), slot.desired.recipe(), slot.desired.context_length)
        };
        let Some(path) = self.fetcher().installed(&entry) else { return };
        let (loader, place) = (self.loader().bounded(context_length), path.clone());
        let inspected = match blocking(move || loader.inspect(&place)).await {
            Ok(inspected) => inspected,
            Err(failure) => return tracing::debug!(model = id, "it cannot be described: {}", failure.detail),
        };
        if !self.fetcher().may_be_read(&path, &entry) {
            return;
        }
        // It may have become another in the meantime.
        let mut registry = self.registry();
        if let Some(slot) = registry.slot_mut(id).filter(|slot| slot.desired.recipe() == recipe) {
            slot.inspection = Some(inspected.inspection);
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
