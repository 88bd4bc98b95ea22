//! Products of unquantised weights with many rows of activations. Both are turned first, so that a vector holds one
//! element of sixteen rows of weights: no sum is left to make across a vector, and no weight is widened twice.
//!
//! The one thing to know: `dense` sums in sixteen lanes, element `i` in lane `i % 16`, and then in a tree. Here the sums of
//! a lane are made one lane after the other, in the order in which the tree wants them, so that the bits are the same.

use std::cell::Cell;
use std::ops::Range;

use super::dense::{Rows, Weight};
use super::panels::ROWS;
use super::target::Target;
use crate::lanes::{Kernel, Lanes, run, transpose};
use crate::maths::LANES;
use crate::pool::SharedSlice;
use crate::{Cpu, Level};

/// With fewer activation rows, what it takes to turn the weights is not earned back.
pub(super) const FEWEST: usize = 48;
/// Panels that are multiplied together where registers allow.
pub(super) const PANELS: usize = 3;
/// Activation rows that lie together.
const TOGETHER: usize = LANES / 2;
/// The lanes in such an order that the tree sums neighbours first, then pairs of them, and so on: bits reversed.
const ORDER: [usize; LANES] = [0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15];
/// Levels of the tree.
const LEVELS: usize = LANES.ilog2() as usize;

thread_local! {
    /// Memory for what is turned, kept for the next product: activations, and a task's weights.
    static SPARE_ROWS: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    static SPARE_WEIGHTS: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Turned rows of activations: `[tokens / 8, lanes, steps, 8]`, the last rows and steps filled up with zeros.
pub(super) struct Turned {
    cells: Vec<f32>,
    steps: usize,
}

impl Turned {
    /// `x [tokens, inner]`, turned.
    pub(super) fn of(cpu: Cpu, x: &[f32], inner: usize) -> Self {
        let steps = inner.div_ceil(LANES);
        let pair = 2 * LANES * steps * TOGETHER;
        let rows = 2 * TOGETHER * inner;
        let pairs = x.len().div_ceil(rows);
        let mut cells = SPARE_ROWS.take();
        if cells.len() < pairs * pair {
            cells.resize(pairs * pair, 0.0);
        }
        let shared = SharedSlice::new(&mut cells);
        cpu.pool().run(pairs, &|nth| {
            let rows = &x[nth * rows..x.len().min((nth + 1) * rows)];
            // SAFETY: each pair of groups belongs to one task.
            let into = unsafe { shared.range(nth * pair, pair) };
            run(cpu.level(), Turn { rows, inner, into });
        });
        Self { cells, steps }
    }

    /// `[lanes, steps, 8]` of the rows that `token` lies with.
    fn group(&self, token: usize) -> &[f32] {
        let length = LANES * self.steps * TOGETHER;
        &self.cells[token / TOGETHER * length..][..length]
    }
}

impl Drop for Turned {
    fn drop(&mut self) {
        SPARE_ROWS.set(std::mem::take(&mut self.cells));
    }
}

/// Turns activations of up to sixteen rows into two groups.
struct Turn<'a> {
    rows: &'a [f32],
    inner: usize,
    into: &'a mut [f32],
}

impl Kernel for Turn<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let (low, high) = self.into.split_at_mut(self.into.len() / 2);
        turn::<L, f32>(self.rows, self.inner, |at, rows| {
            let mut values = [0f32; LANES];
            rows.store(&mut values);
            low[at * TOGETHER..][..TOGETHER].copy_from_slice(&values[..TOGETHER]);
            high[at * TOGETHER..][..TOGETHER].copy_from_slice(&values[TOGETHER..]);
        });
    }
}

/// Turns up to sixteen rows: `store` gets the place among `[lanes, steps]`, and what the rows have there.
#[inline(always)]
fn turn<L: Lanes, W: Weight>(rows: &[W], inner: usize, mut store: impl FnMut(usize, L)) {
    let steps = inner.div_ceil(LANES);
    for step in 0..steps {
        let mut square = [L::splat(0.0); LANES];
        for (line, row) in square.iter_mut().zip(rows.chunks_exact(inner)) {
            let left = &row[step * LANES..];
            *line = if left.len() < LANES { W::widen_rest(left) } else { W::widen(left) };
        }
        transpose(&mut square);
        for (nth, lane) in ORDER.into_iter().enumerate() {
            store(nth * steps + step, square[lane]);
        }
    }
}

/// Panels of sixteen rows of a matrix, and the activations to multiply them with.
pub(super) struct Span<'a> {
    pub rows: Rows<'a>,
    /// Panels of the matrix.
    pub units: Range<usize>,
    pub x: &'a Turned,
    pub inner: usize,
}

impl Span<'_> {
    /// Multiplies with a range of activation rows, the first of which is a multiple of eight, into the target.
    ///
    /// # Safety
    /// No two threads may have a panel and a row at once.
    pub(super) unsafe fn multiply(self, level: Level, tokens: Range<usize>, target: &Target<'_>) {
        let Self { rows, units, x, inner } = self;
        assert!(x.steps == inner.div_ceil(LANES) && tokens.start.is_multiple_of(TOGETHER));
        match rows {
            Rows::F32(weights) => run(level, Product { weights, units, x, inner, tokens, target }),
            Rows::F16(weights) => run(level, Product { weights, units, x, inner, tokens, target }),
            Rows::Bf16(weights) => run(level, Product { weights, units, x, inner, tokens, target }),
        }
    }
}

struct Product<'a, W> {
    /// The whole matrix.
    weights: &'a [W],
    units: Range<usize>,
    x: &'a Turned,
    inner: usize,
    tokens: Range<usize>,
    target: &'a Target<'a>,
}

impl<W: Weight> Kernel for Product<'_, W> {
    #[inline(always)]
    fn run<L: Lanes>(mut self) {
        let mut spare = SPARE_WEIGHTS.take();
        while !self.units.is_empty() {
            match self.units.len() {
                1 if L::WIDE => self.panels::<L, 1, 8>(&mut spare),
                2 | 4 if L::WIDE => self.panels::<L, 2, 8>(&mut spare),
                _ if L::WIDE => self.panels::<L, PANELS, 8>(&mut spare),
                _ => self.panels::<L, 1, 4>(&mut spare),
            }
        }
        SPARE_WEIGHTS.set(spare);
    }
}

impl<W: Weight> Product<'_, W> {
    /// The next `P` panels times all rows, `T` at a time.
    #[inline(always)]
    fn panels<L: Lanes, const P: usize, const T: usize>(&mut self, turned: &mut Vec<f32>) {
        const { assert!(TOGETHER.is_multiple_of(T)) };
        let (steps, width) = (self.x.steps, P * ROWS);
        let cells = LANES * steps * width;
        if turned.len() < cells {
            turned.resize(cells, 0.0);
        }
        let first = self.units.start;
        self.units.start += P;
        for panel in 0..P {
            let cells = (first + panel) * ROWS * self.inner;
            let end = self.weights.len().min(cells + ROWS * self.inner);
            turn::<L, W>(&self.weights[cells..end], self.inner, |at, rows| {
                rows.store(&mut turned[at * width + panel * ROWS..]);
            });
        }
        let mut waiting = [[[L::splat(0.0); P]; T]; LEVELS + 1];
        for token in self.tokens.clone().step_by(T) {
            let rows = &self.x.group(token)[token % TOGETHER..];
            tile::<L, P, T>(turned, rows, steps, &mut waiting);
            for panel in 0..P {
                // SAFETY: as the caller of `Span::multiply` promises.
                let target = unsafe { self.target.columns_of(first + panel) };
                for (token, sums) in (token..self.tokens.end).zip(&waiting[LEVELS]) {
                    let mut values = [0f32; ROWS];
                    sums[panel].store(&mut values);
                    target.store(token, &values);
                }
            }
        }
    }
}

/// `P` panels times `T` rows of activations; the sums are what waits last.
#[inline(always)]
fn tile<L: Lanes, const P: usize, const T: usize>(
    weights: &[f32],
    x: &[f32],
    steps: usize,
    waiting: &mut [[[L; P]; T]; LEVELS + 1],
) {
    for nth in 0..LANES {
        let weights = &weights[nth * steps * P * ROWS..];
        let mut sums = lane::<L, P, T>(weights, &x[nth * steps * TOGETHER..], steps);
        // As a counter carries: each lane whose number ends with a one completes a pair, each that ends with two
        // of them a pair of pairs.
        let level = nth.trailing_ones() as usize;
        for waiting in &waiting[..level] {
            for token in 0..T {
                for panel in 0..P {
                    sums[token][panel] = waiting[token][panel].add(sums[token][panel]);
                }
            }
        }
        waiting[level] = sums;
    }
}

/// The sums of one lane.
#[expect(clippy::needless_range_loop, reason = "over iterators the sums are kept in memory")]
#[inline(always)]
fn lane<L: Lanes, const P: usize, const T: usize>(weights: &[f32], x: &[f32], steps: usize) -> [[L; P]; T] {
    let weights = &weights[..steps * P * ROWS];
    let x = &x[..(steps - 1) * TOGETHER + T];
    let mut sums = [[L::splat(0.0); P]; T];
    for step in 0..steps {
        let mut panels = [L::splat(0.0); P];
        for (panel, loaded) in panels.iter_mut().enumerate() {
            let at = (step * P + panel) * ROWS;
            // SAFETY: both slices were just cut to what `steps` want. With checks in this loop, the sums would be kept in
            // memory.
            *loaded = L::load(unsafe { weights.get_unchecked(at..at + ROWS) });
        }
        for token in 0..T {
            // SAFETY: as above.
            let x = L::splat(unsafe { *x.get_unchecked(step * TOGETHER + token) });
            for panel in 0..P {
                sums[token][panel] = panels[panel].mul_add(x, sums[token][panel]);
            }
        }
    }
    sums
}
