//! The filters: which tokens stay, without sorting the vocabulary.
//!
//! Order everywhere: better first, equal ones by lower id, so that a set is the same however it was found.

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

/// Keeps the fewest best candidates whose weights reach `share` of `total`; at least one, best first.
pub(super) fn nucleus(candidates: &mut Vec<Candidate>, total: f64, share: f64) {
    keep_mass(candidates, total * share, better_first);
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
/// `share`; at least one. Source: Meister et al. 2022, <https://arxiv.org/abs/2202.00666>.
pub(super) fn typical(candidates: &mut Vec<Candidate>, share: f64) {
    let total = mass(candidates);
    let information = |weight: f32| -(f64::from(weight) / total).ln();
    let entropy: f64 = candidates
        .iter()
        .map(|candidate| f64::from(candidate.weight) / total * information(candidate.weight))
        .sum();
    let distance = |candidate: &Candidate| (information(candidate.weight) - entropy).abs();
    keep_mass(candidates, total * share, |a, b| distance(a).total_cmp(&distance(b)).then(a.id.cmp(&b.id)));
    candidates.sort_unstable_by(better_first);
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
pub(super) fn weigh(candidates: &mut [Candidate], max: f32, temperature: f32) {
    for candidate in candidates {
        candidate.weight = softmax::exp((candidate.weight - max) / temperature);
    }
}

/// The candidate on which a number in `[0, 1)` falls.
pub(super) fn draw(candidates: &[Candidate], number: f64) -> Option<u32> {
    let total = mass(candidates);
    let target = total * number;
    let mut passed = 0.0;
    for candidate in candidates {
        passed += f64::from(candidate.weight);
        if passed > target {
            return Some(candidate.id);
        }
    }
    candidates.iter().rfind(|candidate| candidate.weight > 0.0).or(candidates.first()).map(|last| last.id)
}

/// Keeps the first candidates in `order` until their weights reach `mass`, sorting no more than it must.
fn keep_mass(
    candidates: &mut Vec<Candidate>,
    mass: f64,
    order: impl Fn(&Candidate, &Candidate) -> Ordering + Copy,
) {
    let mut sorted = 0;
    let mut reached = 0.0;
    while sorted < candidates.len() {
        let next = (sorted * 4).max(64).min(candidates.len());
        if next < candidates.len() {
            candidates[sorted..].select_nth_unstable_by(next - sorted - 1, order);
        }
        candidates[sorted..next].sort_unstable_by(order);
        for index in sorted..next {
            reached += f64::from(candidates[index].weight);
            if reached >= mass {
                candidates.truncate(index + 1);
                return;
            }
        }
        sorted = next;
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

    #[test]
    fn typical_prefers_what_is_as_surprising_as_the_mean() {
        // p = .5, .2, .2, .05, .05: entropy 1.29; −ln p = .69, 1.61, 1.61, 3, 3. Nearest: ids 1, 2, then 0.
        let mut candidates = sorted(&[0.5, 0.2, 0.2, 0.05, 0.05]);
        typical(&mut candidates, 0.3);
        assert_eq!(candidates.iter().map(|candidate| candidate.id).collect::<Vec<_>>(), [1, 2]);
        let mut candidates = sorted(&[0.5, 0.2, 0.2, 0.05, 0.05]);
        typical(&mut candidates, 0.5);
        assert_eq!(candidates.iter().map(|candidate| candidate.id).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn min_p_compares_with_the_best() {
        let mut candidates = sorted(&[0.1, 0.5, 0.05, 0.35]);
        min_p(&mut candidates, 0.2);
        assert_eq!(candidates.iter().map(|candidate| candidate.id).collect::<Vec<_>>(), [1, 3, 0]);
    }
}
