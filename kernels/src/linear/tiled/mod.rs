//! Quantised products with AMX: rows of activations times rows of weights in bf16, sixteen of each in one instruction.
//!
//! The same operations per output as `bfloat`, tested to the bit. Of many activation rows, two panels go with 32 at a time: weights are
//! widened while the first of these are multiplied, and kept for the others. Of few, widening is most of the work, and there is no
//! time to turn what is widened; so weights are the rows of the product there, and activations its columns.

mod widen;

use std::arch::x86_64::{
    __m256i, __m512, __m512i, _MM_HINT_T0, _mm_prefetch, _mm256_storeu_si256, _mm512_add_ps,
    _mm512_castsi512_si256, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mask_storeu_epi32,
    _mm512_setzero_si512, _mm512_store_si512, _mm512_storeu_si512,
};
use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ops::Range;

use self::widen::{narrowed, widen};
use super::format::{BLOCK, Kind};
use super::narrowed::{self, Narrow, Narrowed, TOGETHER};
use super::panels::{Panels, ROWS};
use super::target::Target;
use crate::silu_mul::avx512::gate_of_sixteen;
use crate::tiles::{self, DEPTH, LINE, SIDE, Sums, Tiles, transposed};

const _: () = assert!(TOGETHER == SIDE && ROWS == SIDE && BLOCK == DEPTH);

/// Products of some panels with a range of activation rows into the target. On a level with tiles only.
///
/// # Safety
/// No two threads may have a panel and a row at once.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
pub(super) unsafe fn panels<K: Kind>(
    panels: &Panels,
    units: Range<usize>,
    x: &Narrowed,
    tokens: Range<usize>,
    target: &Target<'_>,
) {
    let mut worker = Worker::take(x, tokens);
    for unit in units.clone().step_by(2) {
        // SAFETY: as the caller promises.
        let place = |unit| unsafe { target.columns_of(unit) };
        let first = place(unit);
        if unit + 1 < units.end {
            let second = place(unit + 1);
            worker.multiply::<K, 2>([panels.panel(unit), panels.panel(unit + 1)], |row, sums| {
                first.store(row, sums[0]);
                second.store(row, sums[1]);
            });
        } else {
            worker.multiply::<K, 1>([panels.panel(unit)], |row, sums| first.store(row, sums[0]));
        }
    }
    worker.give_back();
}

/// `silu(gate) · up` of a panel of each of two matrices, times a range of activation rows, rounded for the next layer. On a level with
/// tiles only.
///
/// # Safety
/// No two threads may have a panel and a row at once, nor two panels that are one block of the result: `units` begin and end with whole
/// blocks.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
pub(super) unsafe fn gated<K: Kind>(
    [(gates, gate_bias), (ups, up_bias)]: [(&Panels, Option<&[f32]>); 2],
    units: Range<usize>,
    x: &Narrowed,
    tokens: Range<usize>,
    builder: &narrowed::Builder,
) {
    assert!(units.start.is_multiple_of(2) && units.end.is_multiple_of(2));
    let mut worker = Worker::take(x, tokens);
    for unit in units {
        let biases = [gate_bias, up_bias].map(|bias| {
            // SAFETY: a bias has a number for each row of its matrix, and panels of it are whole.
            bias.map(|bias| unsafe { _mm512_loadu_ps(bias[unit * ROWS..][..ROWS].as_ptr()) })
        });
        let with = |value: __m512, bias: Option<__m512>| match bias {
            Some(bias) => _mm512_add_ps(value, bias),
            None => value,
        };
        worker.multiply::<K, 2>([gates.panel(unit), ups.panel(unit)], |row, [gate, up]| {
            let value = gate_of_sixteen(with(load(gate), biases[0]), with(load(up), biases[1]));
            let value = _mm512_castsi512_si256(narrowed(value, value));
            // SAFETY: as the caller promises; half a block is sixteen elements.
            unsafe { _mm256_storeu_si256(builder.half(row, unit / 2, unit % 2).cast::<__m256i>(), value) };
        });
    }
    worker.give_back();
}

/// Rounds 32 numbers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
pub(super) fn narrow_block(values: &[f32; BLOCK], to: &mut MaybeUninit<[u16; BLOCK]>) {
    // SAFETY: 32 of bf16 are 64 bytes.
    unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast::<__m512i>(), tiles::narrowed(values)) };
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
fn load(values: &[f32; ROWS]) -> __m512 {
    // SAFETY: sixteen values.
    unsafe { _mm512_loadu_ps(values.as_ptr()) }
}

/// Weights of a block of sixteen rows in bf16: `[16 rows, 32]`, or turned, `[16 pairs, 16 rows, 2]`.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Tile([u16; SIDE * DEPTH]);

thread_local! {
    static SPARE: Cell<Spare> = const { Cell::new(Spare { widened: Vec::new(), columns: Vec::new() }) };
}

/// What a thread has at hand to multiply panels with some rows of activations.
struct Worker<'a> {
    x: &'a Narrowed,
    tokens: Range<usize>,
    tiles: Tiles,
    spare: Spare,
    ready: Ready,
}

/// Sums that wait for their sink: it takes them a few rows at a time beside the next products, which leave vectors idle.
struct Ready {
    /// Of up to 32 rows, sixteen and sixteen, and two panels.
    sums: [[Sums; 2]; 2],
    rows: Range<usize>,
    /// The first of them there were.
    first: usize,
}

impl Ready {
    /// Gives away up to `most` rows.
    #[inline(always)]
    fn give(&mut self, most: usize, sink: &mut impl FnMut(usize, [&[f32; ROWS]; 2])) {
        for _ in 0..most {
            let Some(row) = self.rows.next() else { return };
            let nth = row - self.first;
            let [one, other] = &self.sums[nth / SIDE % 2];
            sink(row, [&one.0[nth % SIDE], &other.0[nth % SIDE]]);
        }
    }

    /// Takes the sums of `P` panels, which are in tiles, for some rows from `first` on.
    #[inline(always)]
    fn take<const P: usize>(&mut self, tiles: &Tiles, first: usize, rows: usize) {
        let [some, others] = &mut self.sums;
        tiles.store::<0>(&mut some[0]);
        if P == 2 {
            tiles.store::<1>(&mut some[1]);
        }
        if rows > SIDE {
            tiles.store::<2>(&mut others[0]);
            if P == 2 {
                tiles.store::<3>(&mut others[1]);
            }
        }
        (self.first, self.rows) = (first, first..first + rows);
    }
}

/// Memory that a thread keeps.
#[derive(Default)]
struct Spare {
    widened: Vec<MaybeUninit<Tile>>,
    /// Few rows of activations as columns: of each block `[16 pairs, rows, 2]`.
    columns: Vec<Narrow>,
}

/// The most rows that count as few.
const FEW: usize = SIDE;
/// Blocks that are widened before the first of them is multiplied: what was stored takes a while to be there.
const AHEAD: usize = 2;
/// Blocks that are kept at least.
const RING: usize = 4;

impl<'a> Worker<'a> {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
    fn take(x: &'a Narrowed, tokens: Range<usize>) -> Self {
        assert!(tokens.start.is_multiple_of(SIDE) && !tokens.is_empty());
        let mut spare = SPARE.take();
        spare.widened.resize(2 * x.blocks().max(RING), MaybeUninit::uninit());
        let columns = if tokens.len() > FEW {
            SIDE
        } else {
            let (rows, x) = x.together(tokens.start);
            turn(x, rows, &mut spare.columns);
            rows
        };
        // SAFETY: the caller's level has tiles, and a task that multiplies uses them for nothing else meanwhile.
        let tiles = unsafe { Tiles::new(SIDE, columns) };
        let ready = Ready { sums: [[Sums([[0.0; SIDE]; SIDE]); 2]; 2], rows: 0..0, first: 0 };
        Self { x, tiles, tokens, spare, ready }
    }

    fn give_back(self) {
        SPARE.set(self.spare);
    }

    /// Multiplies `P` panels with all the rows. `sink` gets each row, and its sums with sixteen rows of each panel.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
    fn multiply<K: Kind, const P: usize>(
        &mut self,
        panels: [&[u8]; P],
        mut sink: impl FnMut(usize, [&[f32; ROWS]; 2]),
    ) {
        let mut first = self.tokens.start;
        if self.tokens.len() <= FEW {
            self.multiply_few::<K, P>(panels);
            (self.ready.first, self.ready.rows) = (first, self.tokens.clone());
            self.ready.give(FEW, &mut sink);
            return;
        }
        let mut step = Step {
            panels,
            widened: &mut self.spare.widened,
            is_widened: false,
            // All but 32 rows exactly take more than one step.
            keeps: self.tokens.len() != 2 * SIDE,
        };
        let ready = &mut self.ready;
        let each = (2 * SIDE).div_ceil(self.x.blocks());
        while first < self.tokens.end {
            let (rows, x) = self.x.together(first);
            self.tiles.reshape(rows, SIDE);
            let taken = if rows == SIDE && self.tokens.end - first >= 2 * SIDE {
                let (_, more) = self.x.together(first + SIDE);
                step.run::<K, 2>(&self.tiles, [x, more], || ready.give(each, &mut sink));
                2 * SIDE
            } else {
                step.run::<K, 1>(&self.tiles, [x], || ready.give(each, &mut sink));
                rows
            };
            ready.give(2 * SIDE, &mut sink);
            ready.take::<P>(&self.tiles, first, taken);
            first += taken;
        }
        ready.give(2 * SIDE, &mut sink);
    }

    /// Multiplies `P` panels with few rows; the sums are as those of many.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
    fn multiply_few<K: Kind, const P: usize>(&mut self, panels: [&[u8]; P]) {
        let (tiles, widened) = (&self.tiles, &mut self.spare.widened);
        let (columns, blocks) = (tiles.columns(), self.x.blocks());
        assert!(widened.len() >= P * RING && self.spare.columns.len() >= blocks * columns);
        tiles.zero::<0>();
        tiles.zero::<2>();
        for step in 0..blocks + AHEAD {
            if step < blocks {
                for side in 0..P {
                    let (header, block) = block_of::<K>(panels[side], step);
                    prefetch(block);
                    widen::<K, false>(header, block, &mut widened[P * (step % RING) + side]);
                }
            }
            if step >= AHEAD {
                let block = step - AHEAD;
                // SAFETY: the block was widened, and its place is not yet another's; there are as many of the columns.
                unsafe {
                    let weights = widened.as_ptr().add(P * (block % RING)).cast::<u8>();
                    let x = self.spare.columns.as_ptr().add(block * columns).cast::<u8>();
                    tiles.load_columns::<0>(x, 4 * columns);
                    tiles.load_rows::<0>(weights, LINE);
                    tiles.multiply::<0>();
                    if P == 2 {
                        tiles.load_rows::<1>(weights.add(size_of::<Tile>()), LINE);
                        tiles.multiply::<2>();
                    }
                }
            }
        }
        let sums = &mut self.ready.sums[0];
        tiles.store::<0>(&mut sums[0]);
        if P == 2 {
            tiles.store::<2>(&mut sums[1]);
        }
        for sums in &mut sums[..P] {
            turn_sums(sums, columns);
        }
    }
}

/// Makes rows of sums from their columns.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
fn turn_sums(sums: &mut Sums, columns: usize) {
    let first = sums.0.map(|row| row[0]);
    if columns == 1 {
        sums.0[0] = first;
        return;
    }
    // SAFETY: sixteen rows of 64 bytes, aligned.
    unsafe {
        let rows = std::array::from_fn(|row| _mm512_loadu_si512(sums.0[row].as_ptr().cast::<__m512i>()));
        for (row, turned) in sums.0.iter_mut().zip(transposed(rows)) {
            _mm512_store_si512(row.as_mut_ptr().cast::<__m512i>(), turned);
        }
    }
}

/// Makes columns of few rows: of each block its pairs, one after another.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
fn turn(x: &[Narrow], rows: usize, columns: &mut Vec<Narrow>) {
    columns.clear();
    columns.extend_from_slice(x);
    if rows == 1 {
        return;
    }
    let mask = (u32::MAX >> (32 - rows)) as u16;
    for block in columns.chunks_exact_mut(rows) {
        let mut loaded = [_mm512_setzero_si512(); SIDE];
        for (loaded, row) in loaded.iter_mut().zip(&*block) {
            // SAFETY: 64 bytes.
            *loaded = unsafe { _mm512_loadu_si512(row.0.as_ptr().cast::<__m512i>()) };
        }
        for (pair, turned) in transposed(loaded).into_iter().enumerate() {
            // SAFETY: as many pairs as there are rows, sixteen times, are as large as the rows.
            unsafe {
                _mm512_mask_storeu_epi32(block.as_mut_ptr().cast::<i32>().add(pair * rows), mask, turned);
            }
        }
    }
}

/// `P` panels times up to 32 rows of activations.
struct Step<'a, const P: usize> {
    panels: [&'a [u8]; P],
    widened: &'a mut [MaybeUninit<Tile>],
    /// Whether all blocks were widened.
    is_widened: bool,
    /// Whether there will be further steps.
    keeps: bool,
}

impl<const P: usize> Step<'_, P> {
    /// Multiplies with `T` times as many rows as the tiles have; `beside` is called once a block.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
    fn run<K: Kind, const T: usize>(&mut self, tiles: &Tiles, x: [&[Narrow]; T], mut beside: impl FnMut()) {
        tiles.zero::<0>();
        tiles.zero::<1>();
        if T == 2 {
            tiles.zero::<2>();
            tiles.zero::<3>();
        }
        let rows = tiles.rows();
        let blocks = x[0].len() / rows;
        assert!(self.widened.len() >= P * blocks.max(RING));
        assert!(x.iter().all(|x| x.len() == blocks * rows));
        if self.is_widened {
            for block in 0..blocks {
                // SAFETY: block by block all were widened, and there are as many of the rows.
                unsafe { self.multiply::<T>(tiles, block, x.map(|x| x.as_ptr().add(block * rows))) };
                beside();
            }
            return;
        }
        let mask = if self.keeps { usize::MAX } else { RING - 1 };
        for step in 0..blocks + AHEAD {
            if step < blocks {
                for side in 0..P {
                    let (header, block) = block_of::<K>(self.panels[side], step);
                    if !self.keeps {
                        prefetch(block);
                    }
                    widen::<K, true>(header, block, &mut self.widened[P * (step & mask) + side]);
                }
            }
            if step >= AHEAD {
                let block = step - AHEAD;
                // SAFETY: it was widened, and its place is not yet another's; there are as many of the rows.
                unsafe { self.multiply::<T>(tiles, block & mask, x.map(|x| x.as_ptr().add(block * rows))) };
            }
        }
        self.is_widened = self.keeps;
    }

    /// Multiplies the blocks at a place with those of the rows.
    ///
    /// # Safety
    /// They must have been widened, and the rows be readable.
    #[inline(always)]
    unsafe fn multiply<const T: usize>(&self, tiles: &Tiles, place: usize, x: [*const Narrow; T]) {
        // SAFETY: as the caller promises.
        unsafe {
            let weights = self.widened.as_ptr().add(P * place).cast::<u8>();
            tiles.load_rows::<0>(x[0].cast::<u8>(), LINE);
            tiles.load_columns::<0>(weights, LINE);
            tiles.multiply::<0>();
            if P == 2 {
                tiles.load_columns::<1>(weights.add(size_of::<Tile>()), LINE);
                tiles.multiply::<1>();
            }
            if T == 2 {
                tiles.load_rows::<1>(x[1].cast::<u8>(), LINE);
                tiles.multiply::<2>();
                if P == 2 {
                    tiles.multiply::<3>();
                }
            }
        }
    }
}

/// The header that a block of a panel has, and the block.
#[inline(always)]
fn block_of<K: Kind>(panel: &[u8], block: usize) -> (&[u8], &[u8]) {
    let group = &panel[block / K::BLOCKS * K::GROUP_BYTES..][..K::GROUP_BYTES];
    let (header, blocks) = group.split_at(K::HEADER_BYTES);
    (header, &blocks[block % K::BLOCKS * K::BLOCK_BYTES..][..K::BLOCK_BYTES])
}

/// Asks for what lies some blocks further on: of few rows, weights arrive slower than they are multiplied.
#[inline(always)]
fn prefetch(bytes: &[u8]) {
    const FURTHER: usize = 4096;
    for line in (0..bytes.len()).step_by(64) {
        let address = bytes.as_ptr().wrapping_add(FURTHER + line);
        // SAFETY: a hint; it may name any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast::<i8>()) };
    }
}
