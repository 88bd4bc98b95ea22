//! Activations rounded to bytes: blocks of 32 with one f32 scale, and the sums that offsets and minimums
//! need.
//!
//! Done once per input and shared by all matrices over it. Each row is rounded on its own.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::format::BLOCK;
use crate::Cpu;
use crate::fresh::Fresh;
use crate::simd::multiversion;

/// Rows of zeros behind the last, so that kernels which take several rows at once may read on.
pub(super) const SPARE_ROWS: usize = 15;

/// Rows of activations, rounded.
#[derive(Clone, Default)]
pub(crate) struct Activations {
    /// `[t + SPARE_ROWS, inner]`, each in -127..=127.
    pub codes: Vec<i8>,
    /// Per row, spare ones too, and block.
    pub blocks: Vec<BlockInfo>,
    /// Blocks of a row.
    pub blocks_per_row: usize,
}

/// What belongs to one block of 32.
#[derive(Clone, Copy, Default)]
pub(crate) struct BlockInfo {
    /// The f32 that a code counts for.
    pub scale: f32,
    /// Scale times the sum of the codes.
    pub scaled_sum: f32,
    /// Scale times the sum of each half's codes.
    pub scaled_half_sums: [f32; 2],
    /// Minus the sum of the codes: what an offset on the weights takes away.
    pub negated_sum: i32,
    /// Minus the sum of each half's codes.
    pub negated_half_sums: [i32; 2],
}

impl BlockInfo {
    /// Minus the sum, and the scaled sum, that go with one of `halves` parts of the block.
    #[inline(always)]
    pub(super) fn sums(&self, halves: usize, half: usize) -> (i32, f32) {
        if halves == 1 {
            (self.negated_sum, self.scaled_sum)
        } else {
            (self.negated_half_sums[half], self.scaled_half_sums[half])
        }
    }
}

impl Activations {
    /// Rounds `x [t, inner]`; `inner` is a multiple of 32.
    pub(super) fn round(cpu: Cpu, x: &[f32], inner: usize) -> Self {
        let builder = Builder::new(x.len() / inner, inner);
        cpu.pool().for_each_chunk(x.len() / BLOCK, 512, &|range| {
            // SAFETY: chunks of blocks do not overlap.
            unsafe { builder.round(cpu, range.start, &x[range.start * BLOCK..range.end * BLOCK]) };
        });
        // SAFETY: the chunks were all blocks.
        unsafe { builder.finished() }
    }
}

/// Activations that are being rounded, by several tasks.
pub(crate) struct Builder {
    codes: Fresh<i8>,
    blocks: Fresh<BlockInfo>,
    blocks_per_row: usize,
}

impl Builder {
    /// For `rows` rows of `inner`, a multiple of 32.
    pub(crate) fn new(rows: usize, inner: usize) -> Self {
        let cells = (rows + SPARE_ROWS) * inner;
        let (codes, blocks) = (Fresh::new(cells), Fresh::new(cells / BLOCK));
        // SAFETY: nobody else has them yet.
        let (spare_codes, spare_blocks) = unsafe {
            (
                codes.range(rows * inner, SPARE_ROWS * inner),
                blocks.range(rows * inner / BLOCK, SPARE_ROWS * inner / BLOCK),
            )
        };
        spare_codes.fill(MaybeUninit::new(0));
        spare_blocks.fill(MaybeUninit::new(BlockInfo::default()));
        Self { codes, blocks, blocks_per_row: inner / BLOCK }
    }

    /// Rounds `values`, whole blocks, of which `first` is the first in the order of rows.
    ///
    /// # Safety
    /// No two threads may have a block at once.
    pub(crate) unsafe fn round(&self, cpu: Cpu, first: usize, values: &[f32]) {
        // SAFETY: blocks do not overlap, as the caller promises.
        let (codes, blocks) = unsafe {
            (self.codes.range(first * BLOCK, values.len()), self.blocks.range(first, values.len() / BLOCK))
        };
        multiversion!(cpu.level(), round_blocks, values: &[f32], codes: &mut [MaybeUninit<i8>], blocks: &mut [MaybeUninit<BlockInfo>]);
    }

    /// Rounds block `block` of each of some rows; `values [rows, 32]`.
    ///
    /// # Safety
    /// As [`Builder::round`].
    pub(crate) unsafe fn round_column(&self, cpu: Cpu, rows: Range<usize>, block: usize, values: &[f32]) {
        for (row, values) in rows.zip(values.chunks_exact(BLOCK)) {
            // SAFETY: as the caller promises.
            unsafe { self.round(cpu, row * self.blocks_per_row + block, values) };
        }
    }

    /// Blocks of a row.
    pub(crate) fn blocks_per_row(&self) -> usize {
        self.blocks_per_row
    }

    /// What was rounded.
    ///
    /// # Safety
    /// Every block must have been.
    pub(crate) unsafe fn finished(self) -> Activations {
        // SAFETY: the spare rows were written at once, the others as the caller promises.
        let (codes, blocks) = unsafe { (self.codes.written(), self.blocks.written()) };
        Activations { codes, blocks, blocks_per_row: self.blocks_per_row }
    }
}

#[inline(always)]
fn round_blocks(input: &[f32], codes: &mut [MaybeUninit<i8>], blocks: &mut [MaybeUninit<BlockInfo>]) {
    let rows = input.chunks_exact(BLOCK).zip(codes.chunks_exact_mut(BLOCK)).zip(blocks);
    for ((values, codes), block) in rows {
        block.write(round_block(values, codes));
    }
}

/// Rounds to nearest, ties to even. A value that is not finite makes the scale NaN, so that it is not lost.
#[inline(always)]
fn round_block(values: &[f32], codes: &mut [MaybeUninit<i8>]) -> BlockInfo {
    // Bit patterns of absolute values order as the values do, infinity and NaN above all.
    let largest = values.iter().fold(0u32, |largest, value| largest.max(value.to_bits() & 0x7fff_ffff));
    let finite = largest < 0x7f80_0000;
    let largest = f32::from_bits(largest);
    let scale = if finite { largest / 127.0 } else { f32::NAN };
    // The smallest subnormal scales have no finite inverse.
    let inverse = if finite && largest > 1e-36 { 127.0 / largest } else { 0.0 };
    let mut half_sums = [0i32; 2];
    for (half, sum) in half_sums.iter_mut().enumerate() {
        let range = half * 16..half * 16 + 16;
        for (value, code) in values[range.clone()].iter().zip(&mut codes[range]) {
            // Adding and taking 1.5 · 2^23 rounds to even; the product of a finite value is within ±127.01.
            let rounded =
                (value * inverse + 12_582_912.0).to_bits().wrapping_sub(12_582_912f32.to_bits()) as i32;
            let rounded = if finite { rounded } else { 0 };
            code.write(rounded as i8);
            *sum += rounded;
        }
    }
    let sum = half_sums[0] + half_sums[1];
    BlockInfo {
        scale,
        scaled_sum: scale * sum as f32,
        scaled_half_sums: [scale * half_sums[0] as f32, scale * half_sums[1] as f32],
        negated_sum: -sum,
        negated_half_sums: [-half_sums[0], -half_sums[1]],
    }
}

#[cfg(test)]
mod tests {
    use super::Activations;
    use crate::{Cpu, Level, Pool};

    #[test]
    fn every_level_rounds_alike_and_keeps_what_is_not_finite() {
        let mut values: Vec<f32> = (0..320).map(|index| ((index * 37 % 101) as f32 - 50.0) * 0.13).collect();
        values[40] = f32::NAN;
        values[70] = f32::INFINITY;
        values[96..128].fill(0.0);
        values[130] = 1e-42;
        let pool: &'static Pool = Box::leak(Box::new(Pool::new(1)));
        let plain = Activations::round(Cpu::with(Level::Scalar, pool).unwrap(), &values, 64);
        assert!(plain.blocks[1].scale.is_nan() && plain.blocks[2].scale.is_nan());
        assert_eq!(plain.blocks[3].scale, 0.0);
        for (block, info) in plain.blocks.iter().take(values.len() / 32).enumerate() {
            let codes = &plain.codes[block * 32..block * 32 + 32];
            assert_eq!(-info.negated_sum, codes.iter().map(|code| i32::from(*code)).sum::<i32>());
            if info.scale.is_nan() {
                continue;
            }
            for (code, value) in codes.iter().zip(&values[block * 32..]) {
                assert!((f32::from(*code) * info.scale - value).abs() <= info.scale * 0.501 + 1e-36);
            }
        }
        for level in Level::supported() {
            let other = Activations::round(Cpu::with(level, pool).unwrap(), &values, 64);
            assert_eq!(plain.codes, other.codes);
        }
    }
}
