//! Qwen 2 and 2.5 (Coder and Math too): a Llama whose queries, keys and values have a bias, and whose upper layers may
//! see only a sliding window.
//!
//! Source: Qwen team 2024 <https://arxiv.org/abs/2407.10671>.

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
}

/// Reads a Qwen 2's configuration.
///
/// # Errors
/// [`Error::Config`] or [`Error::Unsupported`] for what is wrong with a setting.
pub fn describe(config: &Value) -> Result<Architecture, Error> {
    let config: Config = parse(config)?;
    let mut decoder = config.decoder.plain_decoder("qwen2")?;
    decoder.attention.qkv_bias = true;
    decoder.windows = config.window.windows(decoder.windows.len())?;
    Ok(Architecture::Decoder(decoder))
}
