//! What a model's files say of its use, beside its shape: how it fills gaps, how its vectors may be cut and its inputs
//! introduced, how its scores are squashed.
//!
//! Nothing here changes a pass of the model; who sends tokens and reads numbers goes by it.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::sentence_transformers::EmbeddingUse;
use crate::weights::Metadata;
use crate::{Error, Tokenizer};

/// All of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Features {
    /// How it fills a gap in a text; none if it was not trained to.
    pub infill: Option<Infill>,
    /// How its vectors are used; for embedding models.
    pub embedding: EmbeddingUse,
    /// What becomes of its scores; for cross-encoders.
    pub activation: Activation,
}

impl Features {
    /// Reads them.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] if the metadata of a GGUF file are damaged.
    pub(crate) fn read(
        config: &Value,
        metadata: Option<&Metadata>,
        tokenizer: &Tokenizer,
        embedding: EmbeddingUse,
    ) -> Result<Self, Error> {
        Ok(Self {
            infill: Infill::find(metadata, tokenizer)?,
            embedding,
            activation: Activation::read(config),
        })
    }
}

/// The tokens of a prompt with a gap: *before*, the text before it, *after*, the text after it, *middle*, and then the
/// model writes what belongs in between.
///
/// Source: Bavarian et al. 2022, "Efficient Training of Language Models to Fill in the Middle"
/// <https://arxiv.org/abs/2207.14255>; the names are those of the models' own tokenizers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Infill {
    /// Stands before the text that is before the gap.
    pub before: u32,
    /// Stands before the text that is after the gap.
    pub after: u32,
    /// Stands where the gap's text is to begin.
    pub middle: u32,
    /// Tokens that end the gap's text, beside those that end any.
    pub end: Vec<u32>,
}

/// Names of the three tokens, by family: Qwen and Code Gemma, StarCoder and Granite, Code Llama, DeepSeek.
const INFILL_TOKENS: [[&str; 3]; 6] = [
    ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"],
    ["<fim_prefix>", "<fim_suffix>", "<fim_middle>"],
    ["<fim-prefix>", "<fim-suffix>", "<fim-middle>"],
    ["▁<PRE>", "▁<SUF>", "▁<MID>"],
    ["<PRE>", "<SUF>", "<MID>"],
    ["<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"],
];

/// Tokens after which another file or nothing would begin.
const INFILL_ENDS: [&str; 9] = [
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<|file_separator|>",
    "<fim_pad>",
    "<file_sep>",
    "<repo_name>",
    "▁<EOT>",
    "<EOT>",
];

impl Infill {
    fn find(metadata: Option<&Metadata>, tokenizer: &Tokenizer) -> Result<Option<Self>, Error> {
        let named = match metadata {
            Some(metadata) => named_in(metadata)?,
            None => None,
        };
        let by_name = |names: &[&str; 3]| {
            let ids = names.map(|name| tokenizer.token_to_id(name));
            Some([ids[0]?, ids[1]?, ids[2]?])
        };
        let fits = |ids: &[u32; 3]| ids.iter().all(|id| tokenizer.has_embedding(*id));
        let found = named.or_else(|| INFILL_TOKENS.iter().find_map(by_name)).filter(fits);
        let ends = INFILL_ENDS.iter().filter_map(|name| tokenizer.token_to_id(name));
        Ok(found.map(|[before, after, middle]| Self { before, after, middle, end: ends.collect() }))
    }
}

/// What a GGUF file says: newer converters `fim_…`, older ones the plain names.
fn named_in(metadata: &Metadata) -> Result<Option<[u32; 3]>, Error> {
    for names in [["fim_pre", "fim_suf", "fim_mid"], ["prefix", "suffix", "middle"]] {
        let mut ids = Vec::with_capacity(names.len());
        for name in names {
            let id = metadata.unsigned(&format!("tokenizer.ggml.{name}_token_id"))?;
            ids.extend(id.and_then(|id| u32::try_from(id).ok()));
        }
        if let Ok(ids) = <[u32; 3]>::try_from(ids) {
            return Ok(Some(ids));
        }
    }
    Ok(None)
}

/// What becomes of a cross-encoder's raw scores.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// 1 / (1 + e^−x): between 0 and 1.
    #[default]
    Sigmoid,
    /// Nothing.
    Identity,
}

impl Activation {
    /// As sentence-transformers reads a configuration, in its newer and its older place. Where nothing is said one label
    /// is squashed, and several are left as they are.
    fn read(config: &Value) -> Self {
        let newer = &config["sentence_transformers"]["activation_fn"];
        let older = &config["sbert_ce_default_activation_function"];
        let named = newer.as_str().or(older.as_str());
        match named.map(|name| name.rsplit('.').next().unwrap_or(name)) {
            Some("Identity") => Self::Identity,
            Some("Sigmoid") => Self::Sigmoid,
            _ => match config["id2label"].as_object() {
                Some(labels) if labels.len() > 1 => Self::Identity,
                _ => Self::Sigmoid,
            },
        }
    }

    /// The score that is shown.
    pub fn of(self, logit: f32) -> f32 {
        match self {
            Self::Sigmoid => 1.0 / (1.0 + (-logit).exp()),
            Self::Identity => logit,
        }
    }
}

/// To which lengths a model's vectors may be cut.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Cuts {
    /// To none: it was not trained so that a vector's beginning stands for the whole.
    #[default]
    None,
    /// To any.
    Any,
    /// To these, ascending.
    To(Vec<usize>),
}

impl Cuts {
    /// What `config.json` says, in the words that published models use.
    pub(crate) fn read(config: &Value) -> Self {
        let lengths = config["matryoshka_dimensions"].as_array().into_iter().flatten();
        let mut lengths: Vec<usize> =
            lengths.filter_map(|length| usize::try_from(length.as_u64()?).ok()).collect();
        lengths.sort_unstable();
        match lengths.is_empty() {
            false => Self::To(lengths),
            true if config["is_matryoshka"] == Value::Bool(true) => Self::Any,
            true => Self::None,
        }
    }

    /// Whether a vector may be cut to this length.
    pub fn allow(&self, length: usize) -> bool {
        match self {
            Self::None => false,
            Self::Any => true,
            Self::To(lengths) => lengths.contains(&length),
        }
    }
}

/// Texts that stand before an input, by what they are for.
pub type Prompts = BTreeMap<String, String>;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_configuration_says_what_becomes_of_scores() {
        let read = |config| Activation::read(&config);
        assert_eq!(read(json!({"id2label": {"0": "LABEL_0"}})), Activation::Sigmoid);
        assert_eq!(read(json!({"id2label": {"0": "a", "1": "b"}})), Activation::Identity);
        let named = "torch.nn.modules.linear.Identity";
        assert_eq!(read(json!({"sbert_ce_default_activation_function": named})), Activation::Identity);
        assert_eq!(read(json!({"sentence_transformers": {"activation_fn": named}})), Activation::Identity);
        assert!((Activation::Sigmoid.of(0.0) - 0.5).abs() < f32::EPSILON);
        assert!((Activation::Identity.of(-3.5) + 3.5).abs() < f32::EPSILON);
    }

    #[test]
    fn vectors_are_cut_only_where_the_files_say_so() {
        assert_eq!(Cuts::read(&json!({})), Cuts::None);
        assert_eq!(Cuts::read(&json!({"is_matryoshka": true})), Cuts::Any);
        let listed = Cuts::read(&json!({"matryoshka_dimensions": [512, 64, 256]}));
        assert_eq!(listed, Cuts::To(vec![64, 256, 512]));
        assert!(listed.allow(64) && !listed.allow(65) && !Cuts::None.allow(64) && Cuts::Any.allow(65));
    }
}
