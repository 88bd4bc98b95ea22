//! The inner part of attention on the CPU: a task's queries against tiles of keys and values.
//!
//! Keys of a cached block lie dimension by dimension, values position by position, so that both are read as
//! they lie. Where many queries want a tile it is widened for all of them once; where few do (decode), as it
//! is read.

use std::ops::Range;

use half::f16;

use super::block::{Cells, Tile, step};
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
        let sequence = &call.sequences[task.sequence];
        for index in tiles {
            // No closures around vectors: one that is not inlined would lose the level's instructions.
            match direct(call, task, sequence, index) {
                Some((keys, values)) => {
                    let next = direct(call, task, sequence, index + 1).unwrap_or((keys, values));
                    let mut runs = Runs::new(call, task, index);
                    while let Some((queries, seen)) = runs.next() {
                        step::<L, f16>(call, Tile { keys, values, next }, queries, seen, scratch);
                    }
                }
                None => widened::<L>(call, task, index, scratch),
            }
        }
    }
}

/// The cells of a tile as they lie in the cache, where few queries want them and they fill whole lanes.
#[inline(always)]
fn direct<'a>(
    call: &Call<'a>,
    task: &Task,
    sequence: &Sequence<'_>,
    index: usize,
) -> Option<(&'a [f16], &'a [f16])> {
    let Geometry { width, tile, .. } = call.geometry;
    let (Pages::Table(table), Cached::F16(keys), Cached::F16(values)) =
        (sequence.pages, call.keys, call.values)
    else {
        return None;
    };
    if call.queries(task) > FEW_QUERIES || !width.is_multiple_of(LANES) || !tile.is_multiple_of(LANES) {
        return None;
    }
    let cells = call.cells(*table.get(index)?, task.kv_head);
    Some((&keys[cells.clone()], &values[cells]))
}

/// The queries against a tile that is widened into the scratch first.
#[inline(always)]
fn widened<L: Lanes>(call: &Call<'_>, task: &Task, index: usize, scratch: &mut Scratch) {
    let mut runs = Runs::new(call, task, index);
    let Some((mut queries, mut seen)) = runs.next() else { return };
    let mut keys = std::mem::take(&mut scratch.keys);
    let mut values = std::mem::take(&mut scratch.values);
    load::<L>(call, &call.sequences[task.sequence], index, task.kv_head, (&mut keys, &mut values));
    let tile = Tile { keys: &keys, values: &values, next: (&[], &[]) };
    loop {
        step::<L, f32>(call, tile, queries, seen, scratch);
        match runs.next() {
            Some(next) => (queries, seen) = next,
            None => break,
        }
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
            let cells = call.cells(table[index], kv_head);
            for (to, padded, from, length) in [
                (keys, call.geometry.padded_tile(), call.keys, tile),
                (values, call.geometry.padded_width(), call.values, width),
            ] {
                match from {
                    Cached::F16(from) => widen_rows::<L, _>(&from[cells.clone()], length, to, padded),
                    Cached::F32(from) => widen_rows::<L, _>(&from[cells.clone()], length, to, padded),
                }
            }
        }
        Pages::From(start) => {
            let count = tile.min(sequence.context - index * tile);
            for position in 0..count {
                let at = ((start + index * tile + position) * kv_heads + kv_head) * width;
                let padded = call.geometry.padded_tile();
                let columns = keys[position..].iter_mut().step_by(padded);
                let row = &mut values[position * call.geometry.padded_width()..][..width];
                match (call.keys, call.values) {
                    (Cached::F32(keys), Cached::F32(values)) => {
                        columns.zip(&keys[at..at + width]).for_each(|(to, key)| *to = *key);
                        row.copy_from_slice(&values[at..at + width]);
                    }
                    (keys, values) => {
                        columns.enumerate().take(width).for_each(|(nth, to)| *to = keys.cell(at + nth));
                        row.iter_mut().enumerate().for_each(|(nth, to)| *to = values.cell(at + nth));
                    }
                }
            }
        }
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
