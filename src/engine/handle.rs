//! The async side of the engine: submit a request, read its tokens, watch its figures.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;
use sconce_models::{Device, Model, ModelSpec};
use tokio::sync::watch;

use crate::engine::{EngineError, EngineLimits, EngineStats, SequenceRequest, TokenEvent};

/// Starts engines.
pub struct Engine;

impl Engine {
    /// Allocates the cache on `device` and starts the thread that owns `model`.
    ///
    /// # Errors
    /// [`EngineError::Failed`] if the cache cannot be allocated or the thread not started.
    pub fn spawn(
        model: Box<dyn Model>,
        device: &Device,
        limits: EngineLimits,
    ) -> Result<EngineHandle, EngineError> {
        let _ = (model, device, limits);
        todo!("engine helper")
    }
}

/// A running engine. Cheap to clone; the thread ends once all handles are gone and all sequences are finished.
#[derive(Clone)]
pub struct EngineHandle {
    stats: watch::Receiver<EngineStats>,
}

impl EngineHandle {
    /// Hands a request over. Returns at once: it either waits in the queue or is refused.
    ///
    /// # Errors
    /// [`EngineError::QueueFull`], [`EngineError::TooLong`], [`EngineError::Stopping`], [`EngineError::Lost`].
    pub fn submit(&self, request: SequenceRequest) -> Result<TokenStream, EngineError> {
        let _ = request;
        todo!("engine helper")
    }

    /// The model's shape.
    pub fn spec(&self) -> &ModelSpec {
        todo!("engine helper")
    }

    /// The latest figures.
    pub fn stats(&self) -> EngineStats {
        *self.stats.borrow()
    }

    /// The figures as they change; the sender is gone when the thread has ended.
    pub fn watch(&self) -> watch::Receiver<EngineStats> {
        self.stats.clone()
    }
}

/// The events of one request. Dropping it cancels the request: its blocks are free within one step.
pub struct TokenStream {
    _private: (),
}

impl Stream for TokenStream {
    type Item = Result<TokenEvent, EngineError>;

    fn poll_next(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        todo!("engine helper")
    }
}
