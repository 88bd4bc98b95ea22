//! Normalisations with their weights. The sums are kernels.

use candle_core::Tensor;
use sconce_kernels::{Linear, LinearInput};

use crate::Error;
use crate::layers::source::Source;

/// Root-mean-square norm (Zhang & Sennrich 2019, <https://arxiv.org/abs/1910.07467>).
#[derive(Debug, Clone)]
pub struct RmsNorm {
    weight: Tensor,
    eps: f32,
}

impl RmsNorm {
    /// Loads `weight [width]`.
    ///
    /// # Errors
    /// As [`Source::tensor`].
    pub fn load(source: &Source<'_>, width: usize, eps: f32) -> Result<Self, Error> {
        Ok(Self { weight: source.tensor("weight", &[width])?, eps })
    }

    /// `[.., width]` → the same, each row scaled to a root mean square of 1, times the weight.
    ///
    /// # Errors
    /// [`Error::Compute`] if the device fails.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
        Ok(sconce_kernels::rms_norm(x, &self.weight, self.eps)?)
    }

    /// The same of `[t, width]`, made for the linear layers that read it.
    ///
    /// # Errors
    /// [`Error::Compute`] if the device fails.
    pub fn forward_for(&self, x: &Tensor, readers: &[&Linear]) -> Result<LinearInput, Error> {
        Ok(sconce_kernels::rms_norm_for(x, &self.weight, self.eps, readers)?)
    }
}

/// Layer norm with weight and bias.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f32,
}

impl LayerNorm {
    /// Loads `weight [width]` and `bias [width]`.
    ///
    /// # Errors
    /// As [`Source::tensor`].
    pub fn load(source: &Source<'_>, width: usize, eps: f32) -> Result<Self, Error> {
        let (weight, bias) = (source.tensor("weight", &[width])?, source.tensor("bias", &[width])?);
        Ok(Self { weight, bias, eps })
    }

    /// `[.., width]` → the same, each row with mean 0 and variance 1, times the weight, plus the bias.
    ///
    /// # Errors
    /// [`Error::Compute`] if the device fails.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
        Ok(sconce_kernels::layer_norm(x, &self.weight, &self.bias, self.eps)?)
    }
}
