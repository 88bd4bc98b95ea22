//! Passes over a whole row of logits: its best token, its exponentials, its normaliser.
//!
//! All sums are taken in one fixed order (64 at a time in f32, those in f64), so a row has one result, bit for bit.

/// Logits summed in f32 before f64 takes over.
const CHUNK: usize = 64;
/// Independent lanes of a pass, so that the compiler may use SIMD.
const LANES: usize = 16;

/// The row cannot be sampled from: it holds a NaN or +∞, or nothing but −∞.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotFinite;

/// The largest logit. −∞ alone is allowed among others: models use it for padding of the vocabulary.
pub(super) fn largest(row: &[f32]) -> Result<f32, NotFinite> {
    let mut best = [f32::NEG_INFINITY; LANES];
    let mut nan = [false; LANES];
    let chunks = row.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for lane in 0..LANES {
            best[lane] = if chunk[lane] > best[lane] { chunk[lane] } else { best[lane] };
            nan[lane] |= chunk[lane].is_nan();
        }
    }
    let mut max = f32::NEG_INFINITY;
    for &value in best.iter().chain(rest) {
        max = if value > max { value } else { max };
    }
    let any_nan = nan.iter().any(|&lane| lane) || rest.iter().any(|value| value.is_nan());
    if any_nan || max.is_infinite() { Err(NotFinite) } else { Ok(max) }
}

/// The lowest id that has this logit.
pub(super) fn first_of(row: &[f32], value: f32) -> u32 {
    for (index, chunk) in row.chunks(CHUNK).enumerate() {
        // A whole chunk is compared without a branch; only the right one is searched.
        if chunk.iter().fold(false, |found, &logit| found | (logit == value)) {
            let offset = chunk.iter().position(|&logit| logit == value).unwrap_or(0);
            return (index * CHUNK + offset) as u32;
        }
    }
    0
}

/// `e^x` for `x ≤ 0`, to about 2 units in the last place; 0 below −87. Branch-free, so a loop over it is SIMD, and it
/// does not depend on the platform's maths library.
#[inline]
pub(super) fn exp(x: f32) -> f32 {
    const ROUNDER: f32 = 12_582_912.0; // 1.5 · 2²³: adding it rounds to an integer held in the low bits
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let clamped = if x > -87.0 { x } else { -87.0 };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUNDER;
    let power = shifted - ROUNDER;
    let r = clamped - power * LN2_HIGH - power * LN2_LOW;
    // Cephes' polynomial for expf on |r| ≤ ln 2 / 2.
    let mut p = 1.987_569_2e-4_f32;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let value = p * r * r + r + 1.0;
    let scale = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    if x > -87.0 { value * scale } else { 0.0 }
}

/// Writes `e^((logit − max) · inverse_temperature)` of each logit into `weights`; returns their sum.
pub(super) fn exponentials(row: &[f32], max: f32, inverse_temperature: f32, weights: &mut Vec<f32>) -> f64 {
    weights.clear();
    weights.extend(row.iter().map(|&logit| exp((logit - max) * inverse_temperature)));
    sum(weights)
}

/// The sum in the fixed order.
pub(super) fn sum(weights: &[f32]) -> f64 {
    weights.chunks(CHUNK).map(|chunk| f64::from(chunk_sum(chunk))).sum()
}

/// `ln Σ e^logit`.
pub(super) fn log_sum_exp(row: &[f32], max: f32) -> f64 {
    let mut scratch = [0.0; CHUNK];
    let mut total = 0.0;
    for chunk in row.chunks(CHUNK) {
        let weights = &mut scratch[..chunk.len()];
        for (weight, &logit) in weights.iter_mut().zip(chunk) {
            *weight = exp(logit - max);
        }
        total += f64::from(chunk_sum(weights));
    }
    f64::from(max) + total.ln()
}

/// Index of the weight under which `target`, in `[0, sum)`, falls; the last weight above 0 if rounding goes past the end.
pub(super) fn locate(weights: &[f32], target: f64) -> usize {
    let mut before = 0.0;
    for (index, chunk) in weights.chunks(CHUNK).enumerate() {
        let mass = f64::from(chunk_sum(chunk));
        if before + mass > target {
            let mut passed = before;
            for (offset, &weight) in chunk.iter().enumerate() {
                passed += f64::from(weight);
                if passed > target && weight > 0.0 {
                    return index * CHUNK + offset;
                }
            }
            // The chunk's f32 sum was a little larger than its parts: the last of them is meant.
            if let Some(offset) = chunk.iter().rposition(|&weight| weight > 0.0) {
                return index * CHUNK + offset;
            }
        }
        before += mass;
    }
    weights.iter().rposition(|&weight| weight > 0.0).unwrap_or(0)
}

fn chunk_sum(chunk: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    for part in chunk.chunks(LANES) {
        for (lane, &value) in lanes.iter_mut().zip(part) {
            *lane += value;
        }
    }
    lanes.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_to_the_libraries() {
        let worst = (0..90_000)
            .map(|step| -(step as f32) / 1_000.0)
            .filter(|&x| x > -86.9)
            .map(|x| ((f64::from(exp(x)) - f64::from(x).exp()) / f64::from(x).exp()).abs())
            .fold(0.0, f64::max);
        assert!(worst < 3e-7, "worst relative error {worst}");
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-1e30), 0.0);
    }

    #[test]
    fn the_largest_is_found_and_bad_rows_are_refused() {
        let mut row: Vec<f32> = (0..1_003).map(|i| ((i * 37) % 501) as f32).collect();
        assert_eq!(largest(&row), Ok(500.0));
        assert_eq!(first_of(&row, 500.0) as usize, row.iter().position(|&x| x == 500.0).unwrap());
        row[5] = f32::NEG_INFINITY;
        assert_eq!(largest(&row), Ok(500.0));
        for bad in [f32::NAN, f32::INFINITY] {
            for place in [0, 77, 1_002] {
                let mut row = row.clone();
                row[place] = bad;
                assert_eq!(largest(&row), Err(NotFinite));
            }
        }
        assert_eq!(largest(&[f32::NEG_INFINITY; 40]), Err(NotFinite));
    }

    #[test]
    fn every_target_falls_on_a_weight_above_zero() {
        let weights: Vec<f32> = (0..1_000).map(|i| if i % 3 == 0 { 0.0 } else { 1.0 / i as f32 }).collect();
        let total = sum(&weights);
        let mut last = 0;
        for step in 0..=10_000 {
            let index = locate(&weights, total * f64::from(step) / 10_000.0);
            assert!(weights[index] > 0.0 && index >= last);
            last = index;
        }
        assert_eq!(last, 998);
    }

    #[test]
    fn log_sum_exp_of_equal_logits_is_the_log_of_their_number() {
        let row = [2.5_f32; 1_000];
        assert!((log_sum_exp(&row, 2.5) - (2.5 + 1_000.0_f64.ln())).abs() < 1e-6);
    }
}
