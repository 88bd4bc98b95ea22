//! A task's queries against a cache in bf16, whose keys and values lie as tiles take them.
//!
//! Queries are rounded to bf16, and so are the powers that values are weighted by; a product adds as [`crate::tiles`] says, 32 dimensions
//! of a score or 32 positions of a value at a time. Softmax is that of other caches. Where there are no tiles, or sizes do not fill
//! them, plain Rust does the same.

use std::ops::Range;

use half::bf16;

use super::cpu::{Call, Geometry, TILES_PER_STEP, Task};
use super::format::sizes_fill_tiles;
use super::scratch::Scratch;
use super::tile::{Segment, seeing, seen, weigh_row};
use crate::Level;
use crate::lanes::{Kernel, Lanes, run};
use crate::linear::narrowed::{flushed, narrow, to_bf16};

/// Elements that a product adds up at once.
const DEPTH: usize = 32;

/// The pieces of a sequence's blocks.
pub(super) struct Pieces<'a> {
    pub keys: &'a [u16],
    pub values: &'a [u16],
    /// Which block a tile is.
    pub table: &'a [u32],
}

impl Pieces<'_> {
    pub(super) fn attend(&self, level: Level, segment: Segment<'_>) {
        let Segment { call, task, tiles, scratch } = segment;
        let geometry = call.geometry;
        let queries = call.queries(task);
        let mut narrow_q = std::mem::take(&mut scratch.narrow_q);
        narrow_q.resize(queries * geometry.width, 0);
        narrow(level, &scratch.q[..queries * geometry.width], &mut narrow_q);
        let mut products = Products::on(level, geometry, queries);
        let order = Order { pieces: self, call, task, tiles: tiles.clone() };
        for first in tiles.clone().step_by(TILES_PER_STEP) {
            let step = first..(first + TILES_PER_STEP).min(tiles.end);
            for index in step.clone() {
                let queries = seeing(call, task, index);
                if !queries.is_empty() {
                    order.ask_after(2 * (first - tiles.start) + index - first);
                    let keys = self.keys_of(geometry, task.kv_head, index);
                    let scores = Scores { geometry, q: &narrow_q, keys, nth: index - first, queries };
                    scores.make(&mut products, &mut scratch.weights);
                }
            }
            run(level, Soften { call, task, step: step.clone(), scratch: &mut *scratch });
            Sums { order: &order, pieces: self, call, task, step }.add(&mut products, scratch);
        }
        scratch.narrow_q = narrow_q;
    }

    /// `[⌈d / 2⌉, tile, 2]`
    fn keys_of(&self, geometry: Geometry, kv_head: usize, index: usize) -> &[u16] {
        let cells = geometry.width.div_ceil(2) * 2 * geometry.tile;
        let first = (self.table[index] as usize * geometry.kv_heads + kv_head) * cells;
        &self.keys[first..first + cells]
    }

    /// `[⌈tile / 2⌉, d, 2]`
    fn values_of(&self, geometry: Geometry, kv_head: usize, index: usize) -> &[u16] {
        let cells = geometry.tile.div_ceil(2) * 2 * geometry.width;
        let first = (self.table[index] as usize * geometry.kv_heads + kv_head) * cells;
        &self.values[first..first + cells]
    }
}

/// The order in which a task wants the pieces of some tiles: of each step the keys, then the values.
struct Order<'a> {
    pieces: &'a Pieces<'a>,
    call: &'a Call<'a>,
    task: &'a Task,
    tiles: Range<usize>,
}

impl Order<'_> {
    /// Asks memory for what is wanted after piece `nth`: for all of the next one, and for a few lines of the one after it, from which the
    /// machine brings the others nearer by itself. Lines that are asked for one by one alone would not keep memory busy.
    fn ask_after(&self, nth: usize) {
        if let Some(piece) = self.piece(nth + 1) {
            ask_for(piece, 1);
        }
        if let Some(piece) = self.piece(nth + 2) {
            ask_for(piece, 16);
        }
    }

    fn piece(&self, nth: usize) -> Option<&[u16]> {
        let first = self.tiles.start + nth / (2 * TILES_PER_STEP) * TILES_PER_STEP;
        let count = TILES_PER_STEP.min(self.tiles.end.checked_sub(first)?);
        let (nth, geometry, kv_head) = (nth % (2 * TILES_PER_STEP), self.call.geometry, self.task.kv_head);
        if nth < count {
            Some(self.pieces.keys_of(geometry, kv_head, first + nth))
        } else if nth < 2 * count {
            Some(self.pieces.values_of(geometry, kv_head, first + nth - count))
        } else {
            None
        }
    }
}

/// Asks memory for every line of a piece, or for the first two of each `apart`.
fn ask_for(piece: &[u16], apart: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
        const LINE: usize = 64;
        let start = piece.as_ptr().cast::<i8>();
        for first in (0..size_of_val(piece)).step_by(apart * LINE) {
            // SAFETY: hints; they may name any address.
            unsafe {
                if apart == 1 {
                    _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(first));
                } else {
                    _mm_prefetch::<_MM_HINT_T1>(start.wrapping_add(first));
                    _mm_prefetch::<_MM_HINT_T1>(start.wrapping_add(first + LINE));
                }
            }
        }
    }
    let _ = (piece, apart);
}

/// How products are made.
enum Products {
    /// Sizes fill tiles, and there are some.
    #[cfg(target_arch = "x86_64")]
    ByTiles(crate::tiles::Tiles),
    Plainly,
}

impl Products {
    fn on(level: Level, geometry: Geometry, queries: usize) -> Self {
        #[cfg(target_arch = "x86_64")]
        if level == Level::Amx && sizes_fill_tiles(geometry.tile, geometry.width) {
            use crate::tiles::{SIDE, Tiles};
            // SAFETY: a `Cpu` holds only a level that this machine supports; a task of attention multiplies nothing else meanwhile.
            return Self::ByTiles(unsafe { Tiles::new(SIDE.min(queries.max(1)), SIDE) });
        }
        let _ = (level, geometry, queries);
        Self::Plainly
    }
}

/// Two chains of fused additions, of the even and of the odd elements, and their sum onto the total.
fn add_chains(total: f32, factors: impl Iterator<Item = (usize, u16, u16)>) -> f32 {
    let mut chains = [0f32; 2];
    for (at, one, other) in factors {
        let chain = &mut chains[at % 2];
        *chain = flushed(bf16::from_bits(one).to_f32().mul_add(bf16::from_bits(other).to_f32(), *chain));
    }
    flushed(flushed(total) + flushed(chains[0] + chains[1]))
}

/// Scoring some queries against the keys of tile `nth` of a step.
struct Scores<'a> {
    geometry: Geometry,
    q: &'a [u16],
    keys: &'a [u16],
    nth: usize,
    queries: Range<usize>,
}

impl Scores<'_> {
    fn make(&self, products: &mut Products, weights: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        if let Products::ByTiles(tiles) = products {
            // SAFETY: there are tiles only where there are the instructions.
            unsafe { by_tiles::scores(self, tiles, weights) };
            return;
        }
        let _ = products;
        let Geometry { width, tile, .. } = self.geometry;
        for query in self.queries.clone() {
            let q = &self.q[query * width..(query + 1) * width];
            let at = query * self.geometry.step() + self.nth * self.geometry.padded_tile();
            for (position, score) in weights[at..at + tile].iter_mut().enumerate() {
                *score = (0..width).step_by(DEPTH).fold(0.0, |total, first| {
                    let dimensions = first..(first + DEPTH).min(width);
                    let key =
                        |dimension: usize| self.keys[dimension / 2 * 2 * tile + 2 * position + dimension % 2];
                    add_chains(total, dimensions.map(|at| (at, q[at], key(at))))
                });
            }
        }
    }
}

/// The softmax of a step.
struct Soften<'a> {
    call: &'a Call<'a>,
    task: &'a Task,
    step: Range<usize>,
    scratch: &'a mut Scratch,
}

impl Kernel for Soften<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { call, task, step, scratch } = self;
        for row in 0..task.rows.len() {
            weigh_row::<L>(call, task, row, step.clone(), scratch);
        }
    }
}

/// Adding the values of a step.
struct Sums<'a> {
    order: &'a Order<'a>,
    pieces: &'a Pieces<'a>,
    call: &'a Call<'a>,
    task: &'a Task,
    step: Range<usize>,
}

impl Sums<'_> {
    fn add(&self, products: &mut Products, scratch: &mut Scratch) {
        #[cfg(target_arch = "x86_64")]
        if let Products::ByTiles(tiles) = products
            && self.step.clone().all(|index| self.may_weigh_all(index))
        {
            // SAFETY: there are tiles only where there are the instructions.
            unsafe { by_tiles::sums(self, tiles, scratch) };
            return;
        }
        let _ = (products, self.order);
        let geometry = self.call.geometry;
        let (group, width, tile) = (geometry.group(), geometry.width, geometry.tile);
        for row in 0..self.task.rows.len() {
            for query in row * group..(row + 1) * group {
                let sums = &mut scratch.sums[query * geometry.padded_width()..][..width];
                let mut keep = std::mem::replace(&mut scratch.keeps[query], 1.0);
                for (nth, index) in self.step.clone().enumerate() {
                    let sees = seen(self.call, self.task, row, index);
                    if sees.is_empty() {
                        continue;
                    }
                    let at = query * geometry.step() + nth * geometry.padded_tile();
                    let weights = &scratch.weights[at..at + tile];
                    let values = self.pieces.values_of(geometry, self.task.kv_head, index);
                    for (dimension, sum) in sums.iter_mut().enumerate() {
                        *sum = (0..tile).step_by(DEPTH).fold(*sum * keep, |total, first| {
                            let positions = sees.start.max(first)..sees.end.min(first + DEPTH);
                            let value = |position: usize| {
                                values[position / 2 * 2 * width + 2 * dimension + position % 2]
                            };
                            add_chains(total, positions.map(|at| (at, to_bf16(weights[at]), value(at))))
                        });
                    }
                    keep = 1.0;
                }
            }
        }
    }

    /// Whether values of a tile that somebody does not see may be multiplied by zero: they are finite.
    #[cfg(target_arch = "x86_64")]
    fn may_weigh_all(&self, index: usize) -> bool {
        const INFINITE: u16 = 0x7f80;
        let sees_all = |row: usize| seen(self.call, self.task, row, index) == (0..self.call.geometry.tile);
        if (0..self.task.rows.len()).all(sees_all) {
            return true;
        }
        if seeing(self.call, self.task, index).is_empty() {
            return true;
        }
        let values = self.pieces.values_of(self.call.geometry, self.task.kv_head, index);
        // Without an early end it is a few vectors' work.
        !values.iter().fold(false, |any, value| any | (value & INFINITE == INFINITE))
    }
}

#[cfg(target_arch = "x86_64")]
mod by_tiles {
    use std::arch::x86_64::{
        __m512i, _mm512_loadu_ps, _mm512_mul_ps, _mm512_set1_ps, _mm512_setzero_si512, _mm512_store_si512,
        _mm512_storeu_ps,
    };
    use std::ops::Range;

    use super::{DEPTH, Scores, Scratch, Sums, TILES_PER_STEP, seen};
    use crate::tiles::{LINE, SIDE, Tiles, narrowed};

    /// Bytes of a pair.
    const PAIR: usize = 4;

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
    pub(super) fn scores(scores: &Scores<'_>, tiles: &mut Tiles, weights: &mut [f32]) {
        let (width, step) = (scores.geometry.width, scores.geometry.step());
        let end = scores.queries.end;
        assert!(scores.q.len() >= end * width && weights.len() >= end * step);
        assert!(
            scores.keys.len() == width * DEPTH
                && scores.nth < TILES_PER_STEP
                && step == TILES_PER_STEP * DEPTH
        );
        for first in scores.queries.clone().step_by(SIDE) {
            tiles.reshape(SIDE.min(end - first), SIDE);
            tiles.zero::<0>();
            tiles.zero::<1>();
            for depth in 0..width / DEPTH {
                // SAFETY: the queries have `width` elements each, and of each 32 of these the keys have sixteen pairs for 32 positions.
                unsafe {
                    let q = scores.q.as_ptr().add(first * width + depth * DEPTH).cast::<u8>();
                    let keys = scores.keys.as_ptr().add(depth * DEPTH * DEPTH).cast::<u8>();
                    tiles.load_rows::<0>(q, 2 * width);
                    tiles.load_columns::<0>(keys, PAIR * DEPTH);
                    tiles.multiply::<0>();
                    tiles.load_columns::<1>(keys.add(PAIR * SIDE), PAIR * DEPTH);
                    tiles.multiply::<1>();
                }
            }
            // SAFETY: each query has room for the scores of a step's tiles.
            unsafe {
                let to = weights.as_mut_ptr().add(first * step + scores.nth * DEPTH);
                tiles.store_to::<0>(to, size_of::<f32>() * step);
                tiles.store_to::<1>(to.add(SIDE), size_of::<f32>() * step);
            }
        }
    }

    /// Powers of sixteen queries for a tile, in bf16.
    #[derive(Clone, Copy)]
    #[repr(C, align(64))]
    struct Powers([[u16; DEPTH]; SIDE]);

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
    pub(super) fn sums(work: &Sums<'_>, tiles: &mut Tiles, scratch: &mut Scratch) {
        let (call, task) = (work.call, work.task);
        let geometry = call.geometry;
        let width = geometry.width;
        let queries = call.queries(task);
        assert!(
            width.is_multiple_of(DEPTH) && geometry.tile == DEPTH && scratch.sums.len() >= queries * width
        );
        assert!(scratch.weights.len() >= queries * geometry.step() && scratch.keeps.len() >= queries);
        let mut powers = [Powers([[0; DEPTH]; SIDE]); TILES_PER_STEP];
        for first in (0..queries).step_by(SIDE) {
            let rows = SIDE.min(queries - first);
            tiles.reshape(rows, SIDE);
            let some = narrow_powers(work, first..first + rows, scratch, &mut powers);
            for row in 0..rows {
                let keep = std::mem::replace(&mut scratch.keeps[first + row], 1.0);
                if keep != 1.0 {
                    multiply(&mut scratch.sums[(first + row) * width..][..width], keep);
                }
            }
            for dimension in (0..width).step_by(4 * SIDE) {
                // There are two times sixteen dimensions, or four.
                let four = width - dimension >= 4 * SIDE;
                let apart = size_of::<f32>() * width;
                // SAFETY: the sums of `rows` queries from `first` on are as wide.
                let sums = unsafe { scratch.sums.as_mut_ptr().add(first * width + dimension) };
                // SAFETY: as above; of each tile the values have sixteen pairs of positions for each dimension.
                unsafe {
                    tiles.load_sums::<0>(sums, apart);
                    tiles.load_sums::<1>(sums.add(SIDE), apart);
                    if four {
                        tiles.load_sums::<2>(sums.add(2 * SIDE), apart);
                        tiles.load_sums::<3>(sums.add(3 * SIDE), apart);
                    }
                    for (nth, index) in work.step.clone().enumerate().filter(|(nth, _)| some[*nth]) {
                        let values = work.pieces.values_of(geometry, task.kv_head, index);
                        assert!(values.len() == width * DEPTH);
                        if first == 0 && dimension == 0 {
                            let before = work.step.start - work.order.tiles.start;
                            work.order.ask_after(2 * before + work.step.len() + nth);
                        }
                        let values = values.as_ptr().add(2 * dimension).cast::<u8>();
                        let powers = powers[nth].0.as_ptr().cast::<u8>();
                        tiles.load_rows::<0>(powers, LINE);
                        tiles.load_columns::<0>(values, PAIR * width);
                        tiles.multiply::<0>();
                        tiles.load_columns::<1>(values.add(PAIR * SIDE), PAIR * width);
                        tiles.multiply::<1>();
                        if four {
                            tiles.load_rows::<1>(powers, LINE);
                            tiles.load_columns::<0>(values.add(2 * PAIR * SIDE), PAIR * width);
                            tiles.multiply::<2>();
                            tiles.load_columns::<1>(values.add(3 * PAIR * SIDE), PAIR * width);
                            tiles.multiply::<3>();
                        }
                    }
                    tiles.store_to::<0>(sums, apart);
                    tiles.store_to::<1>(sums.add(SIDE), apart);
                    if four {
                        tiles.store_to::<2>(sums.add(2 * SIDE), apart);
                        tiles.store_to::<3>(sums.add(3 * SIDE), apart);
                    }
                }
            }
        }
    }

    /// Rounds some queries' powers in a step, zeros where a query sees nothing of a tile; says which tiles any of them sees.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
    fn narrow_powers(
        work: &Sums<'_>,
        queries: Range<usize>,
        scratch: &Scratch,
        powers: &mut [Powers; TILES_PER_STEP],
    ) -> [bool; TILES_PER_STEP] {
        let (call, task) = (work.call, work.task);
        let (step, group) = (call.geometry.step(), call.geometry.group());
        let mut some = [false; TILES_PER_STEP];
        for (nth, index) in work.step.clone().enumerate() {
            for (query, to) in queries.clone().zip(&mut powers[nth].0) {
                let mut narrow = _mm512_setzero_si512();
                if !seen(call, task, query / group, index).is_empty() {
                    some[nth] = true;
                    let (weights, _) = scratch.weights[query * step + nth * DEPTH..].as_chunks::<DEPTH>();
                    narrow = narrowed(&weights[0]);
                }
                // SAFETY: rows of powers are 64 bytes, and aligned.
                unsafe { _mm512_store_si512(to.as_mut_ptr().cast::<__m512i>(), narrow) };
            }
        }
        some
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
    fn multiply(sums: &mut [f32], factor: f32) {
        let factor = _mm512_set1_ps(factor);
        for sums in sums.as_chunks_mut::<SIDE>().0 {
            // SAFETY: sixteen numbers.
            unsafe {
                _mm512_storeu_ps(sums.as_mut_ptr(), _mm512_mul_ps(_mm512_loadu_ps(sums.as_ptr()), factor))
            };
        }
    }
}
