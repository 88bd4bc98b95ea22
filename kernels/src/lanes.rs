//! Sixteen f32 lanes as one value, for kernels that are written once and compiled for each SIMD level.
//!
//! The one thing to know: every implementation does the same IEEE operations lane by lane and the same tree
//! in [`Lanes::sum`], so a kernel over `Lanes` has the same bits at every level. A type of a level may be
//! used only inside [`run`], which enters the level's instruction set.

use half::{bf16, f16};

use crate::Level;
use crate::maths::{LANES, sum_lanes};

/// Sixteen lanes of f32.
pub(crate) trait Lanes: Copy {
    /// Whether there are 32 registers of 16 lanes, rather than 16 registers of 8.
    const WIDE: bool;

    fn splat(value: f32) -> Self;
    /// The first sixteen values.
    fn load(values: &[f32]) -> Self;
    /// The first sixteen values, widened.
    fn load_f16(values: &[f16]) -> Self;
    /// The first sixteen values, widened.
    fn load_bf16(values: &[bf16]) -> Self;
    /// The first sixteen values, widened.
    fn load_i8(values: &[i8]) -> Self;
    /// To the first sixteen places.
    fn store(self, values: &mut [f32]);
    /// `self · factor + addend`, rounded once.
    fn mul_add(self, factor: Self, addend: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    /// `self · 2^n`, where `n` is what the lowest bits of `shifted` say; the result must be a normal number.
    fn add_exponent(self, shifted: Self) -> Self;
    /// `self`, but 0 where `x` is less than the bound.
    fn zero_where_less(self, x: Self, bound: f32) -> Self;
    /// The greater of each two lanes; `other` where one is NaN.
    fn max(self, other: Self) -> Self;
    /// Sum of the lanes, halves onto halves.
    fn sum(self) -> f32;
    /// Lanes of both by turns: of the first halves, then of the second.
    fn interleave(self, other: Self) -> (Self, Self);
}

/// Lane `c` of row `r` becomes lane `r` of row `c`.
#[inline(always)]
pub(crate) fn transpose<L: Lanes>(square: &mut [L; LANES]) {
    // Number and lane of a cell are eight bits; each round rotates them by one.
    for _ in 0..LANES.ilog2() {
        let rows = *square;
        for row in 0..LANES / 2 {
            (square[2 * row], square[2 * row + 1]) = rows[row].interleave(rows[row + LANES / 2]);
        }
    }
}

/// A kernel over lanes; `run` must be `#[inline(always)]`.
pub(crate) trait Kernel {
    fn run<L: Lanes>(self);
}

/// Runs a kernel at a level that this machine supports.
pub(crate) fn run(level: Level, kernel: impl Kernel) {
    match level {
        // SAFETY: levels come from a `Cpu`, which holds only supported ones.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 | Level::Amx => unsafe { x86::run_avx512(kernel) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { x86::run_avx2(kernel) },
        _ => kernel.run::<[f32; LANES]>(),
    }
}

impl Lanes for [f32; LANES] {
    const WIDE: bool = false;

    #[inline(always)]
    fn splat(value: f32) -> Self {
        [value; LANES]
    }

    #[inline(always)]
    fn load(values: &[f32]) -> Self {
        std::array::from_fn(|lane| values[lane])
    }

    #[inline(always)]
    fn load_f16(values: &[f16]) -> Self {
        std::array::from_fn(|lane| values[lane].to_f32())
    }

    #[inline(always)]
    fn load_bf16(values: &[bf16]) -> Self {
        std::array::from_fn(|lane| values[lane].to_f32())
    }

    #[inline(always)]
    fn load_i8(values: &[i8]) -> Self {
        std::array::from_fn(|lane| f32::from(values[lane]))
    }

    #[inline(always)]
    fn store(self, values: &mut [f32]) {
        values[..LANES].copy_from_slice(&self);
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        std::array::from_fn(|lane| self[lane].mul_add(factor[lane], addend[lane]))
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        std::array::from_fn(|lane| self[lane] * other[lane])
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        std::array::from_fn(|lane| self[lane] + other[lane])
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        std::array::from_fn(|lane| self[lane] - other[lane])
    }

    #[inline(always)]
    fn add_exponent(self, shifted: Self) -> Self {
        std::array::from_fn(|lane| {
            f32::from_bits(self[lane].to_bits().wrapping_add(shifted[lane].to_bits() << 23))
        })
    }

    #[inline(always)]
    fn zero_where_less(self, x: Self, bound: f32) -> Self {
        std::array::from_fn(|lane| if x[lane] < bound { 0.0 } else { self[lane] })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        std::array::from_fn(|lane| if self[lane] > other[lane] { self[lane] } else { other[lane] })
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        sum_lanes(self)
    }

    #[inline(always)]
    fn interleave(self, other: Self) -> (Self, Self) {
        let half = |first: usize| {
            std::array::from_fn(|lane| {
                let from = if lane % 2 == 0 { self } else { other };
                from[first + lane / 2]
            })
        };
        (half(0), half(LANES / 2))
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    //! The lanes of AVX2 and AVX-512. Each method is inlined into a function that has the instructions.

    use std::arch::x86_64::{
        __m128, __m128i, __m256, __m256i, __m512, _CMP_LT_OQ, _CMP_NLT_UQ, _mm_add_ps, _mm_add_ss,
        _mm_cvtss_f32, _mm_loadu_si128, _mm_movehl_ps, _mm_shuffle_ps, _mm_unpackhi_epi64, _mm256_add_epi32,
        _mm256_add_ps, _mm256_andnot_ps, _mm256_castps_si256, _mm256_castps256_ps128, _mm256_castsi256_ps,
        _mm256_cmp_ps, _mm256_cvtepi8_epi32, _mm256_cvtepi32_ps, _mm256_cvtepu16_epi32, _mm256_cvtph_ps,
        _mm256_extractf128_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_max_ps,
        _mm256_mul_ps, _mm256_permute2f128_ps, _mm256_set1_ps, _mm256_slli_epi32, _mm256_storeu_ps,
        _mm256_sub_ps, _mm256_unpackhi_ps, _mm256_unpacklo_ps, _mm512_add_epi32, _mm512_add_ps,
        _mm512_castps_si512, _mm512_castps512_ps256, _mm512_castsi512_ps, _mm512_cmp_ps_mask,
        _mm512_cvtepi8_epi32, _mm512_cvtepi32_ps, _mm512_cvtepu16_epi32, _mm512_cvtph_ps,
        _mm512_extractf32x8_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_maskz_mov_ps, _mm512_max_ps,
        _mm512_mul_ps, _mm512_permutex2var_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setr_epi32,
        _mm512_slli_epi32, _mm512_storeu_ps, _mm512_sub_ps,
    };

    use half::{bf16, f16};

    use super::{Kernel, Lanes};
    use crate::maths::LANES;

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn run_avx2(kernel: impl Kernel) {
        kernel.run::<Avx2>();
    }

    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    pub(super) fn run_avx512(kernel: impl Kernel) {
        kernel.run::<Avx512>();
    }

    #[derive(Clone, Copy)]
    pub(super) struct Avx2(__m256, __m256);

    #[derive(Clone, Copy)]
    pub(super) struct Avx512(__m512);

    impl Lanes for Avx2 {
        const WIDE: bool = false;

        #[inline(always)]
        fn splat(value: f32) -> Self {
            // SAFETY: inside `run_avx2`.
            unsafe { Self(_mm256_set1_ps(value), _mm256_set1_ps(value)) }
        }

        #[inline(always)]
        fn load(values: &[f32]) -> Self {
            let from = values[..LANES].as_ptr();
            // SAFETY: inside `run_avx2`; sixteen values are there.
            unsafe { Self(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
        }

        #[inline(always)]
        fn load_f16(values: &[f16]) -> Self {
            let from = values[..LANES].as_ptr().cast::<__m128i>();
            // SAFETY: inside `run_avx2`; sixteen values of two bytes are there.
            unsafe {
                Self(_mm256_cvtph_ps(_mm_loadu_si128(from)), _mm256_cvtph_ps(_mm_loadu_si128(from.add(1))))
            }
        }

        #[inline(always)]
        fn load_bf16(values: &[bf16]) -> Self {
            let from = values[..LANES].as_ptr().cast::<__m128i>();
            // SAFETY: inside `run_avx2`; sixteen values of two bytes are there.
            unsafe { Self(widen_bf16(_mm_loadu_si128(from)), widen_bf16(_mm_loadu_si128(from.add(1)))) }
        }

        #[inline(always)]
        fn load_i8(values: &[i8]) -> Self {
            let from = values[..LANES].as_ptr().cast::<__m128i>();
            // SAFETY: inside `run_avx2`; sixteen bytes are there.
            unsafe {
                let codes = _mm_loadu_si128(from);
                let widened = |codes| _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes));
                Self(widened(codes), widened(_mm_unpackhi_epi64(codes, codes)))
            }
        }

        #[inline(always)]
        fn store(self, values: &mut [f32]) {
            let to = values[..LANES].as_mut_ptr();
            // SAFETY: inside `run_avx2`; there is room for sixteen.
            unsafe {
                _mm256_storeu_ps(to, self.0);
                _mm256_storeu_ps(to.add(8), self.1);
            }
        }

        #[inline(always)]
        fn mul_add(self, factor: Self, addend: Self) -> Self {
            // SAFETY: inside `run_avx2`.
            unsafe {
                Self(_mm256_fmadd_ps(self.0, factor.0, addend.0), _mm256_fmadd_ps(self.1, factor.1, addend.1))
            }
        }

        #[inline(always)]
        fn mul(self, other: Self) -> Self {
            // SAFETY: inside `run_avx2`.
            unsafe { Self(_mm256_mul_ps(self.0, other.0), _mm256_mul_ps(self.1, other.1)) }
        }

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            // SAFETY: inside `run_avx2`.
            unsafe { Self(_mm256_add_ps(self.0, other.0), _mm256_add_ps(self.1, other.1)) }
        }

        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            // SAFETY: inside `run_avx2`.
            unsafe { Self(_mm256_sub_ps(self.0, other.0), _mm256_sub_ps(self.1, other.1)) }
        }

        #[inline(always)]
        fn add_exponent(self, shifted: Self) -> Self {
            // SAFETY: inside `run_avx2`.
            unsafe { Self(with_exponent(self.0, shifted.0), with_exponent(self.1, shifted.1)) }
        }

        #[inline(always)]
        fn zero_where_less(self, x: Self, bound: f32) -> Self {
            // SAFETY: inside `run_avx2`.
            unsafe {
                let bound = _mm256_set1_ps(bound);
                let less = |x: __m256| _mm256_cmp_ps::<_CMP_LT_OQ>(x, bound);
                Self(_mm256_andnot_ps(less(x.0), self.0), _mm256_andnot_ps(less(x.1), self.1))
            }
        }

        #[inline(always)]
        fn max(self, other: Self) -> Self {
            // SAFETY: inside `run_avx2`.
            unsafe { Self(_mm256_max_ps(self.0, other.0), _mm256_max_ps(self.1, other.1)) }
        }

        #[inline(always)]
        fn sum(self) -> f32 {
            // SAFETY: inside `run_avx2`.
            unsafe { sum_of_eight(_mm256_add_ps(self.0, self.1)) }
        }

        #[inline(always)]
        fn interleave(self, other: Self) -> (Self, Self) {
            // SAFETY: inside `run_avx2`.
            unsafe { (interleave_eight(self.0, other.0), interleave_eight(self.1, other.1)) }
        }
    }

    impl Lanes for Avx512 {
        const WIDE: bool = true;

        #[inline(always)]
        fn splat(value: f32) -> Self {
            // SAFETY: inside `run_avx512`.
            unsafe { Self(_mm512_set1_ps(value)) }
        }

        #[inline(always)]
        fn load(values: &[f32]) -> Self {
            // SAFETY: inside `run_avx512`; sixteen values are there.
            unsafe { Self(_mm512_loadu_ps(values[..LANES].as_ptr())) }
        }

        #[inline(always)]
        fn load_f16(values: &[f16]) -> Self {
            // SAFETY: inside `run_avx512`; sixteen values of two bytes are there.
            unsafe { Self(_mm512_cvtph_ps(_mm256_loadu_si256(values[..LANES].as_ptr().cast::<__m256i>()))) }
        }

        #[inline(always)]
        fn load_bf16(values: &[bf16]) -> Self {
            // SAFETY: inside `run_avx512`; sixteen values of two bytes are there.
            unsafe {
                let halves = _mm256_loadu_si256(values[..LANES].as_ptr().cast::<__m256i>());
                Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves))))
            }
        }

        #[inline(always)]
        fn load_i8(values: &[i8]) -> Self {
            // SAFETY: inside `run_avx512`; sixteen bytes are there.
            unsafe {
                let codes = _mm_loadu_si128(values[..LANES].as_ptr().cast::<__m128i>());
                Self(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes)))
            }
        }

        #[inline(always)]
        fn store(self, values: &mut [f32]) {
            // SAFETY: inside `run_avx512`; there is room for sixteen.
            unsafe { _mm512_storeu_ps(values[..LANES].as_mut_ptr(), self.0) };
        }

        #[inline(always)]
        fn mul_add(self, factor: Self, addend: Self) -> Self {
            // SAFETY: inside `run_avx512`.
            unsafe { Self(_mm512_fmadd_ps(self.0, factor.0, addend.0)) }
        }

        #[inline(always)]
        fn mul(self, other: Self) -> Self {
            // SAFETY: inside `run_avx512`.
            unsafe { Self(_mm512_mul_ps(self.0, other.0)) }
        }

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            // SAFETY: inside `run_avx512`.
            unsafe { Self(_mm512_add_ps(self.0, other.0)) }
        }

        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            // SAFETY: inside `run_avx512`.
            unsafe { Self(_mm512_sub_ps(self.0, other.0)) }
        }

        #[inline(always)]
        fn add_exponent(self, shifted: Self) -> Self {
            // SAFETY: inside `run_avx512`.
            unsafe {
                let exponent = _mm512_slli_epi32::<23>(_mm512_castps_si512(shifted.0));
                Self(_mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(self.0), exponent)))
            }
        }

        #[inline(always)]
        fn zero_where_less(self, x: Self, bound: f32) -> Self {
            // SAFETY: inside `run_avx512`.
            unsafe {
                let keeps = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x.0, _mm512_set1_ps(bound));
                Self(_mm512_maskz_mov_ps(keeps, self.0))
            }
        }

        #[inline(always)]
        fn max(self, other: Self) -> Self {
            // SAFETY: inside `run_avx512`.
            unsafe { Self(_mm512_max_ps(self.0, other.0)) }
        }

        #[inline(always)]
        fn sum(self) -> f32 {
            // SAFETY: inside `run_avx512`.
            unsafe {
                sum_of_eight(_mm256_add_ps(
                    _mm512_castps512_ps256(self.0),
                    _mm512_extractf32x8_ps::<1>(self.0),
                ))
            }
        }

        #[inline(always)]
        fn interleave(self, other: Self) -> (Self, Self) {
            // SAFETY: inside `run_avx512`.
            unsafe {
                let first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
                let second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
                (
                    Self(_mm512_permutex2var_ps(self.0, first, other.0)),
                    Self(_mm512_permutex2var_ps(self.0, second, other.0)),
                )
            }
        }
    }

    /// The lowest bits of `shifted` added to the exponents.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn with_exponent(values: __m256, shifted: __m256) -> __m256 {
        let exponent = _mm256_slli_epi32::<23>(_mm256_castps_si256(shifted));
        _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(values), exponent))
    }

    /// Lanes of both by turns.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn interleave_eight(one: __m256, other: __m256) -> Avx2 {
        // Pairs 0, 1, 4, 5 and 2, 3, 6, 7, as the instructions work within halves.
        let (outer, inner) = (_mm256_unpacklo_ps(one, other), _mm256_unpackhi_ps(one, other));
        Avx2(_mm256_permute2f128_ps::<0x20>(outer, inner), _mm256_permute2f128_ps::<0x31>(outer, inner))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn widen_bf16(values: __m128i) -> __m256 {
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(values)))
    }

    /// Adds eight lanes as `maths::sum_lanes` does.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn sum_of_eight(lanes: __m256) -> f32 {
        let four: __m128 = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps::<1>(lanes));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
    }
}
