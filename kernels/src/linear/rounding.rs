//! The two ways quantised weights are multiplied.

use candle_core::quantized::GgmlDType;

use crate::Level;

/// How a quantised matrix is multiplied. It is packed for one way and keeps to it on every level, so its products have the same bits
/// everywhere; those of the two ways differ in their last bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    /// Activations are rounded to bytes with a scale for 32; sums of 32 products are whole numbers.
    Bytes,
    /// Weights and activations are rounded to bf16, and sums are those of AMX's tiles: f32 from the first product to the last.
    Bfloat16,
}

impl Rounding {
    /// The faster one on this machine for a type: that of tiles, where there are any, but for codes of eight bits. Those are bytes
    /// already, and to make bf16 of each costs a single row more than all that it gains.
    pub fn best(dtype: GgmlDType) -> Self {
        match (Level::detect(), dtype) {
            (_, GgmlDType::Q8_0 | GgmlDType::Q8_1 | GgmlDType::Q8K) => Self::Bytes,
            (Level::Amx, _) => Self::Bfloat16,
            _ => Self::Bytes,
        }
    }

    /// Its name, for a fingerprint.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Bfloat16 => "bf16",
        }
    }
}
