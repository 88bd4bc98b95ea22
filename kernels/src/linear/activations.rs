//! Activations rounded to bytes: blocks of 32 with one f32 scale, and the sums that offsets and minimums
//! need.
//!
//! Done once per input and shared by all matrices over it. Each row is rounded on its own.

use std::mem::MaybeUninit;
use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use super::avx512;
use super::format::BLOCK;
use crate::fresh::Fresh;
use crate::simd::multiversion;
use crate::{Cpu, Level};

/// Rows of zeros behind the last, so that kernels which take several rows at once may read on.
pub(super) const SPARE_ROWS: usize = 15;

/// Rows of activations, rounded.
#[derive(Clone, Default)]
pub(crate) struct Activations {
    /// `[t + SPARE_ROWS, inner]`, each in -127..=127.
    pub codes: Vec<i8>,
    /// Per row, spare ones too, and block.
    pub blocks: Vec<BlockInfo>,
    /// As many.
    pub sums: Vec<BlockSums>,
    /// Blocks of a row.
    pub blocks_per_row: usize,
}

/// What every product with one block of 32 needs.
#[derive(Clone, Copy, Default)]
pub(crate) struct BlockInfo {
    /// The f32 that a code counts for.
    pub scale: f32,
    /// Scale times the sum of the codes.
    pub scaled_sum: f32,
}

/// What else some weights need of a block.
#[derive(Clone, Copy, Default)]
pub(crate) struct BlockSums {
    /// Scale times the sum of each half's codes.
    pub scaled_halves: [f32; 2],
    /// Minus the sum of the codes: what an offset on the weights takes away.
    pub negated: i32,
    /// Minus the sum of each half's codes.
    pub negated_halves: [i32; 2],
}

impl BlockSums {
    /// Minus the sum, and the scaled sum, that go with one of `halves` parts of the block.
    #[inline(always)]
    pub(super) fn part(&self, info: &BlockInfo, halves: usize, half: usize) -> (i32, f32) {
        if halves == 1 {
            (self.negated, info.scaled_sum)
        } else {
            (self.negated_halves[half], self.scaled_halves[half])
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
    sums: Fresh<BlockSums>,
    blocks_per_row: usize,
}

impl Builder {
    /// For `rows` rows of `inner`, a multiple of 32.
    pub(crate) fn new(rows: usize, inner: usize) -> Self {
        let cells = (rows + SPARE_ROWS) * inner;
        let (codes, blocks, sums) = (Fresh::new(cells), Fresh::new(cells / BLOCK), Fresh::new(cells / BLOCK));
        let (first, count) = (rows * inner / BLOCK, SPARE_ROWS * inner / BLOCK);
        // SAFETY: nobody else has them yet.
        unsafe {
            codes.range(first * BLOCK, count * BLOCK).fill(MaybeUninit::new(0));
            blocks.range(first, count).fill(MaybeUninit::new(BlockInfo::default()));
            sums.range(first, count).fill(MaybeUninit::new(BlockSums::default()));
        }
        Self { codes, blocks, sums, blocks_per_row: inner / BLOCK }
    }

    /// Rounds `values`, whole blocks, of which `first` is the first in the order of rows.
    ///
    /// # Safety
    /// No two threads may have a block at once.
    pub(crate) unsafe fn round(&self, cpu: Cpu, first: usize, values: &[f32]) {
        let count = values.len() / BLOCK;
        // SAFETY: blocks do not overlap, as the caller promises.
        let (codes, blocks, sums) = unsafe {
            (
                self.codes.range(first * BLOCK, count * BLOCK),
                self.blocks.range(first, count),
                self.sums.range(first, count),
            )
        };
        let to = Rounded { codes, blocks, sums };
        match cpu.level() {
            // SAFETY: a `Cpu` holds only a level that this machine supports.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 | Level::Amx => unsafe { avx512::round_blocks(values, to) },
            level => {
                multiversion!(level, round_blocks, values: &[f32], to: Rounded<'_>);
            }
        }
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
        let (codes, blocks, sums) =
            unsafe { (self.codes.written(), self.blocks.written(), self.sums.written()) };
        Activations { codes, blocks, sums, blocks_per_row: self.blocks_per_row }
    }
}

/// Where blocks are rounded to.
pub(super) struct Rounded<'a> {
    pub codes: &'a mut [MaybeUninit<i8>],
    pub blocks: &'a mut [MaybeUninit<BlockInfo>],
    pub sums: &'a mut [MaybeUninit<BlockSums>],
}

#[inline(always)]
fn round_blocks(input: &[f32], to: Rounded<'_>) {
    let places = to.codes.chunks_exact_mut(BLOCK).zip(to.blocks).zip(to.sums);
    for (values, ((codes, block), sums)) in input.chunks_exact(BLOCK).zip(places) {
        // Bit patterns of absolute values order as the values do, infinity and NaN above all.
        let largest = values.iter().fold(0u32, |largest, value| largest.max(value.to_bits() & 0x7fff_ffff));
        let (scale, inverse) = scale_of(largest);
        let finite = !scale.is_nan();
        let mut halves = [0i32; 2];
        for (half, sum) in halves.iter_mut().enumerate() {
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
        block.write(info_of(scale, halves));
        sums.write(sums_of(scale, halves));
    }
}

/// The scale of a block whose largest absolute value has these bits, and its inverse. A value that is not finite makes the
/// scale NaN, so that it is not lost.
#[inline(always)]
pub(super) fn scale_of(largest: u32) -> (f32, f32) {
    let finite = largest < 0x7f80_0000;
    let largest = f32::from_bits(largest);
    let scale = if finite { largest / 127.0 } else { f32::NAN };
    // The smallest subnormal scales have no finite inverse.
    let inverse = if finite && largest > 1e-36 { 127.0 / largest } else { 0.0 };
    (scale, inverse)
}

#[inline(always)]
pub(super) fn info_of(scale: f32, halves: [i32; 2]) -> BlockInfo {
    BlockInfo { scale, scaled_sum: scale * (halves[0] + halves[1]) as f32 }
}

#[inline(always)]
pub(super) fn sums_of(scale: f32, halves: [i32; 2]) -> BlockSums {
    BlockSums {
        scaled_halves: [scale * halves[0] as f32, scale * halves[1] as f32],
        negated: -(halves[0] + halves[1]),
        negated_halves: [-halves[0], -halves[1]],
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
            assert_eq!(-plain.sums[block].negated, codes.iter().map(|code| i32::from(*code)).sum::<i32>());
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
            for (info, other) in plain.blocks.iter().zip(&other.blocks) {
                assert_eq!(info.scale.to_bits(), other.scale.to_bits());
                assert!(info.scale.is_nan() || info.scaled_sum == other.scaled_sum);
            }
            for (sums, other) in plain.sums.iter().zip(&other.sums) {
                assert_eq!((sums.negated, sums.negated_halves), (other.negated, other.negated_halves));
            }
        }
    }
}
