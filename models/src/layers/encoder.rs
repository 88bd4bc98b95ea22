//! The bidirectional encoder of the BERT family: learned positions, post-norm layers, every token sees its whole text.
//!
//! Texts are packed end to end without padding, and no row depends on another text's rows. What becomes of the hidden
//! states is the business of [`super::embedder`] and [`super::classifier`].
//!
//! Source: Devlin et al. 2018 <https://arxiv.org/abs/1810.04805>.

use candle_core::{Device as Tensors, Tensor};
use sconce_kernels::Linear;

use crate::layers::norm::LayerNorm;
use crate::layers::source::Source;
use crate::{Error, ModelKind, ModelSpec};

/// The function between the two matrices of a feed-forward layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// GELU by the error function.
    Gelu,
    /// GELU by a hyperbolic tangent.
    GeluTanh,
    /// Negative numbers become 0.
    Relu,
    /// SiLU.
    Silu,
}

impl Activation {
    /// The activation of this name.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if there is none.
    pub fn named(name: &str) -> Result<Self, Error> {
        match name {
            "gelu" => Ok(Self::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Ok(Self::GeluTanh),
            "relu" => Ok(Self::Relu),
            "silu" | "swish" => Ok(Self::Silu),
            other => Err(Error::Unsupported { what: "hidden_act", value: other.to_owned() }),
        }
    }

    fn apply(self, x: &Tensor) -> Result<Tensor, Error> {
        Ok(match self {
            Self::Gelu => x.gelu_erf()?,
            Self::GeluTanh => x.gelu()?,
            Self::Relu => x.relu()?,
            Self::Silu => x.silu()?,
        })
    }
}

/// Where the position embeddings start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Positions {
    /// At row 0.
    FromZero,
    /// After the row of the padding token, which padding itself has (RoBERTa).
    AfterPadding(u32),
}

impl Positions {
    /// Rows of the table that no token of a text can have.
    pub fn reserved(self) -> usize {
        match self {
            Self::FromZero => 0,
            Self::AfterPadding(padding) => padding as usize + 1,
        }
    }

    /// The row for each token of one text.
    fn of(self, ids: &[u32]) -> Vec<u32> {
        match self {
            Self::FromZero => (0..ids.len() as u32).collect(),
            Self::AfterPadding(padding) => {
                let mut row = padding;
                let mut next = |id: u32| {
                    if id == padding {
                        return padding;
                    }
                    row += 1;
                    row
                };
                ids.iter().map(|&id| next(id)).collect()
            }
        }
    }
}

/// What turns the first token's hidden state into labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClassifierKind {
    /// `pooler.dense`, tanh, `classifier` (BERT).
    Pooler,
    /// `classifier.dense`, tanh, `classifier.out_proj` (RoBERTa).
    Dense,
}

/// What sets one encoder apart from another.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderConfig {
    /// The `model_type`.
    pub architecture: &'static str,
    /// Places below which the tensors may lie, by the class the checkpoint was saved from.
    pub prefixes: &'static [&'static str],
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Number of layers.
    pub layers: usize,
    /// Attention heads; they divide `hidden_size`.
    pub heads: usize,
    /// Width of the feed-forward layers.
    pub intermediate_size: usize,
    /// Number of tokens.
    pub vocab_size: usize,
    /// Rows of the position table.
    pub position_rows: usize,
    /// Most tokens of a text, if fewer than the table has rows for.
    pub max_length: usize,
    /// Which row a token has.
    pub positions: Positions,
    /// Rows of the segment table.
    pub types: usize,
    /// Epsilon of the norms.
    pub norm_eps: f32,
    /// Of the feed-forward layers.
    pub activation: Activation,
    /// Present if the model scores pairs.
    pub classifier: Option<ClassifierKind>,
}

impl EncoderConfig {
    /// Most tokens of a text.
    pub fn context_length(&self) -> usize {
        self.position_rows.saturating_sub(self.positions.reserved()).min(self.max_length)
    }

    /// The model's shape; weights and fingerprint are not known yet.
    pub fn spec(&self) -> ModelSpec {
        let (kind, embedding_size) = match self.classifier {
            Some(_) => (ModelKind::CrossEncoder, 0),
            None => (ModelKind::Embedding, self.hidden_size),
        };
        ModelSpec {
            architecture: self.architecture.to_owned(),
            kind,
            layers: self.layers,
            hidden_size: self.hidden_size,
            heads: self.heads,
            kv_heads: self.heads,
            head_dim: self.hidden_size / self.heads,
            vocab_size: self.vocab_size,
            context_length: self.context_length(),
            embedding_size,
            weights_bytes: 0,
            // Residual stream, its sum, queries, keys, values and what they gather; both sides of the activation.
            scratch_bytes_per_token: 4 * (7 * self.hidden_size + 2 * self.intermediate_size) as u64,
            fingerprint: String::new(),
        }
    }
}

/// One layer: attention and feed-forward, each added to its input and then normed.
struct Layer {
    queries: Linear,
    keys: Linear,
    values: Linear,
    output: Linear,
    attention_norm: LayerNorm,
    up: Linear,
    down: Linear,
    mlp_norm: LayerNorm,
    heads: usize,
    activation: Activation,
}

impl Layer {
    fn load(source: &Source<'_>, config: &EncoderConfig) -> Result<Self, Error> {
        let (hidden, between, eps) = (config.hidden_size, config.intermediate_size, config.norm_eps);
        let square = |name: &str| source.linear(name, hidden, hidden, true);
        Ok(Self {
            queries: square("attention.self.query")?,
            keys: square("attention.self.key")?,
            values: square("attention.self.value")?,
            output: square("attention.output.dense")?,
            attention_norm: LayerNorm::load(&source.at("attention.output.LayerNorm"), hidden, eps)?,
            up: source.linear("intermediate.dense", between, hidden, true)?,
            down: source.linear("output.dense", hidden, between, true)?,
            mlp_norm: LayerNorm::load(&source.at("output.LayerNorm"), hidden, eps)?,
            heads: config.heads,
            activation: config.activation,
        })
    }

    fn forward(&self, x: &Tensor, starts: &[u32]) -> Result<Tensor, Error> {
        let (t, hidden) = x.dims2()?;
        let d = hidden / self.heads;
        let qkv = Linear::forward_all(&[&self.queries, &self.keys, &self.values], x)?;
        let heads = |index: usize| qkv[index].reshape((t, self.heads, d));
        let scale = 1.0 / (d as f32).sqrt();
        let seen = sconce_kernels::packed_attention(&heads(0)?, &heads(1)?, &heads(2)?, starts, scale)?;
        let x = self.attention_norm.forward(&(self.output.forward(&seen.reshape((t, hidden))?)? + x)?)?;
        let between = self.activation.apply(&self.up.forward(&x)?)?;
        self.mlp_norm.forward(&(self.down.forward(&between)? + x)?)
    }
}

/// An encoder: token ids in, hidden states out.
pub struct Encoder {
    words: Linear,
    positions: Tensor,
    types: Tensor,
    norm: LayerNorm,
    layers: Vec<Layer>,
    config: EncoderConfig,
    device: Tensors,
}

impl Encoder {
    /// Loads the layers from `source`, where `embeddings` and `encoder` lie.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::Shape`], or what reading says.
    pub fn load(source: &Source<'_>, config: &EncoderConfig, device: &Tensors) -> Result<Self, Error> {
        let (tables, hidden) = (source.at("embeddings"), config.hidden_size);
        let layers = (0..config.layers)
            .map(|index| Layer::load(&source.at("encoder.layer").at(index), config))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            words: tables.linear("word_embeddings", config.vocab_size, hidden, false)?,
            positions: tables.tensor("position_embeddings.weight", &[config.position_rows, hidden])?,
            types: tables.tensor("token_type_embeddings.weight", &[config.types, hidden])?,
            norm: LayerNorm::load(&tables.at("LayerNorm"), hidden, config.norm_eps)?,
            layers,
            config: config.clone(),
            device: device.clone(),
        })
    }

    /// Runs texts packed end to end: hidden states `[t, hidden]` of all their tokens. `types` as `texts`, segment ids.
    ///
    /// # Errors
    /// [`Error::Batch`] if a text is empty or too long, an id does not exist, or the types are not as many as the tokens.
    pub fn forward(&self, texts: &[Vec<u32>], types: &[Vec<u32>]) -> Result<Tensor, Error> {
        self.check(texts, types)?;
        let mut starts = vec![0];
        let mut rows = Vec::new();
        for text in texts {
            rows.extend(self.config.positions.of(text));
            starts.push(rows.len() as u32);
        }
        let words = self.words.embed(&texts.concat())?; // [t, hidden]
        let sum =
            ((words + self.select(&self.types, &types.concat())?)? + self.select(&self.positions, &rows)?)?;
        let mut x = self.norm.forward(&sum)?;
        for layer in &self.layers {
            x = layer.forward(&x, &starts)?;
        }
        Ok(x)
    }

    fn select(&self, table: &Tensor, rows: &[u32]) -> Result<Tensor, Error> {
        Ok(table.index_select(&Tensor::from_slice(rows, rows.len(), &self.device)?, 0)?)
    }

    fn check(&self, texts: &[Vec<u32>], types: &[Vec<u32>]) -> Result<(), Error> {
        let limit = self.config.context_length();
        if texts.is_empty() || texts.len() != types.len() {
            return Err(Error::Batch(format!("{} texts, {} lists of types", texts.len(), types.len())));
        }
        for (text, types) in texts.iter().zip(types) {
            if text.is_empty() || text.len() > limit || types.len() != text.len() {
                let (tokens, types) = (text.len(), types.len());
                return Err(Error::Batch(format!(
                    "a text of {tokens} tokens and {types} types; the limit is {limit}"
                )));
            }
            let unknown = text.iter().find(|&&id| id as usize >= self.config.vocab_size);
            if let Some(id) = unknown {
                return Err(Error::Batch(format!(
                    "token id {id} of a vocabulary of {}",
                    self.config.vocab_size
                )));
            }
            if let Some(id) = types.iter().find(|&&id| id as usize >= self.config.types) {
                return Err(Error::Batch(format!("type id {id} of {}", self.config.types)));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Positions;

    #[test]
    fn positions_skip_the_row_of_the_padding() {
        assert_eq!(Positions::FromZero.of(&[5, 5, 1]), vec![0, 1, 2]);
        assert_eq!(Positions::AfterPadding(1).of(&[0, 5, 1, 2]), vec![2, 3, 1, 4]);
    }
}
