//! Attention on the CPU: which rows, heads and segments make a task, and how their parts are merged.
//!
//! A row's operations, in order: for each segment of eight tiles that it sees, those of `block`, or over a cache of pairs those of
//! `pairs`, for each step of four tiles; then the segments are merged in order. A task takes some rows of a sequence and one kv head through
//! all segments, or, where there are few rows (decode), through one. Neither may change a bit.

use std::ops::Range;

use half::f16;

use super::AttentionOptions;
use super::format::{GROUP, piece, piece_words};
use super::scratch::Scratch;
use super::softmax::{EMPTY, State, merge};
use super::tile::Segment;
use crate::fresh::Fresh;
use crate::linear::BLOCK;
use crate::linear::Builder;
use crate::maths::LANES;
use crate::pool::SharedSlice;
use crate::simd::multiversion;
use crate::{Cpu, Level};

/// Tiles of which a softmax is taken at once: the more there are, the fewer maxima and sums across lanes there are to make.
pub(super) const TILES_PER_STEP: usize = 4;
/// Tiles whose softmax state is gathered before it is merged; also the grain by which one row's work is
/// split.
const TILES_PER_SEGMENT: usize = 2 * TILES_PER_STEP;
/// About how many queries (rows times heads of a group) a task takes against each tile that it widens.
const QUERIES_PER_TASK: usize = 128;

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
    pub(super) fn group(self) -> usize {
        self.heads / self.kv_heads
    }

    /// Positions per tile, filled up to whole lanes.
    pub(super) fn padded_tile(self) -> usize {
        self.tile.next_multiple_of(LANES)
    }

    /// Scores of a query against the tiles of a step.
    pub(super) fn step(self) -> usize {
        TILES_PER_STEP * self.padded_tile()
    }

    /// Groups of dimensions that share a scale in q8_0.
    pub(super) fn groups(self) -> usize {
        self.width.div_ceil(GROUP)
    }

    /// Head dimension, filled up to whole lanes.
    pub(super) fn padded_width(self) -> usize {
        self.width.next_multiple_of(LANES)
    }
}

/// Keys or values.
#[derive(Clone, Copy)]
pub(super) enum Cached<'a> {
    F16(&'a [f16]),
    F32(&'a [f32]),
    /// Pairs of bf16, see [`CacheFormat`](super::CacheFormat).
    Bf16(&'a [u16]),
    /// Pieces of codes and scales, see [`format`](super::format).
    Q8(&'a [i16]),
}

/// Where tile `n` of a sequence lies.
#[derive(Clone, Copy)]
pub(super) enum Pages<'a> {
    /// In block `table[n]` of a cache, as [`CacheFormat`](super::CacheFormat) says.
    Table(&'a [u32]),
    /// After its predecessor; the first tile starts at this position of `[t, kv, d]`.
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
    #[inline(always)]
    pub(super) fn visible(&self, row: usize, window: Option<usize>) -> Range<usize> {
        let Some(positions) = self.positions else { return 0..self.context };
        let end = positions[row] as usize + 1;
        end.saturating_sub(window.unwrap_or(end))..end
    }
}

/// Rows of one sequence against one kv head.
pub(super) struct Task {
    pub sequence: usize,
    /// Rows of the sequence, from 0.
    pub rows: Range<usize>,
    pub kv_head: usize,
    /// Segments that any of the rows sees.
    pub segments: Range<usize>,
}

/// All of an attention call.
pub(super) struct Call<'a> {
    pub geometry: Geometry,
    pub q: &'a [f32],
    pub keys: Cached<'a>,
    pub values: Cached<'a>,
    pub sequences: &'a [Sequence<'a>],
    pub options: AttentionOptions,
}

/// Where results go, `[t, h, d]`.
#[derive(Clone, Copy)]
pub(super) enum Outlet<'a> {
    Plain(&'a Fresh<f32>),
    /// Heads are whole blocks.
    Rounded(&'a Builder),
}

/// Attends; when this returns, all of `out` is written.
pub(super) fn attend(cpu: Cpu, call: &Call<'_>, out: Outlet<'_>) {
    let tasks = call.tasks();
    let longest = tasks.iter().map(|task| task.segments.len()).max().unwrap_or(0);
    if longest > 1 && tasks.len() < 4 * cpu.pool().threads() {
        attend_in_parts(cpu, call, &tasks, out);
        return;
    }
    // The last rows of a prompt see most: they go first, so that none of them is left over at the end.
    cpu.pool().run(tasks.len(), &|index| {
        let task = &tasks[tasks.len() - 1 - index];
        let mut totals = Totals::new(call, task);
        Scratch::with(call.geometry, call.queries(task), |scratch| {
            call.load_queries(cpu.level(), task, &mut scratch.q);
            for segment in task.segments.clone() {
                let tiles = call.tiles(task, segment);
                Segment { call, task, tiles, scratch: &mut *scratch }.attend(cpu.level());
                totals.add(cpu.level(), &scratch.states, &scratch.sums);
                scratch.clear();
            }
        });
        call.store(cpu, task, totals, out);
    });
}

/// As [`attend`], each segment of each task a task of its own.
fn attend_in_parts(cpu: Cpu, call: &Call<'_>, tasks: &[Task], out: Outlet<'_>) {
    let width = call.geometry.padded_width();
    let mut parts = Vec::new();
    let mut queries = 0;
    for task in tasks {
        for segment in task.segments.clone() {
            parts.push((task, segment, queries));
            queries += call.queries(task);
        }
    }
    let mut states = vec![EMPTY; queries];
    let mut sums = vec![0f32; queries * width];
    let (shared_states, shared_sums) = (SharedSlice::new(&mut states), SharedSlice::new(&mut sums));
    cpu.pool().run(parts.len(), &|index| {
        let (task, segment, first) = &parts[index];
        let queries = call.queries(task);
        // SAFETY: each part has its own queries.
        let (states, sums) = unsafe {
            (shared_states.range(*first, queries), shared_sums.range(first * width, queries * width))
        };
        Scratch::with(call.geometry, queries, |scratch| {
            call.load_queries(cpu.level(), task, &mut scratch.q);
            let tiles = call.tiles(task, *segment);
            Segment { call, task, tiles, scratch: &mut *scratch }.attend(cpu.level());
            states.copy_from_slice(&scratch.states);
            sums.copy_from_slice(&scratch.sums);
        });
    });
    let mut first = 0;
    for task in tasks {
        let mut totals = Totals::new(call, task);
        for _ in task.segments.clone() {
            let next = first + call.queries(task);
            totals.add(cpu.level(), &states[first..next], &sums[first * width..next * width]);
            first = next;
        }
        call.store(cpu, task, totals, out);
    }
}

/// Softmax states and weighted sums of a task's queries over the segments so far.
struct Totals {
    width: usize,
    states: Vec<State>,
    sums: Vec<f32>,
}

impl Totals {
    fn new(call: &Call<'_>, task: &Task) -> Self {
        let (queries, width) = (call.queries(task), call.geometry.padded_width());
        Self { width, states: vec![EMPTY; queries], sums: vec![0.0; queries * width] }
    }

    /// Adds the next segment's.
    fn add(&mut self, level: Level, states: &[State], sums: &[f32]) {
        let Self { width, states: totals, sums: total_sums } = self;
        let (totals, total_sums, width) = (totals.as_mut_slice(), total_sums.as_mut_slice(), *width);
        multiversion!(level, merge_all, totals: &mut [State], total_sums: &mut [f32], states: &[State], sums: &[f32], width: usize);
    }
}

#[inline(always)]
fn merge_all(totals: &mut [State], total_sums: &mut [f32], states: &[State], sums: &[f32], width: usize) {
    let totals = totals.iter_mut().zip(total_sums.chunks_exact_mut(width));
    for ((total, total_sums), (state, sums)) in totals.zip(states.iter().zip(sums.chunks_exact(width))) {
        merge(total, total_sums, *state, sums);
    }
}

/// Divides what queries have gathered, `padded` each, by their sums of powers.
#[inline(always)]
fn divide(states: &[State], sums: &mut [f32], padded: usize) {
    for (state, sums) in states.iter().zip(sums.chunks_exact_mut(padded)) {
        // Whether a zero has a sign may have been settled by what is seen beside it.
        sums.iter_mut().for_each(|sum| *sum = (*sum + 0.0) / state.sum);
    }
}

#[inline(always)]
fn multiply_row(from: &[f32], to: &mut [f32], scale: f32) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to = from * scale);
}

impl Call<'_> {
    fn tasks(&self) -> Vec<Task> {
        let rows_per_task = (QUERIES_PER_TASK / self.geometry.group()).max(1);
        let mut tasks = Vec::new();
        for (index, sequence) in self.sequences.iter().enumerate() {
            for start in (0..sequence.rows.len()).step_by(rows_per_task) {
                let rows = start..(start + rows_per_task).min(sequence.rows.len());
                let segments = self.segments(sequence, rows.clone());
                for kv_head in 0..self.geometry.kv_heads {
                    tasks.push(Task {
                        sequence: index,
                        rows: rows.clone(),
                        kv_head,
                        segments: segments.clone(),
                    });
                }
            }
        }
        tasks
    }

    /// Segments that any of the rows sees.
    fn segments(&self, sequence: &Sequence<'_>, rows: Range<usize>) -> Range<usize> {
        let span = TILES_PER_SEGMENT * self.geometry.tile;
        let visible = rows.map(|row| sequence.visible(row, self.options.sliding_window));
        let (start, end) =
            visible.fold((usize::MAX, 0), |(start, end), seen| (start.min(seen.start), end.max(seen.end)));
        if start >= end { 0..0 } else { start / span..end.div_ceil(span) }
    }

    /// Tiles of a segment that the task's sequence has.
    fn tiles(&self, task: &Task, segment: usize) -> Range<usize> {
        let tiles = self.sequences[task.sequence].context.div_ceil(self.geometry.tile);
        segment * TILES_PER_SEGMENT..((segment + 1) * TILES_PER_SEGMENT).min(tiles)
    }

    /// Rows times heads of the group.
    pub(super) fn queries(&self, task: &Task) -> usize {
        task.rows.len() * self.geometry.group()
    }

    /// Cells of a block and a kv head, in the cache of keys and in that of values.
    #[inline(always)]
    pub(super) fn cells(&self, block: u32, kv_head: usize) -> Range<usize> {
        let cells = self.geometry.width * self.geometry.tile;
        let first = (block as usize * self.geometry.kv_heads + kv_head) * cells;
        first..first + cells
    }

    /// Scales and codes of a block and a kv head in a cache of keys or values in q8_0.
    #[inline(always)]
    pub(super) fn piece<'a>(&self, words: &'a [i16], block: u32, kv_head: usize) -> (&'a [f16], &'a [i8]) {
        let Geometry { kv_heads, width, tile, .. } = self.geometry;
        let count = piece_words(width, tile);
        let first = (block as usize * kv_heads + kv_head) * count;
        piece(&words[first..first + count], width, tile)
    }

    /// Copies a task's queries, scaled so that powers of two are wanted of their scores, or, if these have a cap, so that
    /// they can be capped.
    fn load_queries(&self, level: Level, task: &Task, to: &mut [f32]) {
        let scale = match self.options.softcap {
            Some(_) => self.options.scale,
            None => self.options.scale * std::f32::consts::LOG2_E,
        };
        let width = self.geometry.width;
        for (query, to) in to.chunks_exact_mut(width).enumerate() {
            let at = self.query_at(task, query);
            let from = &self.q[at..at + width];
            multiversion!(level, multiply_row, from: &[f32], to: &mut [f32], scale: f32);
        }
    }

    /// Where query `query` of a task (row by row, head by head) starts in `q` and in the result.
    #[inline(always)]
    pub(super) fn query_at(&self, task: &Task, query: usize) -> usize {
        let Geometry { heads, width, .. } = self.geometry;
        let group = self.geometry.group();
        let row = self.sequences[task.sequence].rows.start + task.rows.start + query / group;
        (row * heads + task.kv_head * group + query % group) * width
    }

    fn store(&self, cpu: Cpu, task: &Task, mut totals: Totals, out: Outlet<'_>) {
        let Geometry { width, .. } = self.geometry;
        let padded = totals.width;
        let (states, sums) = (totals.states.as_slice(), totals.sums.as_mut_slice());
        multiversion!(cpu.level(), divide, states: &[State], sums: &mut [f32], padded: usize);
        match out {
            Outlet::Plain(out) => {
                for (query, sums) in totals.sums.chunks_exact(padded).enumerate() {
                    // SAFETY: each row and head belongs to one task.
                    let out = unsafe { out.range(self.query_at(task, query), width) };
                    out.write_copy_of_slice(&sums[..width]);
                }
            }
            Outlet::Rounded(builder) => {
                let group = self.geometry.group();
                let first = self.sequences[task.sequence].rows.start;
                let rows = first + task.rows.start..first + task.rows.end;
                for head in 0..group {
                    for block in 0..width / BLOCK {
                        let values = (&totals.sums[head * padded + block * BLOCK..], group * padded);
                        let block = (task.kv_head * group + head) * (width / BLOCK) + block;
                        // SAFETY: each row and head belongs to one task; a head is whole blocks.
                        unsafe { builder.round_column(cpu, rows.clone(), block, values) };
                    }
                }
            }
        }
    }
}
