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

use candle_core::quantized::GgmlDType;
use half::f16;

use super::format::{BLOCK, Kind, Parts, Scales, with_kind};
use super::slab::{Line, Slab};
use crate::pool::SharedSlice;
use crate::{Error, Pool, Result};

/// Rows of a panel.
pub(super) const ROWS: usize = 16;

/// A packed matrix.
pub(super) struct Panels {
    dtype: GgmlDType,
    panel_bytes: usize,
    lines: Slab,
}

impl Panels {
    /// Packs raw GGUF `blocks` of a `[out, inner]` matrix.
    pub(super) fn pack(
        pool: &Pool,
        dtype: GgmlDType,
        blocks: &[u8],
        out: usize,
        inner: usize,
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
                with_kind!(dtype, K => pack_panel::<K>(dtype, blocks, row_bytes, bytes_mut(lines)), ());
            }
        });
        Ok(Self { dtype, panel_bytes, lines })
    }

    pub(super) fn dtype(&self) -> GgmlDType {
        self.dtype
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
        with_kind!(self.dtype, K => read_panel_row::<K>(panel, index % ROWS, weights), ());
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

fn pack_panel<K: Kind>(dtype: GgmlDType, blocks: &[u8], row_bytes: usize, panel: &mut [u8]) {
    let unit_bytes = dtype.type_size();
    let mut parts = Parts::new();
    for (row, units) in blocks.chunks_exact(row_bytes).enumerate() {
        for (unit, group) in units.chunks_exact(unit_bytes).zip(panel.chunks_exact_mut(K::GROUP_BYTES)) {
            parts.read(dtype, unit);
            pack_header::<K>(&parts, row, group);
            for (block, bytes) in group[K::HEADER_BYTES..].chunks_exact_mut(K::BLOCK_BYTES).enumerate() {
                let (scales, codes) = bytes.split_at_mut(K::SCALE_BYTES);
                pack_scales::<K>(&parts, block, row, scales);
                pack_codes::<K>(&parts.codes[block * BLOCK..(block + 1) * BLOCK], row, codes);
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

fn read_panel_row<K: Kind>(panel: &[u8], row: usize, weights: &mut [f32]) {
    let groups = panel.chunks_exact(K::GROUP_BYTES).zip(weights.chunks_exact_mut(BLOCK * K::BLOCKS));
    for (group, weights) in groups {
        let (header, blocks) = group.split_at(K::HEADER_BYTES);
        for (block, weights) in blocks.chunks_exact(K::BLOCK_BYTES).zip(weights.chunks_exact_mut(BLOCK)) {
            let (scales, lines) = block.split_at(K::SCALE_BYTES);
            for (group, weights) in weights.chunks_exact_mut(4).enumerate() {
                let (scale, minimum) = scale_and_minimum::<K>(header, scales, row, group * K::HALVES / 8);
                for (weight, code) in weights.iter_mut().zip(codes::<K>(lines, row, group)) {
                    *weight = scale * (i32::from(code) - K::OFFSET) as f32 + minimum;
                }
            }
        }
    }
}
