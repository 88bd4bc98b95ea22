//! The sampler against what its order of operations promises, and against a plain sorted reference.

use proptest::prelude::*;

use super::*;

fn params() -> SamplingParams {
    SamplingParams { seed: Some(7), ..SamplingParams::default() }
}

fn draw<'a>(params: &'a SamplingParams, position: u32) -> Draw<'a> {
    Draw {
        params,
        seed: params.seed.unwrap(),
        choice: 0,
        position,
        forbidden: &[],
        history: None,
        next: Next::Any,
    }
}

fn ids(params: &SamplingParams, row: &[f32], count: u32) -> Vec<u32> {
    let mut sampler = Sampler::default();
    let mut row = row.to_vec();
    (0..count).map(|position| sampler.sample(&mut row, &draw(params, position)).unwrap().id).collect()
}

fn row() -> impl Strategy<Value = Vec<f32>> {
    proptest::collection::vec((-60_i32..60).prop_map(|x| x as f32 / 8.0), 2..400)
}

/// The definition, written the slow way: sort everything, filter, renormalise, draw.
fn reference(params: &SamplingParams, row: &[f32], position: u32) -> u32 {
    let max = row.iter().copied().fold(f32::MIN, f32::max);
    let mut all: Vec<(u32, f64)> = row
        .iter()
        .enumerate()
        .map(|(id, &logit)| (id as u32, f64::from(softmax::exp((logit - max) * params.temperature.recip()))))
        .collect();
    let top_k = if (params.top_k as usize) < row.len() { params.top_k as usize } else { 0 };
    all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    if top_k > 0 {
        all.truncate(top_k);
    }
    if params.top_p < 1.0 {
        let total: f64 = all.iter().map(|x| x.1).sum();
        let mut mass = 0.0;
        let kept = all.iter().position(|x| {
            mass += x.1;
            mass >= total * f64::from(params.top_p)
        });
        all.truncate(kept.map_or(all.len(), |last| last + 1));
    }
    let best = all.iter().map(|x| x.1).fold(0.0, f64::max);
    all.retain(|x| x.1 >= best * f64::from(params.min_p));
    all.sort_by_key(|x| x.0);
    let total: f64 = all.iter().map(|x| x.1).sum();
    let target = total * philox::uniform(params.seed.unwrap(), 0, position);
    let mut passed = 0.0;
    for &(id, weight) in &all {
        passed += weight;
        if passed > target {
            return id;
        }
    }
    all.last().unwrap().0
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn agrees_with_the_sorted_reference(
        row in row(),
        temperature in 0.2_f32..2.0,
        top_k in 0_u32..50,
        top_p in prop_oneof![Just(1.0_f32), 0.05_f32..0.99],
        min_p in prop_oneof![Just(0.0_f32), 0.01_f32..0.5],
    ) {
        let params = SamplingParams { temperature, top_k, top_p, min_p, ..params() };
        let expected: Vec<u32> = (0..20).map(|position| reference(&params, &row, position)).collect();
        let found = ids(&params, &row, 20);
        // Sums in f32 and f64 differ in their last bits; a draw right on a border may differ, two may not.
        let different = expected.iter().zip(&found).filter(|(a, b)| a != b).count();
        prop_assert!(different <= 1, "{expected:?} {found:?}");
    }

    #[test]
    fn the_row_is_left_as_it_was_and_the_draw_repeats(mut row in row(), bias in -100.0_f32..100.0) {
        let params = SamplingParams {
            repetition_penalty: 1.3,
            presence_penalty: 0.5,
            frequency_penalty: 0.25,
            logit_bias: vec![(1, bias), (1, -bias), (0, bias), (9_999, 1.0)],
            logprobs: Some(3),
            ..params()
        };
        let mut history = History::for_prompt(&params, &[0, 1, 1]).unwrap();
        history.push(1);
        let before = row.clone();
        let mut sampler = Sampler::default();
        let draw = Draw { history: Some(&history), forbidden: &[0, 1], ..draw(&params, 3) };
        let first = sampler.sample(&mut row, &draw).unwrap();
        prop_assert_eq!(&row, &before);
        prop_assert_eq!(&first, &sampler.sample(&mut row, &draw).unwrap());
        if row.len() > 2 {
            prop_assert!(first.id > 1, "forbidden");
        }
        let raw = sampler.logprob(&row, first.id, 3).unwrap();
        prop_assert_eq!(first.logprob.unwrap(), raw, "log-probabilities are the model's own");
    }
}

#[test]
fn frequencies_follow_the_probabilities() {
    let weights = [0.5_f32, 0.0, 0.25, 0.15, 0.1];
    let row: Vec<f32> = weights.iter().map(|weight| weight.ln()).collect();
    let found = ids(&params(), &row, 20_000);
    for (id, &weight) in weights.iter().enumerate() {
        let share = found.iter().filter(|&&other| other as usize == id).count() as f32 / 20_000.0;
        assert!((share - weight).abs() < 0.012, "token {id}: {share} for {weight}");
    }
}

#[test]
fn temperature_zero_takes_the_best_and_of_equals_the_lowest() {
    let cold = SamplingParams { temperature: 0.0, ..params() };
    assert_eq!(ids(&cold, &[1.0, 3.0, 2.0, 3.0], 2), [1, 1]);
    let nearly = SamplingParams { temperature: 1e-30, ..params() };
    assert_eq!(ids(&nearly, &[1.0, 3.0, 2.0, 3.0], 2), [1, 1]);
    let one = SamplingParams { top_k: 1, ..params() };
    assert_eq!(ids(&one, &[1.0, 3.0, 2.0, 3.0], 2), [1, 1]);
    let none = SamplingParams { top_p: 0.0, ..params() };
    assert_eq!(ids(&none, &[1.0, 3.0, 2.0, 3.0], 2), [1, 1]);
}

#[test]
fn penalties_see_prompt_and_answer_as_they_should() {
    let greedy = SamplingParams { temperature: 0.0, ..params() };
    let best = |params: &SamplingParams, prompt: &[u32], answer: &[u32], row: &[f32]| {
        let mut history = History::for_prompt(params, prompt);
        answer.iter().for_each(|&id| history.as_mut().unwrap().push(id));
        let draw = Draw { history: history.as_ref(), ..draw(params, 0) };
        Sampler::default().sample(&mut row.to_vec(), &draw).unwrap().id
    };
    let row = [2.0, 1.5, -1.0];
    assert!(History::for_prompt(&greedy, &[0]).is_none());
    let presence = SamplingParams { presence_penalty: 1.0, ..greedy.clone() };
    assert_eq!(best(&presence, &[0], &[], &row), 0, "the prompt does not count for presence");
    assert_eq!(best(&presence, &[], &[0], &row), 1);
    let frequency = SamplingParams { frequency_penalty: 0.3, ..greedy.clone() };
    assert_eq!(best(&frequency, &[], &[0], &row), 0);
    assert_eq!(best(&frequency, &[], &[0, 0], &row), 1);
    let repetition = SamplingParams { repetition_penalty: 2.0, ..greedy.clone() };
    assert_eq!(best(&repetition, &[0], &[], &row), 1, "the prompt counts for repetition");
    assert_eq!(best(&repetition, &[1], &[], &[-2.0, -1.5, -2.5]), 0, "a negative logit is multiplied");
    let biased = SamplingParams { logit_bias: vec![(0, -100.0), (1, -100.0)], ..greedy };
    assert_eq!(best(&biased, &[], &[], &row), 2);
}

#[test]
fn a_row_with_everything_forbidden_still_gives_a_token() {
    let params = params();
    let draw = Draw { forbidden: &[0, 1, 2], ..draw(&params, 0) };
    let mut row = vec![1.0, 5.0, 2.0];
    assert_eq!(Sampler::default().sample(&mut row, &draw).unwrap().id, 1);
    assert_eq!(row, [1.0, 5.0, 2.0]);
}

#[test]
fn rows_that_are_not_numbers_are_refused() {
    let params = params();
    for bad in [f32::NAN, f32::INFINITY] {
        let mut row = vec![0.0; 70];
        row[66] = bad;
        assert_eq!(Sampler::default().sample(&mut row, &draw(&params, 0)), Err(NotFinite));
    }
}

#[test]
fn logprobs_are_the_log_softmax_with_the_best_first() {
    let row = [1.0_f32, 3.0, 2.0, 3.0];
    let found = Sampler::default().logprob(&row, 2, 3).unwrap();
    let normaliser = row.iter().map(|x| x.exp()).sum::<f32>().ln();
    assert!((found.logprob - (2.0 - normaliser)).abs() < 1e-6);
    assert_eq!(found.top.iter().map(|best| best.0).collect::<Vec<_>>(), [1, 3, 2]);
    assert_eq!(found.top[2].1, found.logprob);
}
