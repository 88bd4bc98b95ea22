//! Quantised weights of a panel's block in bf16: `bf16(fma(code - offset, d, m))`.
//!
//! Codes of four or five bits look their weights up in a table of the block's row, which is made of sixteen fused additions at once;
//! others are converted one by one.

use std::arch::asm;
use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _mm_cvtsi32_si128, _mm512_add_ps, _mm512_and_si512, _mm512_cvtepi32_ps,
    _mm512_cvtne2ps_pbh, _mm512_fmadd_ps, _mm512_loadu_si512, _mm512_or_si512, _mm512_permutexvar_epi16,
    _mm512_set1_epi16, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setr_ps, _mm512_setzero_si512,
    _mm512_sll_epi16, _mm512_srl_epi16, _mm512_srli_epi32, _mm512_store_ps, _mm512_store_si512,
    _mm512_sub_ps, _mm512_ternarylogic_epi32,
};
use std::mem::{MaybeUninit, transmute};

use super::Tile;
use crate::linear::avx512;
use crate::linear::format::Kind;
use crate::linear::panels::{ROWS, planes_of_row};
use crate::tiles::{SIDE, transposed};

/// `d` and `m` of sixteen rows for half a block, or all of it.
#[repr(C, align(64))]
struct Facts {
    scales: [f32; ROWS],
    minimums: [f32; ROWS],
}

/// Widens a block of sixteen rows, and turns it.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
pub(super) fn widen<K: Kind, const TURNED: bool>(header: &[u8], block: &[u8], to: &mut MaybeUninit<Tile>) {
    let (scales, lines) = block.split_at(K::SCALE_BYTES);
    let mut facts = [const { MaybeUninit::<Facts>::uninit() }; 2];
    for (half, facts) in facts.iter_mut().enumerate().take(K::HALVES) {
        let (scale, minimum) = avx512::scale_and_minimum::<K>(header, scales, half);
        let facts = facts.as_mut_ptr();
        // SAFETY: both have room for sixteen, and their alignment.
        unsafe {
            _mm512_store_ps((&raw mut (*facts).scales).cast::<f32>(), scale);
            _mm512_store_ps((&raw mut (*facts).minimums).cast::<f32>(), minimum);
        }
    }
    let facts: [*const Facts; 2] = [facts[0].as_ptr(), facts[K::HALVES - 1].as_ptr()];
    let mut rows = [_mm512_setzero_si512(); SIDE];
    let to = to.as_mut_ptr().cast::<__m512i>();
    macro_rules! keep {
        ($row:expr, $weights:expr) => {
            if TURNED {
                rows[$row] = $weights;
            } else {
                // SAFETY: a tile has sixteen rows of 64 bytes, and their alignment.
                unsafe { _mm512_store_si512(to.add($row), $weights) };
            }
        };
    }
    macro_rules! widen {
        ($($even:literal $odd:literal)*) => { $(
            if K::HAS_TABLE && K::BITS == 4 {
                let [even, odd] = two_rows::<K, $even, $odd>(lines, facts[0]);
                keep!($even, even);
                keep!($odd, odd);
            } else if K::HAS_TABLE {
                keep!($even, row_by_table::<K, $even>(lines, facts[0]));
                keep!($odd, row_by_table::<K, $odd>(lines, facts[0]));
            } else {
                keep!($even, row::<K, $even>(lines, facts));
                keep!($odd, row::<K, $odd>(lines, facts));
            }
        )* };
    }
    widen!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    if TURNED {
        for (pair, weights) in transposed(rows).into_iter().enumerate() {
            // SAFETY: as above.
            unsafe { _mm512_store_si512(to.add(pair), weights) };
        }
    }
}

/// Two rows of 4-bit codes, which share a register for their tables.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
fn two_rows<K: Kind, const EVEN: usize, const ODD: usize>(lines: &[u8], facts: *const Facts) -> [__m512i; 2] {
    let tables = narrowed(table::<K, ODD>(0.0, facts), table::<K, EVEN>(0.0, facts));
    let (low, upper) = (_mm512_set1_epi16(15), _mm512_set1_epi16(16));
    let even = _mm512_and_si512(plane::<K, EVEN>(lines, 0), low);
    // Both at once: `codes & 15 | 16`.
    let odd = _mm512_ternarylogic_epi32::<0xea>(plane::<K, ODD>(lines, 0), low, upper);
    [_mm512_permutexvar_epi16(even, tables), _mm512_permutexvar_epi16(odd, tables)]
}

/// A row of 5-bit codes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
fn row_by_table<K: Kind, const ROW: usize>(lines: &[u8], facts: *const Facts) -> __m512i {
    let table = narrowed(table::<K, ROW>(16.0, facts), table::<K, ROW>(0.0, facts));
    _mm512_permutexvar_epi16(codes::<K, ROW>(lines), table)
}

/// A row's weights of sixteen codes from `first` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
fn table<K: Kind, const ROW: usize>(first: f32, facts: *const Facts) -> __m512 {
    let codes = _mm512_setr_ps(0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.);
    let codes = _mm512_add_ps(codes, _mm512_set1_ps(first - K::OFFSET as f32));
    _mm512_fmadd_ps(codes, scale_of::<ROW>(facts), minimum_of::<ROW>(facts))
}

/// A row whose codes are converted; each half of it has its own of the `facts`, if there are two.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
fn row<K: Kind, const ROW: usize>(lines: &[u8], facts: [*const Facts; 2]) -> __m512i {
    let codes = codes::<K, ROW>(lines);
    let lower = _mm512_and_si512(codes, _mm512_set1_epi32(0xffff));
    let halves = [lower, _mm512_srli_epi32::<16>(codes)];
    let weights = |half: usize| {
        let codes = _mm512_sub_ps(_mm512_cvtepi32_ps(halves[half]), _mm512_set1_ps(K::OFFSET as f32));
        _mm512_fmadd_ps(codes, scale_of::<ROW>(facts[half]), minimum_of::<ROW>(facts[half]))
    };
    narrowed(weights(1), weights(0))
}

/// The codes of a row, a word each.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
fn codes<K: Kind, const ROW: usize>(lines: &[u8]) -> __m512i {
    let part = |nth: usize| {
        let of = const { planes_of_row::<K>(ROW) }[nth];
        let bits = _mm512_and_si512(plane::<K, ROW>(lines, nth), _mm512_set1_epi16(of.mask() as i16));
        _mm512_sll_epi16(bits, _mm_cvtsi32_si128(of.take as i32))
    };
    let has_two = const { planes_of_row::<K>(ROW)[1].width > 0 };
    if has_two { _mm512_or_si512(part(0), part(1)) } else { part(0) }
}

/// Some bits of a row's codes, with other rows' above them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
fn plane<K: Kind, const ROW: usize>(lines: &[u8], nth: usize) -> __m512i {
    let plane = const { planes_of_row::<K>(ROW) }[nth];
    debug_assert!(plane.line * 64 + 64 <= lines.len());
    // SAFETY: a block has `64 · BITS` bytes of codes, and the planes lie within them.
    let line = unsafe { _mm512_loadu_si512(lines.as_ptr().add(plane.line * 64).cast::<__m512i>()) };
    _mm512_srl_epi16(line, _mm_cvtsi32_si128(plane.shift as i32))
}

/// A row's `d` in all lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
fn scale_of<const ROW: usize>(facts: *const Facts) -> __m512 {
    everywhere::<ROW, 0>(facts)
}

/// A row's `m` in all lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
fn minimum_of<const ROW: usize>(facts: *const Facts) -> __m512 {
    everywhere::<ROW, 64>(facts)
}

/// A number in all lanes, straight from memory: there it costs a load. The compiler would keep what was just stored in a register, and
/// shuffle it, which takes the place of other shuffles.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
fn everywhere<const ROW: usize, const PART: usize>(facts: *const Facts) -> __m512 {
    const { assert!(ROW < ROWS && PART + 4 * ROWS <= size_of::<Facts>()) };
    let lanes: __m512;
    // SAFETY: `widen` has written what is read here.
    unsafe {
        asm!(
            "vbroadcastss {lanes}, dword ptr [{facts} + {at}]",
            lanes = lateout(zmm_reg) lanes,
            facts = in(reg) facts,
            at = const PART + 4 * ROW,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    lanes
}

/// Both rounded to bf16, the lower one first.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
pub(super) fn narrowed(upper: __m512, lower: __m512) -> __m512i {
    // SAFETY: the same 64 bytes.
    unsafe { transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(upper, lower)) }
}
