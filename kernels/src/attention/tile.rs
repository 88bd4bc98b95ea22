//! The inner part of attention on the CPU: a task's queries against steps of four tiles of keys and values. The scores of a
//! step come first, then their softmax, then the values.
//!
//! Keys of a cached block lie dimension by dimension, values position by position, so that both are read as
//! they lie. Where many queries want a tile it is widened for all of them once; where few do (decode), as it
//! is read.

use std::ops::Range;

use half::f16;

use super::block::{gather, score, weigh};
use super::cells::{Cells, Side, prefetch};
use super::cpu::{Cached, Call, Geometry, Pages, Sequence, TILES_PER_STEP, Task};
use super::pairs::Pieces;
use super::scratch::Scratch;
use super::softmax::mask;
use crate::Level;
use crate::lanes::{Kernel, Lanes, run};
use crate::maths::LANES;

/// Up to so many queries take cells from the cache without widening them first.
const FEW_QUERIES: usize = 8;

/// Vectors that are widened at once.
const AT_ONCE: usize = 4;

/// A task's queries against some tiles of its sequence.
pub(super) struct Segment<'a> {
    pub call: &'a Call<'a>,
    pub task: &'a Task,
    pub tiles: Range<usize>,
    pub scratch: &'a mut Scratch,
}

impl Segment<'_> {
    pub(super) fn attend(self, level: Level) {
        match (self.call.keys, self.call.values, self.call.sequences[self.task.sequence].pages) {
            (Cached::Bf16(keys), Cached::Bf16(values), Pages::Table(table)) => {
                Pieces { keys, values, table }.attend(level, self);
            }
            _ => run(level, self),
        }
    }
}

impl Kernel for Segment<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { call, task, tiles, scratch } = self;
        // No closures around vectors: one that is not inlined would lose the level's instructions.
        for first in tiles.clone().step_by(TILES_PER_STEP) {
            let step = first..(first + TILES_PER_STEP).min(tiles.end);
            for index in step.clone() {
                let queries = seeing(call, task, index);
                if !queries.is_empty() {
                    let next = if index + 1 < step.end { Part::Keys(index + 1) } else { Part::Values(first) };
                    let work = Scores { geometry: call.geometry, nth: index - first, queries };
                    with::<L>(call, task, [Part::Keys(index), next], scratch, work);
                }
            }
            for row in 0..task.rows.len() {
                weigh_row::<L>(call, task, row, step.clone(), scratch);
            }
            for index in step.clone() {
                if !seeing(call, task, index).is_empty() {
                    let next =
                        if index + 1 < step.end { Part::Values(index + 1) } else { Part::Keys(step.end) };
                    with::<L>(
                        call,
                        task,
                        [Part::Values(index), next],
                        scratch,
                        Sums { call, task, first, index },
                    );
                }
            }
        }
    }
}

/// Keys or values of a tile.
#[derive(Clone, Copy)]
enum Part {
    Keys(usize),
    Values(usize),
}

/// What is done with a part of a tile.
trait Work {
    fn run<L: Lanes, T: Cells, const CODES: bool>(self, side: Side<'_, T>, scratch: &mut Scratch);
}

/// Scoring queries against keys of tile `nth` of a step.
struct Scores {
    geometry: Geometry,
    nth: usize,
    queries: Range<usize>,
}

impl Work for Scores {
    #[inline(always)]
    fn run<L: Lanes, T: Cells, const CODES: bool>(self, side: Side<'_, T>, scratch: &mut Scratch) {
        score::<L, T, CODES>(self.geometry, side, self.nth, self.queries, scratch);
    }
}

/// Adding values of tile `index`, of a step that begins with tile `first`.
struct Sums<'a> {
    call: &'a Call<'a>,
    task: &'a Task,
    first: usize,
    index: usize,
}

impl Work for Sums<'_> {
    #[inline(always)]
    fn run<L: Lanes, T: Cells, const CODES: bool>(self, side: Side<'_, T>, scratch: &mut Scratch) {
        let Self { call, task, first, index } = self;
        let mut row = 0;
        while let Some(together) = next_together(call, task, index, &mut row) {
            gather::<L, T, CODES>(call.geometry, side, index - first, together, scratch);
        }
    }
}

/// Turns a row's scores in a step into powers.
#[inline(always)]
pub(super) fn weigh_row<L: Lanes>(
    call: &Call<'_>,
    task: &Task,
    row: usize,
    step: Range<usize>,
    scratch: &mut Scratch,
) {
    let geometry = call.geometry;
    let (group, padded) = (geometry.group(), geometry.padded_tile());
    let queries = row * group..(row + 1) * group;
    let mut tiles = 0..0;
    for (nth, index) in step.enumerate() {
        let sees = seen(call, task, row, index);
        if sees.is_empty() {
            continue;
        }
        tiles = if tiles.is_empty() { nth..nth + 1 } else { tiles.start..nth + 1 };
        if sees != (0..padded) || call.options.softcap.is_some() {
            for query in queries.clone() {
                let at = query * geometry.step() + nth * padded;
                mask(&mut scratch.weights[at..at + padded], sees.clone(), &call.options);
            }
        }
    }
    if !tiles.is_empty() {
        weigh::<L>(geometry, queries, tiles, scratch);
    }
}

/// What a row of a task sees of a tile, counted from the tile's start.
#[inline(always)]
pub(super) fn seen(call: &Call<'_>, task: &Task, row: usize, index: usize) -> Range<usize> {
    let (sequence, tile) = (&call.sequences[task.sequence], call.geometry.tile);
    let visible = sequence.visible(task.rows.start + row, call.options.sliding_window);
    let positions = index * tile..((index + 1) * tile).min(sequence.context);
    let start = visible.start.max(positions.start);
    start - positions.start..visible.end.min(positions.end).max(start) - positions.start
}

/// From the first to the last query of a task that sees anything of a tile.
#[inline(always)]
pub(super) fn seeing(call: &Call<'_>, task: &Task, index: usize) -> Range<usize> {
    let group = call.geometry.group();
    let sees = |row: &usize| !seen(call, task, *row, index).is_empty();
    let Some(first) = (0..task.rows.len()).find(sees) else { return 0..0 };
    let last = (first..task.rows.len()).rfind(sees).unwrap_or(first);
    first * group..(last + 1) * group
}

/// The next queries, from those of `row` on, that see the same of a tile, and what that is.
#[inline(always)]
fn next_together(
    call: &Call<'_>,
    task: &Task,
    index: usize,
    row: &mut usize,
) -> Option<(Range<usize>, Range<usize>)> {
    let group = call.geometry.group();
    while *row < task.rows.len() {
        let first = *row;
        let sees = seen(call, task, first, index);
        while *row < task.rows.len() && seen(call, task, *row, index) == sees {
            *row += 1;
        }
        if !sees.is_empty() {
            return Some((first * group..*row * group, sees));
        }
    }
    None
}

/// A part of a tile as it lies in the cache.
enum Lying<'a> {
    Halves(&'a [f16]),
    /// Scales and codes.
    Codes(&'a [f16], &'a [i8]),
}

/// A part of a tile as it lies in the cache, where few queries want it and its cells fill whole lanes. None past the
/// context: what a table names there is of no meaning yet.
#[inline(always)]
fn lying<'a>(call: &Call<'a>, task: &Task, part: Part) -> Option<Lying<'a>> {
    let Geometry { width, tile, .. } = call.geometry;
    let sequence = &call.sequences[task.sequence];
    let Pages::Table(table) = sequence.pages else { return None };
    if call.queries(task) > FEW_QUERIES || !width.is_multiple_of(LANES) || !tile.is_multiple_of(LANES) {
        return None;
    }
    let (from, index) = call.part(part);
    if index * tile >= sequence.context {
        return None;
    }
    let block = *table.get(index)?;
    match from {
        Cached::F16(from) => Some(Lying::Halves(&from[call.cells(block, task.kv_head)])),
        Cached::Q8(from) => {
            let (scales, codes) = call.piece(from, block, task.kv_head);
            Some(Lying::Codes(scales, codes))
        }
        Cached::F32(_) | Cached::Bf16(_) => None,
    }
}

/// Does the work with the first part; the second one is wanted after it.
#[inline(always)]
fn with<L: Lanes>(
    call: &Call<'_>,
    task: &Task,
    [part, next]: [Part; 2],
    scratch: &mut Scratch,
    work: impl Work,
) {
    match lying(call, task, part) {
        Some(Lying::Halves(cells)) => {
            let next = if let Some(Lying::Halves(next)) = lying(call, task, next) { next } else { cells };
            work.run::<L, f16, false>(Side { cells, next, scales: &[] }, scratch);
        }
        Some(Lying::Codes(halves, cells)) => {
            let (next_halves, next) = match lying(call, task, next) {
                Some(Lying::Codes(halves, next)) => (halves, next),
                _ => (halves, cells),
            };
            let mut scales = std::mem::take(&mut scratch.scales);
            widen_ahead::<L>(halves, next_halves, &mut scales);
            work.run::<L, i8, true>(Side { cells, next, scales: &scales }, scratch);
            scratch.scales = scales;
        }
        None => widened::<L>(call, task, part, scratch, work),
    }
}

/// Does the work with a part that is widened into the scratch first.
#[inline(always)]
fn widened<L: Lanes>(call: &Call<'_>, task: &Task, part: Part, scratch: &mut Scratch, work: impl Work) {
    let mut cells = std::mem::take(&mut scratch.cells);
    load::<L>(call, &call.sequences[task.sequence], part, task.kv_head, &mut cells);
    let (from, index) = call.part(part);
    if let (Pages::Table(table), Cached::Q8(words)) = (call.sequences[task.sequence].pages, from) {
        let mut scales = std::mem::take(&mut scratch.scales);
        let (halves, _) = call.piece(words, table[index], task.kv_head);
        widen_rows::<L, f16>(halves, call.geometry.tile, &mut scales, call.geometry.padded_tile());
        work.run::<L, f32, true>(Side { cells: &cells, next: &[], scales: &scales }, scratch);
        scratch.scales = scales;
    } else {
        work.run::<L, f32, false>(Side { cells: &cells, next: &[], scales: &[] }, scratch);
    }
    scratch.cells = cells;
}

impl<'a> Call<'a> {
    /// Where a part is, and its tile.
    #[inline(always)]
    fn part(&self, part: Part) -> (Cached<'a>, usize) {
        match part {
            Part::Keys(index) => (self.keys, index),
            Part::Values(index) => (self.values, index),
        }
    }
}

/// Widens a part of a tile.
#[inline(always)]
fn load<L: Lanes>(call: &Call<'_>, sequence: &Sequence<'_>, part: Part, kv_head: usize, to: &mut [f32]) {
    let Geometry { kv_heads, width, tile, .. } = call.geometry;
    let (from, index) = call.part(part);
    let (length, padded) = match part {
        Part::Keys(_) => (tile, call.geometry.padded_tile()),
        Part::Values(_) => (width, call.geometry.padded_width()),
    };
    match (sequence.pages, from) {
        (Pages::Table(table), Cached::F16(from)) => {
            widen_rows::<L, _>(&from[call.cells(table[index], kv_head)], length, to, padded);
        }
        (Pages::Table(table), Cached::F32(from)) => {
            widen_rows::<L, _>(&from[call.cells(table[index], kv_head)], length, to, padded);
        }
        (Pages::Table(table), Cached::Q8(from)) => {
            widen_rows::<L, _>(call.piece(from, table[index], kv_head).1, length, to, padded);
        }
        (Pages::From(start), Cached::F32(from)) => {
            for position in 0..tile.min(sequence.context - index * tile) {
                let at = ((start + index * tile + position) * kv_heads + kv_head) * width;
                let from = &from[at..at + width];
                match part {
                    Part::Keys(_) => {
                        let column = to[position..].iter_mut().step_by(padded);
                        column.zip(from).for_each(|(to, key)| *to = *key);
                    }
                    Part::Values(_) => to[position * padded..][..width].copy_from_slice(from),
                }
            }
        }
        // Those of pairs are never widened.
        (_, Cached::Bf16(_)) | (Pages::From(_), Cached::F16(_) | Cached::Q8(_)) => {}
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
    let whole_lines = from.chunks_exact(AT_ONCE * LANES);
    if length == padded && whole_lines.remainder().is_empty() {
        // Rows follow each other as they shall: rows of two or four vectors would be more loop than work.
        for (from, to) in whole_lines.zip(to.chunks_exact_mut(AT_ONCE * LANES)) {
            let wide: [L; AT_ONCE] = [
                T::load(from),
                T::load(&from[LANES..]),
                T::load(&from[2 * LANES..]),
                T::load(&from[3 * LANES..]),
            ];
            for (nth, wide) in wide.into_iter().enumerate() {
                wide.store(&mut to[nth * LANES..]);
            }
        }
        return;
    }
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
