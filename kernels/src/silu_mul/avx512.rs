//! The gate of sixteen elements: the same operations as in [`super::gate_values`] and [`crate::maths::exp`], in vectors.

use std::arch::x86_64::{
    __m512, _CMP_LT_OQ, _mm512_add_epi32, _mm512_add_ps, _mm512_castps_si512, _mm512_castsi512_ps,
    _mm512_cmp_ps_mask, _mm512_div_ps, _mm512_mask_mov_ps, _mm512_max_ps, _mm512_min_ps, _mm512_mul_ps,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_slli_epi32, _mm512_srai_epi32,
    _mm512_sub_epi32, _mm512_sub_ps, _mm512_xor_si512,
};

use crate::maths::{EXP_COEFFICIENTS, EXP_LEAST, LN2_HIGH, LN2_LOW, ROUND};

/// `gate / (1 + e^-gate) · up`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(crate) fn gate_of_sixteen(gate: __m512, up: __m512) -> __m512 {
    let sign = _mm512_set1_epi32(i32::MIN);
    let negated = _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(gate), sign));
    let below = _mm512_add_ps(_mm512_set1_ps(1.0), exp(negated));
    _mm512_mul_ps(_mm512_div_ps(gate, below), up)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn exp(x: __m512) -> __m512 {
    let set = |value: f32| _mm512_set1_ps(value);
    // Of a NaN and a number these two return their second operand.
    let clamped = _mm512_max_ps(set(-88.0), _mm512_min_ps(set(89.0), x));
    let shifted = _mm512_add_ps(_mm512_mul_ps(clamped, set(std::f32::consts::LOG2_E)), set(ROUND));
    let n = _mm512_sub_ps(shifted, set(ROUND));
    let r = _mm512_sub_ps(clamped, _mm512_mul_ps(n, set(LN2_HIGH)));
    let r = _mm512_sub_ps(r, _mm512_mul_ps(n, set(LN2_LOW)));
    let [first, others @ ..] = EXP_COEFFICIENTS;
    let mut power = set(first);
    for coefficient in others {
        power = _mm512_add_ps(_mm512_mul_ps(power, r), set(coefficient));
    }
    let bits = _mm512_sub_epi32(_mm512_castps_si512(shifted), _mm512_castps_si512(set(ROUND)));
    let half = _mm512_srai_epi32::<1>(bits);
    let factor = |exponent| {
        _mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_add_epi32(exponent, _mm512_set1_epi32(127))))
    };
    let value = _mm512_mul_ps(_mm512_mul_ps(power, factor(half)), factor(_mm512_sub_epi32(bits, half)));
    _mm512_mask_mov_ps(value, _mm512_cmp_ps_mask::<_CMP_LT_OQ>(x, set(EXP_LEAST)), _mm512_setzero_ps())
}

#[cfg(test)]
mod tests {
    use std::arch::x86_64::{_mm512_loadu_ps, _mm512_storeu_ps};
    use std::mem::MaybeUninit;

    use super::gate_of_sixteen;
    use crate::Level;
    use crate::silu_mul::gate_values;

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    fn gates(gate: &[f32; 16], up: &[f32; 16]) -> [f32; 16] {
        let mut values = [0f32; 16];
        // SAFETY: sixteen values each.
        unsafe {
            let gated = gate_of_sixteen(_mm512_loadu_ps(gate.as_ptr()), _mm512_loadu_ps(up.as_ptr()));
            _mm512_storeu_ps(values.as_mut_ptr(), gated);
        }
        values
    }

    #[test]
    fn vectors_gate_as_plain_numbers_do() {
        if !Level::Avx512.is_supported() {
            return;
        }
        let odd = [
            f32::NAN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            0.0,
            -0.0,
            87.4,
            -87.4,
            88.8,
            -89.5,
            1e-40,
            3e38,
            -3e38,
        ];
        let many = (0..200_000).map(|step| (step as f32 - 100_000.0) * 9.3e-4);
        let all: Vec<f32> = odd.into_iter().chain(many).collect();
        for (nth, gate) in all.as_chunks::<16>().0.iter().enumerate() {
            let up: [f32; 16] = std::array::from_fn(|lane| (nth + lane) as f32 * 0.37 - 5.0);
            let mut plain = [MaybeUninit::new(0f32); 16];
            gate_values(gate, &up, &mut plain);
            // SAFETY: the level is supported.
            let found = unsafe { gates(gate, &up) };
            for (found, plain) in found.into_iter().zip(plain) {
                // SAFETY: it was made with a value.
                let plain = unsafe { plain.assume_init() };
                assert!(found.to_bits() == plain.to_bits() || found.is_nan() && plain.is_nan(), "{gate:?}");
            }
        }
    }
}
