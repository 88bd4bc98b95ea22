//! Scores of pairs: an encoder, then the labels' head over its first token.
//!
//! The logits are raw; whether to squash them is the caller's choice.
//!
//! Source: Nogueira & Cho 2019 <https://arxiv.org/abs/1901.04085>.

use candle_core::Tensor;
use sconce_kernels::Linear;

use crate::layers::embedder::packs;
use crate::layers::encoder::{ClassifierKind, Encoder, EncoderConfig};
use crate::layers::source::Source;
use crate::{CrossEncoder, Device, Error, ModelSpec};

/// Most labels a head may have.
const MAX_LABELS: usize = 1 << 16;

/// A model that scores pairs of texts.
pub struct PairClassifier {
    encoder: Encoder,
    dense: Linear,
    output: Linear,
    spec: ModelSpec,
    device: Device,
}

impl PairClassifier {
    /// Loads encoder and head below `root`; adds to `spec` what they weigh.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::Shape`], or what reading says.
    pub fn load(
        root: &Source<'_>,
        config: &EncoderConfig,
        kind: ClassifierKind,
        spec: ModelSpec,
        device: &Device,
    ) -> Result<Self, Error> {
        let source = root.first_with(config.prefixes, "embeddings.word_embeddings.weight");
        let encoder = Encoder::load(&source, config, device.candle())?;
        let hidden = config.hidden_size;
        let (dense, output) = match kind {
            ClassifierKind::Pooler => (source.linear("pooler.dense", hidden, hidden, true)?, "classifier"),
            ClassifierKind::Dense => {
                (root.linear("classifier.dense", hidden, hidden, true)?, "classifier.out_proj")
            }
        };
        let output = root.linear(output, labels(root, output)?, hidden, true)?;
        let spec = ModelSpec { weights_bytes: root.bytes(), ..spec };
        Ok(Self { encoder, dense, output, spec, device: device.clone() })
    }

    /// Logits `[sequences, labels]` of a few pairs.
    fn logits(&self, pairs: &[Vec<u32>], types: &[Vec<u32>]) -> Result<Tensor, Error> {
        let hidden = self.encoder.forward(pairs, types)?; // [t, hidden]
        let mut first_rows = Vec::with_capacity(pairs.len());
        let mut row = 0;
        for pair in pairs {
            first_rows.push(row);
            row += pair.len() as u32;
        }
        let rows = Tensor::from_vec(first_rows, pairs.len(), self.device.candle())?;
        let pooled = self.dense.forward(&hidden.index_select(&rows, 0)?)?.tanh()?;
        Ok(self.output.forward(&pooled)?)
    }
}

impl CrossEncoder for PairClassifier {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn score(&self, sequences: &[Vec<u32>], type_ids: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, Error> {
        if sequences.len() != type_ids.len() {
            return Err(Error::Batch(format!(
                "{} pairs, {} lists of types",
                sequences.len(),
                type_ids.len()
            )));
        }
        let mut scores = Vec::with_capacity(sequences.len());
        for pack in packs(sequences) {
            scores.extend(self.logits(&sequences[pack.clone()], &type_ids[pack])?.to_vec2()?);
        }
        Ok(scores)
    }
}

/// The number of labels is the number of rows of the last matrix.
fn labels(root: &Source<'_>, name: &str) -> Result<usize, Error> {
    let name = format!("{name}.weight");
    match root.shape(&name).as_deref() {
        Some(&[labels, _]) if (1..=MAX_LABELS).contains(&labels) => Ok(labels),
        Some(other) => Err(Error::Config(format!("`{name}` has shape {other:?}: no list of labels"))),
        None => Err(Error::MissingTensor { name }),
    }
}
