//! Encoders on a thread of their own: texts that arrive together are embedded together.

use sconce_models::{CrossEncoder, Embedder, ModelSpec};

use crate::engine::EngineError;

/// A running encoder. Cheap to clone; the thread ends once all handles are gone.
#[derive(Clone)]
pub struct EmbedderHandle {
    _private: (),
}

impl EmbedderHandle {
    /// Starts the thread that owns `model`. `max_batch_tokens` bounds one pass, `max_waiting` the queue (in sequences).
    ///
    /// # Errors
    /// [`EngineError::Failed`] if the thread cannot be started.
    pub fn spawn(
        model: Box<dyn Embedder>,
        max_batch_tokens: usize,
        max_waiting: usize,
    ) -> Result<Self, EngineError> {
        let _ = (model, max_batch_tokens, max_waiting);
        todo!("engine helper")
    }

    /// The same for a cross-encoder.
    ///
    /// # Errors
    /// As [`EmbedderHandle::spawn`].
    pub fn spawn_cross_encoder(
        model: Box<dyn CrossEncoder>,
        max_batch_tokens: usize,
        max_waiting: usize,
    ) -> Result<Self, EngineError> {
        let _ = (model, max_batch_tokens, max_waiting);
        todo!("engine helper")
    }

    /// The model's shape.
    pub fn spec(&self) -> &ModelSpec {
        todo!("engine helper")
    }

    /// Embeds sequences, in their order. Dropping the future gives up those not yet run.
    ///
    /// # Errors
    /// [`EngineError::QueueFull`], [`EngineError::Failed`], [`EngineError::Lost`].
    pub async fn embed(&self, sequences: Vec<Vec<u32>>) -> Result<Vec<Vec<f32>>, EngineError> {
        let _ = sequences;
        todo!("engine helper")
    }

    /// Scores pairs, in their order: (ids, type ids) each.
    ///
    /// # Errors
    /// As [`EmbedderHandle::embed`].
    pub async fn score(&self, pairs: Vec<(Vec<u32>, Vec<u32>)>) -> Result<Vec<Vec<f32>>, EngineError> {
        let _ = pairs;
        todo!("engine helper")
    }
}
