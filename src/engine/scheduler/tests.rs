//! The scheduler with a stand-in for the model: no thread, a clock moved by hand, and after every step a check that no
//! block is leaked, doubled or shared for writing.

use proptest::prelude::*;
use sconce_models::Model;
use tokio::sync::mpsc;

use super::*;
use crate::engine::masks::Lent;
use crate::engine::sampler::Sampler;
use crate::engine::sequence::Event;
use crate::engine::tab::{Bill, Spent, Tab};
use crate::engine::{PromptLogprob, SamplingParams, SequenceRequest, Speculation, TokenLogprob};
use fake::FakeModel;

#[path = "../../../tests/engine_fake/mod.rs"]
mod fake;
mod guesses;
mod guided;

/// One caller.
struct Client {
    events: Option<mpsc::Receiver<Event>>,
    bill: Bill,
    received: Vec<Event>,
    /// Leaves after this many events.
    leaves_after: Option<usize>,
}

struct Simulation {
    scheduler: Scheduler,
    model: FakeModel,
    cache: KvCache,
    sampler: Sampler,
    now: Instant,
    clients: Vec<Client>,
    last_step: Option<Step>,
    prepares: bool,
    /// Grammars that are late, and for how many steps.
    late: Vec<(usize, Lent)>,
    /// Random numbers for who is late; 0: nobody is.
    lateness: u64,
    /// Whoever is lent out stays out.
    is_never_back: bool,
}

fn limits(cache_blocks: usize) -> EngineLimits {
    EngineLimits { cache_blocks, queue_timeout: Duration::from_secs(1_000_000), ..EngineLimits::default() }
}

impl Simulation {
    fn new(limits: EngineLimits, context_length: usize) -> Self {
        Self::with(FakeModel::new(context_length), limits)
    }

    fn with(model: FakeModel, limits: EngineLimits) -> Self {
        let now = Instant::now();
        Self {
            cache: KvCache::without_storage(limits.cache_blocks),
            scheduler: Scheduler::new(limits, model.spec(), Arc::default(), 1, now),
            sampler: Sampler::default(),
            clients: Vec::new(),
            last_step: None,
            prepares: false,
            late: Vec::new(),
            lateness: 0,
            is_never_back: false,
            model,
            now,
        }
    }

    /// Submits a request; gives the client's number.
    fn submit(&mut self, request: SequenceRequest) -> usize {
        let room = request.choices as usize * (request.max_new_tokens as usize + 1) + 2;
        let (sender, events) = mpsc::channel(room);
        let (tab, bill) = Tab::open();
        self.scheduler.accept(Submission { request, events: sender, tab, place: None, arrival: self.now });
        self.clients.push(Client { events: Some(events), bill, received: Vec::new(), leaves_after: None });
        self.clients.len() - 1
    }

    /// One turn of the worker's loop, 10 ms later.
    fn step(&mut self) {
        self.now += Duration::from_millis(10);
        self.scheduler.release_abandoned();
        self.scheduler.expire(self.now);
        self.bring_the_late();
        self.last_step = self.scheduler.plan(self.now);
        self.check();
        if let Some(step) = &self.last_step {
            for &(from, to) in &step.copies {
                self.cache.copy_block(from, to).unwrap();
            }
            // Some of what grammars say is worked out beside the pass, some is late, the rest comes when it is asked for.
            self.prepares = !self.prepares;
            for mut lent in self.scheduler.lend_guides(step) {
                if self.prepares {
                    lent.prepare();
                }
                self.lateness = self.lateness.wrapping_mul(6_364_136_223_846_793_005);
                match (self.lateness >> 33) % 8 {
                    _ if self.is_never_back => self.late.push((1, lent)),
                    steps @ 1..=3 => self.late.push((steps as usize, lent)),
                    _ => self.scheduler.return_guide(lent),
                }
            }
            let result = crate::engine::worker::guarded(|| self.model.forward(&step.batch, &mut self.cache));
            match result {
                Ok(logits) => {
                    let vocab = logits.vocab();
                    let mut rows = logits.into_host().unwrap();
                    self.scheduler.commit(step, &mut rows, vocab, &mut self.sampler);
                }
                Err(reason) => self.scheduler.fail_step(&reason),
            }
        }
        self.check();
        self.check_cache();
        self.clients.iter_mut().for_each(Client::read);
    }

    fn bring_the_late(&mut self) {
        if self.is_never_back {
            return;
        }
        self.late.iter_mut().for_each(|(steps, _)| *steps -= 1);
        let (come, late) = std::mem::take(&mut self.late).into_iter().partition(|(steps, _)| *steps == 0);
        self.late = late;
        let come: Vec<(usize, Lent)> = come;
        come.into_iter().for_each(|(_, lent)| self.scheduler.return_guide(lent));
    }

    fn run(&mut self) {
        for _ in 0..200_000 {
            if self.scheduler.is_idle() {
                return;
            }
            self.step();
        }
        panic!("not everyone finishes");
    }

    fn check(&self) {
        let scheduler = &self.scheduler;
        let expected = |s: &Sequence| s.expected.saturating_sub(s.named);
        scheduler.blocks.check(
            scheduler.running.iter().map(|sequence| sequence.table.as_slice()),
            scheduler.running.iter().map(expected).sum(),
        );
        assert!(scheduler.waiting.iter().all(|s| s.table.is_empty() && s.phase == Phase::Waiting));
        assert!(scheduler.running.is_sorted_by_key(|sequence| sequence.rank));
        assert!(scheduler.running.len() <= scheduler.limits.max_running);
        for sequence in &scheduler.running {
            assert!(sequence.table.len() * KvCache::BLOCK_SIZE >= sequence.computed());
        }
        let Some(step) = &self.last_step else { return };
        let limits = &scheduler.limits;
        let decoding = step.batch.tokens() - step.prefill_tokens;
        assert!(step.batch.tokens() <= limits.max_batch_tokens);
        assert!(decoding == 0 || step.prefill_tokens <= limits.prefill_chunk);
    }

    /// Between steps no guess is left, in no block of a sequence and in nothing that counts as computed.
    fn check_cache(&self) {
        for sequence in &self.scheduler.running {
            assert!(sequence.drafts.is_empty());
            assert!(sequence.table.len() <= sequence.blocks_needed());
            let done = sequence.computed();
            for position in done.saturating_sub(48)..done {
                let block = sequence.table[position / KvCache::BLOCK_SIZE].0 as usize;
                let slot = (block * KvCache::BLOCK_SIZE + position % KvCache::BLOCK_SIZE) as u32;
                assert_eq!(self.cache.mark(slot), Some(sequence.tokens[position] + 1), "position {position}");
            }
        }
    }

    fn assert_all_free(&self) {
        assert_eq!(self.scheduler.blocks.available(), self.scheduler.blocks.total());
        assert_eq!(self.scheduler.groups.iter().count(), 0);
        self.check_bills();
    }

    /// What the requests cost is what the engine did, whoever was there to read it.
    fn check_bills(&self) {
        let sum = |of: fn(Spent) -> u32| {
            self.clients.iter().map(|client| u64::from(of(client.bill.so_far()))).sum::<u64>()
        };
        let figures = &self.scheduler.figures;
        assert_eq!(sum(|spent| spent.generated_tokens), figures.generated_tokens);
        if self.scheduler.limits.prefix_cache {
            assert_eq!(sum(|spent| spent.prompt_tokens), figures.prefix_queries);
            assert_eq!(sum(|spent| spent.cached_tokens), figures.prefix_hits);
        }
    }
}

impl Client {
    fn read(&mut self) {
        let Some(events) = &mut self.events else { return };
        while let Ok(event) = events.try_recv() {
            self.received.push(event);
        }
        if self.leaves_after.is_some_and(|most| self.received.len() >= most) {
            self.events = None;
        }
    }

    fn answer(&self) -> Answer {
        let mut answer = Answer::default();
        for event in &self.received {
            match event.clone().unwrap() {
                TokenEvent::Prefilled { prompt_logprobs, .. } => answer.prompt_logprobs.push(prompt_logprobs),
                TokenEvent::Token { choice, id, logprob } => answer.choice(choice).tokens.push((id, logprob)),
                TokenEvent::Finished { choice, reason, generated_tokens } => {
                    answer.choice(choice).ends.push((reason, generated_tokens));
                }
                TokenEvent::Failed { reason } => answer.failures.push(reason),
            }
        }
        answer
    }

    fn first_token_seen(&self) -> bool {
        self.received.iter().any(|event| matches!(event, Ok(TokenEvent::Token { .. })))
    }

    fn cached_tokens(&self) -> Option<u32> {
        self.received.iter().find_map(|event| match event {
            Ok(TokenEvent::Prefilled { cached_tokens, .. }) => Some(*cached_tokens),
            _ => None,
        })
    }
}

/// Everything a caller learns but when and from where.
#[derive(Debug, Default, PartialEq)]
struct Answer {
    prompt_logprobs: Vec<Option<Vec<PromptLogprob>>>,
    choices: Vec<Choice>,
    failures: Vec<String>,
}

#[derive(Debug, Default, PartialEq)]
struct Choice {
    tokens: Vec<(u32, Option<TokenLogprob>)>,
    ends: Vec<(FinishReason, u32)>,
}

impl Answer {
    fn choice(&mut self, choice: u32) -> &mut Choice {
        let index = choice as usize;
        if self.choices.len() <= index {
            self.choices.resize_with(index + 1, Choice::default);
        }
        &mut self.choices[index]
    }
}

/// The answer of a request that has a roomy engine to itself.
fn alone(request: &SequenceRequest, context_length: usize) -> Answer {
    alone_with(FakeModel::new(context_length), request)
}

/// The same of another model. Nothing is guessed.
fn alone_with(model: FakeModel, request: &SequenceRequest) -> Answer {
    let limits = EngineLimits {
        prefix_cache: false,
        speculation: Speculation::Off,
        ..limits(model.spec.context_length.div_ceil(32) * 40)
    };
    let mut simulation = Simulation::with(model, limits);
    let client = simulation.submit(request.clone());
    simulation.run();
    simulation.clients[client].answer()
}

fn prompt(family: u32, shared: usize, own: u32, length: usize) -> Vec<u32> {
    let token = |seed: u32, position: usize| {
        (seed.wrapping_mul(2_654_435_761).wrapping_add(position as u32 * 40_503) >> 7) % fake::ORDINARY
    };
    (0..length).map(|at| if at < shared { token(family, at) } else { token(own + 100, at) }).collect()
}

fn greedy(prompt: Vec<u32>, max_new_tokens: u32) -> SequenceRequest {
    let mut request = SequenceRequest::new(prompt, max_new_tokens);
    request.sampling.temperature = 0.0;
    request
}

#[derive(Debug, Clone)]
struct Arrival {
    request: SequenceRequest,
    at_step: usize,
    leaves_after: Option<usize>,
}

#[derive(Debug, Clone)]
struct Scenario {
    limits: EngineLimits,
    /// See [`FakeModel::memory`].
    memory: Option<usize>,
    arrivals: Vec<Arrival>,
}

fn sampling() -> impl Strategy<Value = SamplingParams> {
    let penalties = prop_oneof![3 => Just(1.0_f32), 1 => Just(1.3)];
    let bias = proptest::option::weighted(0.3, (0..fake::ORDINARY, -9.0_f32..9.0));
    (0_u64..4, any::<bool>(), penalties, proptest::option::of(0_u32..3), 0_u32..6, bias).prop_map(
        |(seed, is_greedy, repetition_penalty, logprobs, top_k, bias)| SamplingParams {
            temperature: if is_greedy { 0.0 } else { 0.9 },
            repetition_penalty,
            frequency_penalty: repetition_penalty - 1.0,
            logit_bias: bias.into_iter().collect(),
            logprobs,
            top_k,
            seed: Some(seed),
            ..SamplingParams::default()
        },
    )
}

fn arrival(positions: usize) -> impl Strategy<Value = Arrival> {
    let shape = (0_u32..3, 0_usize..positions, 0_u32..50, 1..positions);
    let wants =
        (0_u32..60, 1_u32..4, 0_u32..8, proptest::option::weighted(0.15, 0_u32..3), guided::any_guide());
    let prediction = proptest::collection::vec(0..fake::ORDINARY, 0..20);
    let standing = (0_u64..3, 1_u32..4, 0_usize..3, any::<bool>());
    let time = (0_usize..120, proptest::option::weighted(0.2, 0_usize..30));
    (shape, wants, sampling(), standing, time, prediction).prop_map(
        |(
            (family, shared, own, length),
            (max_new, choices, min_new, prompt_logprobs, guide),
            sampling,
            standing,
            time,
            prediction,
        )| {
            let (tenant, weight, priority, shared_prefix) = standing;
            let request = SequenceRequest {
                sampling,
                choices,
                min_new_tokens: min_new,
                stop_token_ids: vec![3, 1, 2],
                guide,
                prediction: prediction.into(),
                prompt_logprobs,
                tenant,
                weight,
                priority: [Priority::Batch, Priority::Normal, Priority::High][priority],
                shared_prefix,
                ..SequenceRequest::new(prompt(family, shared, own, length), max_new)
            };
            Arrival { request, at_step: time.0, leaves_after: time.1 }
        },
    )
}

fn scenario() -> impl Strategy<Value = Scenario> {
    let speculation = [Speculation::Off, Speculation::Auto, Speculation::Always];
    let guesses = (proptest::sample::select(speculation.to_vec()), proptest::option::of(1_usize..3));
    (3_usize..16, 1_usize..96, 1_usize..64, 1_usize..8, any::<bool>(), guesses).prop_flat_map(
        |(cache_blocks, max_batch_tokens, prefill_chunk, max_running, prefix_cache, guesses)| {
            let (speculation, memory) = guesses;
            let limits = EngineLimits {
                max_batch_tokens,
                prefill_chunk,
                max_running,
                prefix_cache,
                speculation,
                ..limits(cache_blocks)
            };
            let arrivals = proptest::collection::vec(arrival(cache_blocks * 32), 1..12);
            arrivals.prop_map(move |arrivals| Scenario { limits: limits.clone(), memory, arrivals })
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, max_shrink_iters: 300, ..ProptestConfig::default() })]

    /// Random arrivals, departures and priorities in tiny caches: blocks stay in order at every step (see
    /// [`Simulation::check`]), everyone who stays is answered, and each answer is the one of a request alone, whether or
    /// not tokens are guessed and whether or not the guesses are any good.
    #[test]
    fn every_answer_is_the_answer_alone(scenario in scenario()) {
        let context_length = scenario.limits.cache_blocks * 32;
        let model = || FakeModel { memory: scenario.memory, ..FakeModel::new(context_length) };
        let mut simulation = Simulation::with(model(), scenario.limits.clone());
        simulation.lateness = 1;
        let mut clients = vec![None; scenario.arrivals.len()];
        for step in 0..120 {
            for (arrival, client) in scenario.arrivals.iter().zip(&mut clients) {
                if arrival.at_step == step {
                    let number = simulation.submit(arrival.request.clone());
                    simulation.clients[number].leaves_after = arrival.leaves_after;
                    *client = Some(number);
                }
            }
            simulation.step();
        }
        simulation.run();
        simulation.assert_all_free();
        for (arrival, client) in scenario.arrivals.iter().zip(&clients) {
            let client = &simulation.clients[client.unwrap()];
            if client.events.is_some() {
                prop_assert_eq!(client.answer(), alone_with(model(), &arrival.request));
            }
        }
    }
}

#[test]
fn preemption_happens_and_changes_nothing() {
    let mut simulation = Simulation::new(limits(6), 192);
    let requests: Vec<_> = (0..4).map(|own| greedy(prompt(0, 0, own, 40), 100)).collect();
    let clients: Vec<_> = requests.iter().map(|request| simulation.submit(request.clone())).collect();
    simulation.run();
    assert!(simulation.scheduler.figures.preemptions > 0);
    for (request, client) in requests.iter().zip(clients) {
        assert_eq!(simulation.clients[client].answer(), alone(request, 192));
    }
}

#[test]
fn choices_share_the_prompt_and_copy_only_its_last_block() {
    let mut simulation = Simulation::new(limits(16), 512);
    let mut request = SequenceRequest::new(prompt(0, 0, 0, 80), 4);
    request.choices = 3;
    request.sampling.seed = Some(1);
    let client = simulation.submit(request);
    simulation.step();
    assert_eq!(simulation.scheduler.running.len(), 3);
    assert_eq!(simulation.scheduler.blocks.available(), 13, "three blocks hold the prompt for all");
    simulation.step();
    assert_eq!(simulation.last_step.as_ref().unwrap().copies.len(), 2, "the last holder keeps the original");
    assert_eq!(simulation.scheduler.blocks.available(), 11);
    simulation.run();
    let answer = simulation.clients[client].answer();
    assert!(answer.choices.iter().all(|choice| choice.ends == [(FinishReason::Length, 4)]));
    assert_ne!(answer.choices[0].tokens, answer.choices[1].tokens);
    assert_eq!(simulation.scheduler.figures.finished_length, 1, "one request");
}

#[test]
fn every_choice_counts_its_own_tokens_for_the_penalties() {
    let mut simulation = Simulation::new(limits(16), 512);
    let mut request = greedy(prompt(0, 0, 0, 40), 40);
    request.choices = 3;
    request.sampling.frequency_penalty = 100.0;
    let client = simulation.submit(request);
    simulation.run();
    for choice in simulation.clients[client].answer().choices {
        let mut ids: Vec<u32> = choice.tokens.iter().map(|token| token.0).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 40, "no token comes twice");
    }
}

#[test]
fn a_prefix_is_found_again_within_a_tenant_only() {
    let mut simulation = Simulation::new(limits(32), 1_024);
    let cached = |simulation: &mut Simulation, tenant, shared_prefix| {
        let mut request = greedy(prompt(0, 64, 5, 100), 2);
        (request.tenant, request.shared_prefix) = (tenant, shared_prefix);
        let client = simulation.submit(request);
        simulation.run();
        simulation.clients[client].cached_tokens().unwrap()
    };
    assert_eq!(cached(&mut simulation, 1, false), 0);
    assert_eq!(cached(&mut simulation, 1, false), 96);
    assert_eq!(cached(&mut simulation, 2, false), 0);
    assert_eq!(cached(&mut simulation, 1, true), 0);
    assert_eq!(cached(&mut simulation, 2, true), 96);
    assert_eq!(simulation.scheduler.figures.prefix_hits, 192);
    assert_eq!(simulation.scheduler.figures.prefix_queries, 500);
}

#[test]
fn the_last_token_of_a_cached_prompt_is_run_again() {
    let mut simulation = Simulation::new(limits(8), 256);
    for expected in [0, 32] {
        let client = simulation.submit(greedy(prompt(0, 0, 1, 64), 1));
        simulation.run();
        assert_eq!(simulation.clients[client].cached_tokens(), Some(expected));
    }
}

#[test]
fn requests_with_one_prefix_compute_it_once() {
    let limits = EngineLimits { max_batch_tokens: 64, ..limits(64) };
    let mut simulation = Simulation::new(limits, 1_024);
    for own in 0..6 {
        simulation.submit(greedy(prompt(0, 320, own, 330), 3));
    }
    simulation.run();
    assert_eq!(simulation.scheduler.figures.prefill_tokens, 330 + 5 * 10);
}

#[test]
fn a_long_prompt_does_not_hold_up_a_running_stream() {
    let mut simulation = Simulation::new(limits(64), 2_048);
    let stream = simulation.submit(greedy(prompt(0, 0, 0, 10), 200));
    simulation.step();
    let long = simulation.submit(greedy(prompt(0, 0, 1, 1_500), 1));
    while !simulation.clients[long].first_token_seen() {
        let before = simulation.clients[stream].received.len();
        simulation.step();
        assert_eq!(simulation.clients[stream].received.len(), before + 1, "a token every step");
    }
}

#[test]
fn a_fault_ends_the_requests_of_its_step_only() {
    let limits = EngineLimits { max_running: 2, ..limits(16) };
    for poison in [fake::PANIC, fake::ERROR] {
        let mut simulation = Simulation::new(limits.clone(), 512);
        let good = simulation.submit(greedy(prompt(0, 0, 0, 40), 5));
        let bad = simulation.submit(greedy(vec![1, poison], 5));
        let later = simulation.submit(greedy(prompt(0, 0, 0, 40), 5));
        simulation.run();
        simulation.assert_all_free();
        assert_eq!(simulation.clients[good].answer().failures.len(), 1);
        assert_eq!(simulation.clients[bad].answer().failures.len(), 1);
        assert_eq!(simulation.clients[later].answer(), alone(&greedy(prompt(0, 0, 0, 40), 5), 512));
        assert_eq!(simulation.scheduler.figures.finished_failed, 2);
    }
}

#[test]
fn rows_that_are_not_numbers_end_their_request_only_and_are_not_found_again() {
    let mut simulation = Simulation::new(limits(32), 512);
    let mut poisoned = prompt(0, 0, 0, 64);
    poisoned.push(fake::NAN);
    let bad = simulation.submit(greedy(poisoned, 5));
    let good = simulation.submit(greedy(prompt(0, 0, 1, 40), 5));
    simulation.run();
    assert_eq!(simulation.clients[bad].answer().failures.len(), 1);
    assert_eq!(simulation.clients[good].answer(), alone(&greedy(prompt(0, 0, 1, 40), 5), 512));
    let after = simulation.submit(greedy(prompt(0, 0, 0, 65), 5));
    simulation.run();
    assert_eq!(simulation.clients[after].cached_tokens(), Some(0));
}

#[test]
fn deadlines_end_waiting_requests_with_an_error_and_running_ones_with_what_they_have() {
    let limits = EngineLimits { max_running: 1, queue_timeout: Duration::from_millis(500), ..limits(32) };
    let mut simulation = Simulation::new(limits, 1_024);
    let mut request = greedy(prompt(0, 0, 0, 10), 900);
    request.deadline = Some(simulation.now + Duration::from_secs(1));
    let running = simulation.submit(request.clone());
    request.deadline = Some(simulation.now + Duration::from_millis(300));
    let waiting = simulation.submit(request.clone());
    request.deadline = None;
    let queued = simulation.submit(request);
    simulation.run();
    assert_eq!(simulation.clients[waiting].received, [Err(EngineError::DeadlineExceeded)]);
    assert_eq!(simulation.clients[queued].received, [Err(EngineError::DeadlineExceeded)]);
    let answer = simulation.clients[running].answer();
    assert_eq!(answer.choices[0].ends[0].0, FinishReason::Deadline);
    assert_eq!(answer.choices[0].ends[0].1 as usize, answer.choices[0].tokens.len());
    assert_eq!(simulation.scheduler.figures.finished_deadline, 3);
}

/// Steps until a tenant's short request has its first token, beside another tenant's load.
fn steps_to_first_token(flood: usize, flood_priority: Priority, own: Priority) -> usize {
    let limits = EngineLimits { max_running: 8, max_batch_tokens: 64, ..limits(256) };
    let mut simulation = Simulation::new(limits, 2_048);
    for number in 0..flood {
        let mut request = greedy(prompt(0, 0, number as u32, 200), 400);
        (request.tenant, request.priority) = (1, flood_priority);
        simulation.submit(request);
    }
    (0..100).for_each(|_| simulation.step());
    let mut request = greedy(prompt(9, 0, 9, 60), 5);
    (request.tenant, request.priority) = (2, own);
    let client = simulation.submit(request);
    for steps in 1..100_000 {
        simulation.step();
        if simulation.clients[client].first_token_seen() {
            return steps;
        }
    }
    panic!("starved");
}

#[test]
fn one_tenants_flood_does_not_keep_another_waiting() {
    let beside_one = steps_to_first_token(1, Priority::Normal, Priority::Normal);
    let beside_many = steps_to_first_token(200, Priority::Normal, Priority::Normal);
    assert!(beside_many <= beside_one + 2, "{beside_many} steps in a flood, {beside_one} without");
}

#[test]
fn nobody_gives_way_for_blocks_that_both_would_use() {
    let mut simulation = Simulation::new(limits(6), 192);
    let submit = |simulation: &mut Simulation, tenant, prompt| {
        let request = SequenceRequest { tenant, shared_prefix: true, ..greedy(prompt, 5) };
        simulation.submit(request)
    };
    submit(&mut simulation, 1, prompt(1, 0, 1, 40));
    submit(&mut simulation, 1, prompt(2, 64, 2, 74));
    simulation.step();
    // Needs five blocks, two of them those of the second request: taking the third from it is not enough.
    let last = submit(&mut simulation, 2, prompt(2, 64, 3, 144));
    simulation.step();
    assert_eq!(simulation.scheduler.figures.preemptions, 0);
    simulation.run();
    assert_eq!(simulation.clients[last].cached_tokens(), Some(64));
}

#[test]
fn a_higher_priority_does_not_wait_for_a_lower_one() {
    assert!(steps_to_first_token(200, Priority::Batch, Priority::High) <= 3);
}

#[test]
fn a_usual_request_begins_beside_a_batch_as_if_there_were_none() {
    for batch in [1, 7, 200] {
        let steps = steps_to_first_token(batch, Priority::Batch, Priority::Normal);
        assert_eq!(steps, steps_to_first_token(0, Priority::Batch, Priority::Normal), "beside {batch}");
    }
}

#[test]
fn a_batch_takes_what_answers_leave_over_and_goes_on_when_they_end() {
    let limits = EngineLimits { max_running: 16, speculation: Speculation::Off, ..limits(256) };
    let mut simulation = Simulation::new(limits, 2_048);
    for number in 0..12 {
        let mut request = greedy(prompt(0, 0, number, 20), 300);
        (request.tenant, request.priority) = (1, Priority::Batch);
        simulation.submit(request);
    }
    (0..20).for_each(|_| simulation.step());
    let rows = |simulation: &Simulation| simulation.last_step.as_ref().map_or(0, |step| step.batch.tokens());
    assert_eq!(rows(&simulation), 12);
    let client = simulation.submit(SequenceRequest { tenant: 2, ..greedy(prompt(9, 0, 9, 60), 100) });
    simulation.step();
    assert_eq!(rows(&simulation), 60, "a prompt has the step to itself");
    simulation.step();
    assert!((2..=6).contains(&rows(&simulation)), "{}", rows(&simulation));
    while simulation.clients[client].answer().choices.iter().all(|choice| choice.ends.is_empty()) {
        assert!(rows(&simulation) <= 6, "{}", rows(&simulation));
        simulation.step();
    }
    simulation.step();
    assert_eq!(rows(&simulation), 12);
    simulation.run();
    assert_eq!(simulation.scheduler.figures.preemptions, 0);
}

#[test]
fn a_batch_waits_in_line_for_as_long_as_it_takes() {
    let limits = EngineLimits { max_running: 1, queue_timeout: Duration::from_secs(1), ..limits(64) };
    let mut simulation = Simulation::new(limits, 1_024);
    simulation.submit(greedy(prompt(0, 0, 1, 20), 300));
    simulation.step();
    let waits =
        simulation.submit(SequenceRequest { priority: Priority::Batch, ..greedy(prompt(1, 0, 1, 20), 5) });
    simulation.run();
    assert_eq!(simulation.clients[waits].answer().choices[0].tokens.len(), 5);
}

#[test]
fn the_lowest_priority_is_served_under_a_permanent_flood() {
    let limits = EngineLimits { max_running: 2, ..limits(8) };
    let mut simulation = Simulation::new(limits, 256);
    let mut request = greedy(prompt(0, 0, 1, 60), 20);
    request.priority = Priority::Batch;
    let batch = simulation.submit(request);
    let mut number = 0;
    while simulation.clients[batch].answer().choices.iter().all(|choice| choice.ends.is_empty()) {
        // Never fewer than three of a higher priority in line.
        while simulation.scheduler.waiting.len() < 4 {
            number += 1;
            let mut request = greedy(prompt(0, 0, number, 90), 60);
            request.priority = Priority::High;
            simulation.submit(request);
        }
        simulation.step();
        assert!(number < 5_000, "starved");
    }
}

#[test]
fn tenants_share_by_weight() {
    let limits = EngineLimits { max_running: 4, ..limits(64) };
    let mut simulation = Simulation::new(limits, 512);
    for number in 0..400 {
        let mut request = greedy(prompt(0, 0, number, 30), 30);
        request.tenant = u64::from(number % 2);
        request.weight = if number % 2 == 0 { 3 } else { 1 };
        simulation.submit(request);
    }
    let mut tokens = [0_usize; 2];
    (0..1_000).for_each(|_| simulation.step());
    for (number, client) in simulation.clients.iter().enumerate() {
        tokens[number % 2] += client.received.len();
    }
    let ratio = tokens[0] as f64 / tokens[1] as f64;
    assert!((2.5..3.5).contains(&ratio), "{tokens:?}");
}

#[test]
fn end_tokens_wait_for_the_minimum_and_the_context_ends_an_answer() {
    let mut simulation = Simulation::new(limits(4), 128);
    let mut request = greedy(prompt(0, 0, 0, 100), 1_000);
    request.stop_token_ids = (0..fake::ORDINARY - 1).collect();
    request.min_new_tokens = 5;
    let stopped = simulation.submit(request.clone());
    request.stop_token_ids.clear();
    let long = simulation.submit(request);
    simulation.run();
    let answer = simulation.clients[stopped].answer();
    assert_eq!(answer.choices[0].tokens.len(), 5);
    assert!(answer.choices[0].tokens.iter().all(|token| token.0 == fake::ORDINARY - 1));
    assert!(matches!(answer.choices[0].ends[..], [(FinishReason::Stop(_), 6)]));
    let answer = simulation.clients[long].answer();
    assert_eq!(answer.choices[0].tokens.len(), 28);
    assert_eq!(answer.choices[0].ends, [(FinishReason::Length, 28)]);
}

#[test]
fn a_prompt_can_be_run_for_its_log_probabilities_alone() {
    let mut simulation = Simulation::new(limits(8), 256);
    let mut request = greedy(prompt(0, 0, 0, 150), 0);
    request.prompt_logprobs = Some(2);
    request.choices = 2;
    let client = simulation.submit(request);
    simulation.run();
    let answer = simulation.clients[client].answer();
    let logprobs = answer.prompt_logprobs[0].as_ref().unwrap();
    assert_eq!(logprobs.len(), 149);
    assert!(logprobs.iter().all(|(logprob, top)| *logprob <= top[0].1 && top.len() == 2));
    assert!(answer.choices.iter().all(|choice| choice.ends == [(FinishReason::Length, 0)]));
    assert_eq!(answer.choices.len(), 2);
}
