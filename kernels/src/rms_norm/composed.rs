//! The norm out of candle's operations, for any device.

use candle_core::{D, DType, Tensor};

use crate::Result;

/// As [`rms_norm`](crate::rms_norm()), on any device.
///
/// # Errors
/// Those of candle.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    let mean_square = x.sqr()?.mean_keepdim(D::Minus1)?;
    let root = (mean_square + f64::from(eps))?.sqrt()?;
    Ok(x.broadcast_div(&root)?.broadcast_mul(&weight.to_dtype(DType::F32)?)?)
}
