//! The inner part of attention on the CPU: a task's queries against tiles of keys and values.
//!
//! Keys of a cached block lie dimension by dimension, values position by position, so that both are read as
//! they lie. Where many queries want a tile it is widened for all of them once; where few do (decode), as it
//! is read.

use std::ops::Range;

use half::f16;

use super::block::{Cells, Side, Tile, prefetch, step};
use super::cpu::{Cached, Call, Geometry, Pages, Sequence, Task};
use super::scratch::Scratch;
use crate::lanes::{Kernel, Lanes};
use crate::maths::LANES;

/// Up to so many queries take cells from the cache without widening them first.
const FEW_QUERIES: usize = 8;

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
        for index in tiles {
            // No closures around vectors: one that is not inlined would lose the level's instructions.
            match lying(call, task, index) {
                Some(Lying::Halves(keys, values)) => {
                    let next = match lying(call, task, index + 1) {
                        Some(Lying::Halves(keys, values)) => (keys, values),
                        _ => (keys, values),
                    };
                    let side = |cells, next| Side { cells, next, scales: &[] };
                    let tile = Tile { keys: side(keys, next.0), values: side(values, next.1) };
                    all::<L, f16, false>(call, task, index, tile, scratch);
                }
                Some(Lying::Codes(keys, values)) => {
                    let next = match lying(call, task, index + 1) {
                        Some(Lying::Codes(keys, values)) => (keys, values),
                        _ => (keys, values),
                    };
                    codes::<L>(call, task, index, [(keys, next.0), (values, next.1)], scratch);
                }
                None => widened::<L>(call, task, index, scratch),
            }
        }
    }
}

/// Scales and codes of a kv head's piece of a block.
type Piece<'a> = (&'a [f16], &'a [i8]);

/// Keys and values of a tile as they lie in the cache.
enum Lying<'a> {
    Halves(&'a [f16], &'a [f16]),
    Codes(Piece<'a>, Piece<'a>),
}

/// A tile as it lies in the cache, where few queries want it and its cells fill whole lanes.
#[inline(always)]
fn lying<'a>(call: &Call<'a>, task: &Task, index: usize) -> Option<Lying<'a>> {
    let Geometry { width, tile, .. } = call.geometry;
    let Pages::Table(table) = call.sequences[task.sequence].pages else { return None };
    if call.queries(task) > FEW_QUERIES || !width.is_multiple_of(LANES) || !tile.is_multiple_of(LANES) {
        return None;
    }
    let (block, kv_head) = (*table.get(index)?, task.kv_head);
    match (call.keys, call.values) {
        (Cached::F16(keys), Cached::F16(values)) => {
            let cells = call.cells(block, kv_head);
            Some(Lying::Halves(&keys[cells.clone()], &values[cells]))
        }
        (Cached::Q8(keys), Cached::Q8(values)) => {
            Some(Lying::Codes(call.piece(keys, block, kv_head), call.piece(values, block, kv_head)))
        }
        _ => None,
    }
}

/// All queries of a task against a tile.
#[inline(always)]
fn all<L: Lanes, T: Cells, const CODES: bool>(
    call: &Call<'_>,
    task: &Task,
    index: usize,
    tile: Tile<'_, T>,
    scratch: &mut Scratch,
) {
    let mut runs = Runs::new(call, task, index);
    while let Some((queries, seen)) = runs.next() {
        step::<L, T, CODES>(call, tile, queries, seen, scratch);
    }
}

/// The queries against codes as they lie; each side with the piece that comes after it.
#[inline(always)]
fn codes<L: Lanes>(
    call: &Call<'_>,
    task: &Task,
    index: usize,
    [keys, values]: [(Piece<'_>, Piece<'_>); 2],
    scratch: &mut Scratch,
) {
    let (mut key_scales, mut value_scales) =
        (std::mem::take(&mut scratch.key_scales), std::mem::take(&mut scratch.value_scales));
    for ((piece, next), scales) in [(keys, &mut key_scales), (values, &mut value_scales)] {
        widen_ahead::<L>(piece.0, next.0, scales);
    }
    let keys = Side { cells: keys.0.1, next: keys.1.1, scales: &key_scales };
    let values = Side { cells: values.0.1, next: values.1.1, scales: &value_scales };
    all::<L, i8, true>(call, task, index, Tile { keys, values }, scratch);
    (scratch.key_scales, scratch.value_scales) = (key_scales, value_scales);
}

/// The queries against a tile that is widened into the scratch first.
#[inline(always)]
fn widened<L: Lanes>(call: &Call<'_>, task: &Task, index: usize, scratch: &mut Scratch) {
    if Runs::new(call, task, index).next().is_none() {
        return;
    }
    let (mut keys, mut values) = (std::mem::take(&mut scratch.keys), std::mem::take(&mut scratch.values));
    load::<L>(call, &call.sequences[task.sequence], index, task.kv_head, (&mut keys, &mut values));
    let side = |cells, scales| Side { cells, next: &[], scales };
    if let (Pages::Table(table), Cached::Q8(key_words), Cached::Q8(value_words)) =
        (call.sequences[task.sequence].pages, call.keys, call.values)
    {
        let (mut key_scales, mut value_scales) =
            (std::mem::take(&mut scratch.key_scales), std::mem::take(&mut scratch.value_scales));
        let (tile, padded) = (call.geometry.tile, call.geometry.padded_tile());
        for (words, scales) in [(key_words, &mut key_scales), (value_words, &mut value_scales)] {
            let (halves, _) = call.piece(words, table[index], task.kv_head);
            widen_rows::<L, f16>(halves, tile, scales, padded);
        }
        let tile = Tile { keys: side(&keys, &key_scales), values: side(&values, &value_scales) };
        all::<L, f32, true>(call, task, index, tile, scratch);
        (scratch.key_scales, scratch.value_scales) = (key_scales, value_scales);
    } else {
        let tile = Tile { keys: side(&keys, &[]), values: side(&values, &[]) };
        all::<L, f32, false>(call, task, index, tile, scratch);
    }
    (scratch.keys, scratch.values) = (keys, values);
}

/// A task's queries against a tile: those in a row that see the same of it go together.
struct Runs<'a> {
    call: &'a Call<'a>,
    task: &'a Task,
    positions: Range<usize>,
    row: usize,
}

impl<'a> Runs<'a> {
    fn new(call: &'a Call<'a>, task: &'a Task, index: usize) -> Self {
        let tile = call.geometry.tile;
        let positions = index * tile..((index + 1) * tile).min(call.sequences[task.sequence].context);
        Self { call, task, positions, row: task.rows.start }
    }

    /// The next queries that see anything, and which positions of the tile.
    fn next(&mut self) -> Option<(Range<usize>, Range<usize>)> {
        let group = self.call.geometry.group();
        while self.row < self.task.rows.end {
            let first = self.row;
            let sees = self.seen(first);
            while self.row < self.task.rows.end && self.seen(self.row) == sees {
                self.row += 1;
            }
            if !sees.is_empty() {
                let rows = first - self.task.rows.start..self.row - self.task.rows.start;
                return Some((rows.start * group..rows.end * group, sees));
            }
        }
        None
    }

    /// What a row sees of the tile, counted from its start.
    fn seen(&self, row: usize) -> Range<usize> {
        let sequence = &self.call.sequences[self.task.sequence];
        let (visible, positions) = (sequence.visible(row, self.call.options.sliding_window), &self.positions);
        let start = visible.start.max(positions.start);
        start - positions.start..visible.end.min(positions.end).max(start) - positions.start
    }
}

/// Widens a tile's keys and values.
#[inline(always)]
fn load<L: Lanes>(
    call: &Call<'_>,
    sequence: &Sequence<'_>,
    index: usize,
    kv_head: usize,
    (keys, values): (&mut [f32], &mut [f32]),
) {
    let Geometry { kv_heads, width, tile, .. } = call.geometry;
    match sequence.pages {
        Pages::Table(table) => {
            for (to, padded, from, length) in [
                (keys, call.geometry.padded_tile(), call.keys, tile),
                (values, call.geometry.padded_width(), call.values, width),
            ] {
                let (block, cells) = (table[index], call.cells(table[index], kv_head));
                match from {
                    Cached::F16(from) => widen_rows::<L, _>(&from[cells], length, to, padded),
                    Cached::F32(from) => widen_rows::<L, _>(&from[cells], length, to, padded),
                    Cached::Q8(from) => {
                        widen_rows::<L, _>(call.piece(from, block, kv_head).1, length, to, padded);
                    }
                }
            }
        }
        Pages::From(start) => {
            let (Cached::F32(from_keys), Cached::F32(from_values)) = (call.keys, call.values) else { return };
            let count = tile.min(sequence.context - index * tile);
            for position in 0..count {
                let at = ((start + index * tile + position) * kv_heads + kv_head) * width;
                let columns = keys[position..].iter_mut().step_by(call.geometry.padded_tile());
                columns.zip(&from_keys[at..at + width]).for_each(|(to, key)| *to = *key);
                values[position * call.geometry.padded_width()..][..width]
                    .copy_from_slice(&from_values[at..at + width]);
            }
        }
    }
}

/// Widens scales that fill whole lanes, and asks for those of the next tile.
#[inline(always)]
fn widen_ahead<L: Lanes>(scales: &[f16], next: &[f16], to: &mut [f32]) {
    for first in (0..scales.len()).step_by(LANES) {
        if first % (2 * LANES) == 0 {
            prefetch(next, first);
        }
        L::load_f16(&scales[first..]).store(&mut to[first..]);
    }
}

/// Widens rows of `length` cells to rows that are `padded` apart.
#[inline(always)]
fn widen_rows<L: Lanes, T: Cells>(from: &[T], length: usize, to: &mut [f32], padded: usize) {
    for (from, to) in from.chunks_exact(length).zip(to.chunks_exact_mut(padded)) {
        let whole = length / LANES * LANES;
        for first in (0..whole).step_by(LANES) {
            T::load::<L>(&from[first..first + LANES]).store(&mut to[first..first + LANES]);
        }
        for (to, cell) in to[whole..length].iter_mut().zip(&from[whole..]) {
            *to = cell.widened();
        }
    }
}
