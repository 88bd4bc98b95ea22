//! The inner part of attention on the CPU: a task's queries against tiles of keys and values.
//!
//! Per query and tile: scores, each a sum over `d` in order by fused multiply-add; their maximum;
//! exponentials; their sum in sixteen lanes; then values weighted in order of position. Queries that see the
//! same positions go through registers together, which shares loads and changes nothing else.

use std::cell::Cell;
use std::ops::Range;

use super::AttentionOptions;
use super::cpu::{Cached, Call, Geometry, Pages, Sequence, Task};
use crate::lanes::{Kernel, Lanes};
use crate::maths::{LANES, exp, largest_lane};

/// Softmax so far of one query: its weighted sum is to be scaled by `e^-maximum`.
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

/// Adds a segment's state and sums to the total. A segment that the query did not see changes nothing.
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
    let (old, new) = (exp(total.maximum - maximum), exp(state.maximum - maximum));
    for (total, sum) in total_sums.iter_mut().zip(sums) {
        *total = *total * old + sum * new;
    }
    *total = State { maximum, sum: total.sum * old + state.sum * new };
}

/// What a task works on.
pub(super) struct Scratch {
    /// `[d, padded tile]`; columns past the tile's end hold whatever was there, their scores are masked.
    keys: Vec<f32>,
    /// `[tile, padded d]`
    values: Vec<f32>,
    /// `[queries, padded tile]` scores, then their exponentials.
    weights: Vec<f32>,
    /// `[queries]` factor on what a query has gathered before this tile.
    keeps: Vec<f32>,
    /// `[queries]`
    pub states: Vec<State>,
    /// `[queries, padded d]`
    pub sums: Vec<f32>,
}

impl Scratch {
    /// Lends this thread's scratch, made large enough and empty, to `body`.
    pub(super) fn with<R>(geometry: Geometry, queries: usize, body: impl FnOnce(&mut Self) -> R) -> R {
        thread_local! {
            static SPARE: Cell<Scratch> = const { Cell::new(Scratch::none()) };
        }
        // Taken out, not borrowed: whatever runs inside `body` finds an empty one instead.
        let mut scratch = SPARE.take();
        scratch.keys.resize(geometry.width * geometry.padded_tile(), 0.0);
        scratch.values.resize(geometry.tile * geometry.padded_width(), 0.0);
        scratch.weights.resize(queries * geometry.padded_tile(), 0.0);
        scratch.keeps.resize(queries, 0.0);
        scratch.states.resize(queries, EMPTY);
        scratch.sums.resize(queries * geometry.padded_width(), 0.0);
        scratch.clear();
        let result = body(&mut scratch);
        SPARE.set(scratch);
        result
    }

    const fn none() -> Self {
        Self {
            keys: Vec::new(),
            values: Vec::new(),
            weights: Vec::new(),
            keeps: Vec::new(),
            states: Vec::new(),
            sums: Vec::new(),
        }
    }

    /// Makes ready for the next segment. What the rest holds is written before it is read.
    pub(super) fn clear(&mut self) {
        self.states.fill(EMPTY);
        self.sums.fill(0.0);
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::none()
    }
}

/// A task's queries against some tiles of its sequence.
pub(super) struct Segment<'a> {
    pub call: &'a Call<'a>,
    pub task: &'a Task,
    pub tiles: Range<usize>,
    pub scratch: &'a mut Scratch,
}

impl Kernel for Segment<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { call, task, tiles, scratch } = self;
        let sequence = &call.sequences[task.sequence];
        let Geometry { tile, .. } = call.geometry;
        let group = call.geometry.group();
        for index in tiles {
            let positions = index * tile..((index + 1) * tile).min(sequence.context);
            // What a row sees of this tile, counted from the tile's start.
            let seen = |row: usize| {
                let visible = sequence.visible(row, call.options.sliding_window);
                let start = visible.start.max(positions.start);
                start - positions.start..visible.end.min(positions.end).max(start) - positions.start
            };
            let mut loaded = false;
            let mut row = task.rows.start;
            while row < task.rows.end {
                let sees = seen(row);
                let first = row;
                while row < task.rows.end && seen(row) == sees {
                    row += 1;
                }
                if sees.is_empty() {
                    continue;
                }
                if !loaded {
                    load_keys::<L>(call, sequence, index, positions.len(), task.kv_head, &mut scratch.keys);
                    load_values::<L>(
                        call,
                        sequence,
                        index,
                        positions.len(),
                        task.kv_head,
                        &mut scratch.values,
                    );
                    loaded = true;
                }
                let queries = (first - task.rows.start) * group..(row - task.rows.start) * group;
                step::<L>(call, task, queries, sees, scratch);
            }
        }
    }
}

/// Cells of the first position of a tile, for one kv head, and from there to the next position.
#[inline(always)]
fn place(call: &Call<'_>, sequence: &Sequence<'_>, index: usize, kv_head: usize) -> (usize, usize) {
    let Geometry { kv_heads, width, tile, .. } = call.geometry;
    let first = match sequence.pages {
        Pages::Table(table) => table[index] as usize * tile,
        Pages::From(start) => start + index * tile,
    };
    ((first * kv_heads + kv_head) * width, kv_heads * width)
}

/// Widens and transposes a tile's keys.
#[inline(always)]
fn load_keys<L: Lanes>(
    call: &Call<'_>,
    sequence: &Sequence<'_>,
    index: usize,
    count: usize,
    kv_head: usize,
    keys: &mut [f32],
) {
    let (at, step) = place(call, sequence, index, kv_head);
    let (width, padded) = (call.geometry.width, call.geometry.padded_tile());
    for first in (0..count).step_by(LANES) {
        let from = at + first * step;
        // Where sixteen positions lie in memory they are taken together, also past `count`.
        let mut done = 0;
        if let Cached::F16(cells) = call.keys
            && cells.len() >= from + (LANES - 1) * step + width
        {
            while done + 8 <= width {
                L::transpose_f16(&cells[from + done..], step, &mut keys[done * padded + first..], padded);
                done += 8;
            }
        }
        for dimension in done..width {
            for position in first..count.min(first + LANES) {
                let from = at + position * step + dimension;
                keys[dimension * padded + position] = match call.keys {
                    Cached::F16(cells) => cells[from].to_f32(),
                    Cached::F32(cells) => cells[from],
                };
            }
        }
    }
}

/// Widens a tile's values.
#[inline(always)]
fn load_values<L: Lanes>(
    call: &Call<'_>,
    sequence: &Sequence<'_>,
    index: usize,
    count: usize,
    kv_head: usize,
    values: &mut [f32],
) {
    let (at, step) = place(call, sequence, index, kv_head);
    let width = call.geometry.width;
    let rows = values.chunks_exact_mut(call.geometry.padded_width()).take(count);
    for (position, row) in rows.enumerate() {
        let from = at + position * step;
        match call.values {
            Cached::F32(cells) => row[..width].copy_from_slice(&cells[from..from + width]),
            Cached::F16(cells) => {
                let cells = &cells[from..from + width];
                let whole = width / LANES * LANES;
                for first in (0..whole).step_by(LANES) {
                    L::load_f16(&cells[first..first + LANES]).store(&mut row[first..first + LANES]);
                }
                for (to, cell) in row[whole..width].iter_mut().zip(&cells[whole..]) {
                    *to = cell.to_f32();
                }
            }
        }
    }
}

/// Some queries, which all see `seen`, against the loaded tile.
#[inline(always)]
fn step<L: Lanes>(
    call: &Call<'_>,
    task: &Task,
    queries: Range<usize>,
    seen: Range<usize>,
    scratch: &mut Scratch,
) {
    let mut first = queries.start;
    while first < queries.end {
        let left = queries.end - first;
        // As many at once as registers hold; three, since groups of three heads are common.
        first += match left {
            1 => block::<L, 1>(call, task, first, &seen, scratch),
            3 => block::<L, 3>(call, task, first, &seen, scratch),
            4.. if L::WIDE => block::<L, 4>(call, task, first, &seen, scratch),
            _ => block::<L, 2>(call, task, first, &seen, scratch),
        };
    }
}

/// `Q` queries from `first` on; returns `Q`.
#[inline(always)]
fn block<L: Lanes, const Q: usize>(
    call: &Call<'_>,
    task: &Task,
    first: usize,
    seen: &Range<usize>,
    scratch: &mut Scratch,
) -> usize {
    let Geometry { width, .. } = call.geometry;
    let (padded_tile, padded_width) = (call.geometry.padded_tile(), call.geometry.padded_width());
    let q: [&[f32]; Q] = std::array::from_fn(|query| {
        let at = call.query_at(task, first + query);
        &call.q[at..at + width]
    });
    let weights = &mut scratch.weights[first * padded_tile..(first + Q) * padded_tile];
    let mut column = 0;
    while column < padded_tile {
        column += if padded_tile - column >= 2 * LANES {
            scores::<L, Q, 2>(q, &scratch.keys, padded_tile, column, weights)
        } else {
            scores::<L, Q, 1>(q, &scratch.keys, padded_tile, column, weights)
        };
    }
    for query in 0..Q {
        let weights = &mut weights[query * padded_tile..(query + 1) * padded_tile];
        scratch.keeps[first + query] =
            soften::<L>(weights, seen, &call.options, &mut scratch.states[first + query]);
    }
    let keeps = &scratch.keeps[first..first + Q];
    let sums = &mut scratch.sums[first * padded_width..(first + Q) * padded_width];
    let mut column = 0;
    while column < padded_width {
        column += if L::WIDE && padded_width - column >= 4 * LANES {
            gather::<L, Q, 4>(weights, keeps, &scratch.values, seen, column, sums)
        } else if padded_width - column >= 2 * LANES {
            gather::<L, Q, 2>(weights, keeps, &scratch.values, seen, column, sums)
        } else {
            gather::<L, Q, 1>(weights, keeps, &scratch.values, seen, column, sums)
        };
    }
    Q
}

/// Scores of `Q` queries against `16 · C` positions from `column` on; returns how many positions.
#[inline(always)]
fn scores<L: Lanes, const Q: usize, const C: usize>(
    q: [&[f32]; Q],
    keys: &[f32],
    padded: usize,
    column: usize,
    scores: &mut [f32],
) -> usize {
    let width = q[0].len();
    assert!(
        column + C * LANES <= padded && keys.len() >= width * padded && q.iter().all(|q| q.len() == width)
    );
    let mut sums = [[L::splat(0.0); C]; Q];
    for dimension in 0..width {
        let mut loaded = [L::splat(0.0); C];
        for (nth, loaded) in loaded.iter_mut().enumerate() {
            let at = dimension * padded + column + nth * LANES;
            // SAFETY: within the tile by the check above; checks in this loop would keep sums in memory.
            *loaded = L::load(unsafe { keys.get_unchecked(at..at + LANES) });
        }
        for query in 0..Q {
            // SAFETY: as above.
            let value = L::splat(unsafe { *q[query].get_unchecked(dimension) });
            for nth in 0..C {
                sums[query][nth] = value.mul_add(loaded[nth], sums[query][nth]);
            }
        }
    }
    for query in 0..Q {
        for nth in 0..C {
            sums[query][nth].store(&mut scores[query * padded + column + nth * LANES..]);
        }
    }
    C * LANES
}

/// Turns a query's scores into exponentials and takes them into its state; returns the factor on what it had.
#[inline(always)]
fn soften<L: Lanes>(
    scores: &mut [f32],
    seen: &Range<usize>,
    options: &AttentionOptions,
    state: &mut State,
) -> f32 {
    let mut largest = L::splat(f32::NEG_INFINITY);
    for (nth, scores) in scores.chunks_exact_mut(LANES).enumerate() {
        for (lane, score) in scores.iter_mut().enumerate() {
            let mut value = *score * options.scale;
            if let Some(cap) = options.softcap {
                value = cap * tanh(value / cap);
            }
            let position = nth * LANES + lane;
            *score = if position >= seen.start && position < seen.end { value } else { f32::NEG_INFINITY };
        }
        largest = L::load(scores).max(largest);
    }
    let mut lanes = [0f32; LANES];
    largest.store(&mut lanes);
    let maximum = state.maximum.max(largest_lane(lanes));
    let mut sum = L::splat(0.0);
    for scores in scores.chunks_exact_mut(LANES) {
        for score in scores.iter_mut() {
            *score = exp(*score - maximum);
        }
        sum = L::load(scores).add(sum);
    }
    let keep = exp(state.maximum - maximum);
    *state = State { maximum, sum: state.sum * keep + sum.sum() };
    keep
}

/// Adds the weighted values to `16 · C` dimensions of `Q` queries from `column` on; returns how many
/// dimensions.
#[inline(always)]
fn gather<L: Lanes, const Q: usize, const C: usize>(
    weights: &[f32],
    keeps: &[f32],
    values: &[f32],
    seen: &Range<usize>,
    column: usize,
    sums: &mut [f32],
) -> usize {
    let (padded_tile, padded_width) = (weights.len() / Q, sums.len() / Q);
    assert!(
        column + C * LANES <= padded_width
            && seen.end <= padded_tile
            && values.len() >= seen.end * padded_width
    );
    let mut totals = [[L::splat(0.0); C]; Q];
    for (query, (totals, keep)) in totals.iter_mut().zip(keeps).enumerate() {
        for (nth, total) in totals.iter_mut().enumerate() {
            let at = query * padded_width + column + nth * LANES;
            *total = L::load(&sums[at..at + LANES]).mul(L::splat(*keep));
        }
    }
    for position in seen.clone() {
        let mut loaded = [L::splat(0.0); C];
        for (nth, loaded) in loaded.iter_mut().enumerate() {
            let at = position * padded_width + column + nth * LANES;
            // SAFETY: within the tile by the check above; checks in this loop would keep totals in memory.
            *loaded = L::load(unsafe { values.get_unchecked(at..at + LANES) });
        }
        for (query, totals) in totals.iter_mut().enumerate() {
            // SAFETY: as above.
            let weight = L::splat(unsafe { *weights.get_unchecked(query * padded_tile + position) });
            for (total, value) in totals.iter_mut().zip(loaded) {
                *total = weight.mul_add(value, *total);
            }
        }
    }
    for query in 0..Q {
        for nth in 0..C {
            totals[query][nth].store(&mut sums[query * padded_width + column + nth * LANES..]);
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
