//! A model in use. Dropping the lease is what lets it be unloaded.

use std::sync::Arc;

use sconce_models::{ChatTemplate, GenerationDefaults, ModelSpec, Tokenizer};

use crate::engine::{EmbedderHandle, EngineHandle};

/// What runs a loaded model.
#[derive(Clone)]
pub enum Runner {
    /// A causal model's engine.
    Engine(EngineHandle),
    /// An embedding model or cross-encoder on its thread.
    Embedder(EmbedderHandle),
}

/// A loaded model and all that belongs to it.
pub struct LoadedEntry {
    /// The name clients ask for.
    pub id: String,
    /// Its shape.
    pub spec: ModelSpec,
    /// Text ↔ token ids.
    pub tokenizer: Tokenizer,
    /// The conversation format, if it has one.
    pub chat_template: Option<ChatTemplate>,
    /// What its files suggest.
    pub defaults: GenerationDefaults,
    /// What runs it.
    pub runner: Runner,
}

/// Holds a loaded model.
#[derive(Clone)]
pub struct ModelLease {
    entry: Arc<LoadedEntry>,
}

impl std::ops::Deref for ModelLease {
    type Target = LoadedEntry;

    fn deref(&self) -> &LoadedEntry {
        &self.entry
    }
}
