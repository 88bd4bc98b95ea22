//! The filters: which tokens stay, without sorting the vocabulary.
//!
//! Among equals the lower id is better, so a set is the same however it was found. The draw goes over what is left in
//! the order of ids.

use std::cmp::Ordering;

use crate::engine::sampler::softmax;

/// A token that may be chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    /// Its id.
    pub(super) id: u32,
    /// `e^((logit − max) / temperature)`; in a top-k selection, the logit.
    pub(super) weight: f32,
}

/// So many candidates are sorted rather than counted into buckets.
const SORTED_AT_ONCE: usize = 256;
/// High bits of a key that name its bucket: a float's sign, exponent and 4 bits of its mantissa.
const BUCKET_BITS: u32 = 13;

fn better_first(a: &Candidate, b: &Candidate) -> Ordering {
    b.weight.total_cmp(&a.weight).then(a.id.cmp(&b.id))
}

/// Puts the `count` best logits into `best`, best first. −∞ is never among them.
pub(super) fn best_logits(row: &[f32], count: usize, best: &mut Vec<Candidate>) {
    best.clear();
    if count == 0 {
        return;
    }
    let room = count * 2 + 64;
    let mut threshold = f32::NEG_INFINITY;
    for (index, chunk) in row.chunks(64).enumerate() {
        if !chunk.iter().fold(false, |any, &logit| any | (logit > threshold)) {
            continue;
        }
        for (offset, &logit) in chunk.iter().enumerate() {
            // An equal logit further on has a higher id and loses.
            if logit > threshold {
                best.push(Candidate { id: (index * 64 + offset) as u32, weight: logit });
            }
        }
        if best.len() >= room {
            best.select_nth_unstable_by(count - 1, better_first);
            best.truncate(count);
            threshold = best[count - 1].weight;
        }
    }
    if best.len() > count {
        best.select_nth_unstable_by(count - 1, better_first);
        best.truncate(count);
    }
    best.sort_unstable_by(better_first);
}

/// Keeps the fewest best candidates whose weights reach `share` of `total`; at least one.
pub(super) fn nucleus(candidates: &mut Vec<Candidate>, total: f64, share: f64) {
    // The bits of numbers that are not negative are ordered as the numbers are.
    keep_mass(candidates, total * share, |candidate| !candidate.weight.to_bits());
}

/// A weight below which no token of a whole vocabulary can be in the nucleus: all lighter ones together weigh less than
/// what the nucleus may leave out.
pub(super) fn nucleus_threshold(total: f64, share: f64, vocab: usize) -> f32 {
    (total * (1.0 - share.max(0.0)) / vocab as f64 * 0.999) as f32
}

/// All tokens of at least this weight (and above 0), by id.
pub(super) fn at_least(weights: &[f32], threshold: f32, found: &mut Vec<Candidate>) {
    found.clear();
    for (index, chunk) in weights.chunks(64).enumerate() {
        if !chunk.iter().fold(false, |any, &weight| any | (weight >= threshold)) {
            continue;
        }
        for (offset, &weight) in chunk.iter().enumerate() {
            if weight >= threshold && weight > 0.0 {
                found.push(Candidate { id: (index * 64 + offset) as u32, weight });
            }
        }
    }
}

/// Locally typical sampling: keeps the fewest candidates, nearest to the mean information first, whose weights reach
/// `share`; at least one. `scaled` gives the logarithm of a token's weight. Source: Meister et al. 2022,
/// <https://arxiv.org/abs/2202.00666>.
pub(super) fn typical(candidates: &mut Vec<Candidate>, share: f64, scaled: impl Fn(u32) -> f32) {
    let total = mass(candidates);
    // Information is ln(total) − scaled; the constant drops out of its distance to the mean.
    let mean = candidates.iter().map(|c| f64::from(c.weight) * f64::from(scaled(c.id))).sum::<f64>() / total;
    let mean = mean as f32;
    keep_mass(candidates, total * share, |candidate| (scaled(candidate.id) - mean).abs().to_bits());
}

/// Drops those less than `ratio` times as probable as the best.
pub(super) fn min_p(candidates: &mut Vec<Candidate>, ratio: f32) {
    let best = candidates.iter().map(|candidate| candidate.weight).fold(0.0, f32::max);
    candidates.retain(|candidate| candidate.weight >= best * ratio.min(1.0));
}

/// The sum of the weights.
pub(super) fn mass(candidates: &[Candidate]) -> f64 {
    candidates.iter().map(|candidate| f64::from(candidate.weight)).sum()
}

/// Turns logits, best first, into weights.
pub(super) fn weigh(candidates: &mut [Candidate], max: f32, inverse_temperature: f32) {
    for candidate in candidates {
        candidate.weight = softmax::exp((candidate.weight - max) * inverse_temperature);
    }
}

/// The candidate on which a number in `[0, 1)` falls, going by id.
pub(super) fn draw(candidates: &mut [Candidate], number: f64) -> Option<u32> {
    candidates.sort_unstable_by_key(|candidate| candidate.id);
    let target = mass(candidates) * number;
    let mut passed = 0.0;
    for candidate in candidates.iter() {
        passed += f64::from(candidate.weight);
        if passed > target {
            return Some(candidate.id);
        }
    }
    candidates.iter().rfind(|candidate| candidate.weight > 0.0).map(|last| last.id)
}

/// Keeps the candidates of the smallest keys until their weights reach `mass`.
///
/// Many candidates are first counted into buckets by the high bits of their keys; only the bucket in which the mass is
/// reached is sorted.
fn keep_mass(candidates: &mut Vec<Candidate>, mass: f64, key: impl Fn(&Candidate) -> u32) {
    let mut reached = 0.0;
    let mut border: Vec<(u32, u32, f32)> = Vec::new();
    let entry = |candidate: &Candidate| (key(candidate), candidate.id, candidate.weight);
    if candidates.len() <= SORTED_AT_ONCE {
        border.extend(candidates.iter().map(entry));
    } else {
        let mut buckets = vec![0.0_f64; 1 << BUCKET_BITS];
        let bucket_of = |candidate: &Candidate| (key(candidate) >> (u32::BITS - BUCKET_BITS)) as usize;
        for candidate in candidates.iter() {
            buckets[bucket_of(candidate)] += f64::from(candidate.weight);
        }
        let reaches = |&(_, &bucket): &(usize, &f64)| {
            let enough = reached + bucket >= mass;
            reached += if enough { 0.0 } else { bucket };
            enough
        };
        let Some((found, _)) = buckets.iter().enumerate().find(reaches) else { return };
        border.extend(candidates.iter().filter(|candidate| bucket_of(candidate) == found).map(entry));
    }
    border.sort_unstable_by_key(|&(key, id, _)| (key, id));
    let last = border.iter().find(|&&(_, _, weight)| {
        reached += f64::from(weight);
        reached >= mass
    });
    if let Some(&(last_key, last_id, _)) = last.or(border.last()) {
        candidates.retain(|candidate| (key(candidate), candidate.id) <= (last_key, last_id));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn weights() -> impl Strategy<Value = Vec<f32>> {
        // Few distinct values, so that ties are common.
        proptest::collection::vec((0_u32..40).prop_map(|x| x as f32 / 40.0), 1..700)
    }

    fn sorted(weights: &[f32]) -> Vec<Candidate> {
        let mut all: Vec<_> =
            weights.iter().enumerate().map(|(id, &weight)| Candidate { id: id as u32, weight }).collect();
        all.sort_by(better_first);
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn top_k_is_a_prefix_of_the_sorted_row(row in weights(), count in 0_usize..800) {
            let mut best = Vec::new();
            best_logits(&row, count, &mut best);
            let mut expected = sorted(&row);
            expected.truncate(count);
            prop_assert_eq!(best, expected);
        }

        #[test]
        fn the_nucleus_is_the_shortest_prefix_that_reaches_its_share(row in weights(), share in 0.0_f64..1.0) {
            let total = softmax::sum(&row);
            prop_assume!(total > 0.0);
            let mut found = Vec::new();
            at_least(&row, nucleus_threshold(total, share, row.len()), &mut found);
            nucleus(&mut found, total, share);
            found.sort_by(better_first);
            let mut expected = Vec::new();
            let mut mass = 0.0;
            for candidate in sorted(&row) {
                mass += f64::from(candidate.weight);
                expected.push(candidate);
                if mass >= total * share {
                    break;
                }
            }
            prop_assert_eq!(found, expected);
        }
    }

    fn ids(mut candidates: Vec<Candidate>) -> Vec<u32> {
        candidates.sort_by_key(|candidate| candidate.id);
        candidates.iter().map(|candidate| candidate.id).collect()
    }

    #[test]
    fn typical_prefers_what_is_as_surprising_as_the_mean() {
        // p = .5, .2, .2, .05, .05: entropy 1.29; −ln p = .69, 1.61, 1.61, 3, 3. Nearest: ids 1, 2, then 0.
        let weights = [0.5_f32, 0.2, 0.2, 0.05, 0.05];
        for (share, expected) in [(0.3, vec![1, 2]), (0.5, vec![0, 1, 2])] {
            let mut candidates = sorted(&weights);
            typical(&mut candidates, share, |id| weights[id as usize].ln());
            assert_eq!(ids(candidates), expected);
        }
    }

    #[test]
    fn min_p_compares_with_the_best() {
        let mut candidates = sorted(&[0.1, 0.5, 0.05, 0.35]);
        min_p(&mut candidates, 0.2);
        assert_eq!(ids(candidates), [0, 1, 3]);
    }
}
