//! RoBERTa and XLM-RoBERTa: multilingual embedders (BGE-M3, multilingual E5) and rerankers (BGE reranker).
//!
//! A BERT whose positions start after the padding token's row, and whose scoring head has its own dense layer.
//!
//! Sources: Liu et al. 2019 <https://arxiv.org/abs/1907.11692>, Conneau et al. 2019 <https://arxiv.org/abs/1911.02116>.

use serde_json::Value;

use super::Architecture;
use super::bert::Config;
use super::settings::parse;
use crate::Error;
use crate::layers::encoder::{ClassifierKind, Positions};

/// The padding token of every published RoBERTa.
const USUAL_PADDING: u32 = 1;

/// Reads a RoBERTa's configuration.
///
/// # Errors
/// [`Error::Config`] or [`Error::Unsupported`] for what is wrong with a setting.
pub fn describe(config: &Value) -> Result<Architecture, Error> {
    let architecture = if config["model_type"] == "roberta" { "roberta" } else { "xlm-roberta" };
    let config: Config = parse(config)?;
    let mut encoder = config.encoder(architecture)?;
    encoder.prefixes = &["", "roberta"];
    encoder.positions = Positions::AfterPadding(config.pad_token_id.unwrap_or(USUAL_PADDING));
    if encoder.position_rows <= encoder.positions.reserved() {
        return Err(Error::Config(format!(
            "max_position_embeddings {} leaves no position after the padding's",
            encoder.position_rows
        )));
    }
    encoder.classifier = config.has_classifier().then_some(ClassifierKind::Dense);
    Ok(Architecture::Encoder(encoder))
}
