//! Quantised products with AVX-512 and VNNI: sixteen rows in one vector, up to eight activation rows per
//! unpacked block.
//!
//! The same operations per output as `scalar`, tested to the bit.

use std::arch::x86_64::{
    __m128i, __m256i, __m512, __m512i, _CMP_GT_OQ, _MM_HINT_T0, _mm_cvtsi32_si128, _mm_loadu_si128,
    _mm_prefetch, _mm_storeu_si128, _mm256_loadu_si256, _mm512_add_epi32, _mm512_and_si512,
    _mm512_castps_si512, _mm512_castsi512_ps, _mm512_cmplt_epu32_mask, _mm512_cvtepi8_epi32,
    _mm512_cvtepi32_epi8, _mm512_cvtepi32_ps, _mm512_cvtepu8_epi32, _mm512_cvtph_ps, _mm512_dpbusd_epi32,
    _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mask_cmp_ps_mask, _mm512_mask_div_ps,
    _mm512_maskz_cvtps_epi32, _mm512_maskz_div_ps, _mm512_max_epu32, _mm512_mul_ps, _mm512_or_si512,
    _mm512_reduce_add_epi32, _mm512_reduce_max_epu32, _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_setzero_si512, _mm512_shuffle_i32x4, _mm512_sll_epi16, _mm512_sll_epi32,
    _mm512_srl_epi16, _mm512_storeu_ps, _mm512_storeu_si512, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64,
    _mm512_unpacklo_epi32, _mm512_unpacklo_epi64, _mm512_xor_si512,
};
use std::mem::MaybeUninit;
use std::ops::Range;

use super::activations::{AT_ONCE, Activations, Facts, Sixteen, TOGETHER, facts, places, scale_of};
use super::format::{BLOCK, Kind, Scales};
use super::panels::ROWS;
use super::target::Target;

/// Products of one panel with a range of activation rows into the target.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn panel<K: Kind>(
    panel: &[u8],
    activations: &Activations,
    mut tokens: Range<usize>,
    target: &Target<'_>,
) {
    while tokens.len() >= 8 {
        tile::<K, 8>(panel, activations, tokens.start, target);
        tokens.start += 8;
    }
    if tokens.len() >= 4 {
        tile::<K, 4>(panel, activations, tokens.start, target);
        tokens.start += 4;
    }
    if tokens.len() >= 2 {
        tile::<K, 2>(panel, activations, tokens.start, target);
        tokens.start += 2;
    }
    if !tokens.is_empty() {
        tile::<K, 1>(panel, activations, tokens.start, target);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn tile<K: Kind, const T: usize>(panel: &[u8], activations: &Activations, first: usize, target: &Target<'_>) {
    let blocks_per_row = activations.blocks_per_row;
    let cells = first * blocks_per_row * BLOCK..(first + T) * blocks_per_row * BLOCK;
    // No closures here: one that is not inlined would pass its registers through memory.
    let codes = &activations.codes[cells];
    let first_place = places::<T>(activations, first);
    let mut totals = [_mm512_setzero_ps(); T];
    let groups = panel.chunks_exact(K::GROUP_BYTES).take(blocks_per_row / K::BLOCKS);
    for (group, bytes) in groups.enumerate() {
        let (header, blocks) = bytes.split_at(K::HEADER_BYTES);
        for (nth, bytes) in blocks.chunks_exact(K::BLOCK_BYTES).enumerate() {
            let block = group * K::BLOCKS + nth;
            if T <= 8 {
                prefetch(bytes);
            }
            let (scales, lines) = bytes.split_at(K::SCALE_BYTES);
            let weights: [__m512i; 8] = [
                group_codes::<K>(lines, 0),
                group_codes::<K>(lines, 1),
                group_codes::<K>(lines, 2),
                group_codes::<K>(lines, 3),
                group_codes::<K>(lines, 4),
                group_codes::<K>(lines, 5),
                group_codes::<K>(lines, 6),
                group_codes::<K>(lines, 7),
            ];
            for half in 0..K::HALVES {
                let (scale, minimum) = scale_and_minimum::<K>(header, scales, half);
                let span = half * 8 / K::HALVES..(half + 1) * 8 / K::HALVES;
                for (token, total) in totals.iter_mut().enumerate() {
                    let at = token * blocks_per_row + block;
                    // SAFETY: there are `T` rows of `blocks_per_row` blocks, and `block` counts the panel's, of which
                    // there are as many.
                    let codes = unsafe { codes.get_unchecked(at * BLOCK..(at + 1) * BLOCK) };
                    let place = first_place + block * TOGETHER + token;
                    // SAFETY: as above; the rows lie together.
                    let (activation_scale, (negated_sum, scaled_sum)) =
                        unsafe { facts::<K>(activations, place, half) };
                    let dot = dot::<K>(&weights, span.clone(), codes, negated_sum);
                    let scale = _mm512_mul_ps(scale, _mm512_set1_ps(activation_scale));
                    *total = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, *total);
                    if K::HAS_MINIMUM {
                        *total = _mm512_fmadd_ps(minimum, _mm512_set1_ps(scaled_sum), *total);
                    }
                }
            }
        }
    }
    for (token, total) in totals.into_iter().enumerate() {
        let mut values = [0f32; ROWS];
        // SAFETY: sixteen values fit.
        unsafe { _mm512_storeu_ps(values.as_mut_ptr(), total) };
        target.store(first + token, &values);
    }
}

/// Asks for what lies some blocks further on: where few rows use it, weights arrive slower than they are multiplied, and the
/// machine's own foresight ends with the page.
#[inline(always)]
fn prefetch(bytes: &[u8]) {
    const AHEAD: usize = 4096;
    for line in (0..bytes.len()).step_by(64) {
        let address = bytes.as_ptr().wrapping_add(AHEAD + line);
        // SAFETY: a hint; it may name any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast::<i8>()) };
    }
}

/// Integer products of one block's groups with 32 codes, less the offset's part. One chain: those of other rows hide its latency.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn dot<K: Kind>(weights: &[__m512i; 8], span: Range<usize>, codes: &[i8], negated_sum: i32) -> __m512i {
    let mut sum = if K::OFFSET_SHIFT == 0 {
        _mm512_setzero_si512()
    } else {
        _mm512_sll_epi32(_mm512_set1_epi32(negated_sum), _mm_cvtsi32_si128(K::OFFSET_SHIFT as i32))
    };
    for group in span {
        sum = _mm512_dpbusd_epi32(sum, weights[group], four_codes(codes, group));
    }
    sum
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn four_codes(codes: &[i8], group: usize) -> __m512i {
    debug_assert!(codes.len() == BLOCK && group < 8);
    // SAFETY: a block has eight groups of four codes.
    _mm512_set1_epi32(unsafe { codes.as_ptr().add(4 * group).cast::<i32>().read_unaligned() })
}

/// Codes of group `group` of all sixteen rows, as unsigned bytes; the planes are described in `panels`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn group_codes<K: Kind>(lines: &[u8], group: usize) -> __m512i {
    let nibbles = |_: ()| bits(lines, 64 * (group % 4), 4 * (group / 4), 0x0f, 0);
    let pairs = |base: usize, to: usize| bits(lines, base + 64 * (group % 2), 2 * (group / 2), 3, to);
    let single = |base: usize, to: usize| bits(lines, base, group, 1, to);
    match K::BITS {
        8 => line(lines, 64 * group),
        6 => _mm512_or_si512(nibbles(()), pairs(256, 4)),
        5 => _mm512_or_si512(nibbles(()), single(256, 4)),
        4 => nibbles(()),
        3 => _mm512_or_si512(pairs(0, 0), single(128, 2)),
        _ => pairs(0, 0),
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn line(lines: &[u8], at: usize) -> __m512i {
    debug_assert!(at + 64 <= lines.len());
    // SAFETY: a block has `64 · BITS` bytes of codes, and the planes lie within them.
    unsafe { _mm512_loadu_si512(lines.as_ptr().add(at).cast::<__m512i>()) }
}

/// `(bytes >> shift & mask) << to`, byte by byte; no bit leaves its byte.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn bits(lines: &[u8], at: usize, shift: usize, mask: i8, to: usize) -> __m512i {
    let shifted = _mm512_srl_epi16(line(lines, at), _mm_cvtsi32_si128(shift as i32));
    _mm512_sll_epi16(_mm512_and_si512(shifted, _mm512_set1_epi8(mask)), _mm_cvtsi32_si128(to as i32))
}

/// Rounds sixteen blocks of activations, as the other levels do.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn round_sixteen(
    values: [&[f32]; AT_ONCE],
    codes: [&mut [MaybeUninit<i8>]; AT_ONCE],
    facts: &mut Sixteen,
) {
    let mut largest = [_mm512_setzero_si512(); AT_ONCE];
    for (largest, values) in largest.iter_mut().zip(values) {
        let [low, high] = halves(values);
        *largest = _mm512_max_epu32(magnitudes(low), magnitudes(high));
    }
    let largest = across::<false>(largest);
    let finite = _mm512_cmplt_epu32_mask(largest, _mm512_set1_epi32(0x7f80_0000));
    let largest = _mm512_castsi512_ps(largest);
    let steps = _mm512_set1_ps(127.0);
    // As `scale_of`, in all lanes.
    let scales = _mm512_mask_div_ps(_mm512_set1_ps(f32::NAN), finite, largest, steps);
    let invertible = _mm512_mask_cmp_ps_mask::<_CMP_GT_OQ>(finite, largest, _mm512_set1_ps(1e-36));
    let mut inverses = [0f32; AT_ONCE];
    // SAFETY: both have room for sixteen.
    unsafe {
        _mm512_storeu_ps(facts.scales.as_mut_ptr(), scales);
        _mm512_storeu_ps(inverses.as_mut_ptr(), _mm512_maskz_div_ps(invertible, steps, largest));
    }
    let mut sums = [[_mm512_setzero_si512(); AT_ONCE]; 2];
    for (nth, (values, codes)) in values.into_iter().zip(codes).enumerate() {
        let keeps = if finite >> nth & 1 == 1 { u16::MAX } else { 0 };
        let [low, high] = to_codes(values, inverses[nth], keeps, codes);
        (sums[0][nth], sums[1][nth]) = (low, high);
    }
    for (sums, facts) in sums.into_iter().zip(&mut facts.halves) {
        // SAFETY: there is room for sixteen.
        unsafe { _mm512_storeu_si512(facts.as_mut_ptr().cast::<__m512i>(), across::<true>(sums)) };
    }
}

/// Rounds a block of activations, as the other levels do.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn round_block(values: &[f32], codes: &mut [MaybeUninit<i8>], facts: &mut Facts) {
    let [low, high] = halves(values);
    let largest = _mm512_reduce_max_epu32(_mm512_max_epu32(magnitudes(low), magnitudes(high)));
    let (scale, inverse) = scale_of(largest);
    let keeps = if scale.is_nan() { 0 } else { u16::MAX };
    let [low, high] = to_codes(values, inverse, keeps, codes);
    *facts = (scale, [_mm512_reduce_add_epi32(low), _mm512_reduce_add_epi32(high)]);
}

/// The two halves of a block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn halves(values: &[f32]) -> [__m512; 2] {
    let values = values[..BLOCK].as_ptr();
    // SAFETY: a block has 32 values.
    unsafe { [_mm512_loadu_ps(values), _mm512_loadu_ps(values.add(16))] }
}

/// Bits of the absolute values.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn magnitudes(values: __m512) -> __m512i {
    _mm512_and_si512(_mm512_castps_si512(values), _mm512_set1_epi32(0x7fff_ffff))
}

/// Writes the codes of a block, and returns them: nothing of one that is not finite is kept.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn to_codes(values: &[f32], inverse: f32, keeps: u16, codes: &mut [MaybeUninit<i8>]) -> [__m512i; 2] {
    let factor = _mm512_set1_ps(inverse);
    let [low, high] = halves(values);
    // Rounds to even, as the machine does unless it is told otherwise.
    let low = _mm512_maskz_cvtps_epi32(keeps, _mm512_mul_ps(low, factor));
    let high = _mm512_maskz_cvtps_epi32(keeps, _mm512_mul_ps(high, factor));
    let to = codes[..BLOCK].as_mut_ptr().cast::<__m128i>();
    // SAFETY: a block has room for 32 codes.
    unsafe {
        _mm_storeu_si128(to, _mm512_cvtepi32_epi8(low));
        _mm_storeu_si128(to.add(1), _mm512_cvtepi32_epi8(high));
    }
    [low, high]
}

/// Of each vector the sum of its lanes, or the largest one: that of the nth in lane `nth`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn across<const SUM: bool>(vectors: [__m512i; AT_ONCE]) -> __m512i {
    // Within quarters of a vector first: pairs of vectors, then pairs of pairs.
    let mut fours = [_mm512_setzero_si512(); AT_ONCE / 4];
    for (four, vectors) in fours.iter_mut().zip(vectors.as_chunks::<4>().0) {
        let [a, b, c, d] = *vectors;
        let ab = both::<SUM>(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let cd = both::<SUM>(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
        *four = both::<SUM>(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    }
    // Then quarters onto quarters: even ones onto odd ones, twice.
    let [a, b, c, d] = fours;
    quarters::<SUM>(quarters::<SUM>(a, b), quarters::<SUM>(c, d))
}

/// The even quarters of both vectors with the odd ones.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn quarters<const SUM: bool>(a: __m512i, b: __m512i) -> __m512i {
    both::<SUM>(_mm512_shuffle_i32x4::<0b10_00_10_00>(a, b), _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b))
}

/// Lane by lane the sum, or the larger one.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn both<const SUM: bool>(a: __m512i, b: __m512i) -> __m512i {
    if SUM { _mm512_add_epi32(a, b) } else { _mm512_max_epu32(a, b) }
}

/// `d` and `m` of sixteen rows for one half block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn scale_and_minimum<K: Kind>(header: &[u8], scales: &[u8], half: usize) -> (__m512, __m512) {
    debug_assert!(header.len() == K::HEADER_BYTES && scales.len() == K::SCALE_BYTES);
    let nothing = _mm512_setzero_ps();
    // SAFETY: the header holds 32 bytes, or 64 where a minimum or an f32 is read.
    let halves =
        |at: usize| unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(header.as_ptr().add(at).cast::<__m256i>())) };
    // SAFETY: each half has sixteen bytes of scales, and sixteen of minimums where there are any.
    let sixteen = |at: usize| unsafe { _mm_loadu_si128(scales.as_ptr().add(at).cast::<__m128i>()) };
    // SAFETY: where the scales are f32 the header holds sixteen.
    let single = || unsafe { _mm512_loadu_ps(header.as_ptr().cast::<f32>()) };
    let at = half * (K::SCALE_BYTES / K::HALVES);
    match K::SCALES {
        Scales::Half => (halves(0), nothing),
        Scales::HalfMinimum => (halves(0), halves(32)),
        Scales::Single => (single(), nothing),
        Scales::Sub => {
            (_mm512_mul_ps(halves(0), _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(sixteen(at)))), nothing)
        }
        Scales::SubMinimum => {
            let scale = _mm512_mul_ps(halves(0), _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(sixteen(at))));
            let minimum =
                _mm512_mul_ps(halves(32), _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(sixteen(at + ROWS))));
            (scale, negated(minimum))
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn negated(value: __m512) -> __m512 {
    let sign = _mm512_set1_epi32(i32::MIN);
    _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(value), sign))
}
