//! The norm out of candle's operations, for any device.

use candle_core::{D, DType, Tensor};

use crate::Result;

/// As [`layer_norm`](crate::layer_norm()), on any device.
///
/// # Errors
/// Those of candle.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let root = (variance + f64::from(eps))?.sqrt()?;
    let scaled = centred.broadcast_div(&root)?.broadcast_mul(&weight.to_dtype(DType::F32)?)?;
    Ok(scaled.broadcast_add(&bias.to_dtype(DType::F32)?)?)
}
