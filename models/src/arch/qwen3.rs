//! Qwen 3, dense: a Llama that normalises its queries and keys head by head, in place of Qwen 2's biases. The embedding
//! models of the family have the same layers.
//!
//! Source: Qwen team 2025 <https://arxiv.org/abs/2505.09388>.

use serde::Deserialize;
use serde_json::Value;

use super::Architecture;
use super::settings::{DecoderSettings, WindowSettings, parse};
use crate::Error;

#[derive(Deserialize)]
struct Config {
    #[serde(flatten)]
    decoder: DecoderSettings,
    #[serde(flatten)]
    window: WindowSettings,
    /// All four matrices of the attention have a bias; in no published model.
    #[serde(default)]
    attention_bias: bool,
}

/// Reads a Qwen 3's configuration.
///
/// # Errors
/// [`Error::Config`] or [`Error::Unsupported`] for what is wrong with a setting.
pub fn describe(config: &Value) -> Result<Architecture, Error> {
    let config: Config = parse(config)?;
    let mut decoder = config.decoder.plain_decoder("qwen3")?;
    decoder.attention.head_norm_eps = Some(decoder.norm_eps);
    decoder.attention.qkv_bias = config.attention_bias;
    decoder.attention.output_bias = config.attention_bias;
    decoder.windows = config.window.windows(decoder.windows.len())?;
    Ok(Architecture::Decoder(decoder))
}
