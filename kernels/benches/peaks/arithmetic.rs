//! Arithmetic on registers alone: chains long enough to hide an instruction's latency, on operands that the compiler cannot
//! foresee. A multiplication and an addition are two operations.

use std::hint::black_box;

/// Rounds of one run, so that starting it does not count.
const ROUNDS: u64 = 4_096;
/// Independent chains.
const CHAINS: usize = 8;

/// Something to be measured.
pub struct Measure {
    pub name: &'static str,
    /// Of one run on one thread.
    pub operations: u64,
    /// Runs so many times.
    pub run: fn(u64),
}

/// All that this machine can do.
pub fn measures() -> Vec<Measure> {
    let mut found = vec![
        Measure { name: "f32 multiply-add, plain", operations: ROUNDS * 64 * 2, run: plain_floats },
        Measure { name: "int8 dot products, plain", operations: ROUNDS * 64 * 2, run: plain_bytes },
    ];
    #[cfg(target_arch = "x86_64")]
    x86::add_measures(&mut found);
    found
}

/// What the build's baseline gives: NEON on aarch64, SSE2 on x86-64.
fn plain_floats(times: u64) {
    let factor = black_box([0.5f32; 64]);
    let mut sums = [1f32; 64];
    for _ in 0..times * ROUNDS {
        for (sum, factor) in sums.iter_mut().zip(&factor) {
            // A fused one that is not an instruction would be a call.
            *sum = if cfg!(target_arch = "aarch64") {
                sum.mul_add(*factor, *factor)
            } else {
                *sum * *factor + *factor
            };
        }
    }
    black_box(sums);
}

fn plain_bytes(times: u64) {
    let (left, right) = ([3i8; 4_096], [5i8; 4_096]);
    let mut sum = 0i32;
    for _ in 0..times * (ROUNDS / 64) {
        let (left, right) = (black_box(&left), black_box(&right));
        let products = left.iter().zip(right).map(|(&left, &right)| i32::from(left) * i32::from(right));
        sum = sum.wrapping_add(products.sum());
    }
    black_box(sum);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::asm;
    use std::arch::x86_64::{
        __m256, __m256i, __m512, __m512i, _mm256_fmadd_ps, _mm256_set1_epi8, _mm256_set1_epi16,
        _mm256_set1_ps, _mm256_setzero_si256, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_set1_epi8,
        _mm512_set1_ps, _mm512_setzero_si512,
    };
    use std::hint::black_box;

    use super::{CHAINS, Measure, ROUNDS};
    use crate::amx;

    /// Those of instruction sets beyond the baseline.
    pub fn add_measures(found: &mut Vec<Measure>) {
        let round = ROUNDS * CHAINS as u64;
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            found.push(Measure {
                name: "f32 multiply-add, AVX2",
                operations: round * 8 * 2,
                // SAFETY: pushed only where the machine has the instructions.
                run: |times| unsafe { floats_avx2(times) },
            });
            found.push(Measure {
                name: "int8 dot products, AVX2",
                operations: round * 32 * 2,
                // SAFETY: pushed only where the machine has the instructions.
                run: |times| unsafe { bytes_avx2(times) },
            });
            found.push(Measure {
                name: "int8 by 4-bit dot products, AVX2",
                operations: round * 32 * 2,
                // SAFETY: pushed only where the machine has the instructions.
                run: |times| unsafe { nibbles_avx2(times) },
            });
        }
        if is_x86_feature_detected!("avx512f") {
            found.push(Measure {
                name: "f32 multiply-add, AVX-512",
                operations: round * 16 * 2,
                // SAFETY: pushed only where the machine has the instructions.
                run: |times| unsafe { floats_avx512(times) },
            });
        }
        if is_x86_feature_detected!("avx512vnni") {
            found.push(Measure {
                name: "int8 dot products, AVX-512 VNNI",
                operations: round * 64 * 2,
                // SAFETY: pushed only where the machine has the instructions.
                run: |times| unsafe { bytes_avx512(times) },
            });
        }
        if amx::is_available() {
            found.push(Measure {
                name: "int8 dot products, AMX",
                operations: ROUNDS * amx::OPERATIONS,
                // SAFETY: pushed only where the machine has the instructions.
                run: |times| unsafe { amx::run(times * ROUNDS) },
            });
        }
    }

    #[target_feature(enable = "avx2,fma")]
    fn floats_avx2(times: u64) {
        let factor = black_box(_mm256_set1_ps(0.5));
        let mut sums: [__m256; CHAINS] = [factor; CHAINS];
        for _ in 0..times * ROUNDS {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, factor, factor);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx512f")]
    fn floats_avx512(times: u64) {
        let factor = black_box(_mm512_set1_ps(0.5));
        let mut sums: [__m512; CHAINS] = [factor; CHAINS];
        for _ in 0..times * ROUNDS {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, factor, factor);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    fn bytes_avx512(times: u64) {
        let (left, right) = black_box((_mm512_set1_epi8(3), _mm512_set1_epi8(5)));
        let mut sums: [__m512i; CHAINS] = [_mm512_setzero_si512(); CHAINS];
        for _ in 0..times * ROUNDS {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, left, right);
            }
        }
        black_box(sums);
    }

    /// Bytes to 16-bit pairs, pairs to 32 bits, added: three instructions for 32 products.
    #[target_feature(enable = "avx2")]
    fn bytes_avx2(times: u64) {
        let (left, right) = (_mm256_set1_epi8(3), _mm256_set1_epi8(5));
        let ones = _mm256_set1_epi16(1);
        let mut sums: [__m256i; CHAINS] = [_mm256_setzero_si256(); CHAINS];
        for _ in 0..times * ROUNDS {
            for sum in &mut sums {
                // SAFETY: registers only. In assembly, because the product of the same operands would be taken out of
                // the loop.
                unsafe {
                    asm!(
                        "vpmaddubsw {product}, {left}, {right}",
                        "vpmaddwd {product}, {product}, {ones}",
                        "vpaddd {sum}, {sum}, {product}",
                        product = out(ymm_reg) _, left = in(ymm_reg) left, right = in(ymm_reg) right,
                        ones = in(ymm_reg) ones, sum = inout(ymm_reg) *sum,
                        options(nomem, nostack, preserves_flags),
                    );
                }
            }
        }
        black_box(sums);
    }

    /// As 4-bit codes allow: eight products are added in 16 bits before they are widened once.
    #[target_feature(enable = "avx2")]
    fn nibbles_avx2(times: u64) {
        let (left, right) = (_mm256_set1_epi8(3), _mm256_set1_epi8(5));
        let ones = _mm256_set1_epi16(1);
        let mut sums: [__m256i; CHAINS] = [_mm256_setzero_si256(); CHAINS];
        let mut wide = _mm256_setzero_si256();
        for _ in 0..times * ROUNDS {
            for sum in &mut sums {
                // SAFETY: as above.
                unsafe {
                    asm!(
                        "vpmaddubsw {product}, {left}, {right}",
                        "vpaddw {sum}, {sum}, {product}",
                        product = out(ymm_reg) _, left = in(ymm_reg) left, right = in(ymm_reg) right,
                        sum = inout(ymm_reg) *sum,
                        options(nomem, nostack, preserves_flags),
                    );
                }
            }
            // A block's eight steps end with one widening.
            // SAFETY: as above.
            unsafe {
                asm!(
                    "vpmaddwd {product}, {sum}, {ones}",
                    "vpaddd {wide}, {wide}, {product}",
                    product = out(ymm_reg) _, sum = in(ymm_reg) sums[0], ones = in(ymm_reg) ones,
                    wide = inout(ymm_reg) wide,
                    options(nomem, nostack, preserves_flags),
                );
            }
        }
        black_box((sums, wide));
    }
}
