//! Quantised products with AVX2: a panel as two sides of eight rows, up to four activation rows per unpacked
//! group.
//!
//! The same operations per output as `scalar`, tested to the bit. Products of unsigned codes are gathered in
//! 16 bits for as long as they fit; bytes are multiplied by absolute value and sign, since their products
//! would not fit at all.

use std::arch::x86_64::{
    __m128i, __m256, __m256i, _mm_cvtsi32_si128, _mm_loadl_epi64, _mm_loadu_si128, _mm256_abs_epi8,
    _mm256_add_epi16, _mm256_add_epi32, _mm256_and_si256, _mm256_castps_si256, _mm256_castsi256_ps,
    _mm256_cvtepi8_epi32, _mm256_cvtepi32_ps, _mm256_cvtepu8_epi32, _mm256_cvtph_ps, _mm256_fmadd_ps,
    _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_mul_ps,
    _mm256_or_si256, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps,
    _mm256_setzero_ps, _mm256_setzero_si256, _mm256_sign_epi8, _mm256_sll_epi16, _mm256_sll_epi32,
    _mm256_srl_epi16, _mm256_storeu_ps, _mm256_xor_si256,
};
use std::ops::Range;

use super::activations::{Activations, TOGETHER, facts, places};
use super::format::{BLOCK, Kind, Scales};
use super::panels::ROWS;
use super::target::Target;

/// Rows of a side.
const SIDE: usize = ROWS / 2;

/// Products of one panel with a range of activation rows into the target.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn panel<K: Kind>(
    panel: &[u8],
    activations: &Activations,
    mut tokens: Range<usize>,
    target: &Target<'_>,
) {
    while tokens.len() >= 4 {
        both_sides::<K, 4>(panel, activations, tokens.start, target);
        tokens.start += 4;
    }
    if tokens.len() >= 2 {
        both_sides::<K, 2>(panel, activations, tokens.start, target);
        tokens.start += 2;
    }
    if !tokens.is_empty() {
        both_sides::<K, 1>(panel, activations, tokens.start, target);
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn both_sides<K: Kind, const T: usize>(
    panel: &[u8],
    activations: &Activations,
    first: usize,
    target: &Target<'_>,
) {
    let mut values = [[0f32; ROWS]; T];
    for side in 0..2 {
        let totals = tile::<K, T>(panel, activations, first, side);
        for (values, total) in values.iter_mut().zip(totals) {
            // SAFETY: eight values fit behind each side's start.
            unsafe { _mm256_storeu_ps(values.as_mut_ptr().add(side * SIDE), total) };
        }
    }
    for (token, values) in values.iter().enumerate() {
        target.store(first + token, values);
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn tile<K: Kind, const T: usize>(
    panel: &[u8],
    activations: &Activations,
    first: usize,
    side: usize,
) -> [__m256; T] {
    let blocks_per_row = activations.blocks_per_row;
    let cells = first * blocks_per_row * BLOCK..(first + T) * blocks_per_row * BLOCK;
    // No closures here: one that is not inlined would pass its registers through memory.
    let all_codes = &activations.codes[cells];
    let first_place = places::<T>(activations, first);
    let mut totals = [_mm256_setzero_ps(); T];
    let groups = panel.chunks_exact(K::GROUP_BYTES).take(blocks_per_row / K::BLOCKS);
    for (group, bytes) in groups.enumerate() {
        let (header, blocks) = bytes.split_at(K::HEADER_BYTES);
        for (nth, bytes) in blocks.chunks_exact(K::BLOCK_BYTES).enumerate() {
            let block = group * K::BLOCKS + nth;
            let (scales, lines) = bytes.split_at(K::SCALE_BYTES);
            let mut codes: [&[i8]; T] = [&[]; T];
            for (token, codes) in codes.iter_mut().enumerate() {
                let at = token * blocks_per_row + block;
                // SAFETY: there are `T` rows of `blocks_per_row` blocks, and `block` counts the panel's, of which there
                // are as many.
                *codes = unsafe { all_codes.get_unchecked(at * BLOCK..(at + 1) * BLOCK) };
            }
            for half in 0..K::HALVES {
                let (scale, minimum) = scale_and_minimum::<K>(header, scales, half, side);
                let dots = dots::<K, T>(&lines[side * 32..], half, &codes);
                for token in 0..T {
                    let place = first_place + block * TOGETHER + token;
                    // SAFETY: as above; the rows lie together.
                    let (activation_scale, (negated_sum, scaled_sum)) =
                        unsafe { facts::<K>(activations, place, half) };
                    let dot = without_offset::<K>(dots[token], negated_sum);
                    let scale = _mm256_mul_ps(scale, _mm256_set1_ps(activation_scale));
                    totals[token] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, totals[token]);
                    if K::HAS_MINIMUM {
                        totals[token] = _mm256_fmadd_ps(minimum, _mm256_set1_ps(scaled_sum), totals[token]);
                    }
                }
            }
        }
    }
    totals
}

/// Integer products of one half block with several rows' codes. `lines` starts at the side's first byte.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dots<K: Kind, const T: usize>(lines: &[u8], half: usize, codes: &[&[i8]; T]) -> [__m256i; T] {
    // How many pairs of products fit in 16 bits: 2 · 127 · largest code each.
    let fitting = match K::BITS {
        8 => 1,
        6 => 2,
        5 => 4,
        _ => 8 / K::HALVES,
    };
    let groups = 8 / K::HALVES;
    let ones = _mm256_set1_epi16(1);
    let mut dots = [_mm256_setzero_si256(); T];
    for start in (0..groups).step_by(fitting) {
        let mut sums = [_mm256_setzero_si256(); T];
        for group in 0..fitting {
            let group = half * groups + start + group;
            let weights = group_codes::<K>(lines, group);
            for token in 0..T {
                let codes = four_codes(codes[token], group);
                let products = if K::BITS == 8 {
                    _mm256_maddubs_epi16(_mm256_abs_epi8(weights), _mm256_sign_epi8(codes, weights))
                } else {
                    _mm256_maddubs_epi16(weights, codes)
                };
                sums[token] = _mm256_add_epi16(sums[token], products);
            }
        }
        for token in 0..T {
            dots[token] = _mm256_add_epi32(dots[token], _mm256_madd_epi16(sums[token], ones));
        }
    }
    dots
}

/// Takes the offset's part from a dot product; bytes were multiplied with their sign and have none left.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn without_offset<K: Kind>(dot: __m256i, negated_sum: i32) -> __m256i {
    if K::OFFSET_SHIFT == 0 || K::BITS == 8 {
        return dot;
    }
    let offset = _mm256_sll_epi32(_mm256_set1_epi32(negated_sum), _mm_cvtsi32_si128(K::OFFSET_SHIFT as i32));
    _mm256_add_epi32(dot, offset)
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn four_codes(codes: &[i8], group: usize) -> __m256i {
    debug_assert!(codes.len() == BLOCK && group < 8);
    // SAFETY: a block has eight groups of four codes.
    _mm256_set1_epi32(unsafe { codes.as_ptr().add(4 * group).cast::<i32>().read_unaligned() })
}

/// Codes of group `group` of eight rows: unsigned bytes, but signed ones for eight bits. The planes are
/// described in `panels`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn group_codes<K: Kind>(lines: &[u8], group: usize) -> __m256i {
    let nibbles = |_: ()| bits(lines, 64 * (group % 4), 4 * (group / 4), 0x0f, 0);
    let pairs = |base: usize, to: usize| bits(lines, base + 64 * (group % 2), 2 * (group / 2), 3, to);
    let single = |base: usize, to: usize| bits(lines, base, group, 1, to);
    match K::BITS {
        8 => _mm256_xor_si256(line(lines, 64 * group), _mm256_set1_epi8(i8::MIN)),
        6 => _mm256_or_si256(nibbles(()), pairs(256, 4)),
        5 => _mm256_or_si256(nibbles(()), single(256, 4)),
        4 => nibbles(()),
        3 => _mm256_or_si256(pairs(0, 0), single(128, 2)),
        _ => pairs(0, 0),
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn line(lines: &[u8], at: usize) -> __m256i {
    debug_assert!(at + 32 <= lines.len());
    // SAFETY: a block has `64 · BITS` bytes of codes, and each side's planes lie within them.
    unsafe { _mm256_loadu_si256(lines.as_ptr().add(at).cast::<__m256i>()) }
}

/// `(bytes >> shift & mask) << to`, byte by byte; no bit leaves its byte.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn bits(lines: &[u8], at: usize, shift: usize, mask: i8, to: usize) -> __m256i {
    let shifted = _mm256_srl_epi16(line(lines, at), _mm_cvtsi32_si128(shift as i32));
    _mm256_sll_epi16(_mm256_and_si256(shifted, _mm256_set1_epi8(mask)), _mm_cvtsi32_si128(to as i32))
}

/// `d` and `m` of a side's eight rows for one half block.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn scale_and_minimum<K: Kind>(header: &[u8], scales: &[u8], half: usize, side: usize) -> (__m256, __m256) {
    debug_assert!(header.len() == K::HEADER_BYTES && scales.len() == K::SCALE_BYTES);
    let nothing = _mm256_setzero_ps();
    // SAFETY: the header holds sixteen f16, and sixteen more where a minimum is read.
    let halves = |at: usize| unsafe {
        _mm256_cvtph_ps(_mm_loadu_si128(header.as_ptr().add(at + 2 * side * SIDE).cast::<__m128i>()))
    };
    // SAFETY: each half has sixteen bytes of scales, and sixteen of minimums where there are any.
    let eight =
        |at: usize| unsafe { _mm_loadl_epi64(scales.as_ptr().add(at + side * SIDE).cast::<__m128i>()) };
    // SAFETY: where the scales are f32 the header holds sixteen.
    let single = || unsafe { _mm256_loadu_ps(header.as_ptr().cast::<f32>().add(side * SIDE)) };
    let at = half * (K::SCALE_BYTES / K::HALVES);
    match K::SCALES {
        Scales::Half => (halves(0), nothing),
        Scales::HalfMinimum => (halves(0), halves(32)),
        Scales::Single => (single(), nothing),
        Scales::Sub => {
            (_mm256_mul_ps(halves(0), _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(eight(at)))), nothing)
        }
        Scales::SubMinimum => {
            let scale = _mm256_mul_ps(halves(0), _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(eight(at))));
            let minimum =
                _mm256_mul_ps(halves(32), _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(eight(at + ROWS))));
            (scale, negated(minimum))
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn negated(value: __m256) -> __m256 {
    _mm256_castsi256_ps(_mm256_xor_si256(_mm256_castps_si256(value), _mm256_set1_epi32(i32::MIN)))
}
