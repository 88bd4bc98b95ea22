//! Model files in, logits and embeddings out: architectures, weight formats, tokenizers and chat templates.
//!
//! No HTTP, no database, no scheduling policy. The server sees a model only through [`Model`] (or [`Embedder`],
//! [`CrossEncoder`]), [`Batch`], [`KvCache`] and [`Logits`], none of which names the tensor library.
//!
//! Reading order: [`load`] → `arch/llama.rs` → `layers/attention.rs` → the `sconce-kernels` crate.

pub mod arch;
pub mod batch;
pub mod cache;
pub mod chat_template;
pub mod device;
pub mod error;
pub mod features;
pub mod files;
pub mod grammar;
pub mod inspection;
pub mod layers;
pub mod loaded;
pub mod logits;
mod plan;
mod sentence_transformers;
pub mod spec;
pub mod tokenizer;
pub mod weights;

pub use batch::Batch;
pub use cache::{CacheType, KvCache};
pub use chat_template::ChatTemplate;
pub use device::{Device, DeviceSpec};
pub use error::Error;
pub use features::{Activation, Cuts, Features, Infill};
pub use files::ModelFiles;
pub use inspection::{Card, Inspection, inspect};
pub use loaded::{Arithmetic, GenerationDefaults, LoadOptions, Loaded, LoadedModel, load};
pub use logits::Logits;
pub use sconce_kernels::Level;
pub use sentence_transformers::EmbeddingUse;
pub use spec::{ModelKind, ModelSpec};
pub use tokenizer::{TextDecoder, Tokenizer};

/// A causal language model with its weights on one device.
pub trait Model: Send {
    /// What the scheduler and the cache need to know.
    fn spec(&self) -> &ModelSpec;

    /// One pass over a packed batch.
    ///
    /// Writes K and V of `batch.token_ids` into `cache`; returns logits `[batch.sample_rows.len(), vocab]`, f32.
    /// Each row depends on its own sequence alone, bit for bit, whatever else is in the batch.
    ///
    /// # Errors
    /// [`Error::Batch`] if the batch contradicts itself or the cache; device errors otherwise.
    fn forward(&self, batch: &Batch, cache: &mut KvCache) -> Result<Logits, Error>;
}

/// A model that turns a text into one vector.
pub trait Embedder: Send {
    /// What the caller needs to know before it sends tokens.
    fn spec(&self) -> &ModelSpec;

    /// Embeds each sequence of token ids (special tokens included): one vector of `spec().embedding_size` each, pooled
    /// and normalised as the model's own files say. Sequences are packed without padding and do not affect each other.
    ///
    /// # Errors
    /// [`Error::Batch`] if a sequence is empty or longer than the model's context.
    fn embed(&self, sequences: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, Error>;
}

/// A model that scores a pair of texts (a query and a document).
pub trait CrossEncoder: Send {
    /// What the caller needs to know before it sends tokens.
    fn spec(&self) -> &ModelSpec;

    /// Raw logits per pair, one per label. `type_ids[i]` is as long as `sequences[i]`.
    ///
    /// # Errors
    /// [`Error::Batch`] if a sequence is empty, too long, or its type ids do not match.
    fn score(&self, sequences: &[Vec<u32>], type_ids: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, Error>;
}
