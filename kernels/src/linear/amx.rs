//! Quantised products with AMX: sixteen rows of weights times up to sixteen activation rows in one instruction, for the
//! 32 weights that share a scale.
//!
//! The same operations per output as `scalar`, tested to the bit. A panel's codes lie in memory as the instruction wants
//! its second operand, and rounded activations as it wants its first: nothing is packed anew, only narrow codes are
//! widened, once for all activation rows. The instructions are written in assembly, since the language has no stable
//! functions for them.

use std::arch::asm;
use std::arch::x86_64::{
    __cpuid_count, __m512, __m512i, _mm512_add_epi32, _mm512_cvtepi32_ps, _mm512_fmadd_ps, _mm512_load_ps,
    _mm512_load_si512, _mm512_mul_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_store_ps,
    _mm512_store_si512, _mm512_storeu_ps, _xgetbv,
};
use std::cell::Cell;
use std::ops::Range;
use std::sync::OnceLock;

use super::activations::{Activations, BlockInfo, SPARE_ROWS};
use super::avx512;
use super::format::{BLOCK, Kind};
use super::panels::ROWS;
use super::target::Target;

/// Activation rows of a tile.
const TILE: usize = 16;
/// Fewer activation rows are faster without tiles.
const FEWEST: usize = 24;
/// Bytes of a group of codes: four of each of sixteen rows.
const LINE: usize = 64;

const _: () = assert!(SPARE_ROWS >= TILE - 1 && ROWS == 16);

/// Whether this machine has tiles of bytes, and the system lets this process use them.
pub fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| has_instructions() && is_permitted())
}

fn has_instructions() -> bool {
    const TILES: u32 = 1 << 24 | 1 << 25; // AMX-TILE, AMX-INT8 in edx
    const OSXSAVE: u32 = 1 << 27;
    const TILE_STATE: u64 = 0b11 << 17;

    #[target_feature(enable = "xsave")]
    fn enabled_states() -> u64 {
        // SAFETY: register 0 exists wherever the instruction does.
        unsafe { _xgetbv(0) }
    }

    let has_leaf = __cpuid_count(0, 0).eax >= 7;
    let saves = __cpuid_count(1, 0).ecx & OSXSAVE != 0;
    // SAFETY: the system has turned the instruction on, as just seen.
    has_leaf
        && saves
        && __cpuid_count(7, 0).edx & TILES == TILES
        && unsafe { enabled_states() } & TILE_STATE == TILE_STATE
}

/// Linux hands out the room for tiles on request only, to a whole process at once.
#[cfg(target_os = "linux")]
fn is_permitted() -> bool {
    const REQUEST: libc::c_long = 0x1023; // ARCH_REQ_XCOMP_PERM
    const TILE_DATA: libc::c_long = 18;
    // SAFETY: the call takes two numbers and touches no memory of ours.
    unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST, TILE_DATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn is_permitted() -> bool {
    false
}

/// Products of one panel with a range of activation rows into the target. On a level with tiles only.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn panel<K: Kind>(
    panel: &[u8],
    activations: &Activations,
    mut tokens: Range<usize>,
    target: &Target<'_>,
) {
    if tokens.len() >= FEWEST {
        let mut widened = SPARE.take();
        widened.fill::<K>(panel, activations.blocks_per_row / K::BLOCKS);
        let tiles = Tiles::configure::<K>();
        while tokens.len() >= FEWEST {
            let rows = tokens.len().min(TILE);
            tile::<K>(&tiles, &widened, panel, activations, tokens.start..tokens.start + rows, target);
            tokens.start += rows;
        }
        drop(tiles);
        SPARE.set(widened);
    }
    if !tokens.is_empty() {
        avx512::panel::<K>(panel, activations, tokens, target);
    }
}

thread_local! {
    static SPARE: Cell<Widened> = const { Cell::new(Widened { codes: Vec::new(), scales: Vec::new() }) };
}

/// A panel as the tiles' instruction takes it.
#[derive(Default)]
struct Widened {
    /// `[blocks, 8]` groups of codes, a byte each; empty if the panel has them so.
    codes: Vec<Line>,
    /// `[blocks, halves]` scale and minimum of sixteen rows.
    scales: Vec<[Lanes; 2]>,
}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; LINE]);

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Lanes([f32; ROWS]);

impl Widened {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    fn fill<K: Kind>(&mut self, panel: &[u8], groups: usize) {
        let blocks = groups * K::BLOCKS;
        self.scales.resize(blocks * K::HALVES, [Lanes([0.0; ROWS]); 2]);
        self.codes.resize(if K::BITS == 8 { 0 } else { blocks * 8 }, Line([0; LINE]));
        for (group, bytes) in panel.chunks_exact(K::GROUP_BYTES).take(groups).enumerate() {
            let (header, bytes) = bytes.split_at(K::HEADER_BYTES);
            for (nth, bytes) in bytes.chunks_exact(K::BLOCK_BYTES).enumerate() {
                let block = group * K::BLOCKS + nth;
                let (scales, lines) = bytes.split_at(K::SCALE_BYTES);
                for half in 0..K::HALVES {
                    let (scale, minimum) = avx512::scale_and_minimum::<K>(header, scales, half);
                    let place = &mut self.scales[block * K::HALVES + half];
                    // SAFETY: both have room for sixteen, and their alignment.
                    unsafe {
                        _mm512_store_ps(place[0].0.as_mut_ptr(), scale);
                        _mm512_store_ps(place[1].0.as_mut_ptr(), minimum);
                    }
                }
                if K::BITS < 8 {
                    for group in 0..8 {
                        let codes = avx512::group_codes::<K>(lines, group);
                        let place = &mut self.codes[block * 8 + group];
                        // SAFETY: a line has 64 bytes, and their alignment.
                        unsafe { _mm512_store_si512(place.0.as_mut_ptr().cast::<__m512i>(), codes) };
                    }
                }
            }
        }
    }

    /// Where the codes of a block begin, eight lines in a row.
    #[inline(always)]
    fn block<K: Kind>(&self, panel: &[u8], block: usize) -> *const u8 {
        if K::BITS < 8 {
            return self.codes[block * 8..block * 8 + 8].as_ptr().cast::<u8>();
        }
        let (group, nth) = (block / K::BLOCKS, block % K::BLOCKS);
        let at = group * K::GROUP_BYTES + K::HEADER_BYTES + nth * K::BLOCK_BYTES + K::SCALE_BYTES;
        panel[at..at + 8 * LINE].as_ptr()
    }
}

/// The tiles of this thread, in the shapes that a product needs: 0 and 1 are sums, 2 activations, 3 weights.
struct Tiles;

#[repr(C, align(64))]
struct Shapes([u8; 64]);

impl Tiles {
    /// Weights are in tiles of a whole block, or a half where that has a scale of its own.
    fn configure<K: Kind>() -> Self {
        let depth = BLOCK / K::HALVES;
        let mut shapes = Shapes([0; 64]);
        shapes.0[0] = 1; // palette
        for (tile, row_bytes, rows) in
            [(0, LINE, TILE), (1, LINE, TILE), (2, depth, TILE), (3, LINE, depth / 4)]
        {
            shapes.0[16 + 2 * tile] = row_bytes as u8;
            shapes.0[48 + tile] = rows as u8;
        }
        // SAFETY: the level says that there are tiles; the shapes are those of palette 1, at most sixteen rows of 64
        // bytes; and nobody else uses tiles in this process.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) shapes.0.as_ptr(), options(nostack, readonly, preserves_flags))
        };
        Self
    }

    /// Sums of products of the activations' rows, `stride` bytes apart, with the weights.
    ///
    /// # Safety
    /// As many bytes as the shapes say must be readable.
    #[inline(always)]
    unsafe fn multiply(&self, activations: *const i8, stride: usize, weights: *const u8, sums: &mut Sums) {
        // SAFETY: sixteen rows of 64 bytes fit into the sums; the caller promises the rest.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tileloadd tmm2, [{activations} + {stride}]",
                "tileloadd tmm3, [{weights} + {line}]",
                "tdpbsud tmm0, tmm2, tmm3",
                "tilestored [{sums} + {line}], tmm0",
                activations = in(reg) activations,
                stride = in(reg) stride,
                weights = in(reg) weights,
                line = in(reg) LINE,
                sums = in(reg) sums.0.as_mut_ptr(),
                out("tmm0") _, out("tmm2") _, out("tmm3") _,
                options(nostack, preserves_flags),
            );
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: the thread has tiles, since there is a value of this type.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) };
    }
}

/// `[16 activation rows, 16 rows]`
#[repr(C, align(64))]
struct Sums([i32; TILE * ROWS]);

/// Up to sixteen activation rows times the panel.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn tile<K: Kind>(
    tiles: &Tiles,
    widened: &Widened,
    panel: &[u8],
    activations: &Activations,
    tokens: Range<usize>,
    target: &Target<'_>,
) {
    let blocks_per_row = activations.blocks_per_row;
    let stride = blocks_per_row * BLOCK;
    let depth = BLOCK / K::HALVES;
    // With the spare rows there always are sixteen.
    let infos = &activations.blocks[tokens.start * blocks_per_row..(tokens.start + TILE) * blocks_per_row];
    let codes = &activations.codes[tokens.start * stride..(tokens.start + TILE) * stride];
    let parts = blocks_per_row * K::HALVES;
    let multiply = |part: usize, sums: &mut Sums| {
        let (block, half) = (part / K::HALVES, part % K::HALVES);
        let weights = widened.block::<K>(panel, block);
        // SAFETY: each of the sixteen rows has `depth` codes at `part · depth`, and a block has eight lines, of which a
        // half takes four.
        unsafe {
            let codes = codes.as_ptr().add(part * depth);
            tiles.multiply(codes, stride, weights.add(half * 4 * LINE), sums);
        }
    };
    let mut sums = [const { Sums([0; TILE * ROWS]) }; 2];
    let mut totals = [_mm512_setzero_ps(); TILE];
    multiply(0, &mut sums[0]);
    for part in 0..parts {
        // The next product is on its way while this one is scaled.
        let (now, next) = (part % 2, (part + 1) % 2);
        if part + 1 < parts {
            multiply(part + 1, &mut sums[next]);
        }
        let (block, half) = (part / K::HALVES, part % K::HALVES);
        let [scale, minimum] = &widened.scales[part];
        // SAFETY: both hold sixteen, aligned.
        let (scale, minimum) =
            unsafe { (_mm512_load_ps(scale.0.as_ptr()), _mm512_load_ps(minimum.0.as_ptr())) };
        for token in 0..TILE {
            // SAFETY: there are sixteen rows of `blocks_per_row`, of which `block` is one.
            let info = unsafe { infos.get_unchecked(token * blocks_per_row + block) };
            // SAFETY: the sums have sixteen rows of sixteen, aligned.
            let dot = unsafe { _mm512_load_si512(sums[now].0.as_ptr().add(token * ROWS).cast::<__m512i>()) };
            totals[token] = scaled::<K>(totals[token], dot, info, half, scale, minimum);
        }
    }
    for (token, total) in tokens.zip(totals) {
        let mut values = [0f32; ROWS];
        // SAFETY: sixteen values fit.
        unsafe { _mm512_storeu_ps(values.as_mut_ptr(), total) };
        target.store(token, &values);
    }
}

/// Takes a block's products into the total, as every level does.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn scaled<K: Kind>(
    total: __m512,
    dot: __m512i,
    info: &BlockInfo,
    half: usize,
    scale: __m512,
    minimum: __m512,
) -> __m512 {
    let (negated_sum, scaled_sum) = info.sums(K::HALVES, half);
    let dot = if K::OFFSET_SHIFT == 0 {
        dot
    } else {
        _mm512_add_epi32(dot, _mm512_set1_epi32(negated_sum << K::OFFSET_SHIFT))
    };
    let scale = _mm512_mul_ps(scale, _mm512_set1_ps(info.scale));
    let total = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, total);
    if K::HAS_MINIMUM { _mm512_fmadd_ps(minimum, _mm512_set1_ps(scaled_sum), total) } else { total }
}
