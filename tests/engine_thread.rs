//! The engine with its real thread and a stand-in for the model: submit, read, leave, stop. No test sleeps; they wait
//! for events, for published figures, or at the model's gate.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod engine_fake;

use std::time::{Duration, Instant};

use engine_fake::{FakeModel, Gate};
use futures_util::StreamExt;
use sconce::engine::{
    Engine, EngineError, EngineHandle, EngineLimits, EngineStats, FinishReason, SequenceRequest, Speculation,
    TokenEvent, TokenStream,
};
use sconce_models::Device;
use tokio::sync::watch;

fn limits() -> EngineLimits {
    EngineLimits { cache_blocks: 64, ..EngineLimits::default() }
}

fn engine(model: FakeModel, limits: EngineLimits) -> EngineHandle {
    Engine::spawn(Box::new(model), &Device::cpu(), limits).unwrap()
}

fn request(first: u32, max_new_tokens: u32) -> SequenceRequest {
    let mut request = SequenceRequest::new(vec![first, 1, 2], max_new_tokens);
    request.sampling.temperature = 0.0;
    request
}

async fn read(stream: TokenStream) -> Vec<Result<TokenEvent, EngineError>> {
    stream.collect().await
}

fn ids(events: &[Result<TokenEvent, EngineError>]) -> Vec<u32> {
    let id = |event: &_| match event {
        Ok(TokenEvent::Token { id, .. }) => Some(*id),
        _ => None,
    };
    events.iter().filter_map(id).collect()
}

/// The figures, once they are so.
async fn figures(handle: &EngineHandle, are_so: impl FnMut(&EngineStats) -> bool) -> EngineStats {
    *handle.watch().wait_for(are_so).await.unwrap()
}

fn nothing_held(stats: &EngineStats) -> bool {
    stats.running == 0 && stats.waiting == 0 && stats.free_blocks == stats.total_blocks
}

#[tokio::test]
async fn a_request_is_answered_in_order_and_its_stream_ends() {
    let handle = engine(FakeModel::new(1_024), limits());
    let events = read(handle.submit(request(3, 5)).unwrap()).await;
    assert!(matches!(events[0], Ok(TokenEvent::Prefilled { cached_tokens: 0, prompt_logprobs: None })));
    assert_eq!(ids(&events).len(), 5);
    let end = TokenEvent::Finished { choice: 0, reason: FinishReason::Length, generated_tokens: 5 };
    assert_eq!(events.last(), Some(&Ok(end)));
    let stats = figures(&handle, |stats| stats.finished_length == 1).await;
    assert!(nothing_held(&stats));
    assert_eq!((stats.steps, stats.prefill_tokens, stats.generated_tokens), (5, 3, 5));
}

#[tokio::test]
async fn leaving_after_three_events_frees_the_blocks_within_one_step() {
    let gate = Gate::default();
    let handle = engine(FakeModel::gated(1_024, &gate), limits());
    let mut stream = handle.submit(request(3, 1_000)).unwrap();
    gate.allow(2);
    for _ in 0..3 {
        stream.next().await.unwrap().unwrap();
    }
    gate.wait_for_arrivals(3);
    drop(stream);
    gate.allow(1);
    let stats = figures(&handle, |stats| stats.finished_abandoned == 1).await;
    assert!(nothing_held(&stats));
    assert_eq!(stats.steps, 3, "the step that was running, and no other");
}

#[tokio::test]
async fn a_hundred_abandoned_streams_leave_nothing_behind() {
    let limits = EngineLimits { max_running: 8, cache_blocks: 4_096, ..limits() };
    let handle = engine(FakeModel::new(100_000), limits);
    for number in 0..100 {
        // Long enough not to be complete before it is dropped.
        let mut stream = handle.submit(request(number % 50, 90_000)).unwrap();
        // Some leave while they wait, some while they run.
        for _ in 0..number % 4 {
            stream.next().await.unwrap().unwrap();
        }
    }
    let stats = figures(&handle, |stats| stats.finished_abandoned == 100).await;
    assert!(nothing_held(&stats));
    assert_eq!(ids(&read(handle.submit(request(1, 3)).unwrap()).await).len(), 3);
}

#[tokio::test]
async fn a_full_queue_is_an_answer() {
    let gate = Gate::default();
    let limits = EngineLimits { max_waiting: 2, max_running: 1, ..limits() };
    let handle = engine(FakeModel::gated(1_024, &gate), limits);
    let running = handle.submit(request(1, 2)).unwrap();
    gate.wait_for_arrivals(1);
    let waiting = [handle.submit(request(2, 2)).unwrap(), handle.submit(request(3, 2)).unwrap()];
    let Err(EngineError::QueueFull { waiting: 2, retry_after }) = handle.submit(request(4, 2)) else {
        panic!("not refused");
    };
    assert!(retry_after >= Duration::from_secs(1));
    gate.open();
    assert_eq!(ids(&read(running).await).len(), 2);
    for stream in waiting {
        assert_eq!(ids(&read(stream).await).len(), 2, "whoever was accepted is answered");
    }
    assert!(handle.submit(request(4, 2)).is_ok());
}

#[tokio::test]
async fn a_place_in_the_queue_is_given_back_by_those_who_leave() {
    let gate = Gate::default();
    let limits = EngineLimits { max_waiting: 1, max_running: 1, ..limits() };
    let handle = engine(FakeModel::gated(1_024, &gate), limits);
    let _running = handle.submit(request(1, 100)).unwrap();
    gate.wait_for_arrivals(1);
    drop(handle.submit(request(2, 2)).unwrap());
    assert!(handle.submit(request(3, 2)).is_err(), "the engine has not seen yet that it left");
    gate.allow(1);
    gate.wait_for_arrivals(2);
    assert!(handle.submit(request(3, 2)).is_ok());
}

#[tokio::test]
async fn requests_that_can_never_run_are_refused_at_once() {
    let handle = engine(FakeModel::new(128), limits());
    let submit = |prompt: Vec<u32>, max_new| handle.submit(SequenceRequest::new(prompt, max_new)).err();
    assert!(matches!(submit(vec![], 1), Some(EngineError::Invalid { param: "prompt", .. })));
    assert!(matches!(submit(vec![1, 64], 1), Some(EngineError::Invalid { param: "prompt", .. })));
    assert_eq!(submit(vec![1; 128], 1), Some(EngineError::TooLong { needed: 129, available: 128 }));
    assert_eq!(submit(vec![1; 128], 0), None);
    let many = SequenceRequest { choices: u32::MAX, ..request(1, u32::MAX) };
    assert!(matches!(handle.submit(many), Err(EngineError::Invalid { param: "n", .. })));
    let small = engine(FakeModel::new(10_000), EngineLimits { cache_blocks: 2, ..limits() });
    let refused = small.submit(SequenceRequest::new(vec![1; 64], 5)).err();
    assert_eq!(refused, Some(EngineError::TooLong { needed: 65, available: 64 }));
}

#[tokio::test]
async fn no_limit_of_tokens_means_the_context() {
    let handle = engine(FakeModel::new(128), limits());
    let events = read(handle.submit(request(1, u32::MAX)).unwrap()).await;
    assert_eq!(ids(&events).len(), 125);
}

#[tokio::test]
async fn a_deadline_ends_a_request_wherever_it_is() {
    let gate = Gate::default();
    let handle = engine(FakeModel::gated(1_024, &gate), EngineLimits { max_running: 1, ..limits() });
    let running = handle.submit(request(1, 3)).unwrap();
    gate.wait_for_arrivals(1);
    // The pass that is running ends after the deadline of the second request.
    let late = handle.submit(SequenceRequest { deadline: Some(Instant::now()), ..request(2, 5) }).unwrap();
    gate.open();
    assert_eq!(read(late).await, [Err(EngineError::DeadlineExceeded)]);
    assert_eq!(ids(&read(running).await).len(), 3);
    assert_eq!(figures(&handle, nothing_held).await.finished_deadline, 1);
}

#[tokio::test]
async fn faults_end_their_requests_and_the_thread_goes_on() {
    let handle = engine(FakeModel::new(1_024), limits());
    let expected = ids(&read(handle.submit(request(1, 20)).unwrap()).await);
    for poison in [engine_fake::PANIC, engine_fake::ERROR, engine_fake::NAN] {
        let events = read(handle.submit(request(poison, 20)).unwrap()).await;
        assert!(matches!(
            events[..],
            [Ok(TokenEvent::Failed { .. })] | [Ok(_), Ok(TokenEvent::Failed { .. })]
        ));
        assert_eq!(ids(&read(handle.submit(request(1, 20)).unwrap()).await), expected);
    }
    let stats = figures(&handle, |stats| nothing_held(stats) && stats.finished_length == 4).await;
    assert_eq!(stats.finished_failed, 3);
}

#[tokio::test]
async fn many_at_once_are_answered_as_each_alone() {
    for speculation in [Speculation::Off, Speculation::Auto, Speculation::Always] {
        many_at_once(|| FakeModel::new(1_024), speculation).await;
        let stats = many_at_once(|| FakeModel::repetitive(1_024, 1), speculation).await;
        assert_eq!(stats.accepted_tokens > 0, speculation != Speculation::Off, "{stats:?}");
    }
}

async fn many_at_once(model: impl Fn() -> FakeModel, speculation: Speculation) -> EngineStats {
    let alone = engine(model(), EngineLimits { speculation: Speculation::Off, ..limits() });
    let crowded = EngineLimits { max_batch_tokens: 48, prefill_chunk: 16, speculation, ..limits() };
    let crowded = engine(model(), crowded);
    let requests: Vec<_> = (0..48)
        .map(|number| {
            let mut request = request(number % 7, 40 + number);
            request.prompt.extend((0..number * 2).map(|token| token % 60));
            request.sampling.temperature = if number % 2 == 0 { 0.0 } else { 1.0 };
            request.sampling.seed = Some(u64::from(number));
            request.sampling.logprobs = Some(2);
            (request.tenant, request.choices) = (u64::from(number % 3), number % 3 + 1);
            request
        })
        .collect();
    let streams: Vec<_> = requests.iter().map(|request| crowded.submit(request.clone()).unwrap()).collect();
    let by_choice = |events: Vec<Result<TokenEvent, EngineError>>| {
        let mut tokens: Vec<_> = events
            .into_iter()
            .filter_map(|event| match event.unwrap() {
                TokenEvent::Token { choice, id, logprob } => Some((choice, id, logprob)),
                _ => None,
            })
            .collect();
        tokens.sort_by_key(|token| token.0);
        tokens
    };
    for (request, stream) in requests.into_iter().zip(streams) {
        let expected = by_choice(read(alone.submit(request).unwrap()).await);
        assert_eq!(by_choice(read(stream).await), expected);
    }
    let stats = crowded.stats();
    assert!(stats.preemptions > 0, "the cache was too small for all: {stats:?}");
    stats
}

#[tokio::test]
async fn the_thread_finishes_what_runs_and_ends_when_all_handles_are_gone() {
    let handle = engine(FakeModel::new(1_024), limits());
    let mut end: watch::Receiver<EngineStats> = handle.watch();
    let stream = handle.clone().submit(request(1, 50)).unwrap();
    drop(handle);
    assert_eq!(ids(&read(stream).await).len(), 50);
    while end.changed().await.is_ok() {}
    assert!(nothing_held(&end.borrow()));
}

#[tokio::test]
async fn an_idle_engine_takes_no_steps_and_publishes_nothing() {
    let handle = engine(FakeModel::new(1_024), limits());
    read(handle.submit(request(1, 3)).unwrap()).await;
    figures(&handle, nothing_held).await;
    let mut watched = handle.watch();
    watched.mark_unchanged();
    let nothing = tokio::time::timeout(Duration::from_millis(50), watched.changed()).await;
    assert!(nothing.is_err(), "the thread waits; it does not spin");
}
