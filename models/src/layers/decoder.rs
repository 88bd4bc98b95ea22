//! The pre-norm decoder that Llama and its descendants share: embedding, layers of attention and feed-forward, final norm,
//! output matrix.
//!
//! Not an architecture: what sets a model apart is said by its file in `arch/` with a [`DecoderConfig`]. Every operation
//! here computes a row from that row alone, so a sequence's logits do not depend on what else is in the batch.

use candle_core::{Device as Tensors, Tensor};
use sconce_kernels::{Linear, PagedBatch, PagedParts};

use crate::layers::attention::{Attention, AttentionConfig, Pass};
use crate::layers::mlp::{Mlp, MlpConfig};
use crate::layers::norm::RmsNorm;
use crate::layers::rotary::{Rotary, RotaryConfig};
use crate::layers::source::Source;
use crate::{Batch, Error, KvCache, Logits, Model, ModelKind, ModelSpec};

/// What sets one decoder apart from another.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderConfig {
    /// The `model_type`.
    pub architecture: &'static str,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Number of tokens.
    pub vocab_size: usize,
    /// Most positions of a sequence.
    pub context_length: usize,
    /// Epsilon of the norms.
    pub norm_eps: f32,
    /// The embedding table is the output matrix too.
    pub tied_head: bool,
    /// Attention, the same in every layer but for the window.
    pub attention: AttentionConfig,
    /// Feed-forward, the same in every layer.
    pub mlp: MlpConfig,
    /// `[layers]` how many positions each layer's attention sees; none for all of them.
    pub windows: Vec<Option<usize>>,
    /// Position embedding.
    pub rotary: RotaryConfig,
}

impl DecoderConfig {
    /// The model's shape; weights and fingerprint are not known yet.
    pub fn spec(&self) -> ModelSpec {
        ModelSpec {
            architecture: self.architecture.to_owned(),
            kind: ModelKind::Causal,
            layers: self.windows.len(),
            hidden_size: self.hidden_size,
            heads: self.attention.heads,
            kv_heads: self.attention.kv_heads,
            head_dim: self.attention.head_dim,
            vocab_size: self.vocab_size,
            context_length: self.context_length,
            embedding_size: 0,
            weights_bytes: 0,
            scratch_bytes_per_token: self.scratch_bytes_per_token(),
            fingerprint: String::new(),
        }
    }

    /// A layer's tensors alive at once: residual stream, normed copy and output; projections before and after turning;
    /// gate, up and their product. Logits on the device and on the host, if every token's are wanted.
    fn scratch_bytes_per_token(&self) -> u64 {
        let projected = (self.attention.heads + 2 * self.attention.kv_heads) * self.attention.head_dim;
        let numbers =
            4 * self.hidden_size + 2 * projected.max(2 * self.mlp.intermediate_size) + 2 * self.vocab_size;
        4 * numbers as u64
    }
}

/// One layer.
struct Layer {
    attention_norm: RmsNorm,
    attention: Attention,
    mlp_norm: RmsNorm,
    mlp: Mlp,
}

impl Layer {
    fn load(source: &Source<'_>, config: &DecoderConfig, window: Option<usize>) -> Result<Self, Error> {
        let norm = |name: &str| RmsNorm::load(&source.at(name), config.hidden_size, config.norm_eps);
        Ok(Self {
            attention_norm: norm("input_layernorm")?,
            attention: Attention::load(&source.at("self_attn"), &config.attention, window)?,
            mlp_norm: norm("post_attention_layernorm")?,
            mlp: Mlp::load(&source.at("mlp"), &config.mlp)?,
        })
    }
}

/// The layers, without an output matrix: token ids in, hidden states out.
pub struct Decoder {
    embedding: Linear,
    layers: Vec<Layer>,
    norm: RmsNorm,
    rotary: Rotary,
    vocab_size: usize,
    context_length: usize,
    kv_heads: usize,
    head_dim: usize,
    device: Tensors,
}

impl Decoder {
    /// Loads the layers from `source`, where `embed_tokens` lies.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::Shape`], or what reading says.
    pub fn load(source: &Source<'_>, config: &DecoderConfig, device: &Tensors) -> Result<Self, Error> {
        let layers = config
            .windows
            .iter()
            .enumerate()
            .map(|(index, window)| Layer::load(&source.at("layers").at(index), config, *window))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            embedding: source.linear("embed_tokens", config.vocab_size, config.hidden_size, false)?,
            layers,
            norm: RmsNorm::load(&source.at("norm"), config.hidden_size, config.norm_eps)?,
            rotary: Rotary::new(&config.rotary, rope_factors(source)?.as_deref())?,
            vocab_size: config.vocab_size,
            context_length: config.context_length,
            kv_heads: config.attention.kv_heads,
            head_dim: config.attention.head_dim,
            device: device.clone(),
        })
    }

    /// Runs the batch; returns the residual stream after the last layer, `[t, hidden]`.
    ///
    /// # Errors
    /// [`Error::Batch`] if the batch contradicts itself, the model or the cache.
    pub fn forward(&self, batch: &Batch, cache: &KvCache) -> Result<Tensor, Error> {
        batch.check(self.vocab_size, self.context_length, cache.blocks())?;
        cache.check(self.layers.len(), self.kv_heads, self.head_dim)?;
        let pass = self.pass(batch, cache.blocks())?;
        let mut x = self.embedding.embed(&batch.token_ids)?; // [t, hidden]
        for (index, layer) in self.layers.iter().enumerate() {
            x = layer.attention.forward(&layer.attention_norm, x, &pass, cache.layer(index))?;
            x = layer.mlp.forward(&layer.mlp_norm, x)?;
        }
        Ok(x)
    }

    /// Picks rows of the residual stream and norms them: `[t, hidden]` → `[rows, hidden]`. `rows` must not be empty.
    ///
    /// # Errors
    /// [`Error::Compute`] if the device fails.
    pub fn final_rows(&self, x: &Tensor, rows: &[u32]) -> Result<Tensor, Error> {
        let rows = Tensor::from_slice(rows, rows.len(), &self.device)?;
        self.norm.forward(&x.index_select(&rows, 0)?)
    }

    fn pass(&self, batch: &Batch, blocks: usize) -> Result<Pass, Error> {
        let parts = PagedParts {
            positions: batch.positions.clone(),
            starts: batch.starts.clone(),
            context_lens: batch.context_lens.clone(),
            slots: batch.slots.clone(),
            block_tables: batch.block_tables.clone(),
            block_size: KvCache::BLOCK_SIZE,
            blocks,
        };
        let (cosines, sines) = self.rotary.angles(&batch.positions, &self.device)?;
        Ok(Pass { batch: PagedBatch::new(parts, &self.device)?, cosines, sines })
    }
}

/// GGUF files carry Llama 3's scaling as a tensor of factors, one per pair.
fn rope_factors(source: &Source<'_>) -> Result<Option<Vec<f32>>, Error> {
    let root = source.root();
    let Some(shape) = root.shape("rope_freqs.weight") else {
        return Ok(None);
    };
    Ok(Some(root.tensor("rope_freqs.weight", &shape)?.flatten_all()?.to_vec1()?))
}

/// A decoder with an output matrix: a causal language model.
pub struct CausalDecoder {
    decoder: Decoder,
    head: Linear,
    spec: ModelSpec,
}

impl CausalDecoder {
    /// Loads `model.*` and `lm_head` below `root`; adds to `spec` what they weigh.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::Shape`], or what reading says.
    pub fn load(
        root: &Source<'_>,
        config: &DecoderConfig,
        spec: ModelSpec,
        device: &Tensors,
    ) -> Result<Self, Error> {
        let decoder = Decoder::load(&root.at("model"), config, device)?;
        let head = if config.tied_head {
            decoder.embedding.clone()
        } else {
            root.linear("lm_head", config.vocab_size, config.hidden_size, false)?
        };
        Ok(Self { decoder, head, spec: ModelSpec { weights_bytes: root.bytes(), ..spec } })
    }
}

impl Model for CausalDecoder {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn forward(&self, batch: &Batch, cache: &mut KvCache) -> Result<Logits, Error> {
        let x = self.decoder.forward(batch, cache)?;
        if batch.sample_rows.is_empty() {
            return Ok(Logits::from_host(self.spec.vocab_size, Vec::new()));
        }
        let hidden = self.decoder.final_rows(&x, &batch.sample_rows)?;
        if hidden.device().is_cpu() {
            return Ok(Logits::from_host(self.spec.vocab_size, self.head.forward_to_host(&hidden)?));
        }
        Ok(Logits::from_device(self.spec.vocab_size, self.head.forward(&hidden)?))
    }
}
