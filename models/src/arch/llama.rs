//! Llama and what copies its shape: Llama 1 to 3.3, SmolLM and SmolLM2, TinyLlama, and many more.
//!
//! The model is `embed_tokens` → N × (norm → grouped-query attention with rotary positions → residual; norm → SwiGLU →
//! residual) → norm → `lm_head`: exactly [`crate::layers::decoder`], which to read next. What is Llama's own are the
//! optional biases.
//!
//! Sources: Touvron et al. 2023 <https://arxiv.org/abs/2302.13971>, Llama team 2024 <https://arxiv.org/abs/2407.21783>.

use serde::Deserialize;
use serde_json::Value;

use super::Architecture;
use super::settings::{DecoderSettings, parse};
use crate::Error;

#[derive(Deserialize)]
struct Config {
    #[serde(flatten)]
    decoder: DecoderSettings,
    /// All four matrices of the attention have a bias.
    #[serde(default)]
    attention_bias: bool,
    /// All three matrices of the feed-forward have one.
    #[serde(default)]
    mlp_bias: bool,
}

/// Reads a Llama's configuration.
///
/// # Errors
/// [`Error::Config`] or [`Error::Unsupported`] for what is wrong with a setting.
pub fn describe(config: &Value) -> Result<Architecture, Error> {
    let config: Config = parse(config)?;
    let mut decoder = config.decoder.plain_decoder("llama")?;
    decoder.attention.qkv_bias = config.attention_bias;
    decoder.attention.output_bias = config.attention_bias;
    decoder.mlp.bias = config.mlp_bias;
    Ok(Architecture::Decoder(decoder))
}
