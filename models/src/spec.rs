//! What is known of a model without running it.

use serde::Serialize;

/// What a model does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelKind {
    /// Continues text: chat and completions.
    Causal,
    /// Turns a text into a vector.
    Embedding,
    /// Scores a pair of texts.
    CrossEncoder,
}

/// The shape of a model, as its files state it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelSpec {
    /// `model_type` of `config.json` (or `general.architecture` of a GGUF file).
    pub architecture: String,
    /// What it does.
    pub kind: ModelKind,
    /// Transformer layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Query heads per layer.
    pub heads: usize,
    /// Key/value heads per layer; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Rows of the output matrix; token ids are below it.
    pub vocab_size: usize,
    /// Most tokens a sequence may have, prompt and answer together.
    pub context_length: usize,
    /// Width of an embedding; 0 for a causal model.
    pub embedding_size: usize,
    /// Bytes of weights held in memory once loaded.
    pub weights_bytes: u64,
    /// Most bytes the temporary tensors of a pass need, per token of the batch.
    pub scratch_bytes_per_token: u64,
    /// Names weights, kernel set and version: the same fingerprint gives the same tokens for the same request.
    /// Empty until the model is loaded.
    pub fingerprint: String,
}
