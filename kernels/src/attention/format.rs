//! How a paged cache stores keys and values, and where a kv head's piece of a block has its codes and scales.
//!
//! A piece in q8_0: a scale for each position and 32 dimensions, group by group, positions side by side; then the
//! codes, of keys dimension by dimension, of values position by position. What one position stores depends on that
//! position alone.

use candle_core::{DType, Device};
use half::f16;

use crate::Level;

/// Dimensions that share a scale.
pub(crate) const GROUP: usize = 32;

/// How cached keys and values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheFormat {
    /// Half precision.
    F16,
    /// Full precision.
    F32,
    /// The upper half of full precision, in pairs: what tiles of bf16 are multiplied with as it lies. On the CPU only.
    Bf16,
    /// A byte each, and an f16 scale for every 32 dimensions of a position. On the CPU only.
    Q8_0,
}

impl CacheFormat {
    /// Element type of the tensors; q8_0 keeps a scale, or two codes, in an integer of 16 bits.
    pub fn dtype(self) -> DType {
        match self {
            Self::F16 => DType::F16,
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
            Self::Q8_0 => DType::I16,
        }
    }

    /// The format with this element type.
    pub fn of(dtype: DType) -> Option<Self> {
        [Self::F16, Self::F32, Self::Bf16, Self::Q8_0].into_iter().find(|format| format.dtype() == dtype)
    }

    /// Whether [`CacheFormat::Bf16`] goes through tiles of bf16 on this machine; where it does not, it is slow.
    pub fn fills_tiles(block_size: usize, head_dim: usize) -> bool {
        Level::detect() == Level::Amx && sizes_fill_tiles(block_size, head_dim)
    }

    /// Shapes of a cache's keys and values on a device, for [`write_cache`](crate::write_cache()) and
    /// [`paged_attention`](crate::paged_attention()).
    ///
    /// On the CPU keys are `[blocks, kv, d, block]` and values `[blocks, kv, block, d]`: what a kv head has of a block is in
    /// one piece, and lies as the kernel reads it. Elsewhere both are `[blocks, block, kv, d]`. In q8_0 both are `[blocks,
    /// kv, 1, n]`, where n integers are a piece. In bf16 keys are `[blocks, kv, ⌈d / 2⌉, block · 2]` and values `[blocks, kv,
    /// ⌈block / 2⌉, d · 2]`: pairs of dimensions, or of positions, side by side.
    pub fn shapes(
        self,
        device: &Device,
        blocks: usize,
        block_size: usize,
        kv_heads: usize,
        head_dim: usize,
    ) -> [[usize; 4]; 2] {
        match (self, device) {
            (Self::Q8_0, _) => [[blocks, kv_heads, 1, piece_words(head_dim, block_size)]; 2],
            (Self::Bf16, _) => [
                [blocks, kv_heads, head_dim.div_ceil(2), 2 * block_size],
                [blocks, kv_heads, block_size.div_ceil(2), 2 * head_dim],
            ],
            (_, Device::Cpu) => {
                [[blocks, kv_heads, head_dim, block_size], [blocks, kv_heads, block_size, head_dim]]
            }
            _ => [[blocks, block_size, kv_heads, head_dim]; 2],
        }
    }
}

/// Whether keys and values of a block are whole tiles of bf16.
pub(super) fn sizes_fill_tiles(block_size: usize, head_dim: usize) -> bool {
    const DEPTH: usize = 32;
    block_size == DEPTH && head_dim.is_multiple_of(DEPTH)
}

/// Scales of a kv head's piece of a block.
fn piece_scales(width: usize, tile: usize) -> usize {
    width.div_ceil(GROUP) * tile
}

/// Integers of 16 bits of a kv head's piece of a block in q8_0.
pub(crate) fn piece_words(width: usize, tile: usize) -> usize {
    piece_scales(width, tile) + (width * tile).div_ceil(2)
}

/// Scales `[groups, tile]` and codes of a piece.
#[inline(always)]
pub(crate) fn piece(words: &[i16], width: usize, tile: usize) -> (&[f16], &[i8]) {
    let (scales, codes) = words.split_at(piece_scales(width, tile));
    let codes = &codes[..(width * tile).div_ceil(2)];
    // SAFETY: f16 is 16 bits, any of them; two bytes lie in each integer, and there are `width · tile` of them.
    unsafe {
        (
            std::slice::from_raw_parts(scales.as_ptr().cast::<f16>(), scales.len()),
            std::slice::from_raw_parts(codes.as_ptr().cast::<i8>(), width * tile),
        )
    }
}

/// As [`piece`], to be written.
pub(crate) fn piece_mut(words: &mut [i16], width: usize, tile: usize) -> (&mut [f16], &mut [i8]) {
    let (scales, codes) = words.split_at_mut(piece_scales(width, tile));
    let codes = &mut codes[..(width * tile).div_ceil(2)];
    // SAFETY: as in `piece`; the two parts do not overlap.
    unsafe {
        (
            std::slice::from_raw_parts_mut(scales.as_mut_ptr().cast::<f16>(), scales.len()),
            std::slice::from_raw_parts_mut(codes.as_mut_ptr().cast::<i8>(), width * tile),
        )
    }
}

/// Rounds up to [`GROUP`] numbers to codes from −127 to 127 times the scale that is returned. The scale is no number if
/// any of them is not finite, or too large for it (above 8 million).
pub(crate) fn round(values: &[f32], codes: &mut [i8]) -> f16 {
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2^23: adding it rounds to the nearest integer, ties to even.
    let largest = values.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    let scale = f16::from_f32(largest / 127.0);
    if !scale.is_finite() || values.iter().any(|value| value.is_nan()) {
        codes.fill(0);
        return f16::NAN;
    }
    // By the scale as it is stored: its own rounding costs nothing then.
    let wide = scale.to_f32();
    let inverse = if wide > 0.0 { 1.0 / wide } else { 0.0 };
    for (code, value) in codes.iter_mut().zip(values) {
        *code = ((value * inverse).clamp(-127.0, 127.0) + ROUND - ROUND) as i8;
    }
    scale
}

#[cfg(test)]
mod tests {
    use super::{f16, piece_words, round};

    #[test]
    fn codes_are_within_half_a_step() {
        let values: Vec<f32> = (0..32).map(|index| (index as f32 - 11.3) * 0.37).collect();
        let mut codes = [0i8; 32];
        let scale = round(&values, &mut codes).to_f32();
        for (value, code) in values.iter().zip(codes) {
            // The largest may be cut by what rounding took from the scale: 127 · 2⁻¹¹ of a step.
            let error = (value - f32::from(code) * scale).abs();
            assert!(error <= 0.57 * scale, "{value} as {code} times {scale}");
        }
    }

    #[test]
    fn what_is_not_finite_or_too_small_stays_so() {
        let mut codes = [1i8; 3];
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30] {
            assert!(round(&[1.0, odd, 2.0], &mut codes).is_nan());
        }
        assert_eq!(round(&[0.0, 1e-12, -1e-12], &mut codes), f16::ZERO);
        assert_eq!(codes, [0; 3]);
    }

    #[test]
    fn a_piece_is_34_bytes_for_32_numbers() {
        assert_eq!(2 * piece_words(64, 32) * 32, 34 * 64 * 32);
        assert_eq!(piece_words(33, 3), 2 * 3 + 50);
    }
}
