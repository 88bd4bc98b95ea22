//! The gated feed-forward layer of Llama and its descendants: `down(silu(gate(x)) · up(x))`.
//!
//! Source: Shazeer 2020, SwiGLU <https://arxiv.org/abs/2002.05202>.

use candle_core::Tensor;
use sconce_kernels::Linear;

use crate::Error;
use crate::layers::norm::RmsNorm;
use crate::layers::source::Source;

/// Shape of a feed-forward layer.
#[derive(Debug, Clone, PartialEq)]
pub struct MlpConfig {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width between the matrices.
    pub intermediate_size: usize,
    /// Whether all three matrices have a bias.
    pub bias: bool,
}

/// A gated feed-forward layer.
pub struct Mlp {
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Mlp {
    /// Loads `gate_proj`, `up_proj` and `down_proj`.
    ///
    /// # Errors
    /// As [`Source::linear`].
    pub fn load(source: &Source<'_>, config: &MlpConfig) -> Result<Self, Error> {
        let (hidden, between) = (config.hidden_size, config.intermediate_size);
        Ok(Self {
            gate: source.linear("gate_proj", between, hidden, config.bias)?,
            up: source.linear("up_proj", between, hidden, config.bias)?,
            down: source.linear("down_proj", hidden, between, config.bias)?,
        })
    }

    /// What the norm before it makes of the residual stream `[t, hidden]` goes through, and is added to the stream.
    ///
    /// # Errors
    /// [`Error::Compute`] if the device fails.
    pub fn forward(&self, norm: &RmsNorm, residual: Tensor) -> Result<Tensor, Error> {
        let x = norm.forward_for(&residual, &[&self.gate, &self.up])?;
        let gated = sconce_kernels::gated(&self.gate, &self.up, &x, &self.down)?;
        Ok(self.down.forward_onto(&gated, residual)?)
    }
}
