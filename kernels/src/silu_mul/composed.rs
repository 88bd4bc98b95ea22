//! The gate out of candle's operations, for any device.

use candle_core::Tensor;

use crate::Result;

/// As [`silu_mul`](crate::silu_mul()), on any device.
///
/// # Errors
/// Those of candle.
pub fn silu_mul(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    Ok((gate.silu()? * up)?)
}
