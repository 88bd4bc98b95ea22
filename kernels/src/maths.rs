//! Elementary functions and sums with one fixed order of operations, written so that compilers vectorise
//! them.
//!
//! Not for accuracy beyond f32. The one thing to know: no result here may depend on the SIMD level, so sums
//! have sixteen fixed lanes and a fixed tree, and `exp` is a polynomial of our own rather than the
//! platform's.

/// Lanes of every long sum.
pub(crate) const LANES: usize = 16;

/// Adds sixteen lanes as a balanced tree: halves onto halves.
#[inline(always)]
pub(crate) fn sum_lanes(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// The greatest of sixteen lanes, halves against halves; NaN only if the lanes that win are.
#[inline(always)]
pub(crate) fn largest_lane(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] = if lanes[lane] > lanes[lane + width] { lanes[lane] } else { lanes[lane + width] };
        }
        width /= 2;
    }
    lanes[0]
}

/// Sum of `term(x)` in sixteen lanes; element `i` goes to lane `i % 16`.
#[inline(always)]
pub(crate) fn sum_of(values: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let mut chunks = values.chunks_exact(LANES);
    for chunk in &mut chunks {
        for lane in 0..LANES {
            lanes[lane] += term(chunk[lane]);
        }
    }
    for (lane, value) in chunks.remainder().iter().enumerate() {
        lanes[lane] += term(*value);
    }
    sum_lanes(lanes)
}

/// 355/512, the greater part of ln 2: exact products with any exponent.
pub(crate) const LN2_HIGH: f32 = 0.693_359_4;
/// What is left of ln 2.
pub(crate) const LN2_LOW: f32 = -2.121_944_4e-4;
/// 1.5 · 2^23: adding it rounds to the nearest integer.
pub(crate) const ROUND: f32 = 12_582_912.0;
/// Of `e^r`, the highest power's first.
pub(crate) const EXP_COEFFICIENTS: [f32; 8] =
    [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
/// Below it [`exp`] is 0.
pub(crate) const EXP_LEAST: f32 = -87.336_54;

/// `e^x` within about two units in the last place; 0 below -87.3, infinity above 88.7, NaN stays NaN.
///
/// `e^x = 2^n · e^r` with `|r| ≤ ln 2 / 2` (Cody and Waite 1980, ch. 6); `e^r` by its Taylor series to the
/// seventh power.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let clamped = if x > 89.0 { 89.0 } else { x };
    let clamped = if clamped < -88.0 { -88.0 } else { clamped };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (clamped - n * LN2_HIGH) - n * LN2_LOW;
    let [first, others @ ..] = EXP_COEFFICIENTS;
    let mut power = first;
    for coefficient in others {
        power = power * r + coefficient;
    }
    // Two factors, so that n = 128 does not overflow before the product does.
    let bits = shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let half = bits >> 1;
    let first = f32::from_bits((half.wrapping_add(127) << 23) as u32);
    let second = f32::from_bits(((bits - half).wrapping_add(127) << 23) as u32);
    let value = power * first * second;
    if x < EXP_LEAST { 0.0 } else { value }
}

#[cfg(test)]
mod tests {
    use super::{exp, sum_of};

    #[test]
    fn exp_is_close_everywhere() {
        for step in -87_000..88_700 {
            let x = step as f32 / 1000.0;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) - expected).abs() / expected;
            assert!(error < 4e-7, "exp({x}): relative error {error}");
        }
    }

    #[test]
    fn exp_keeps_its_limits() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-1000.0), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(1000.0), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn sums_count_every_element() {
        for length in 0..70 {
            let values: Vec<f32> = (1..=length).map(|value| value as f32).collect();
            assert_eq!(sum_of(&values, |value| value), (length * (length + 1) / 2) as f32);
        }
    }
}
