//! Quantised products with AMX: sixteen rows of weights times up to sixteen activation rows in one instruction, for the
//! 32 weights that share a scale.
//!
//! The same operations per output as `scalar`, tested to the bit. A panel's codes lie in memory as the instruction wants
//! its second operand, and rounded activations as it wants its first: nothing is packed anew, only narrow codes are
//! widened, once for all activation rows.

use std::arch::x86_64::{
    __m512, __m512i, _mm512_cvtepi32_ps, _mm512_fmadd_ps, _mm512_load_ps, _mm512_load_si512, _mm512_mul_ps,
    _mm512_set1_epi8, _mm512_set1_ps, _mm512_setzero_ps, _mm512_store_ps, _mm512_store_si512,
    _mm512_storeu_ps, _mm512_sub_epi8,
};
use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ops::Range;

use super::activations::{Activations, TOGETHER};
use super::avx512;
use super::format::{BLOCK, Kind};
use super::panels::{Panels, ROWS};
use super::target::Target;
use crate::tiles::{LINE, Tiles};

/// Activation rows of a tile.
const TILE: usize = 16;
/// Fewer activation rows are faster without tiles.
pub(super) const FEWEST: usize = 48;

const _: () = assert!(TOGETHER == TILE && ROWS == 16);

/// Products of some panels with a range of activation rows into the target. On a level with tiles only.
///
/// # Safety
/// No two threads may have a panel and a row at once.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) unsafe fn panels<K: Kind>(
    panels: &Panels,
    units: Range<usize>,
    activations: &Activations,
    tokens: Range<usize>,
    target: &Target<'_>,
) {
    let mut widened = SPARE.take();
    widened.clear();
    for unit in units.clone() {
        widened.add::<K>(panels.panel(unit), activations.blocks_per_row / K::BLOCKS);
    }
    // SAFETY: the level has tiles, and a task that multiplies uses them for nothing else meanwhile. Weights are in tiles of a whole block,
    // or a half where that has a scale of its own.
    let tiles = unsafe { Tiles::of_bytes(BLOCK / K::HALVES) };
    // Sixteen rows of activations stay in the first-level cache while the panels stream past them.
    for first in tokens.clone().step_by(TILE) {
        let rows = first..tokens.end.min(first + TILE);
        for (nth, unit) in units.clone().enumerate() {
            // SAFETY: as the caller promises.
            let target = unsafe { target.columns_of(unit) };
            tile::<K>(&tiles, &widened, nth, activations, rows.clone(), &target);
        }
    }
    drop(tiles);
    SPARE.set(widened);
}

thread_local! {
    static SPARE: Cell<Widened> = const { Cell::new(Widened { codes: Vec::new(), scales: Vec::new() }) };
}

/// Panels as the tiles' instruction takes them.
#[derive(Default)]
struct Widened {
    /// `[panels, blocks, 8]` groups of codes, a signed byte each, less their offset.
    codes: Vec<Line>,
    /// `[panels, blocks, halves]` scale and minimum of sixteen rows.
    scales: Vec<[Lanes; 2]>,
}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; LINE]);

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Lanes([f32; ROWS]);

impl Widened {
    fn clear(&mut self) {
        self.codes.clear();
        self.scales.clear();
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    fn add<K: Kind>(&mut self, panel: &[u8], groups: usize) {
        let blocks = groups * K::BLOCKS;
        self.codes.reserve(blocks * 8);
        self.scales.reserve(blocks * K::HALVES);
        let offset = _mm512_set1_epi8(K::OFFSET as i8);
        for bytes in panel.chunks_exact(K::GROUP_BYTES).take(groups) {
            let (header, bytes) = bytes.split_at(K::HEADER_BYTES);
            for bytes in bytes.chunks_exact(K::BLOCK_BYTES) {
                let (scales, lines) = bytes.split_at(K::SCALE_BYTES);
                for half in 0..K::HALVES {
                    let (scale, minimum) = avx512::scale_and_minimum::<K>(header, scales, half);
                    let mut place = [Lanes([0.0; ROWS]); 2];
                    // SAFETY: both have room for sixteen, and their alignment.
                    unsafe {
                        _mm512_store_ps(place[0].0.as_mut_ptr(), scale);
                        _mm512_store_ps(place[1].0.as_mut_ptr(), minimum);
                    }
                    self.scales.push(place);
                }
                for group in 0..8 {
                    let mut codes = avx512::group_codes::<K>(lines, group);
                    if K::OFFSET_SHIFT > 0 {
                        codes = _mm512_sub_epi8(codes, offset);
                    }
                    let mut place = Line([0; LINE]);
                    // SAFETY: a line has 64 bytes, and their alignment.
                    unsafe { _mm512_store_si512(place.0.as_mut_ptr().cast::<__m512i>(), codes) };
                    self.codes.push(place);
                }
            }
        }
    }
}

/// `[16 activation rows, 16 rows]`
#[repr(C, align(64))]
struct Sums([i32; TILE * ROWS]);

/// Products in a row that have tiles of their own.
const LANES: usize = 4;

/// Up to sixteen activation rows times one panel.
struct Product<'a> {
    tiles: &'a Tiles,
    /// Sixteen rows, one after another.
    activations: &'a [i8],
    /// Blocks of sixteen rows' scales.
    scales_of_rows: &'a [[f32; TILE]],
    /// Of a type with a minimum: `[parts]` scaled sums of sixteen rows.
    sums_of_rows: &'a [[f32; TILE]],
    blocks_per_row: usize,
    weights: &'a [Line],
    scales: &'a [[Lanes; 2]],
    /// What tiles were stored to.
    sums: [MaybeUninit<Sums>; LANES],
}

/// Up to sixteen activation rows times panel `nth` of the widened ones.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn tile<K: Kind>(
    tiles: &Tiles,
    widened: &Widened,
    nth: usize,
    activations: &Activations,
    tokens: Range<usize>,
    target: &Target<'_>,
) {
    let spare_sums = &mut Vec::new();
    let blocks_per_row = activations.blocks_per_row;
    let parts = blocks_per_row * K::HALVES;
    // Filled up, there always are sixteen.
    assert!(tokens.start.is_multiple_of(TILE));
    let cells = tokens.start * blocks_per_row..(tokens.start + TILE) * blocks_per_row;
    let mut product = Product {
        tiles,
        activations: &activations.codes[cells.start * BLOCK..cells.end * BLOCK],
        scales_of_rows: activations.scales[cells.clone()].as_chunks().0,
        sums_of_rows: sums_of_rows::<K>(activations, cells, spare_sums),
        blocks_per_row,
        weights: &widened.codes[nth * blocks_per_row * 8..(nth + 1) * blocks_per_row * 8],
        scales: &widened.scales[nth * parts..(nth + 1) * parts],
        sums: [const { MaybeUninit::uninit() }; LANES],
    };
    let mut totals = [_mm512_setzero_ps(); TILE];
    product.start::<K, 0>(0);
    product.start::<K, 1>(1);
    product.store::<0>();
    let mut part = 0;
    while part < parts {
        product.step::<K, 0, 1, 2>(part, &mut totals);
        product.step::<K, 1, 2, 3>(part + 1, &mut totals);
        product.step::<K, 2, 3, 0>(part + 2, &mut totals);
        product.step::<K, 3, 0, 1>(part + 3, &mut totals);
        part += LANES;
    }
    for (token, total) in tokens.zip(totals) {
        let mut values = [0f32; ROWS];
        // SAFETY: sixteen values fit.
        unsafe { _mm512_storeu_ps(values.as_mut_ptr(), total) };
        target.store(token, &values);
    }
}

/// `[parts]` what goes with the minimums of sixteen rows; of whole blocks it lies as it is wanted.
#[inline(always)]
fn sums_of_rows<'a, K: Kind>(
    activations: &'a Activations,
    cells: Range<usize>,
    spare: &'a mut Vec<[f32; TILE]>,
) -> &'a [[f32; TILE]] {
    if !K::HAS_MINIMUM || K::HALVES == 1 {
        return activations.scaled_sums[cells].as_chunks().0;
    }
    spare.clear();
    for sums in activations.sums[cells].as_chunks::<TILE>().0 {
        for half in 0..K::HALVES {
            spare.push(sums.map(|sums| sums.scaled_halves[half]));
        }
    }
    spare
}

impl Product<'_> {
    /// Scales part `part`, while the one after it leaves its tile and the one after that is multiplied: what a tile stores
    /// takes a while to be there.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    fn step<K: Kind, const NOW: usize, const NEXT: usize, const LAST: usize>(
        &mut self,
        part: usize,
        totals: &mut [__m512; TILE],
    ) {
        self.start::<K, LAST>(part + 2);
        if part + 1 < self.scales.len() {
            self.store::<NEXT>();
        }
        let Some([scale, minimum]) = self.scales.get(part) else { return };
        let block = part / K::HALVES;
        // SAFETY: both hold sixteen, aligned.
        let (scale, minimum) =
            unsafe { (_mm512_load_ps(scale.0.as_ptr()), _mm512_load_ps(minimum.0.as_ptr())) };
        let (rows, sums) = (&self.scales_of_rows[block], self.sums_of_rows.get(part).unwrap_or(&[0.0; TILE]));
        for token in 0..TILE {
            // SAFETY: a tile was stored there: sixteen rows of sixteen, aligned.
            let dot = unsafe { _mm512_load_si512(self.sums[NOW].as_ptr().cast::<__m512i>().add(token)) };
            let factor = _mm512_mul_ps(scale, _mm512_set1_ps(rows[token]));
            totals[token] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), factor, totals[token]);
            if K::HAS_MINIMUM {
                totals[token] = _mm512_fmadd_ps(minimum, _mm512_set1_ps(sums[token]), totals[token]);
            }
        }
    }

    /// Starts to multiply the codes of part `part` of each row, if there is one.
    #[inline(always)]
    fn start<K: Kind, const LANE: usize>(&self, part: usize) {
        let depth = BLOCK / K::HALVES;
        if part >= self.scales.len() {
            return;
        }
        // SAFETY: each of the sixteen rows has `depth` codes at `part · depth`, and a part of the weights is `depth / 4`
        // lines.
        unsafe {
            let activations = self.activations.as_ptr().add(part * depth);
            let weights = self.weights.as_ptr().add(part * depth / 4).cast::<u8>();
            self.tiles.multiply_bytes::<LANE>(activations, self.blocks_per_row * BLOCK, weights);
        }
    }

    #[inline(always)]
    fn store<const LANE: usize>(&mut self) {
        // SAFETY: sixteen rows of 64 bytes fit into the sums.
        unsafe { self.tiles.store_to::<LANE>(self.sums[LANE].as_mut_ptr().cast::<f32>(), LINE) };
    }
}
