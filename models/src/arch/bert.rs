//! BERT: sentence embedders (MiniLM, BGE, GTE, E5, …) and cross-encoders (MS MARCO MiniLM, …).
//!
//! The model is [`crate::layers::encoder`]; what follows it is told by `architectures` and, for embedders, by the
//! sentence-transformers files beside the weights.

use serde::Deserialize;
use serde_json::Value;

use super::Architecture;
use super::settings::{context, epsilon, even_share, heads, layers, parse, vocabulary, width};
use crate::Error;
use crate::layers::encoder::{Activation, ClassifierKind, EncoderConfig, Positions};

/// Settings that BERT and its descendants share.
#[derive(Deserialize)]
pub(super) struct Config {
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    type_vocab_size: usize,
    layer_norm_eps: f64,
    hidden_act: String,
    pub(super) pad_token_id: Option<u32>,
    position_embedding_type: Option<String>,
    #[serde(default)]
    is_decoder: bool,
    #[serde(default)]
    architectures: Option<Vec<String>>,
}

impl Config {
    /// Checks the settings and lays out an encoder with the positions of BERT and without a head.
    pub(super) fn encoder(&self, architecture: &'static str) -> Result<EncoderConfig, Error> {
        self.refuse_variants()?;
        let hidden_size = width("hidden_size", self.hidden_size)?;
        let heads = heads("num_attention_heads", self.num_attention_heads)?;
        even_share(hidden_size, heads)?;
        Ok(EncoderConfig {
            architecture,
            prefixes: &["", "bert"],
            hidden_size,
            layers: layers("num_hidden_layers", self.num_hidden_layers)?,
            heads,
            intermediate_size: width("intermediate_size", self.intermediate_size)?,
            vocab_size: vocabulary(self.vocab_size)?,
            position_rows: context(self.max_position_embeddings)?,
            max_length: usize::MAX,
            positions: Positions::FromZero,
            types: width("type_vocab_size", self.type_vocab_size)?,
            norm_eps: epsilon("layer_norm_eps", self.layer_norm_eps)?,
            activation: Activation::named(&self.hidden_act)?,
            classifier: None,
        })
    }

    /// Whether the checkpoint was saved with a head that scores.
    pub(super) fn has_classifier(&self) -> bool {
        self.architectures.iter().flatten().any(|class| class.ends_with("ForSequenceClassification"))
    }

    fn refuse_variants(&self) -> Result<(), Error> {
        if self.is_decoder {
            return Err(Error::Unsupported { what: "is_decoder", value: "true".into() });
        }
        match self.position_embedding_type.as_deref() {
            None | Some("absolute") => Ok(()),
            Some(other) => {
                Err(Error::Unsupported { what: "position_embedding_type", value: other.to_owned() })
            }
        }
    }
}

/// Reads a BERT's configuration.
///
/// # Errors
/// [`Error::Config`] or [`Error::Unsupported`] for what is wrong with a setting.
pub fn describe(config: &Value) -> Result<Architecture, Error> {
    let config: Config = parse(config)?;
    let mut encoder = config.encoder("bert")?;
    encoder.classifier = config.has_classifier().then_some(ClassifierKind::Pooler);
    Ok(Architecture::Encoder(encoder))
}
