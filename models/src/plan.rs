//! What the files describe, before any weight is read: which model will be built, and its shape.
//!
//! Not the reading of settings (`arch/`) nor the building of layers (`layers/`): here the two meet what the folder says of
//! the model's use.

use serde_json::Value;

use crate::arch::{self, Architecture};
use crate::layers::classifier::PairClassifier;
use crate::layers::decoder::{CausalDecoder, DecoderConfig};
use crate::layers::embedder::TextEmbedder;
use crate::layers::encoder::{ClassifierKind, EncoderConfig};
use crate::layers::pooling::SentenceConfig;
use crate::layers::source::Source;
use crate::{Device, Error, LoadedModel, ModelKind, ModelSpec};

/// A model to be built.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Plan {
    /// A decoder that continues text.
    Causal(DecoderConfig),
    /// A decoder whose last hidden states become vectors.
    DecoderEmbedder(DecoderConfig, SentenceConfig),
    /// An encoder whose hidden states become vectors.
    EncoderEmbedder(EncoderConfig, SentenceConfig),
    /// An encoder that scores pairs.
    CrossEncoder(EncoderConfig, ClassifierKind),
}

impl Plan {
    /// Reads a configuration. With `sentence` settings a decoder is an embedder; an encoder is one anyway, unless it has a
    /// head that scores.
    ///
    /// # Errors
    /// As [`arch::describe`]; [`Error::Unsupported`] for a decoder with another head than the next token's.
    pub(crate) fn new(config: &Value, sentence: Option<SentenceConfig>) -> Result<Self, Error> {
        match (arch::describe(config)?, sentence) {
            (Architecture::Decoder(decoder), Some(sentence)) => Ok(Self::DecoderEmbedder(decoder, sentence)),
            (Architecture::Decoder(decoder), None) => {
                refuse_other_head(config)?;
                Ok(Self::Causal(decoder))
            }
            (Architecture::Encoder(encoder), sentence) => Ok(match encoder.classifier {
                Some(kind) => Self::CrossEncoder(encoder, kind),
                None => Self::EncoderEmbedder(encoder, sentence.unwrap_or_default()),
            }),
        }
    }

    /// Keeps sequences below `limit` tokens too.
    pub(crate) fn limited(mut self, limit: usize) -> Self {
        let limit = limit.max(1);
        match &mut self {
            Self::Causal(config) => config.context_length = config.context_length.min(limit),
            Self::DecoderEmbedder(_, sentence) | Self::EncoderEmbedder(_, sentence) => {
                sentence.max_length = Some(sentence.max_length.map_or(limit, |own| own.min(limit)));
            }
            Self::CrossEncoder(config, _) => config.max_length = config.max_length.min(limit),
        }
        self
    }

    /// The model's shape; weights and fingerprint are not known yet.
    pub(crate) fn spec(&self) -> ModelSpec {
        match self {
            Self::Causal(config) => config.spec(),
            Self::DecoderEmbedder(config, sentence) => embedding_spec(config.spec(), sentence),
            Self::EncoderEmbedder(config, sentence) => embedding_spec(config.spec(), sentence),
            Self::CrossEncoder(config, _) => config.spec(),
        }
    }

    /// Loads the weights below `root`. `spec` is this plan's, with the fingerprint.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::Shape`], or what reading says.
    pub(crate) fn build(
        &self,
        root: &Source<'_>,
        spec: ModelSpec,
        device: &Device,
    ) -> Result<LoadedModel, Error> {
        Ok(match self {
            Self::Causal(config) => {
                LoadedModel::Causal(Box::new(CausalDecoder::load(root, config, spec, device.candle())?))
            }
            Self::DecoderEmbedder(config, sentence) => LoadedModel::Embedder(Box::new(
                TextEmbedder::of_decoder(root, config, *sentence, spec, device)?,
            )),
            Self::EncoderEmbedder(config, sentence) => LoadedModel::Embedder(Box::new(
                TextEmbedder::of_encoder(root, config, *sentence, spec, device)?,
            )),
            Self::CrossEncoder(config, kind) => {
                LoadedModel::CrossEncoder(Box::new(PairClassifier::load(root, config, *kind, spec, device)?))
            }
        })
    }
}

fn embedding_spec(spec: ModelSpec, sentence: &SentenceConfig) -> ModelSpec {
    let limit = sentence.max_length.unwrap_or(usize::MAX);
    ModelSpec {
        kind: ModelKind::Embedding,
        embedding_size: spec.hidden_size,
        context_length: spec.context_length.min(limit),
        ..spec
    }
}

/// A decoder saved with a classifier or without any head does not continue text.
fn refuse_other_head(config: &Value) -> Result<(), Error> {
    let classes = config.get("architectures").and_then(Value::as_array);
    match classes.and_then(|classes| classes.first()).and_then(Value::as_str) {
        Some(class) if !class.ends_with("ForCausalLM") => {
            Err(Error::Unsupported { what: "architectures", value: class.to_owned() })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::Plan;
    use crate::ModelKind;
    use crate::layers::pooling::SentenceConfig;
    use serde_json::{Value, json};

    fn decoder(class: &str) -> Value {
        json!({
            "model_type": "qwen3", "architectures": [class], "hidden_size": 64, "intermediate_size": 112,
            "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 512, "max_position_embeddings": 256,
            "rms_norm_eps": 1e-6
        })
    }

    #[test]
    fn the_folder_decides_what_a_decoder_is_for() {
        let causal = Plan::new(&decoder("Qwen3ForCausalLM"), None).unwrap().limited(100).spec();
        assert_eq!((causal.kind, causal.context_length, causal.embedding_size), (ModelKind::Causal, 100, 0));
        let sentence = SentenceConfig { max_length: Some(120), ..SentenceConfig::default() };
        let embedder = Plan::new(&decoder("Qwen3Model"), Some(sentence)).unwrap().limited(1000).spec();
        assert_eq!(
            (embedder.kind, embedder.context_length, embedder.embedding_size),
            (ModelKind::Embedding, 120, 64)
        );
    }

    #[test]
    fn a_decoder_with_another_head_is_refused_by_name() {
        for class in ["Qwen3ForSequenceClassification", "Qwen3Model"] {
            assert!(Plan::new(&decoder(class), None).unwrap_err().to_string().contains(class));
        }
    }
}
