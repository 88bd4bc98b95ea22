//! Activations rounded to bytes: blocks of 32 with one f32 scale, and the sums that offsets and minimums
//! need.
//!
//! Done once per input and shared by all matrices over it. Each row is rounded on its own.

use std::mem::MaybeUninit;
use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use super::avx512;
use super::format::{BLOCK, Kind};
use crate::fresh::Fresh;
use crate::simd::multiversion;
use crate::{Cpu, Level};

/// Blocks that are rounded at once, so that their scales are worked out in the lanes of a vector.
pub(super) const AT_ONCE: usize = 16;

/// Rows that lie together; the last ones are filled up with zeros, so that kernels may read on.
pub(super) const TOGETHER: usize = 16;

/// Rows of activations, rounded.
#[derive(Clone, Default)]
pub(crate) struct Activations {
    /// `[t, inner]`, each in -127..=127, filled up to sixteen rows.
    pub codes: Vec<i8>,
    /// `[t / 16, blocks, 16]`: of sixteen rows together, block after block.
    pub scales: Vec<f32>,
    /// The same order: scale times the sum of the codes.
    pub scaled_sums: Vec<f32>,
    /// The same order.
    pub sums: Vec<BlockSums>,
    /// Blocks of a row.
    pub blocks_per_row: usize,
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

impl Activations {
    /// Where what belongs to a block of a row lies.
    #[inline(always)]
    pub(super) fn place(&self, row: usize, block: usize) -> usize {
        place(self.blocks_per_row, row, block)
    }

    /// Minus the sum, and the scaled sum, that go with one of `halves` parts of the block at a place.
    #[inline(always)]
    pub(super) fn part(&self, place: usize, halves: usize, half: usize) -> (i32, f32) {
        if halves == 1 {
            (self.sums[place].negated, self.scaled_sums[place])
        } else {
            (self.sums[place].negated_halves[half], self.sums[place].scaled_halves[half])
        }
    }

    /// Rounds `x [t, inner]`; `inner` is a multiple of 32.
    pub(super) fn round(cpu: Cpu, x: &[f32], inner: usize) -> Self {
        let rows = x.len() / inner;
        let builder = Builder::new(rows, inner);
        cpu.pool().for_each_chunk(rows, (16_384 / inner).max(1), &|range| {
            for row in range {
                // SAFETY: chunks of rows do not overlap.
                unsafe { builder.round(cpu, row, 0, &x[row * inner..(row + 1) * inner]) };
            }
        });
        // SAFETY: the chunks were all rows.
        unsafe { builder.finished() }
    }
}

#[inline(always)]
fn place(blocks_per_row: usize, row: usize, block: usize) -> usize {
    (row / TOGETHER * blocks_per_row + block) * TOGETHER + row % TOGETHER
}

/// The place of the first block of the first of `T` rows, which lie together.
#[inline(always)]
pub(super) fn places<const T: usize>(activations: &Activations, first: usize) -> usize {
    assert!(first % TOGETHER + T <= TOGETHER, "rows of a tile lie together");
    let blocks = activations.blocks_per_row;
    let end = place(blocks, first + T - 1, blocks - 1);
    assert!(end < activations.scales.len().min(activations.scaled_sums.len()).min(activations.sums.len()));
    place(blocks, first, 0)
}

/// The scale, and the sums of a part, of the block at a place; only what the weights want is read.
///
/// # Safety
/// The place must be that of a block.
#[inline(always)]
pub(super) unsafe fn facts<K: Kind>(
    activations: &Activations,
    place: usize,
    half: usize,
) -> (f32, (i32, f32)) {
    // SAFETY: as the caller promises; all have as many places.
    let (scale, scaled_sum, sums) = unsafe {
        (
            *activations.scales.get_unchecked(place),
            *activations.scaled_sums.get_unchecked(place),
            activations.sums.get_unchecked(place),
        )
    };
    if K::HALVES == 1 {
        (scale, (sums.negated, scaled_sum))
    } else {
        (scale, (sums.negated_halves[half], sums.scaled_halves[half]))
    }
}

/// Activations that are being rounded, by several tasks.
pub(crate) struct Builder {
    codes: Fresh<i8>,
    scales: Fresh<f32>,
    scaled_sums: Fresh<f32>,
    sums: Fresh<BlockSums>,
    blocks_per_row: usize,
}

impl Builder {
    /// For `rows` rows of `inner`, a multiple of 32.
    pub(crate) fn new(rows: usize, inner: usize) -> Self {
        let whole = rows.next_multiple_of(TOGETHER);
        let (cells, blocks_per_row) = (whole * inner, inner / BLOCK);
        let blocks = cells / BLOCK;
        let builder = Self {
            codes: Fresh::new(cells),
            scales: Fresh::new(blocks),
            scaled_sums: Fresh::new(blocks),
            sums: Fresh::new(blocks),
            blocks_per_row,
        };
        // SAFETY: nobody else has them yet.
        unsafe { builder.codes.range(rows * inner, cells - rows * inner).fill(MaybeUninit::new(0)) };
        for row in rows..whole {
            for block in 0..blocks_per_row {
                // SAFETY: as above.
                unsafe { builder.note(place(blocks_per_row, row, block), (0.0, [0; 2])) };
            }
        }
        builder
    }

    /// Rounds `values`, whole blocks of row `row` from block `first` on.
    ///
    /// # Safety
    /// No two threads may have a block at once.
    pub(crate) unsafe fn round(&self, cpu: Cpu, row: usize, first: usize, values: &[f32]) {
        let mut next = first;
        let mut sixteens = values.chunks_exact(AT_ONCE * BLOCK);
        for values in &mut sixteens {
            // SAFETY: as the caller promises.
            unsafe { self.round_sixteen(cpu, |nth| (row, next + nth), |nth| &values[nth * BLOCK..]) };
            next += AT_ONCE;
        }
        for (nth, values) in sixteens.remainder().chunks_exact(BLOCK).enumerate() {
            // SAFETY: as the caller promises.
            unsafe { self.round_one(cpu, row, next + nth, values) };
        }
    }

    /// Rounds block `block` of each of some rows; their values are `apart`.
    ///
    /// # Safety
    /// As [`Builder::round`].
    pub(crate) unsafe fn round_column(
        &self,
        cpu: Cpu,
        rows: Range<usize>,
        block: usize,
        (values, apart): (&[f32], usize),
    ) {
        let sixteens = rows.len() / AT_ONCE;
        for nth in 0..sixteens {
            let (first, values) = (nth * AT_ONCE, &values[nth * AT_ONCE * apart..]);
            let at = |nth| (rows.start + first + nth, block);
            // SAFETY: as the caller promises.
            unsafe { self.round_sixteen(cpu, at, |nth| &values[nth * apart..]) };
        }
        for row in rows.clone().skip(sixteens * AT_ONCE) {
            let values = &values[(row - rows.start) * apart..][..BLOCK];
            // SAFETY: as the caller promises.
            unsafe { self.round_one(cpu, row, block, values) };
        }
    }

    /// Rounds sixteen blocks: where each of them is (row and block), and its values.
    ///
    /// # Safety
    /// As [`Builder::round`], and they must be sixteen different ones.
    #[inline(always)]
    unsafe fn round_sixteen<'a>(
        &self,
        cpu: Cpu,
        at: impl Fn(usize) -> (usize, usize),
        values: impl Fn(usize) -> &'a [f32],
    ) {
        let values: [&[f32]; AT_ONCE] = std::array::from_fn(|nth| &values(nth)[..BLOCK]);
        let codes: [&mut [MaybeUninit<i8>]; AT_ONCE] = std::array::from_fn(|nth| {
            let (row, block) = at(nth);
            // SAFETY: blocks do not overlap, as the caller promises.
            unsafe { self.codes.range((row * self.blocks_per_row + block) * BLOCK, BLOCK) }
        });
        let mut facts = Sixteen::default();
        let to = &mut facts;
        match cpu.level() {
            // SAFETY: a `Cpu` holds only a level that this machine supports.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 | Level::Amx => unsafe { avx512::round_sixteen(values, codes, to) },
            level => {
                multiversion!(level, round_sixteen, values: [&[f32]; AT_ONCE], codes: [&mut [MaybeUninit<i8>]; AT_ONCE], to: &mut Sixteen);
            }
        }
        for nth in 0..AT_ONCE {
            let (row, block) = at(nth);
            let halves = [facts.halves[0][nth], facts.halves[1][nth]];
            // SAFETY: as the caller promises.
            unsafe { self.note(place(self.blocks_per_row, row, block), (facts.scales[nth], halves)) };
        }
    }

    /// Rounds one block.
    ///
    /// # Safety
    /// As [`Builder::round`].
    unsafe fn round_one(&self, cpu: Cpu, row: usize, block: usize, values: &[f32]) {
        // SAFETY: as the caller promises.
        let codes = unsafe { self.codes.range((row * self.blocks_per_row + block) * BLOCK, BLOCK) };
        let mut facts = (0f32, [0i32; 2]);
        let to = &mut facts;
        match cpu.level() {
            // SAFETY: a `Cpu` holds only a level that this machine supports.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 | Level::Amx => unsafe { avx512::round_block(values, codes, to) },
            level => {
                multiversion!(level, round_block, values: &[f32], codes: &mut [MaybeUninit<i8>], to: &mut Facts);
            }
        }
        // SAFETY: as the caller promises.
        unsafe { self.note(place(self.blocks_per_row, row, block), facts) };
    }

    /// Writes what is known of a block.
    ///
    /// # Safety
    /// As [`Builder::round`].
    #[inline(always)]
    unsafe fn note(&self, place: usize, (scale, halves): Facts) {
        let sums = BlockSums {
            scaled_halves: [scale * halves[0] as f32, scale * halves[1] as f32],
            negated: -(halves[0] + halves[1]),
            negated_halves: [-halves[0], -halves[1]],
        };
        // SAFETY: as the caller promises.
        unsafe {
            self.scales.write(place, scale);
            self.scaled_sums.write(place, scale * (halves[0] + halves[1]) as f32);
            self.sums.write(place, sums);
        }
    }

    /// What was rounded.
    ///
    /// # Safety
    /// Every block must have been.
    pub(crate) unsafe fn finished(self) -> Activations {
        // SAFETY: the rows that fill up were written at once, the others as the caller promises.
        unsafe {
            Activations {
                codes: self.codes.written(),
                scales: self.scales.written(),
                scaled_sums: self.scaled_sums.written(),
                sums: self.sums.written(),
                blocks_per_row: self.blocks_per_row,
            }
        }
    }
}

/// The scale of a block, and the sum of each half's codes.
pub(super) type Facts = (f32, [i32; 2]);

/// The same of sixteen blocks.
#[derive(Default)]
pub(super) struct Sixteen {
    pub scales: [f32; AT_ONCE],
    pub halves: [[i32; AT_ONCE]; 2],
}

#[inline(always)]
fn round_sixteen(values: [&[f32]; AT_ONCE], codes: [&mut [MaybeUninit<i8>]; AT_ONCE], facts: &mut Sixteen) {
    for (nth, (values, codes)) in values.into_iter().zip(codes).enumerate() {
        let mut own = (0f32, [0i32; 2]);
        round_block(values, codes, &mut own);
        (facts.scales[nth], [facts.halves[0][nth], facts.halves[1][nth]]) = own;
    }
}

#[inline(always)]
fn round_block(values: &[f32], codes: &mut [MaybeUninit<i8>], facts: &mut Facts) {
    let (values, codes) = (&values[..BLOCK], &mut codes[..BLOCK]);
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
    *facts = (scale, halves);
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

#[cfg(test)]
mod tests {
    use super::{Activations, Builder};
    use crate::{Cpu, Level, Pool};

    #[test]
    fn every_level_rounds_alike_and_keeps_what_is_not_finite() {
        // Rows of 18 blocks: sixteen at once, and two that are left.
        const INNER: usize = 18 * 32;
        let mut values: Vec<f32> =
            (0..19 * INNER).map(|index| ((index * 37 % 101) as f32 - 50.0) * 0.13).collect();
        values[40] = f32::NAN;
        values[70] = f32::INFINITY;
        values[96..128].fill(0.0);
        values[130] = 1e-42;
        values[16 * 32 + 3] = f32::NEG_INFINITY;
        values[17 * 32 + 3] = 1e-37;
        let pool: &'static Pool = Box::leak(Box::new(Pool::new(1)));
        let plain = Activations::round(Cpu::with(Level::Scalar, pool).unwrap(), &values, INNER);
        let at = |block: usize| plain.place(block / 18, block % 18);
        assert!(plain.scales[at(1)].is_nan() && plain.scales[at(2)].is_nan());
        assert_eq!(plain.scales[at(3)], 0.0);
        for block in 0..values.len() / 32 {
            let codes = &plain.codes[block * 32..block * 32 + 32];
            let scale = plain.scales[at(block)];
            assert_eq!(
                -plain.sums[at(block)].negated,
                codes.iter().map(|code| i32::from(*code)).sum::<i32>()
            );
            if scale.is_nan() {
                continue;
            }
            for (code, value) in codes.iter().zip(&values[block * 32..]) {
                assert!((f32::from(*code) * scale - value).abs() <= scale * 0.501 + 1e-36);
            }
        }
        for level in Level::supported() {
            let other = Activations::round(Cpu::with(level, pool).unwrap(), &values, INNER);
            assert_eq!(plain.codes, other.codes);
            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&plain.scales), bits(&other.scales));
            for (sums, other) in plain.sums.iter().zip(&other.sums) {
                assert_eq!((sums.negated, sums.negated_halves), (other.negated, other.negated_halves));
            }
            // Column by column it is the same.
            let builder = Builder::new(19, INNER);
            for block in 0..18 {
                let column = (&values[block * 32..], INNER);
                // SAFETY: one thread, and in the end all blocks.
                unsafe { builder.round_column(Cpu::with(level, pool).unwrap(), 0..19, block, column) };
            }
            // SAFETY: as above.
            let other = unsafe { builder.finished() };
            assert_eq!((&plain.codes, bits(&plain.scales)), (&other.codes, bits(&other.scales)));
            assert_eq!(bits(&plain.scaled_sums), bits(&other.scaled_sums));
        }
    }
}
