//! Attention on the CPU: tiles of keys and values widened once for all queries that see them, online softmax per row.
//!
//! A row's operations, in order: for each segment of sixteen tiles that it sees, for each tile: scores (sums over `d`
//! by fused multiply-add, in order), maximum, exponentials, their sum, then the values in order of position; then the
//! segments are merged in order. Nothing here may make that depend on which rows share a task.

use std::ops::Range;

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::AttentionOptions;
use crate::maths::{LANES, exp, sum_of};
use crate::pool::SharedSlice;
use crate::simd::multiversion;
use crate::{Cpu, Level};

/// Tiles whose softmax state is gathered before it is merged; also the grain by which one row's work is split.
const TILES_PER_SEGMENT: usize = 16;
/// Rows of one sequence that a task takes together.
const ROWS_PER_TASK: usize = 16;

/// Sizes of the problem.
#[derive(Clone, Copy)]
pub(super) struct Geometry {
    pub heads: usize,
    pub kv_heads: usize,
    /// Head dimension.
    pub width: usize,
    /// Positions per tile.
    pub tile: usize,
}

impl Geometry {
    /// Query heads per kv head.
    fn group(self) -> usize {
        self.heads / self.kv_heads
    }

    /// Positions per tile, padded to whole lanes.
    fn padded(self) -> usize {
        self.tile.next_multiple_of(LANES)
    }
}

/// Keys or values: positions of `kv_heads · width` cells.
#[derive(Clone, Copy)]
pub(super) enum Cached<'a> {
    F16(&'a [f16]),
    F32(&'a [f32]),
}

/// Where tile `n` of a sequence lies.
#[derive(Clone, Copy)]
pub(super) enum Pages<'a> {
    /// In block `table[n]`.
    Table(&'a [u32]),
    /// After its predecessor; the first tile starts at this position of the tensor.
    From(usize),
}

/// One sequence of the batch.
pub(super) struct Sequence<'a> {
    /// Its rows of `q`.
    pub rows: Range<usize>,
    /// Positions it may see.
    pub context: usize,
    /// `[rows]` position of each; `None` if every row sees the whole context.
    pub positions: Option<&'a [u32]>,
    pub pages: Pages<'a>,
}

impl Sequence<'_> {
    /// Positions that row `row` of this sequence (from 0) sees.
    fn visible(&self, row: usize, window: Option<usize>) -> Range<usize> {
        let Some(positions) = self.positions else {
            return 0..self.context;
        };
        let end = positions[row] as usize + 1;
        end.saturating_sub(window.unwrap_or(end))..end
    }
}

/// Softmax so far of one query: `weights · values` is scaled by `e^-maximum`.
#[derive(Clone, Copy)]
struct State {
    maximum: f32,
    sum: f32,
}

const EMPTY: State = State { maximum: f32::NEG_INFINITY, sum: 0.0 };

/// Rows of one sequence against one kv head, all its segments or one.
struct Task {
    sequence: usize,
    rows: Range<usize>,
    kv_head: usize,
}

/// All of an attention call.
struct Call<'a> {
    geometry: Geometry,
    q: &'a [f32],
    keys: Cached<'a>,
    values: Cached<'a>,
    sequences: &'a [Sequence<'a>],
    options: AttentionOptions,
}

/// `[t, h, d]`.
pub(super) fn attend(
    cpu: Cpu,
    geometry: Geometry,
    q: &[f32],
    (keys, values): (Cached<'_>, Cached<'_>),
    sequences: &[Sequence<'_>],
    options: &AttentionOptions,
) -> Vec<f32> {
    let mut out = vec![0f32; q.len()];
    let shared = SharedSlice::new(&mut out);
    let call = Call { geometry, q, keys, values, sequences, options: *options };
    let tasks = tasks(&call);
    cpu.pool().run(tasks.len(), &|index| {
        let task = &tasks[index];
        let mut scratch = Scratch::new(geometry, task.rows.len());
        let segments = call.segments(task);
        for (nth, segment) in segments.enumerate() {
            call.run_segment(cpu.level(), task, segment, &mut scratch);
            scratch.merge(nth == 0);
        }
        call.store(task, &scratch, &shared);
    });
    out
}

fn tasks(call: &Call<'_>) -> Vec<Task> {
    let mut tasks = Vec::new();
    for (index, sequence) in call.sequences.iter().enumerate() {
        for start in (0..sequence.rows.len()).step_by(ROWS_PER_TASK) {
            let end = (start + ROWS_PER_TASK).min(sequence.rows.len());
            tasks.extend((0..call.geometry.kv_heads).map(|kv_head| Task {
                sequence: index,
                rows: start..end,
                kv_head,
            }));
        }
    }
    tasks
}

/// What a task works on; `[queries]` is rows × heads of the group.
struct Scratch {
    width: usize,
    /// `[d, padded tile]`
    keys: Vec<f32>,
    /// `[tile, d]`
    values: Vec<f32>,
    /// `[padded tile]`
    scores: Vec<f32>,
    /// One position, widened.
    row: Vec<f32>,
    /// State and `[queries, d]` of the segment.
    states: Vec<State>,
    sums: Vec<f32>,
    /// The same of all segments so far.
    total_states: Vec<State>,
    totals: Vec<f32>,
}

impl Scratch {
    fn new(geometry: Geometry, rows: usize) -> Self {
        let queries = rows * geometry.group();
        Self {
            width: geometry.width,
            keys: vec![0.0; geometry.width * geometry.padded()],
            values: vec![0.0; geometry.tile * geometry.width],
            scores: vec![0.0; geometry.padded()],
            row: vec![0.0; geometry.width],
            states: vec![EMPTY; queries],
            sums: vec![0.0; queries * geometry.width],
            total_states: vec![EMPTY; queries],
            totals: vec![0.0; queries * geometry.width],
        }
    }

    /// Adds the segment to the total and empties it. A query that saw nothing of it is left alone.
    fn merge(&mut self, first: bool) {
        let rows = self.totals.chunks_exact_mut(self.width).zip(self.sums.chunks_exact_mut(self.width));
        let states = self.total_states.iter_mut().zip(&mut self.states);
        for ((total, sums), (total_state, state)) in rows.zip(states) {
            if state.sum == 0.0 && state.maximum == f32::NEG_INFINITY {
                continue;
            }
            let untouched = total_state.sum == 0.0 && total_state.maximum == f32::NEG_INFINITY;
            if first || untouched {
                total.copy_from_slice(sums);
                *total_state = *state;
            } else {
                merge_into(total_state, total, *state, sums);
            }
            sums.fill(0.0);
            *state = EMPTY;
        }
    }
}

fn merge_into(total_state: &mut State, total: &mut [f32], state: State, sums: &[f32]) {
    let maximum = total_state.maximum.max(state.maximum);
    let (old, new) = (exp(total_state.maximum - maximum), exp(state.maximum - maximum));
    for (total, sum) in total.iter_mut().zip(sums) {
        *total = *total * old + sum * new;
    }
    *total_state = State { maximum, sum: total_state.sum * old + state.sum * new };
}

impl Call<'_> {
    /// Segments that any row of the task sees.
    fn segments(&self, task: &Task) -> Range<usize> {
        let sequence = &self.sequences[task.sequence];
        let span = TILES_PER_SEGMENT * self.geometry.tile;
        let visible = task.rows.clone().map(|row| sequence.visible(row, self.options.sliding_window));
        let (start, end) =
            visible.fold((usize::MAX, 0), |(start, end), seen| (start.min(seen.start), end.max(seen.end)));
        if start >= end { 0..0 } else { start / span..end.div_ceil(span) }
    }

    fn run_segment(&self, level: Level, task: &Task, segment: usize, scratch: &mut Scratch) {
        let sequence = &self.sequences[task.sequence];
        let Geometry { tile, .. } = self.geometry;
        let tiles = segment * TILES_PER_SEGMENT
            ..((segment + 1) * TILES_PER_SEGMENT).min(sequence.context.div_ceil(tile));
        for index in tiles {
            let positions = index * tile..((index + 1) * tile).min(sequence.context);
            let seen = |row| {
                let visible = sequence.visible(row, self.options.sliding_window);
                visible.start.max(positions.start)..visible.end.min(positions.end)
            };
            if task.rows.clone().all(|row| seen(row).is_empty()) {
                continue;
            }
            self.load_tile(sequence, index, positions.len(), task.kv_head, scratch);
            for (nth, row) in task.rows.clone().enumerate() {
                let seen = seen(row);
                if seen.is_empty() {
                    continue;
                }
                let seen = seen.start - positions.start..seen.end - positions.start;
                for head in 0..self.geometry.group() {
                    let query = nth * self.geometry.group() + head;
                    let at = self.query_at(task, row, head);
                    let q = &self.q[at..at + self.geometry.width];
                    let seen = seen.clone();
                    let (geometry, options) = (self.geometry, &self.options);
                    multiversion!(level, step, geometry: Geometry, options: &AttentionOptions, q: &[f32],
                        seen: Range<usize>, query: usize, scratch: &mut Scratch);
                }
            }
        }
    }

    /// Where the query of `row` (of the sequence) and `head` (of the group) starts in `q` and in the result.
    fn query_at(&self, task: &Task, row: usize, head: usize) -> usize {
        let Geometry { heads, width, .. } = self.geometry;
        let row = self.sequences[task.sequence].rows.start + row;
        (row * heads + task.kv_head * self.geometry.group() + head) * width
    }

    /// Widens a tile's keys (transposed) and values; columns past `count` become zero.
    fn load_tile(
        &self,
        sequence: &Sequence<'_>,
        index: usize,
        count: usize,
        kv_head: usize,
        scratch: &mut Scratch,
    ) {
        let Geometry { kv_heads, width, tile, .. } = self.geometry;
        let padded = self.geometry.padded();
        let first = match sequence.pages {
            Pages::Table(table) => table[index] as usize * tile,
            Pages::From(start) => start + index * tile,
        };
        for position in 0..padded {
            if position < count {
                let at = ((first + position) * kv_heads + kv_head) * width;
                widen(self.keys, at, &mut scratch.row);
                widen(self.values, at, &mut scratch.values[position * width..(position + 1) * width]);
            } else {
                scratch.row.fill(0.0);
            }
            for (dimension, value) in scratch.row.iter().enumerate() {
                scratch.keys[dimension * padded + position] = *value;
            }
        }
    }

    fn store(&self, task: &Task, scratch: &Scratch, out: &SharedSlice<'_, f32>) {
        let Geometry { width, .. } = self.geometry;
        for (nth, row) in task.rows.clone().enumerate() {
            for head in 0..self.geometry.group() {
                let query = nth * self.geometry.group() + head;
                // SAFETY: each row and head belongs to one task.
                let out = unsafe { out.range(self.query_at(task, row, head), width) };
                let sum = scratch.total_states[query].sum;
                for (out, total) in out.iter_mut().zip(&scratch.totals[query * width..]) {
                    *out = total / sum;
                }
            }
        }
    }
}

fn widen(cells: Cached<'_>, at: usize, row: &mut [f32]) {
    match cells {
        Cached::F16(cells) => cells[at..at + row.len()].convert_to_f32_slice(row),
        Cached::F32(cells) => row.copy_from_slice(&cells[at..at + row.len()]),
    }
}

/// One query against the loaded tile, of which it sees `seen`.
#[inline(always)]
fn step(
    geometry: Geometry,
    options: &AttentionOptions,
    q: &[f32],
    seen: Range<usize>,
    query: usize,
    scratch: &mut Scratch,
) {
    let padded = geometry.padded();
    for column in (0..padded).step_by(LANES) {
        let mut lanes = [0f32; LANES];
        for (value, keys) in q.iter().zip(scratch.keys.chunks_exact(padded)) {
            for lane in 0..LANES {
                lanes[lane] = value.mul_add(keys[column + lane], lanes[lane]);
            }
        }
        scratch.scores[column..column + LANES].copy_from_slice(&lanes);
    }
    for (column, score) in scratch.scores.iter_mut().enumerate() {
        let mut value = *score * options.scale;
        if let Some(cap) = options.softcap {
            value = cap * tanh(value / cap);
        }
        *score = if seen.contains(&column) { value } else { f32::NEG_INFINITY };
    }
    let state = &mut scratch.states[query];
    let tile_maximum = scratch.scores.iter().fold(f32::NEG_INFINITY, |maximum, score| maximum.max(*score));
    let maximum = state.maximum.max(tile_maximum);
    for score in &mut scratch.scores {
        *score = exp(*score - maximum);
    }
    let keep = exp(state.maximum - maximum);
    *state = State { maximum, sum: state.sum * keep + sum_of(&scratch.scores, |weight| weight) };
    let sums = &mut scratch.sums[query * geometry.width..(query + 1) * geometry.width];
    for sum in sums.iter_mut() {
        *sum *= keep;
    }
    for position in seen {
        let weight = scratch.scores[position];
        let values = &scratch.values[position * geometry.width..(position + 1) * geometry.width];
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum = weight.mul_add(*value, *sum);
        }
    }
}

/// `tanh` by way of [`exp`].
#[inline(always)]
fn tanh(x: f32) -> f32 {
    let shrink = exp(-2.0 * x.abs());
    ((1.0 - shrink) / (1.0 + shrink)).copysign(x)
}
