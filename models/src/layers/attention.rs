//! Causal self-attention over the paged cache: project, turn, write to the cache, attend, project back.
//!
//! Not the arithmetic: products, rotation and attention are kernels. One call serves prefill chunks and single decode
//! rows alike, because the kernels do.

use candle_core::Tensor;
use sconce_kernels::{AttentionOptions, Linear, PagedBatch, paged_attention_for};

use crate::Error;
use crate::cache::LayerCache;
use crate::layers::norm::RmsNorm;
use crate::layers::source::Source;

/// Shape of an attention layer.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionConfig {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; divides `heads`.
    pub kv_heads: usize,
    /// Numbers per head.
    pub head_dim: usize,
    /// Whether the matrices of queries, keys and values have a bias.
    pub qkv_bias: bool,
    /// Whether the matrix back to the residual stream has one.
    pub output_bias: bool,
    /// Queries and keys are normalised head by head, with this epsilon (Qwen 3).
    pub head_norm_eps: Option<f32>,
}

/// What all layers of one pass share.
pub struct Pass {
    /// Where each token's sequence lies in the cache.
    pub batch: PagedBatch,
    /// Cosines `[t, r]`, where r pairs of numbers of each head are turned.
    pub cosines: Tensor,
    /// Sines `[t, r]`.
    pub sines: Tensor,
}

/// One layer's attention.
pub struct Attention {
    queries: Linear,
    keys: Linear,
    values: Linear,
    output: Linear,
    head_norms: Option<(RmsNorm, RmsNorm)>,
    options: AttentionOptions,
    config: AttentionConfig,
}

impl Attention {
    /// Loads `q_proj`, `k_proj`, `v_proj`, `o_proj` and, if configured, `q_norm` and `k_norm`. A `window` of w lets a
    /// token see itself and the w − 1 before it.
    ///
    /// # Errors
    /// As [`Source::linear`].
    pub fn load(source: &Source<'_>, config: &AttentionConfig, window: Option<usize>) -> Result<Self, Error> {
        let (hidden, d) = (config.hidden_size, config.head_dim);
        let (wide, narrow) = (config.heads * d, config.kv_heads * d);
        let head_norms = match config.head_norm_eps {
            Some(eps) => Some((
                RmsNorm::load(&source.at("q_norm"), d, eps)?,
                RmsNorm::load(&source.at("k_norm"), d, eps)?,
            )),
            None => None,
        };
        Ok(Self {
            queries: source.linear("q_proj", wide, hidden, config.qkv_bias)?,
            keys: source.linear("k_proj", narrow, hidden, config.qkv_bias)?,
            values: source.linear("v_proj", narrow, hidden, config.qkv_bias)?,
            output: source.linear("o_proj", hidden, wide, config.output_bias)?,
            head_norms,
            options: AttentionOptions {
                scale: 1.0 / (d as f32).sqrt(),
                sliding_window: window,
                softcap: None,
            },
            config: config.clone(),
        })
    }

    /// What the norm before it makes of the residual stream `[t, hidden]` goes through, and is added to the stream; writes
    /// the keys and values of all `t` tokens into `cache`.
    ///
    /// # Errors
    /// [`Error::Compute`] if the device fails.
    pub(crate) fn forward(
        &self,
        norm: &RmsNorm,
        residual: Tensor,
        pass: &Pass,
        cache: &LayerCache,
    ) -> Result<Tensor, Error> {
        let (t, d) = (residual.dim(0)?, self.config.head_dim);
        let projections = [&self.queries, &self.keys, &self.values];
        let qkv = Linear::forward_input(&projections, &norm.forward_for(&residual, &projections)?)?;
        let mut q = qkv[0].reshape((t, self.config.heads, d))?;
        let mut k = qkv[1].reshape((t, self.config.kv_heads, d))?;
        let v = qkv[2].reshape((t, self.config.kv_heads, d))?;
        if let Some((q_norm, k_norm)) = &self.head_norms {
            (q, k) = (q_norm.forward(&q)?, k_norm.forward(&k)?);
        }
        q = sconce_kernels::rotary(&q, &pass.cosines, &pass.sines)?;
        k = sconce_kernels::rotary(&k, &pass.cosines, &pass.sines)?;
        sconce_kernels::write_cache(&k, &v, &cache.keys, &cache.values, &pass.batch)?;
        let (keys, values) = (&cache.keys, &cache.values);
        let attended = paged_attention_for(&q, keys, values, &pass.batch, &self.options, &self.output)?;
        Ok(self.output.forward_onto(&attended, residual)?)
    }
}
