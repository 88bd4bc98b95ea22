//! Mistral: a Llama without biases whose layers may all see only a sliding window.
//!
//! Source: Jiang et al. 2023 <https://arxiv.org/abs/2310.06825>.

use serde::Deserialize;
use serde_json::Value;

use super::Architecture;
use super::settings::{DecoderSettings, parse, window};
use crate::Error;

#[derive(Deserialize)]
struct Config {
    #[serde(flatten)]
    decoder: DecoderSettings,
    /// How many positions a token sees, itself included; none (as in Mistral 7B from 0.2 on) for all.
    sliding_window: Option<usize>,
}

/// Reads a Mistral's configuration.
///
/// # Errors
/// [`Error::Config`] or [`Error::Unsupported`] for what is wrong with a setting.
pub fn describe(config: &Value) -> Result<Architecture, Error> {
    let config: Config = parse(config)?;
    let mut decoder = config.decoder.plain_decoder("mistral")?;
    decoder.windows.fill(window(config.sliding_window)?);
    Ok(Architecture::Decoder(decoder))
}
