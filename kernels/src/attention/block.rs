//! A few queries against a step of some tiles: scores, their softmax, and the weighted values.
//!
//! Per query: scores, each a sum over `d` in order by fused multiply-add; their maximum; powers of two; their
//! sum in sixteen lanes; then values weighted in order of position. Where cells are codes, a score is the sum over
//! groups of dimensions of their sum times the group's scale, and the scale of a value is taken into its weight.
//! Queries that see the same positions go through registers together, which shares loads and changes nothing else.

use std::ops::Range;

use super::cells::{Cells, Side, prefetch};
use super::cpu::Geometry;
use super::format::GROUP;
use super::scratch::Scratch;
use super::softmax::{maximum, soften};
use crate::lanes::Lanes;
use crate::maths::LANES;

/// Most queries that go through registers together.
pub(super) const MOST_QUERIES: usize = 6;

/// What is done with some queries at once.
trait Block<L> {
    /// With `Q` queries from `first` on.
    fn run<const Q: usize>(&mut self, first: usize);
}

/// Takes as many queries at once as registers hold.
#[inline(always)]
fn in_blocks<L: Lanes>(queries: Range<usize>, mut block: impl Block<L>) {
    let mut first = queries.start;
    while first < queries.end {
        // Three, since groups of three heads are common.
        let taken = match queries.end - first {
            1 => 1,
            3 => 3,
            MOST_QUERIES.. if L::WIDE => MOST_QUERIES,
            4.. if L::WIDE => 4,
            _ => 2,
        };
        match taken {
            1 => block.run::<1>(first),
            2 => block.run::<2>(first),
            3 => block.run::<3>(first),
            4 => block.run::<4>(first),
            _ => block.run::<MOST_QUERIES>(first),
        }
        first += taken;
    }
}

/// Scores some queries against tile `nth` of a step; those of positions that they do not see mean nothing. `CODES`: keys are
/// codes.
#[inline(always)]
pub(super) fn score<L: Lanes, T: Cells, const CODES: bool>(
    geometry: Geometry,
    keys: Side<'_, T>,
    nth: usize,
    queries: Range<usize>,
    scratch: &mut Scratch,
) {
    let Scratch { q, weights, .. } = scratch;
    in_blocks::<L>(queries, Score::<T, CODES> { geometry, keys, nth, q, weights });
}

struct Score<'a, T, const CODES: bool> {
    geometry: Geometry,
    keys: Side<'a, T>,
    nth: usize,
    q: &'a [f32],
    weights: &'a mut [f32],
}

impl<L: Lanes, T: Cells, const CODES: bool> Block<L> for Score<'_, T, CODES> {
    #[inline(always)]
    fn run<const Q: usize>(&mut self, first: usize) {
        let (width, padded) = (self.geometry.width, self.geometry.padded_tile());
        let q = &self.q[first * width..(first + Q) * width];
        let step = self.geometry.step();
        let to = &mut self.weights[first * step..(first + Q) * step];
        let mut column = 0;
        while column < padded {
            let place = Place { column, step, at: self.nth * padded + column };
            column += if padded - column >= 2 * LANES {
                scores::<L, T, Q, 2, CODES>(q, self.keys, padded, place, to)
            } else {
                scores::<L, T, Q, 1, CODES>(q, self.keys, padded, place, to)
            };
        }
    }
}

/// Queries whose softmax is taken side by side: each step of one waits for the step before it.
const SIDE_BY_SIDE: usize = 8;

/// Turns the scores of some queries in tiles `seen.start..seen.end` of a step into powers of two and takes them into their states.
/// What they have gathered so far is to be multiplied by `keeps`.
#[inline(always)]
pub(super) fn weigh<L: Lanes>(
    geometry: Geometry,
    queries: Range<usize>,
    seen: Range<usize>,
    scratch: &mut Scratch,
) {
    let (padded, step) = (geometry.padded_tile(), geometry.step());
    let scores = |query: usize| query * step + seen.start * padded..query * step + seen.end * padded;
    let mut maxima = [0f32; SIDE_BY_SIDE];
    for first in queries.clone().step_by(SIDE_BY_SIDE) {
        let queries = first..queries.end.min(first + SIDE_BY_SIDE);
        for (query, found) in queries.clone().zip(&mut maxima) {
            *found = maximum::<L>(&scratch.weights[scores(query)], scratch.states[query]);
        }
        for (query, maximum) in queries.zip(maxima) {
            let weights = &mut scratch.weights[scores(query)];
            scratch.keeps[query] = soften::<L>(weights, maximum, &mut scratch.states[query]);
        }
    }
}

/// Adds the values of tile `nth` of a step to what some queries, which all see `seen` of it, have gathered.
#[inline(always)]
pub(super) fn gather<L: Lanes, T: Cells, const CODES: bool>(
    geometry: Geometry,
    values: Side<'_, T>,
    nth: usize,
    (queries, seen): (Range<usize>, Range<usize>),
    scratch: &mut Scratch,
) {
    let Scratch { weights, keeps, sums, scaled, .. } = scratch;
    in_blocks::<L>(queries, Gather::<T, CODES> { geometry, values, nth, seen, weights, keeps, sums, scaled });
}

struct Gather<'a, T, const CODES: bool> {
    geometry: Geometry,
    values: Side<'a, T>,
    nth: usize,
    seen: Range<usize>,
    weights: &'a [f32],
    keeps: &'a mut [f32],
    sums: &'a mut [f32],
    scaled: &'a mut [f32],
}

impl<L: Lanes, T: Cells, const CODES: bool> Block<L> for Gather<'_, T, CODES> {
    #[inline(always)]
    fn run<const Q: usize>(&mut self, first: usize) {
        let (padded_tile, padded_width) = (self.geometry.padded_tile(), self.geometry.padded_width());
        let step = self.geometry.step();
        let at = first * step + self.nth * padded_tile;
        let mut powers = &self.weights[at..at + (Q - 1) * step + padded_tile];
        let mut apart = step;
        if CODES {
            apart = self.values.scales.len();
            let scaled = &mut self.scaled[..Q * apart];
            take_in_scales::<L>(powers, (step, padded_tile), self.values.scales, scaled);
            powers = scaled;
        }
        let keeps = &mut self.keeps[first..first + Q];
        let sums = &mut self.sums[first * padded_width..(first + Q) * padded_width];
        let weights = Weights { powers, apart, keeps, padded: padded_tile, seen: &self.seen };
        let mut column = 0;
        while column < padded_width {
            column += if L::WIDE && padded_width - column >= 4 * LANES {
                add_values::<L, T, Q, 4, CODES>(weights, self.values, column, sums)
            } else if padded_width - column >= 2 * LANES {
                add_values::<L, T, Q, 2, CODES>(weights, self.values, column, sums)
            } else {
                add_values::<L, T, Q, 1, CODES>(weights, self.values, column, sums)
            };
        }
        // Whatever the step adds later is added to the same.
        keeps.fill(1.0);
    }
}

/// Where scores go: those of columns from `column` on of each query's tile, to `at` of its step.
#[derive(Clone, Copy)]
struct Place {
    column: usize,
    step: usize,
    at: usize,
}

/// Scores of `Q` queries against `16 · C` positions from `column` on; returns how many positions.
#[inline(always)]
fn scores<L: Lanes, T: Cells, const Q: usize, const C: usize, const CODES: bool>(
    q: &[f32],
    keys: Side<'_, T>,
    padded: usize,
    Place { column, step, at }: Place,
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
            totals[query][nth].store(&mut scores[query * step + at + nth * LANES..]);
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

/// Multiplies each query's powers `[padded tile]`, which lie `apart`, by each group's scales.
#[inline(always)]
fn take_in_scales<L: Lanes>(
    powers: &[f32],
    (apart, padded): (usize, usize),
    scales: &[f32],
    scaled: &mut [f32],
) {
    for (powers, scaled) in powers.chunks(apart).zip(scaled.chunks_exact_mut(scales.len())) {
        for (scales, scaled) in scales.chunks_exact(padded).zip(scaled.chunks_exact_mut(padded)) {
            for at in (0..padded).step_by(LANES) {
                L::load(&powers[at..]).mul(L::load(&scales[at..])).store(&mut scaled[at..]);
            }
        }
    }
}

/// What values are weighted by.
#[derive(Clone, Copy)]
struct Weights<'a> {
    /// `[queries, padded]`, or where cells are codes `[queries, groups, padded]`; those of a query lie `apart`.
    powers: &'a [f32],
    apart: usize,
    /// `[queries]` factor on what a query has gathered.
    keeps: &'a [f32],
    padded: usize,
    /// Positions that count.
    seen: &'a Range<usize>,
}

/// Adds the weighted values to `16 · C` dimensions of `Q` queries from `column` on; returns how many
/// dimensions.
#[inline(always)]
fn add_values<L: Lanes, T: Cells, const Q: usize, const C: usize, const CODES: bool>(
    weights: Weights<'_>,
    values: Side<'_, T>,
    column: usize,
    sums: &mut [f32],
) -> usize {
    let Weights { powers, apart, keeps, padded, seen } = weights;
    let width = sums.len() / Q;
    // Columns of one weight, and where the first one's begin: more than one column begins with a whole group.
    let (per_weight, first) = if CODES { (GROUP / LANES, column / GROUP * padded) } else { (C, 0) };
    assert!(
        column + C * LANES <= width
            && seen.end <= padded
            && (Q - 1) * apart + first + (C - 1) / per_weight * padded + padded <= powers.len()
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
                let at = query * apart + first + nth / per_weight * padded + position;
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
