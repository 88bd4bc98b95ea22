//! The softmax of a query as far as it has come, and how two parts of it are put together.
//!
//! Everything is in powers of two: scores come multiplied by `log₂ e`, with the queries.

use std::ops::Range;

use super::AttentionOptions;
use crate::lanes::Lanes;
use crate::maths::{LANES, exp, largest_lane};

/// Softmax so far of one query: its weighted sum is to be scaled by `2^-maximum`.
#[derive(Clone, Copy)]
pub(super) struct State {
    pub maximum: f32,
    pub sum: f32,
}

/// Of a query that has seen nothing.
pub(super) const EMPTY: State = State { maximum: f32::NEG_INFINITY, sum: 0.0 };

impl State {
    fn is_empty(self) -> bool {
        self.sum == 0.0 && self.maximum == f32::NEG_INFINITY
    }
}

/// Caps the scores of a tile, if they have a cap, and hides those of positions that are not seen.
#[inline(always)]
pub(super) fn mask(scores: &mut [f32], seen: Range<usize>, options: &AttentionOptions) {
    if let Some(cap) = options.softcap {
        for score in scores.iter_mut() {
            *score = cap * tanh(*score / cap) * std::f32::consts::LOG2_E;
        }
    }
    scores[..seen.start].fill(f32::NEG_INFINITY);
    scores[seen.end..].fill(f32::NEG_INFINITY);
}

/// The greatest of a query's scores and of what it has seen before.
#[inline(always)]
pub(super) fn maximum<L: Lanes>(scores: &[f32], state: State) -> f32 {
    let mut largest = L::splat(f32::NEG_INFINITY);
    for scores in scores.chunks_exact(LANES) {
        largest = L::load(scores).max(largest);
    }
    let mut lanes = [0f32; LANES];
    largest.store(&mut lanes);
    state.maximum.max(largest_lane(lanes))
}

/// Turns a query's scores into powers, given their [`maximum`], and takes them into its state; returns the factor on what it had.
#[inline(always)]
pub(super) fn soften<L: Lanes>(scores: &mut [f32], maximum: f32, state: &mut State) -> f32 {
    let mut sum = L::splat(0.0);
    for scores in scores.chunks_exact_mut(LANES) {
        let power = exp2(L::load(scores).sub(L::splat(maximum)));
        power.store(scores);
        sum = power.add(sum);
    }
    let mut keeps = [0f32; LANES];
    exp2(L::splat(state.maximum - maximum)).store(&mut keeps);
    let keep = keeps[0];
    *state = State { maximum, sum: state.sum * keep + sum.sum() };
    keep
}

/// Adds a segment's state and sums to the total. A segment that the query did not see changes nothing.
#[inline(always)]
pub(super) fn merge(total: &mut State, total_sums: &mut [f32], state: State, sums: &[f32]) {
    if state.is_empty() {
        return;
    }
    if total.is_empty() {
        *total = state;
        total_sums.copy_from_slice(sums);
        return;
    }
    let maximum = total.maximum.max(state.maximum);
    let (old, new) = (exp2_of(total.maximum - maximum), exp2_of(state.maximum - maximum));
    for (total, sum) in total_sums.iter_mut().zip(sums) {
        *total = *total * old + sum * new;
    }
    *total = State { maximum, sum: total.sum * old + state.sum * new };
}

/// [`exp2`] of one number, the same at every level.
#[inline(always)]
pub(super) fn exp2_of(x: f32) -> f32 {
    let lanes: [f32; LANES] = exp2(Lanes::splat(x));
    lanes[0]
}

/// `2^x` for `x ≤ 0`, within about an ulp and a half; 0 below -125, NaN stays NaN.
///
/// `2^x = 2^n · 2^r` with `|r| ≤ ½`; `2^r` by the polynomial of degree five that is 1 at 0 and whose greatest
/// relative error is smallest (Lawson's weighted least squares).
#[inline(always)]
pub(super) fn exp2<L: Lanes>(x: L) -> L {
    const LEAST: f32 = -125.0;
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2^23: adding it rounds to the nearest integer.
    let clamped = L::splat(LEAST).max(x);
    let shifted = clamped.add(L::splat(ROUND));
    let rest = clamped.sub(shifted.sub(L::splat(ROUND)));
    #[allow(clippy::approx_constant)] // It only looks like ln 2: the best polynomial begins a little below it.
    const COEFFICIENTS: [f32; 5] = [0.009_671_513, 0.055_507_336, 0.240_222_42, 0.693_147, 1.0];
    let mut power = L::splat(0.001_326_472_7);
    for coefficient in COEFFICIENTS {
        power = power.mul_add(rest, L::splat(coefficient));
    }
    // The lowest bits of the shifted number are the integer.
    power.add_exponent(shifted).zero_where_less(x, LEAST)
}

/// `tanh` by way of [`exp`].
#[inline(always)]
fn tanh(x: f32) -> f32 {
    let shrink = exp(-2.0 * x.abs());
    ((1.0 - shrink) / (1.0 + shrink)).copysign(x)
}

#[cfg(test)]
mod tests {
    use super::exp2_of;

    #[test]
    fn powers_of_two_are_close_and_keep_their_limits() {
        for step in 0..125_000 {
            let x = step as f32 / -1000.0;
            let expected = f64::from(x).exp2();
            let error = (f64::from(exp2_of(x)) - expected).abs() / expected;
            assert!(error < 2e-7, "exp2({x}): relative error {error}");
        }
        assert_eq!(exp2_of(0.0), 1.0);
        assert_eq!(exp2_of(-126.0), 0.0);
        assert_eq!(exp2_of(f32::NEG_INFINITY), 0.0);
        assert!(exp2_of(f32::NAN).is_nan());
    }
}
