//! The rotation out of candle's operations, for any device.

use candle_core::{D, Tensor};

use crate::Result;

/// As [`rotary`](crate::rotary()), on any device.
///
/// # Errors
/// Those of candle.
pub fn rotary(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let turned = cos.dim(1)?;
    let width = x.dim(2)?;
    let (cos, sin) = (cos.unsqueeze(1)?, sin.unsqueeze(1)?); // [t, 1, r]
    let first = x.narrow(2, 0, turned)?;
    let second = x.narrow(2, turned, turned)?;
    let turned_first = (first.broadcast_mul(&cos)? - second.broadcast_mul(&sin)?)?;
    let turned_second = (second.broadcast_mul(&cos)? + first.broadcast_mul(&sin)?)?;
    let mut parts = vec![turned_first, turned_second];
    if 2 * turned < width {
        parts.push(x.narrow(2, 2 * turned, width - 2 * turned)?);
    }
    Ok(Tensor::cat(&parts, D::Minus1)?)
}
