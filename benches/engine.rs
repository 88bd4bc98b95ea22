//! What the engine itself costs: what it does between two passes, with a model that does nothing, and the sampler over a
//! vocabulary of 150,000.

#[path = "../tests/engine_fake/mod.rs"]
mod engine_fake;

use std::cell::Cell;
use std::hint::black_box;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use futures_util::StreamExt;
use sconce::engine::sampler::{Draw, Sampler};
use sconce::engine::{Engine, EngineLimits, Next, SamplingParams, SequenceRequest, Speculation};
use sconce_models::{Batch, Device, Error, KvCache, Logits, Model, ModelSpec};

const PROMPT: usize = 512;
const VOCAB: usize = 150_000;
/// Steps that are enough to run all prompts.
const WARM_UP: u64 = 64;
/// Steps timed per engine, so that contexts stay near the prompt's length.
const MOST_STEPS: u64 = 512;

/// Gives the same logits to all, and stops after as many passes as it was told.
struct Idle {
    spec: ModelSpec,
    /// How long a pass takes.
    pass: Duration,
    left: Cell<u64>,
    /// When the last pass ended.
    ended: Cell<Instant>,
    /// What the engine took between the passes since it was last told.
    between: Cell<Duration>,
    /// The bench sends how many passes to run; dropping it lets the rest run.
    go: Receiver<u64>,
    /// Told when they have run: the time between them.
    done: Sender<Duration>,
}

impl Model for Idle {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn forward(&self, batch: &Batch, _cache: &mut KvCache) -> Result<Logits, Error> {
        let started = Instant::now();
        self.between.set(self.between.get() + (started - self.ended.get()));
        if self.left.get() == 0 {
            let _ = self.done.send(self.between.take());
            self.left.set(self.go.recv().unwrap_or(u64::MAX));
        }
        self.left.set(self.left.get() - 1);
        let width = self.spec.vocab_size;
        let row = (0..width).map(|id| id as f32);
        let logits = Logits::from_host(width, row.cycle().take(width * batch.sample_rows.len()).collect());
        let started = Instant::now();
        while started.elapsed() < self.pass {
            std::hint::spin_loop();
        }
        self.ended.set(Instant::now());
        Ok(logits)
    }
}

/// What is measured.
#[derive(Clone, Copy)]
struct Case {
    streams: usize,
    speculation: Speculation,
    pass: Duration,
    /// Whether each stream has a task that waits for its tokens, and so has to be woken for each.
    are_read: bool,
}

/// What the engine took between the passes of this many steps.
fn time_steps(steps: u64, case: Case) -> Duration {
    let (go, orders) = channel();
    let (done, reports) = channel();
    let model = Idle {
        spec: engine_fake::spec(4_096, 32),
        pass: case.pass,
        left: Cell::new(0),
        ended: Cell::new(Instant::now()),
        between: Cell::default(),
        go: orders,
        done,
    };
    let limits = EngineLimits {
        cache_blocks: case.streams * 60,
        max_batch_tokens: 16_384,
        prefill_chunk: 16_000,
        max_running: case.streams,
        speculation: case.speculation,
        ..EngineLimits::default()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
    let engine = Engine::spawn(Box::new(model), &Device::cpu(), limits).expect("an engine");
    let mut streams = Vec::new();
    for number in 0..case.streams as u32 {
        let prompt = (0..PROMPT as u32).map(|position| (number + position) % 32).collect();
        let stream = engine.submit(SequenceRequest::new(prompt, 1_400)).expect("a place in the queue");
        if case.are_read {
            drop(runtime.spawn(stream.for_each(|event| async { drop(black_box(event)) })));
        } else {
            streams.push(stream);
        }
    }
    let mut between = reports.recv().expect("the engine runs");
    for passes in [WARM_UP, steps] {
        go.send(passes).expect("the engine runs");
        between = reports.recv().expect("the engine runs");
    }
    assert_eq!(engine.stats().running, case.streams);
    between
}

fn step(criterion: &mut Criterion) {
    let none = Case { streams: 256, speculation: Speculation::Off, pass: Duration::ZERO, are_read: false };
    let read = Case { pass: Duration::from_millis(1), are_read: true, ..none };
    let cases = [
        ("256 streams", none),
        ("256 streams with guesses", Case { speculation: Speculation::Auto, ..none }),
        ("1 stream that is read", Case { streams: 1, ..read }),
        ("16 streams that are read", Case { streams: 16, ..read }),
        ("256 streams that are read", read),
    ];
    for (name, case) in cases {
        criterion.bench_function(&format!("engine/between passes, {name}"), |bencher| {
            bencher.iter_custom(|steps| {
                let whole = (0..steps / MOST_STEPS).map(|_| time_steps(MOST_STEPS, case));
                let rest = steps % MOST_STEPS;
                let rest = if rest > 0 { time_steps(rest, case) } else { Duration::ZERO };
                whole.sum::<Duration>() + rest
            });
        });
    }
}

fn sampler(criterion: &mut Criterion) {
    // Bell-shaped, with a few tokens well above the others.
    let noise = |id: usize, salt: u64| {
        ((id as u64 ^ salt).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f32 / (1 << 24) as f32
    };
    let mut row: Vec<f32> =
        (0..VOCAB).map(|id| (0..6).map(|salt| noise(id, salt << 40)).sum::<f32>() * 5.0 - 15.0).collect();
    (0..40).for_each(|best| row[best * 3_001] = 12.0 - best as f32 / 4.0);
    let base = || SamplingParams { seed: Some(1), ..SamplingParams::default() };
    let cases = [
        ("greedy", SamplingParams { temperature: 0.0, ..base() }),
        ("greedy, 20 logprobs", SamplingParams { temperature: 0.0, logprobs: Some(20), ..base() }),
        ("temperature", SamplingParams { temperature: 0.8, ..base() }),
        ("top-p", SamplingParams { top_p: 0.95, ..base() }),
        ("top-k", SamplingParams { top_k: 40, ..base() }),
        ("top-k, top-p, min-p", SamplingParams { top_k: 40, top_p: 0.95, min_p: 0.05, ..base() }),
        ("min-p", SamplingParams { min_p: 0.05, ..base() }),
        ("typical", SamplingParams { typical_p: 0.9, ..base() }),
    ];
    let mut group = criterion.benchmark_group("sampler/150k");
    for (name, params) in &cases {
        let mut sampler = Sampler::default();
        let mut position = 0;
        group.bench_function(*name, |bencher| {
            bencher.iter(|| {
                position += 1;
                let draw = Draw {
                    params,
                    seed: 1,
                    choice: 0,
                    position,
                    forbidden: &[],
                    history: None,
                    next: Next::Any,
                };
                sampler.sample(black_box(&mut row), &draw)
            });
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_millis(500));
    targets = step, sampler
}
criterion_main!(benches);
