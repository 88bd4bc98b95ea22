//! What a thread works with in attention: one per thread, kept for the next task.

use std::cell::Cell;

use super::block::MOST_QUERIES;
use super::cpu::Geometry;
use super::softmax::{EMPTY, State};

/// What a task works on.
#[derive(Default)]
pub(super) struct Scratch {
    /// `[queries, d]`, scaled.
    pub q: Vec<f32>,
    /// Keys `[d, padded tile]`, then values `[tile, padded d]` of a tile, widened. Columns past the tile's end hold whatever
    /// was there, their scores are masked. So do columns of values past `d`, such as old keys: of what is summed of them
    /// `store` takes nothing.
    pub cells: Vec<f32>,
    /// `[groups, padded tile]` scales of keys or values that are codes.
    pub scales: Vec<f32>,
    /// `[queries, groups, padded tile]` of some queries: powers times the scales of values.
    pub scaled: Vec<f32>,
    /// `[queries, tiles of a step, padded tile]` scores, then their powers.
    pub weights: Vec<f32>,
    /// `[queries]` factor on what a query has gathered before.
    pub keeps: Vec<f32>,
    /// `[queries]`
    pub states: Vec<State>,
    /// `[queries, padded d]`
    pub sums: Vec<f32>,
    /// `[queries, d]` in bf16, over a cache of pairs.
    pub narrow_q: Vec<u16>,
}

impl Scratch {
    /// Lends this thread's scratch, made large enough and empty, to `body`.
    pub(super) fn with<R>(geometry: Geometry, queries: usize, body: impl FnOnce(&mut Self) -> R) -> R {
        thread_local! {
            static SPARE: Cell<Scratch> = const { Cell::new(Scratch::none()) };
        }
        // Taken out, not borrowed: whatever runs inside `body` finds an empty one instead.
        let mut scratch = SPARE.take();
        scratch.q.resize(queries * geometry.width, 0.0);
        let cells = (geometry.width * geometry.padded_tile()).max(geometry.tile * geometry.padded_width());
        scratch.cells.resize(cells, 0.0);
        let scales = geometry.groups() * geometry.padded_tile();
        scratch.scales.resize(scales, 0.0);
        scratch.scaled.resize(MOST_QUERIES * scales, 0.0);
        scratch.weights.resize(queries * geometry.step(), 0.0);
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
            q: Vec::new(),
            cells: Vec::new(),
            scales: Vec::new(),
            scaled: Vec::new(),
            weights: Vec::new(),
            keeps: Vec::new(),
            states: Vec::new(),
            sums: Vec::new(),
            narrow_q: Vec::new(),
        }
    }

    /// Makes ready for the next segment. What the rest holds is written before it is read.
    pub(super) fn clear(&mut self) {
        self.states.fill(EMPTY);
        self.sums.fill(0.0);
    }
}
