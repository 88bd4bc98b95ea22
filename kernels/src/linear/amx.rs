//! Quantised products with AMX: sixteen rows of weights times up to sixteen activation rows in one instruction, for the
//! 32 weights that share a scale.
//!
//! The same operations per output as `scalar`, tested to the bit. A panel's codes lie in memory as the instruction wants
//! its second operand, and rounded activations as it wants its first: nothing is packed anew, only narrow codes are
//! widened, once for all activation rows. The instructions are written in assembly, since the language has no stable
//! functions for them.

use std::arch::asm;
use std::arch::x86_64::{
    __cpuid_count, __m512i, _mm512_cvtepi32_ps, _mm512_fmadd_ps, _mm512_load_ps, _mm512_load_si512,
    _mm512_mul_ps, _mm512_set1_epi8, _mm512_set1_ps, _mm512_setzero_ps, _mm512_store_ps, _mm512_store_si512,
    _mm512_storeu_ps, _mm512_sub_epi8, _xgetbv,
};
use std::cell::Cell;
use std::ops::Range;
use std::sync::OnceLock;

use super::activations::{Activations, SPARE_ROWS};
use super::avx512;
use super::format::{BLOCK, Kind};
use super::panels::{Panels, ROWS};
use super::target::Target;

/// Activation rows of a tile.
const TILE: usize = 16;
/// Fewer activation rows are faster without tiles.
pub(super) const FEWEST: usize = 24;
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
    let tiles = Tiles::configure::<K>();
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

/// The tiles of this thread, in the shapes that a product needs: 0 to 3 are sums, 4 and 5 activations, 6 and 7 weights.
struct Tiles;

#[repr(C, align(64))]
struct Shapes([u8; 64]);

impl Tiles {
    /// Weights are in tiles of a whole block, or a half where that has a scale of its own.
    fn configure<K: Kind>() -> Self {
        let depth = BLOCK / K::HALVES;
        let mut shapes = Shapes([0; 64]);
        shapes.0[0] = 1; // palette
        for tile in 0..8 {
            let (row_bytes, rows) = match tile {
                0..4 => (LINE, TILE),
                4 | 5 => (depth, TILE),
                _ => (LINE, depth / 4),
            };
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

    /// Sums of products of the activations' rows, `stride` bytes apart, with the weights. `LANE` of four chooses the tiles,
    /// so that products in a row do not wait for each other.
    ///
    /// # Safety
    /// As many bytes as the shapes say must be readable.
    #[inline(always)]
    unsafe fn multiply<const LANE: usize>(
        &self,
        activations: *const i8,
        stride: usize,
        weights: *const u8,
        sums: &mut Sums,
    ) {
        macro_rules! multiply {
            ($sums:literal, $activations:literal, $weights:literal) => {
                asm!(
                    concat!("tilezero ", $sums),
                    concat!("tileloadd ", $activations, ", [{activations} + {stride}]"),
                    concat!("tileloadd ", $weights, ", [{weights} + {line}]"),
                    concat!("tdpbssd ", $sums, ", ", $activations, ", ", $weights),
                    concat!("tilestored [{sums} + {line}], ", $sums),
                    activations = in(reg) activations,
                    stride = in(reg) stride,
                    weights = in(reg) weights,
                    line = in(reg) LINE,
                    sums = in(reg) sums.0.as_mut_ptr(),
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack, preserves_flags),
                )
            };
        }
        // SAFETY: sixteen rows of 64 bytes fit into the sums; the caller promises the rest.
        unsafe {
            match LANE {
                0 => multiply!("tmm0", "tmm4", "tmm6"),
                1 => multiply!("tmm1", "tmm5", "tmm7"),
                2 => multiply!("tmm2", "tmm4", "tmm6"),
                _ => multiply!("tmm3", "tmm5", "tmm7"),
            }
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
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Sums([i32; TILE * ROWS]);

/// Products that are on their way while an earlier one is scaled: what a tile stores takes a while to be there.
const LANES: usize = 4;

/// Where a tile reads.
struct Operands<'a> {
    /// Sixteen rows, `stride` apart.
    activations: &'a [i8],
    stride: usize,
    weights: &'a [Line],
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
    let blocks_per_row = activations.blocks_per_row;
    let stride = blocks_per_row * BLOCK;
    let parts = blocks_per_row * K::HALVES;
    // With the spare rows there always are sixteen.
    let cells = tokens.start * blocks_per_row..(tokens.start + TILE) * blocks_per_row;
    let operands = Operands {
        activations: &activations.codes[cells.start * BLOCK..cells.end * BLOCK],
        stride,
        weights: &widened.codes[nth * blocks_per_row * 8..(nth + 1) * blocks_per_row * 8],
    };
    let (infos, block_sums) = (&activations.blocks[cells.clone()], &activations.sums[cells]);
    let scales = &widened.scales[nth * parts..(nth + 1) * parts];
    let mut sums = [const { Sums([0; TILE * ROWS]) }; LANES];
    let mut totals = [_mm512_setzero_ps(); TILE];
    // SAFETY: parts that are there, of which each has its operands.
    unsafe {
        for ahead in 0..parts.min(LANES - 1) {
            start::<K>(tiles, &operands, ahead, &mut sums);
        }
    }
    for (part, [scale, minimum]) in scales.iter().enumerate() {
        if part + LANES - 1 < parts {
            // SAFETY: as above.
            unsafe { start::<K>(tiles, &operands, part + LANES - 1, &mut sums) };
        }
        let (block, half) = (part / K::HALVES, part % K::HALVES);
        let dots = sums[part % LANES].0.as_ptr();
        // SAFETY: both hold sixteen, aligned.
        let (scale, minimum) =
            unsafe { (_mm512_load_ps(scale.0.as_ptr()), _mm512_load_ps(minimum.0.as_ptr())) };
        for token in 0..TILE {
            let at = token * blocks_per_row + block;
            // SAFETY: there are sixteen rows of `blocks_per_row`, of which `block` is one.
            let (info, block_sums) = unsafe { (infos.get_unchecked(at), block_sums.get_unchecked(at)) };
            // SAFETY: the sums have sixteen rows of sixteen, aligned.
            let dot = unsafe { _mm512_load_si512(dots.add(token * ROWS).cast::<__m512i>()) };
            let factor = _mm512_mul_ps(scale, _mm512_set1_ps(info.scale));
            totals[token] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), factor, totals[token]);
            if K::HAS_MINIMUM {
                let (_, scaled_sum) = block_sums.part(info, K::HALVES, half);
                totals[token] = _mm512_fmadd_ps(minimum, _mm512_set1_ps(scaled_sum), totals[token]);
            }
        }
    }
    for (token, total) in tokens.zip(totals) {
        let mut values = [0f32; ROWS];
        // SAFETY: sixteen values fit.
        unsafe { _mm512_storeu_ps(values.as_mut_ptr(), total) };
        target.store(token, &values);
    }
}

/// Multiplies the codes of part `part` of each row.
///
/// # Safety
/// There must be such a part.
#[inline(always)]
unsafe fn start<K: Kind>(tiles: &Tiles, operands: &Operands<'_>, part: usize, sums: &mut [Sums; LANES]) {
    let depth = BLOCK / K::HALVES;
    let stride = operands.stride;
    debug_assert!((part + 1) * depth <= stride);
    // SAFETY: each of the sixteen rows has `depth` codes at `part · depth`, and a part of the weights is `depth / 4` lines.
    unsafe {
        let activations = operands.activations.as_ptr().add(part * depth);
        let weights = operands.weights.as_ptr().add(part * depth / 4).cast::<u8>();
        match part % LANES {
            0 => tiles.multiply::<0>(activations, stride, weights, &mut sums[0]),
            1 => tiles.multiply::<1>(activations, stride, weights, &mut sums[1]),
            2 => tiles.multiply::<2>(activations, stride, weights, &mut sums[2]),
            _ => tiles.multiply::<3>(activations, stride, weights, &mut sums[3]),
        }
    }
}
