//! Products with unquantised weights: rows as they lie in memory, activations in f32, sums in f32.
//!
//! The one thing to know: each output is a sum in sixteen lanes by fused multiply-add, element `i` in lane `i
//! % 16`, the last sixteen filled up with zeros, then a fixed tree; every level and every tile size keeps to
//! that.

use std::ops::Range;

use half::{bf16, f16};

use super::panels::ROWS;
use super::target::Target;
use crate::Level;
use crate::lanes::{Kernel, Lanes, run};
use crate::maths::LANES;

/// Row-major weights, borrowed from their tensor.
#[derive(Clone, Copy)]
pub(super) enum Rows<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    Bf16(&'a [bf16]),
}

/// A weight type that widens to f32 exactly.
pub(super) trait Weight: Copy {
    const ZERO: Self;
    fn widen<L: Lanes>(values: &[Self]) -> L;

    /// Up to sixteen values, filled up with zeros.
    #[inline(always)]
    fn widen_rest<L: Lanes>(values: &[Self]) -> L {
        let mut filled = [Self::ZERO; LANES];
        filled[..values.len()].copy_from_slice(values);
        Self::widen(&filled)
    }
}

impl Weight for f32 {
    const ZERO: Self = 0.0;

    #[inline(always)]
    fn widen<L: Lanes>(values: &[Self]) -> L {
        L::load(values)
    }
}

impl Weight for f16 {
    const ZERO: Self = f16::ZERO;

    #[inline(always)]
    fn widen<L: Lanes>(values: &[Self]) -> L {
        L::load_f16(values)
    }
}

impl Weight for bf16 {
    const ZERO: Self = bf16::ZERO;

    #[inline(always)]
    fn widen<L: Lanes>(values: &[Self]) -> L {
        L::load_bf16(values)
    }
}

/// Up to sixteen rows of a matrix, and the activations to multiply them with.
pub(super) struct Span<'a> {
    pub rows: Rows<'a>,
    /// Which rows of the matrix.
    pub span: Range<usize>,
    /// `[t, inner]`
    pub x: &'a [f32],
    pub inner: usize,
}

impl Span<'_> {
    /// Multiplies with a range of activation rows into the target.
    pub(super) fn multiply(self, level: Level, tokens: Range<usize>, target: &Target<'_>) {
        let Self { rows, span, x, inner } = self;
        let cells = span.start * inner..span.end * inner;
        match rows {
            Rows::F32(weights) => run(level, Product { weights: &weights[cells], x, inner, tokens, target }),
            Rows::F16(weights) => run(level, Product { weights: &weights[cells], x, inner, tokens, target }),
            Rows::Bf16(weights) => run(level, Product { weights: &weights[cells], x, inner, tokens, target }),
        }
    }
}

/// Up to sixteen rows of weights times a range of activation rows.
struct Product<'a, W> {
    weights: &'a [W],
    x: &'a [f32],
    inner: usize,
    tokens: Range<usize>,
    target: &'a Target<'a>,
}

impl<W: Weight> Kernel for Product<'_, W> {
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { weights, x, inner, mut tokens, target } = self;
        if L::WIDE {
            while tokens.len() >= 4 {
                rows::<L, W, 4, 4>(weights, x, inner, tokens.start, target);
                tokens.start += 4;
            }
        }
        while tokens.len() >= 2 {
            rows::<L, W, 2, 2>(weights, x, inner, tokens.start, target);
            tokens.start += 2;
        }
        if !tokens.is_empty() {
            rows::<L, W, 4, 1>(weights, x, inner, tokens.start, target);
        }
    }
}

/// All rows of `weights` times `T` rows of `x` from `first` on, `R` at a time.
#[inline(always)]
fn rows<L: Lanes, W: Weight, const R: usize, const T: usize>(
    weights: &[W],
    x: &[f32],
    inner: usize,
    first: usize,
    target: &Target<'_>,
) {
    let x: [&[f32]; T] =
        std::array::from_fn(|token| &x[(first + token) * inner..(first + token + 1) * inner]);
    let mut values = [[0f32; ROWS]; T];
    let mut blocks = weights.chunks_exact(R * inner);
    for (block, weights) in (&mut blocks).enumerate() {
        let weights: [&[W]; R] = std::array::from_fn(|row| &weights[row * inner..(row + 1) * inner]);
        let sums = tile::<L, W, R, T>(weights, x);
        for (token, values) in values.iter_mut().enumerate() {
            for row in 0..R {
                values[block * R + row] = sums[row][token];
            }
        }
    }
    let done = weights.len() / (R * inner) * R;
    for (row, weights) in blocks.remainder().chunks_exact(inner).enumerate() {
        let [sums] = tile::<L, W, 1, T>([weights], x);
        for (values, sum) in values.iter_mut().zip(sums) {
            values[done + row] = sum;
        }
    }
    for (token, values) in values.iter().enumerate() {
        target.store(first + token, values);
    }
}

/// `R · T` dot products that share their loads.
#[inline(always)]
fn tile<L: Lanes, W: Weight, const R: usize, const T: usize>(
    weights: [&[W]; R],
    x: [&[f32]; T],
) -> [[f32; T]; R] {
    let length = x[0].len();
    assert!(weights.iter().all(|row| row.len() == length) && x.iter().all(|row| row.len() == length));
    let mut sums = [[L::splat(0.0); T]; R];
    let whole = length / LANES * LANES;
    for at in (0..whole).step_by(LANES) {
        let mut loaded = [L::splat(0.0); T];
        for (loaded, x) in loaded.iter_mut().zip(x) {
            // SAFETY: `at + LANES` is at most `whole`, and all rows have `length` elements. With checks in
            // this loop, the sums would be kept in memory.
            *loaded = L::load(unsafe { x.get_unchecked(at..at + LANES) });
        }
        for row in 0..R {
            // SAFETY: as above.
            let weights: L = W::widen(unsafe { weights[row].get_unchecked(at..at + LANES) });
            for token in 0..T {
                sums[row][token] = weights.mul_add(loaded[token], sums[row][token]);
            }
        }
    }
    if whole < length {
        let mut loaded = [L::splat(0.0); T];
        for (loaded, x) in loaded.iter_mut().zip(x) {
            *loaded = f32::widen_rest(&x[whole..]);
        }
        for row in 0..R {
            let weights: L = W::widen_rest(&weights[row][whole..]);
            for token in 0..T {
                sums[row][token] = weights.mul_add(loaded[token], sums[row][token]);
            }
        }
    }
    let mut totals = [[0f32; T]; R];
    for row in 0..R {
        for token in 0..T {
            totals[row][token] = sums[row][token].sum();
        }
    }
    totals
}
