//! Products with unquantised weights: rows as they lie in memory, activations in f32, sums in f32.
//!
//! The one thing to know: each output is a sum in sixteen lanes by fused multiply-add, element `i` in lane `i % 16`, then a
//! fixed tree; every level and every tile size keeps to that.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::Level;
use crate::maths::{LANES, sum_lanes};
use crate::simd::multiversion;

/// Row-major weights, borrowed from their tensor.
#[derive(Clone, Copy)]
pub(super) enum Rows<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    Bf16(&'a [bf16]),
}

/// A weight type that widens to f32 exactly.
trait Weight: Copy {
    fn widen(self) -> f32;
}

impl Weight for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
}

impl Weight for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

/// Products of `x` (one row of `inner`) with `out.len()` rows from `first` on.
pub(super) fn multiply(level: Level, rows: Rows<'_>, first: usize, x: &[f32], out: &mut [f32]) {
    let span = first * x.len()..(first + out.len()) * x.len();
    match rows {
        Rows::F32(weights) => {
            let weights = &weights[span];
            multiversion!(level, dots_f32, weights: &[f32], x: &[f32], out: &mut [f32]);
        }
        Rows::F16(weights) => {
            let weights = &weights[span];
            multiversion!(level, dots_f16, weights: &[f16], x: &[f32], out: &mut [f32]);
        }
        Rows::Bf16(weights) => {
            let weights = &weights[span];
            multiversion!(level, dots_bf16, weights: &[bf16], x: &[f32], out: &mut [f32]);
        }
    }
}

#[inline(always)]
fn dots_f32(weights: &[f32], x: &[f32], out: &mut [f32]) {
    dots(weights, x, out);
}

#[inline(always)]
fn dots_f16(weights: &[f16], x: &[f32], out: &mut [f32]) {
    let mut row = vec![0f32; x.len()];
    for (weights, out) in weights.chunks_exact(x.len()).zip(out) {
        weights.convert_to_f32_slice(&mut row);
        *out = dot(&row, x);
    }
}

#[inline(always)]
fn dots_bf16(weights: &[bf16], x: &[f32], out: &mut [f32]) {
    dots(weights, x, out);
}

#[inline(always)]
fn dots<W: Weight>(weights: &[W], x: &[f32], out: &mut [f32]) {
    for (row, out) in weights.chunks_exact(x.len()).zip(out) {
        *out = dot(row, x);
    }
}

#[inline(always)]
fn dot<W: Weight>(row: &[W], x: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    let mut rows = row.chunks_exact(LANES);
    let mut xs = x.chunks_exact(LANES);
    for (row, x) in (&mut rows).zip(&mut xs) {
        for lane in 0..LANES {
            lanes[lane] = row[lane].widen().mul_add(x[lane], lanes[lane]);
        }
    }
    for (lane, (weight, x)) in rows.remainder().iter().zip(xs.remainder()).enumerate() {
        lanes[lane] = weight.widen().mul_add(*x, lanes[lane]);
    }
    sum_lanes(lanes)
}
