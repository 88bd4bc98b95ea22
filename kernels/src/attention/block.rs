//! A few queries against one tile: scores, their softmax, and the weighted values.
//!
//! Per query: scores, each a sum over `d` in order by fused multiply-add; their maximum; powers of two; their
//! sum in sixteen lanes; then values weighted in order of position. Where cells are codes, a score is the sum over
//! groups of dimensions of their sum times the group's scale, and the scale of a value is taken into its weight.
//! Queries that see the same positions go through registers together, which shares loads and changes nothing else.

use std::ops::Range;

use half::f16;

use super::AttentionOptions;
use super::cpu::Call;
use super::format::GROUP;
use super::scratch::Scratch;
use super::softmax::{State, exp2, exp2_of};
use crate::lanes::Lanes;
use crate::maths::{LANES, exp, largest_lane};

/// Most queries that go through registers together.
pub(super) const MOST_QUERIES: usize = 6;

/// What keys and values are made of.
pub(super) trait Cells: Copy {
    /// Whether they lie where the cache is, from which the next tile is to be asked for ahead.
    const CACHED: bool;

    /// The first sixteen, widened.
    fn load<L: Lanes>(cells: &[Self]) -> L;
    fn widened(self) -> f32;
}

impl Cells for f32 {
    const CACHED: bool = false;

    #[inline(always)]
    fn load<L: Lanes>(cells: &[Self]) -> L {
        L::load(cells)
    }

    #[inline(always)]
    fn widened(self) -> f32 {
        self
    }
}

impl Cells for f16 {
    const CACHED: bool = true;

    #[inline(always)]
    fn load<L: Lanes>(cells: &[Self]) -> L {
        L::load_f16(cells)
    }

    #[inline(always)]
    fn widened(self) -> f32 {
        self.to_f32()
    }
}

impl Cells for i8 {
    const CACHED: bool = true;

    #[inline(always)]
    fn load<L: Lanes>(cells: &[Self]) -> L {
        L::load_i8(cells)
    }

    #[inline(always)]
    fn widened(self) -> f32 {
        f32::from(self)
    }
}

/// Keys or values of a tile of one kv head.
#[derive(Clone, Copy)]
pub(super) struct Side<'a, T> {
    /// Keys `[d, padded tile]`, or values `[tile, padded d]`.
    pub cells: &'a [T],
    /// Those of the tile after it, or the same again.
    pub next: &'a [T],
    /// `[groups, padded tile]` what cells are to be multiplied by; empty unless they are codes.
    pub scales: &'a [f32],
}

/// A tile of one kv head.
#[derive(Clone, Copy)]
pub(super) struct Tile<'a, T> {
    pub keys: Side<'a, T>,
    pub values: Side<'a, T>,
}

/// Asks for the line of a cell that is wanted soon.
#[inline(always)]
pub(super) fn prefetch<T: Cells>(cells: &[T], at: usize) {
    if T::CACHED {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a hint; it may name any address.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(cells.as_ptr().wrapping_add(at).cast::<i8>());
        }
        let _ = (cells, at);
    }
}

/// Some queries, which all see `seen`, against a tile; `CODES`: its cells are codes.
#[inline(always)]
pub(super) fn step<L: Lanes, T: Cells, const CODES: bool>(
    call: &Call<'_>,
    tile: Tile<'_, T>,
    queries: Range<usize>,
    seen: Range<usize>,
    scratch: &mut Scratch,
) {
    let mut first = queries.start;
    while first < queries.end {
        let left = queries.end - first;
        // As many at once as registers hold; three, since groups of three heads are common.
        first += match left {
            1 => block::<L, T, 1, CODES>(call, tile, first, &seen, scratch),
            3 => block::<L, T, 3, CODES>(call, tile, first, &seen, scratch),
            MOST_QUERIES.. if L::WIDE => {
                block::<L, T, MOST_QUERIES, CODES>(call, tile, first, &seen, scratch)
            }
            4.. if L::WIDE => block::<L, T, 4, CODES>(call, tile, first, &seen, scratch),
            _ => block::<L, T, 2, CODES>(call, tile, first, &seen, scratch),
        };
    }
}

/// `Q` queries from `first` on; returns `Q`.
#[inline(always)]
fn block<L: Lanes, T: Cells, const Q: usize, const CODES: bool>(
    call: &Call<'_>,
    tile: Tile<'_, T>,
    first: usize,
    seen: &Range<usize>,
    scratch: &mut Scratch,
) -> usize {
    let width = call.geometry.width;
    let (padded_tile, padded_width) = (call.geometry.padded_tile(), call.geometry.padded_width());
    let q = &scratch.q[first * width..(first + Q) * width];
    let mut weights = &mut scratch.weights[first * padded_tile..(first + Q) * padded_tile];
    let mut column = 0;
    while column < padded_tile {
        column += if padded_tile - column >= 2 * LANES {
            scores::<L, T, Q, 2, CODES>(q, tile.keys, padded_tile, column, weights)
        } else {
            scores::<L, T, Q, 1, CODES>(q, tile.keys, padded_tile, column, weights)
        };
    }
    for query in 0..Q {
        let weights = &mut weights[query * padded_tile..(query + 1) * padded_tile];
        mask(weights, seen, &call.options);
        scratch.keeps[first + query] = soften::<L>(weights, &mut scratch.states[first + query]);
    }
    if CODES {
        let scaled = &mut scratch.scaled[..Q * tile.values.scales.len()];
        take_in_scales::<L>(weights, padded_tile, tile.values.scales, scaled);
        weights = scaled;
    }
    let keeps = &scratch.keeps[first..first + Q];
    let sums = &mut scratch.sums[first * padded_width..(first + Q) * padded_width];
    let weights = Weights { powers: weights, keeps, padded: padded_tile, seen };
    let mut column = 0;
    while column < padded_width {
        column += if L::WIDE && padded_width - column >= 4 * LANES {
            gather::<L, T, Q, 4, CODES>(weights, tile.values, column, sums)
        } else if padded_width - column >= 2 * LANES {
            gather::<L, T, Q, 2, CODES>(weights, tile.values, column, sums)
        } else {
            gather::<L, T, Q, 1, CODES>(weights, tile.values, column, sums)
        };
    }
    Q
}

/// Scores of `Q` queries against `16 · C` positions from `column` on; returns how many positions.
#[inline(always)]
fn scores<L: Lanes, T: Cells, const Q: usize, const C: usize, const CODES: bool>(
    q: &[f32],
    keys: Side<'_, T>,
    padded: usize,
    column: usize,
    scores: &mut [f32],
) -> usize {
    let width = q.len() / Q;
    let totals = if CODES {
        let mut totals = [[L::splat(0.0); C]; Q];
        for (group, start) in (0..width).step_by(GROUP).enumerate() {
            let dimensions = start..(start + GROUP).min(width);
            let sums = partial_scores::<L, T, Q, C>(q, keys, padded, column, dimensions);
            for nth in 0..C {
                let scale = L::load(&keys.scales[group * padded + column + nth * LANES..]);
                for query in 0..Q {
                    totals[query][nth] = sums[query][nth].mul_add(scale, totals[query][nth]);
                }
            }
        }
        totals
    } else {
        partial_scores::<L, T, Q, C>(q, keys, padded, column, 0..width)
    };
    for query in 0..Q {
        for nth in 0..C {
            totals[query][nth].store(&mut scores[query * padded + column + nth * LANES..]);
        }
    }
    C * LANES
}

/// What some dimensions give to the scores.
#[inline(always)]
fn partial_scores<L: Lanes, T: Cells, const Q: usize, const C: usize>(
    q: &[f32],
    keys: Side<'_, T>,
    padded: usize,
    column: usize,
    dimensions: Range<usize>,
) -> [[L; C]; Q] {
    let width = q.len() / Q;
    assert!(column + C * LANES <= padded && dimensions.end <= width && keys.cells.len() >= width * padded);
    let mut sums = [[L::splat(0.0); C]; Q];
    for dimension in dimensions {
        prefetch(keys.next, dimension * padded + column);
        let mut loaded = [L::splat(0.0); C];
        for (nth, loaded) in loaded.iter_mut().enumerate() {
            let at = dimension * padded + column + nth * LANES;
            // SAFETY: within the tile by the check above; checks in this loop would keep sums in memory.
            *loaded = T::load::<L>(unsafe { keys.cells.get_unchecked(at..at + LANES) });
        }
        for (query, sums) in sums.iter_mut().enumerate() {
            // SAFETY: there are `Q` rows of `width`.
            let value = L::splat(unsafe { *q.get_unchecked(query * width + dimension) });
            for (sum, keys) in sums.iter_mut().zip(loaded) {
                *sum = value.mul_add(keys, *sum);
            }
        }
    }
    sums
}

/// Multiplies each query's powers `[padded tile]` by each group's scales.
#[inline(always)]
fn take_in_scales<L: Lanes>(powers: &[f32], padded: usize, scales: &[f32], scaled: &mut [f32]) {
    for (powers, scaled) in powers.chunks_exact(padded).zip(scaled.chunks_exact_mut(scales.len())) {
        for (scales, scaled) in scales.chunks_exact(padded).zip(scaled.chunks_exact_mut(padded)) {
            for at in (0..padded).step_by(LANES) {
                L::load(&powers[at..]).mul(L::load(&scales[at..])).store(&mut scaled[at..]);
            }
        }
    }
}

/// Caps scores, if they have a cap, and hides those of positions that are not seen.
#[inline(always)]
fn mask(scores: &mut [f32], seen: &Range<usize>, options: &AttentionOptions) {
    if let Some(cap) = options.softcap {
        for score in scores.iter_mut() {
            *score = cap * tanh(*score / cap) * std::f32::consts::LOG2_E;
        }
    }
    if *seen != (0..scores.len()) {
        for (position, score) in scores.iter_mut().enumerate() {
            *score = if position >= seen.start && position < seen.end { *score } else { f32::NEG_INFINITY };
        }
    }
}

/// Turns a query's scores into powers and takes them into its state; returns the factor on what it had.
#[inline(always)]
fn soften<L: Lanes>(scores: &mut [f32], state: &mut State) -> f32 {
    let mut largest = L::splat(f32::NEG_INFINITY);
    for scores in scores.chunks_exact(LANES) {
        largest = L::load(scores).max(largest);
    }
    let mut lanes = [0f32; LANES];
    largest.store(&mut lanes);
    let maximum = state.maximum.max(largest_lane(lanes));
    let mut sum = L::splat(0.0);
    for scores in scores.chunks_exact_mut(LANES) {
        let power = exp2(L::load(scores).sub(L::splat(maximum)));
        power.store(scores);
        sum = power.add(sum);
    }
    let keep = exp2_of(state.maximum - maximum);
    *state = State { maximum, sum: state.sum * keep + sum.sum() };
    keep
}

/// What values are weighted by.
#[derive(Clone, Copy)]
struct Weights<'a> {
    /// `[queries, padded]`, or where cells are codes `[queries, groups, padded]`.
    powers: &'a [f32],
    /// `[queries]` factor on what a query has gathered.
    keeps: &'a [f32],
    padded: usize,
    /// Positions that count.
    seen: &'a Range<usize>,
}

/// Adds the weighted values to `16 · C` dimensions of `Q` queries from `column` on; returns how many
/// dimensions.
#[inline(always)]
fn gather<L: Lanes, T: Cells, const Q: usize, const C: usize, const CODES: bool>(
    weights: Weights<'_>,
    values: Side<'_, T>,
    column: usize,
    sums: &mut [f32],
) -> usize {
    let Weights { powers, keeps, padded, seen } = weights;
    let (stride, width) = (powers.len() / Q, sums.len() / Q);
    // Columns of one weight, and where the first one's begin: more than one column begins with a whole group.
    let (per_weight, first) = if CODES { (GROUP / LANES, column / GROUP * padded) } else { (C, 0) };
    assert!(
        column + C * LANES <= width
            && seen.end <= padded
            && first + (C - 1) / per_weight * padded + padded <= stride
            && values.cells.len() >= seen.end * width
    );
    let mut totals = [[L::splat(0.0); C]; Q];
    for (query, (totals, keep)) in totals.iter_mut().zip(keeps).enumerate() {
        for (nth, total) in totals.iter_mut().enumerate() {
            let at = query * width + column + nth * LANES;
            *total = L::load(&sums[at..at + LANES]).mul(L::splat(*keep));
        }
    }
    for position in seen.clone() {
        for line in (0..C).step_by(64 / size_of::<T>() / LANES) {
            prefetch(values.next, position * width + column + line * LANES);
        }
        let mut loaded = [L::splat(0.0); C];
        for (nth, loaded) in loaded.iter_mut().enumerate() {
            let at = position * width + column + nth * LANES;
            // SAFETY: within the tile by the check above; checks in this loop would keep totals in memory.
            *loaded = T::load::<L>(unsafe { values.cells.get_unchecked(at..at + LANES) });
        }
        for (query, totals) in totals.iter_mut().enumerate() {
            for (nth, (total, value)) in totals.iter_mut().zip(loaded).enumerate() {
                let at = query * stride + first + nth / per_weight * padded + position;
                // SAFETY: as above.
                let weight = L::splat(unsafe { *powers.get_unchecked(at) });
                *total = weight.mul_add(value, *total);
            }
        }
    }
    for query in 0..Q {
        for nth in 0..C {
            totals[query][nth].store(&mut sums[query * width + column + nth * LANES..]);
        }
    }
    C * LANES
}

/// `tanh` by way of [`exp`].
#[inline(always)]
fn tanh(x: f32) -> f32 {
    let shrink = exp(-2.0 * x.abs());
    ((1.0 - shrink) / (1.0 + shrink)).copysign(x)
}
