//! Quantised weights packed for the kernels: panels of sixteen rows, interleaved so that one vector holds
//! four neighbouring codes of each row. No products here.
//!
//! A panel is a run of groups: header (`d`, then `m`, of sixteen rows), then blocks of 32 weights per row:
//! scale bytes (per half: sixteen scales, sixteen minimums), then codes. Within a block, weights `4g..4g+4`
//! of row `r` form *group* `g` at bytes `4r..4r+4` of a 64-byte line. Codes wider than their plane are split:
//!
//! | bits | lines |
//! | --- | --- |
//! | 8 | group `g` is line `g` |
//! | 4, 5, 6 | nibbles: group `g` in line `g % 4`, shifted by `4·(g / 4)` |
//! | 2, 3 | pairs of bits: line `g % 2`, shifted by `2·(g / 2)` |
//! | 6 | above its nibbles, pairs of bits |
//! | 3, 5 | above those, one line of single bits: bit `g` |
//!
//! As many bits as in the file, in another order; K-quants unpack their 6-bit scales to bytes (up to 3.5 %
//! more).
//!
//! That is the order for [`Rounding::Bytes`]. For [`Rounding::Bfloat16`] a vector holds 32 codes of *one* row, a 16-bit word each, and a
//! plane of `b` bits has `16 / b` rows in a line. Words are in the order of the weights where a table widens them
//! ([`Kind::HAS_TABLE`]); elsewhere those of the two halves of a block take turns, so that each half is the lower, or the upper, part
//! of sixteen double words.

use candle_core::quantized::GgmlDType;
use half::f16;

use super::format::{BLOCK, Kind, Parts, Scales, with_kind};
use super::rounding::Rounding;
use super::slab::{Line, Slab};
use crate::pool::SharedSlice;
use crate::{Error, Pool, Result};

/// Rows of a panel.
pub(super) const ROWS: usize = 16;

/// A packed matrix.
pub(super) struct Panels {
    dtype: GgmlDType,
    rounding: Rounding,
    panel_bytes: usize,
    lines: Slab,
}

impl Panels {
    /// Packs raw GGUF `blocks` of a `[out, inner]` matrix.
    pub(super) fn pack(
        pool: &Pool,
        rounding: Rounding,
        dtype: GgmlDType,
        blocks: &[u8],
        (out, inner): (usize, usize),
    ) -> Result<Self> {
        let (unit, unit_bytes) = (dtype.block_size(), dtype.type_size());
        let row_bytes = (inner / unit).saturating_mul(unit_bytes);
        if inner == 0 || !inner.is_multiple_of(unit) || out.checked_mul(row_bytes) != Some(blocks.len()) {
            let reason = format!("{} bytes are not [{out}, {inner}] of {dtype:?}", blocks.len());
            return Err(Error::shape("linear", reason));
        }
        let panel_bytes = with_kind!(dtype, K => inner / (BLOCK * K::BLOCKS) * K::GROUP_BYTES, {
            return Err(Error::element_type("linear", dtype));
        });
        let panel_bytes = panel_bytes.next_multiple_of(64);
        let panels = out.div_ceil(ROWS);
        let mut lines = Slab::new(panels * panel_bytes / 64)?;
        let shared = SharedSlice::new(&mut lines);
        pool.for_each_chunk(panels, 1, &|range| {
            for panel in range {
                // SAFETY: each panel is one task's alone.
                let lines = unsafe { shared.range(panel * panel_bytes / 64, panel_bytes / 64) };
                let rows = panel * ROWS..((panel + 1) * ROWS).min(out);
                let blocks = &blocks[rows.start * row_bytes..rows.end * row_bytes];
                let pack = (rounding, dtype, row_bytes);
                with_kind!(dtype, K => pack_panel::<K>(pack, blocks, bytes_mut(lines)), ());
            }
        });
        Ok(Self { dtype, rounding, panel_bytes, lines })
    }

    pub(super) fn dtype(&self) -> GgmlDType {
        self.dtype
    }

    pub(super) fn rounding(&self) -> Rounding {
        self.rounding
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.lines.len() * 64
    }

    /// Bytes of panel `index`.
    pub(super) fn panel(&self, index: usize) -> &[u8] {
        &bytes(&self.lines)[index * self.panel_bytes..(index + 1) * self.panel_bytes]
    }

    /// Writes row `index` as f32 weights.
    pub(super) fn read_row(&self, index: usize, weights: &mut [f32]) {
        let panel = self.panel(index / ROWS);
        with_kind!(self.dtype, K => read_panel_row::<K>(self.rounding, panel, index % ROWS, weights), ());
    }
}

fn bytes(lines: &[Line]) -> &[u8] {
    // SAFETY: `Line` is 64 bytes without padding.
    unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), size_of_val(lines)) }
}

fn bytes_mut(lines: &mut [Line]) -> &mut [u8] {
    // SAFETY: `Line` is 64 bytes without padding, and any bytes make one.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), size_of_val(lines)) }
}

fn pack_panel<K: Kind>(
    (rounding, dtype, row_bytes): (Rounding, GgmlDType, usize),
    blocks: &[u8],
    panel: &mut [u8],
) {
    let unit_bytes = dtype.type_size();
    let mut parts = Parts::new();
    for (row, units) in blocks.chunks_exact(row_bytes).enumerate() {
        for (unit, group) in units.chunks_exact(unit_bytes).zip(panel.chunks_exact_mut(K::GROUP_BYTES)) {
            parts.read(dtype, unit);
            pack_header::<K>(&parts, row, group);
            for (block, bytes) in group[K::HEADER_BYTES..].chunks_exact_mut(K::BLOCK_BYTES).enumerate() {
                let (scales, codes) = bytes.split_at_mut(K::SCALE_BYTES);
                pack_scales::<K>(&parts, block, row, scales);
                let parts = &parts.codes[block * BLOCK..(block + 1) * BLOCK];
                match rounding {
                    Rounding::Bytes => pack_codes::<K>(parts, row, codes),
                    Rounding::Bfloat16 => pack_row::<K>(parts, row, codes),
                }
            }
        }
    }
}

fn pack_header<K: Kind>(parts: &Parts, row: usize, header: &mut [u8]) {
    if K::SCALES == Scales::Single {
        header[4 * row..4 * row + 4].copy_from_slice(&parts.scale.to_le_bytes());
        return;
    }
    header[2 * row..2 * row + 2].copy_from_slice(&(parts.scale as u16).to_le_bytes());
    if K::HAS_MINIMUM {
        header[32 + 2 * row..34 + 2 * row].copy_from_slice(&parts.minimum.to_le_bytes());
    }
}

fn pack_scales<K: Kind>(parts: &Parts, block: usize, row: usize, scales: &mut [u8]) {
    if K::SCALE_BYTES == 0 {
        return;
    }
    let stride = K::SCALE_BYTES / K::HALVES;
    for half in 0..K::HALVES {
        scales[half * stride + row] = parts.scales[block * K::HALVES + half];
        if K::HAS_MINIMUM {
            scales[half * stride + ROWS + row] = parts.minimums[block * K::HALVES + half];
        }
    }
}

fn pack_codes<K: Kind>(codes: &[u8], row: usize, lines: &mut [u8]) {
    for (group, codes) in codes.chunks_exact(4).enumerate() {
        let codes = u32::from_le_bytes([codes[0], codes[1], codes[2], codes[3]]);
        for (byte, shift, take, width) in planes::<K>(group) {
            if width > 0 {
                let place = &mut lines[byte + 4 * row..byte + 4 * row + 4];
                let there = u32::from_le_bytes([place[0], place[1], place[2], place[3]]);
                place.copy_from_slice(&(there | (codes >> take & mask(width)) << shift).to_le_bytes());
            }
        }
    }
}

/// Where group `g` of a block keeps its bits: line's first byte, shift within a byte, first bit of the code,
/// bits.
#[inline(always)]
fn planes<K: Kind>(group: usize) -> [(usize, usize, usize, usize); 2] {
    let nibbles = (64 * (group % 4), 4 * (group / 4), 0, 4);
    let pairs = |base: usize, take: usize| (base + 64 * (group % 2), 2 * (group / 2), take, 2);
    let single = |base: usize, take: usize| (base, group, take, 1);
    let nothing = (0, 0, 0, 0);
    match K::BITS {
        8 => [(64 * group, 0, 0, 8), nothing],
        6 => [nibbles, pairs(256, 4)],
        5 => [nibbles, single(256, 4)],
        4 => [nibbles, nothing],
        3 => [pairs(0, 0), single(128, 2)],
        _ => [pairs(0, 0), nothing],
    }
}

/// Packs the codes of a row for [`Rounding::Bfloat16`].
fn pack_row<K: Kind>(codes: &[u8], row: usize, lines: &mut [u8]) {
    for (index, code) in codes.iter().enumerate() {
        for plane in planes_of_row::<K>(row) {
            let at = plane.line * 64 + 2 * word::<K>(index);
            let there = u16::from_le_bytes([lines[at], lines[at + 1]]);
            let bits = u16::from(code >> plane.take) & plane.mask();
            lines[at..at + 2].copy_from_slice(&(there | bits << plane.shift).to_le_bytes());
        }
    }
}

/// The code of weight `index` of a block that was packed for [`Rounding::Bfloat16`].
#[inline(always)]
pub(super) fn code_of_row<K: Kind>(lines: &[u8], row: usize, index: usize) -> u8 {
    let mut code = 0;
    for plane in planes_of_row::<K>(row) {
        let at = plane.line * 64 + 2 * word::<K>(index);
        let there = u16::from_le_bytes([lines[at], lines[at + 1]]);
        code |= (there >> plane.shift & plane.mask()) << plane.take;
    }
    code as u8
}

/// Which word of its line a code is in.
#[inline(always)]
fn word<K: Kind>(index: usize) -> usize {
    const HALF: usize = BLOCK / 2;
    if K::HAS_TABLE { index } else { index % HALF * 2 + index / HALF }
}

/// Where a row keeps some bits of its codes.
#[derive(Clone, Copy)]
pub(super) struct Plane {
    pub line: usize,
    /// Within a word.
    pub shift: u32,
    /// Which bit of the code is the lowest.
    pub take: u32,
    /// How many bits.
    pub width: u32,
}

impl Plane {
    #[inline(always)]
    pub(super) const fn mask(self) -> u16 {
        ((1u32 << self.width) - 1) as u16
    }
}

/// Where row `row` of a block keeps its codes.
#[inline(always)]
pub(super) const fn planes_of_row<K: Kind>(row: usize) -> [Plane; 2] {
    const fn plane(first: usize, width: usize, take: u32, row: usize) -> Plane {
        let each = 16 / width;
        Plane { line: first + row / each, shift: (row % each * width) as u32, take, width: width as u32 }
    }
    let nothing = Plane { line: 0, shift: 0, take: 0, width: 0 };
    match K::BITS {
        8 => [plane(0, 8, 0, row), nothing],
        6 => [plane(0, 4, 0, row), plane(4, 2, 4, row)],
        5 => [plane(0, 4, 0, row), plane(4, 1, 4, row)],
        4 => [plane(0, 4, 0, row), nothing],
        3 => [plane(0, 2, 0, row), plane(2, 1, 2, row)],
        _ => [plane(0, 2, 0, row), nothing],
    }
}

/// The lowest `width` bits of each of four bytes.
#[inline(always)]
fn mask(width: usize) -> u32 {
    0x0101_0101 * (0xff >> (8 - width))
}

/// The four codes of group `group` of a block.
#[inline(always)]
fn codes<K: Kind>(lines: &[u8], row: usize, group: usize) -> [u8; 4] {
    let mut codes = 0;
    for (byte, shift, take, width) in planes::<K>(group) {
        if width > 0 {
            let place = &lines[byte + 4 * row..byte + 4 * row + 4];
            let there = u32::from_le_bytes([place[0], place[1], place[2], place[3]]);
            codes |= (there >> shift & mask(width)) << take;
        }
    }
    codes.to_le_bytes()
}

/// The code of weight `index` of a block.
#[inline(always)]
pub(super) fn code<K: Kind>(lines: &[u8], row: usize, index: usize) -> u8 {
    codes::<K>(lines, row, index / 4)[index % 4]
}

/// `d` and `m` of a row for one half block; the kernels of every level do these same operations.
#[inline(always)]
pub(super) fn scale_and_minimum<K: Kind>(
    header: &[u8],
    scales: &[u8],
    row: usize,
    half: usize,
) -> (f32, f32) {
    let half_at = |at: usize| f16::from_le_bytes([header[at], header[at + 1]]).to_f32();
    let stride = K::SCALE_BYTES / K::HALVES;
    match K::SCALES {
        Scales::Half => (half_at(2 * row), 0.0),
        Scales::HalfMinimum => (half_at(2 * row), half_at(32 + 2 * row)),
        Scales::Single => {
            let at = 4 * row;
            (f32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]), 0.0)
        }
        Scales::Sub => (half_at(2 * row) * f32::from(scales[half * stride + row] as i8), 0.0),
        Scales::SubMinimum => (
            half_at(2 * row) * f32::from(scales[half * stride + row]),
            -(half_at(32 + 2 * row) * f32::from(scales[half * stride + ROWS + row])),
        ),
    }
}

fn read_panel_row<K: Kind>(rounding: Rounding, panel: &[u8], row: usize, weights: &mut [f32]) {
    let groups = panel.chunks_exact(K::GROUP_BYTES).zip(weights.chunks_exact_mut(BLOCK * K::BLOCKS));
    for (group, weights) in groups {
        let (header, blocks) = group.split_at(K::HEADER_BYTES);
        for (block, weights) in blocks.chunks_exact(K::BLOCK_BYTES).zip(weights.chunks_exact_mut(BLOCK)) {
            let (scales, lines) = block.split_at(K::SCALE_BYTES);
            for (group, weights) in weights.chunks_exact_mut(4).enumerate() {
                let (scale, minimum) = scale_and_minimum::<K>(header, scales, row, group * K::HALVES / 8);
                let codes = match rounding {
                    Rounding::Bytes => codes::<K>(lines, row, group),
                    Rounding::Bfloat16 => {
                        std::array::from_fn(|nth| code_of_row::<K>(lines, row, 4 * group + nth))
                    }
                };
                for (weight, code) in weights.iter_mut().zip(codes) {
                    *weight = scale * (i32::from(code) - K::OFFSET) as f32 + minimum;
                }
            }
        }
    }
}
