//! Guessed tokens: when they are run, what they take, and that nothing else shows them.

use super::*;

const CONTEXT: usize = 1_024;

fn with_guesses(speculation: Speculation) -> EngineLimits {
    EngineLimits { speculation, ..limits(64) }
}

/// A model that goes round in circles, and one request to it.
fn circling(limits: EngineLimits, request: &SequenceRequest) -> (Simulation, Answer) {
    let mut simulation = Simulation::with(FakeModel::repetitive(CONTEXT, 1), limits);
    let client = simulation.submit(request.clone());
    simulation.run();
    simulation.assert_all_free();
    let answer = simulation.clients[client].answer();
    (simulation, answer)
}

fn circling_alone(request: &SequenceRequest) -> Answer {
    alone_with(FakeModel::repetitive(CONTEXT, 1), request)
}

/// Sampled, with everything that changes logits.
fn sampled(seed: u64) -> SequenceRequest {
    let mut request = SequenceRequest::new(prompt(0, 0, seed as u32, 20), 120);
    request.sampling = SamplingParams {
        temperature: 0.6,
        top_p: 0.95,
        frequency_penalty: 0.01,
        logit_bias: vec![(5, 1.0), (6, -1.0)],
        logprobs: Some(2),
        seed: Some(seed),
        ..SamplingParams::default()
    };
    request
}

#[test]
fn what_repeats_itself_comes_several_tokens_a_step() {
    let request = greedy(prompt(0, 0, 1, 20), 300);
    let (simulation, answer) = circling(with_guesses(Speculation::Auto), &request);
    let figures = simulation.scheduler.figures;
    assert_eq!(answer, circling_alone(&request));
    assert_eq!(figures.generated_tokens, 300);
    assert!(figures.accepted_tokens > 200 && figures.steps < 100, "{figures:?}");
    assert_eq!(
        figures.steps + figures.accepted_tokens,
        300,
        "each step brings one token and those that were right"
    );
}

#[test]
fn what_does_not_repeat_itself_is_not_guessed_at() {
    let mut simulation = Simulation::new(with_guesses(Speculation::Auto), CONTEXT);
    let request = greedy(prompt(0, 0, 1, 300), 500);
    let client = simulation.submit(request.clone());
    simulation.run();
    assert_eq!(simulation.clients[client].answer(), alone(&request, CONTEXT));
    assert!(simulation.scheduler.figures.drafted_tokens < 50, "{:?}", simulation.scheduler.figures);
}

#[test]
fn what_was_foretold_comes_several_tokens_a_step_and_is_the_same() {
    let request = greedy(prompt(0, 0, 1, 300), 200);
    let expected = alone(&request, CONTEXT);
    let said: Vec<u32> = expected.choices[0].tokens.iter().map(|token| token.0).collect();
    let wrong: Vec<u32> = said.iter().map(|id| (id + 1) % fake::ORDINARY).collect();
    let half = [&said[..80], &wrong[80..90], &said[90..]].concat();
    for (prediction, fewest_right) in [(said, 150), (half, 120), (wrong, 0)] {
        for speculation in [Speculation::Auto, Speculation::Always, Speculation::Off] {
            let foretold = SequenceRequest { prediction: prediction.clone().into(), ..request.clone() };
            let mut simulation = Simulation::new(with_guesses(speculation), CONTEXT);
            let client = simulation.submit(foretold);
            simulation.run();
            assert_eq!(simulation.clients[client].answer(), expected);
            let figures = simulation.scheduler.figures;
            if speculation == Speculation::Auto {
                assert!(figures.accepted_tokens >= fewest_right, "{figures:?}");
            }
        }
    }
}

#[test]
fn no_guess_is_run_where_none_is_wanted() {
    let request = greedy(prompt(0, 0, 1, 20), 300);
    let (simulation, _) = circling(with_guesses(Speculation::Off), &request);
    assert_eq!(simulation.scheduler.figures.drafted_tokens, 0);
    assert_eq!(simulation.scheduler.figures.steps, 300);
}

#[test]
fn sampled_answers_are_the_same_with_right_and_wrong_guesses() {
    let (mut accepted, mut rejected) = (0, 0);
    for seed in 0..6 {
        let mut request = sampled(seed);
        request.choices = 1 + seed as u32 % 3;
        let expected = circling_alone(&request);
        for speculation in [Speculation::Auto, Speculation::Always] {
            let (simulation, answer) = circling(with_guesses(speculation), &request);
            assert_eq!(answer, expected);
            let figures = simulation.scheduler.figures;
            accepted += figures.accepted_tokens;
            rejected += figures.drafted_tokens - figures.accepted_tokens;
        }
    }
    assert!(accepted > 100 && rejected > 100, "{accepted} right, {rejected} wrong");
}

#[test]
fn an_answer_ends_where_it_would_have_ended_though_more_was_guessed() {
    let endless = circling_alone(&greedy(prompt(0, 0, 1, 20), 100));
    let tokens: Vec<u32> = endless.choices[0].tokens.iter().map(|token| token.0).collect();
    for length in (0..40).step_by(9) {
        // By length, in the middle of guesses that are right.
        let short = greedy(prompt(0, 0, 1, 20), 40 + length);
        // By a token of the circle that counts only from here on.
        let mut stopped = greedy(prompt(0, 0, 1, 20), 120);
        stopped.stop_token_ids = vec![tokens[90]];
        stopped.min_new_tokens = 40 + length;
        for request in [short, stopped] {
            let expected = circling_alone(&request);
            for speculation in [Speculation::Auto, Speculation::Always] {
                assert_eq!(circling(with_guesses(speculation), &request).1, expected);
            }
        }
    }
}

#[test]
fn guesses_survive_that_blocks_run_out() {
    let limits = EngineLimits { cache_blocks: 10, ..with_guesses(Speculation::Always) };
    let mut simulation = Simulation::with(FakeModel::repetitive(320, 1), limits);
    let requests: Vec<_> = (0..4).map(|own| greedy(prompt(0, 0, own, 40), 150)).collect();
    let clients: Vec<_> = requests.iter().map(|request| simulation.submit(request.clone())).collect();
    simulation.run();
    simulation.assert_all_free();
    let figures = simulation.scheduler.figures;
    assert!(figures.preemptions > 0 && figures.accepted_tokens > 100, "{figures:?}");
    for (request, client) in requests.iter().zip(clients) {
        let expected = alone_with(FakeModel::repetitive(320, 1), request);
        assert_eq!(simulation.clients[client].answer(), expected);
    }
}

#[test]
fn a_conversation_finds_as_much_of_itself_again() {
    let found = |speculation| {
        let request = greedy(prompt(0, 0, 1, 20), 140);
        let (mut simulation, answer) = circling(with_guesses(speculation), &request);
        let mut longer = request.prompt;
        longer.extend(answer.choices[0].tokens.iter().map(|token| token.0));
        longer.extend([1, 2, 3]);
        let again = greedy(longer, 30);
        let client = simulation.submit(again.clone());
        simulation.run();
        assert_eq!(simulation.clients[client].answer(), circling_alone(&again));
        simulation.clients[client].cached_tokens()
    };
    let plain = found(Speculation::Off);
    assert_eq!(plain, Some(128));
    assert_eq!(found(Speculation::Auto), plain);
    assert_eq!(found(Speculation::Always), plain);
}

/// Streams that go round in circles, after steps that took this long.
fn streams(count: u32, pass: Duration, row: Duration) -> Simulation {
    let limits = EngineLimits { cache_blocks: 512, ..with_guesses(Speculation::Auto) };
    let mut simulation = Simulation::with(FakeModel::repetitive(CONTEXT, 1), limits);
    for steps in 0..400 {
        let rows = 1 + steps % 40;
        simulation.scheduler.step_cost.observe(rows, pass + row * rows as u32);
    }
    for own in 0..count {
        simulation.submit(greedy(prompt(0, 0, own, 20), 900));
    }
    simulation
}

#[test]
fn what_is_run_depends_on_what_a_row_costs() {
    let rows = |row_micros| {
        let mut simulation = streams(8, Duration::from_millis(10), Duration::from_micros(row_micros));
        (0..60).for_each(|_| simulation.step());
        simulation.last_step.expect("it runs").batch.tokens()
    };
    assert_eq!(rows(10), 8 + 64, "next to nothing: as many as a step may have");
    assert!((9..72).contains(&rows(2_000)), "a fifth of a pass: {}", rows(2_000));
    assert_eq!(rows(10_000_000), 8, "all that a step takes: none");
}

#[test]
fn those_without_guesses_wait_little_for_those_with() {
    let mut simulation = streams(1, Duration::from_millis(10), Duration::from_millis(1));
    (0..40).for_each(|_| simulation.step());
    let alone = simulation.last_step.as_ref().expect("it runs").batch.tokens();
    assert!(alone > 8, "{alone}");
    // A newcomer has nothing to guess from: eleven milliseconds may become at most a quarter more.
    simulation.submit(SequenceRequest { min_new_tokens: 5, ..greedy(vec![60], 900) });
    simulation.step();
    simulation.step();
    let beside = simulation.last_step.as_ref().expect("it runs").batch.tokens();
    assert!((3..=5).contains(&beside), "{beside}");
}

#[test]
fn guesses_keep_to_the_size_of_a_step() {
    for max_batch_tokens in [1, 2, 5, 9] {
        let limits = EngineLimits { max_batch_tokens, ..with_guesses(Speculation::Always) };
        let request = greedy(prompt(0, 0, 1, 20), 100);
        // `Simulation::check` looks at every step.
        let (simulation, answer) = circling(limits, &request);
        assert_eq!(answer, circling_alone(&request));
        assert_eq!(simulation.scheduler.figures.drafted_tokens > 0, max_batch_tokens > 1);
    }
}
