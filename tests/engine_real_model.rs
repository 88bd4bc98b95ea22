//! The engine with the real model: the same answer whatever runs beside it, and streams that keep flowing.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod real_models;

use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use sconce::engine::{
    Engine, EngineHandle, EngineLimits, SamplingParams, SequenceRequest, Speculation, TokenEvent,
};
use sconce_models::{
    Batch, CacheType, Device, DeviceSpec, Error, KvCache, LoadOptions, LoadedModel, Logits, Model,
    ModelFiles, ModelSpec, Tokenizer, load,
};

/// What one forward pass was asked for.
#[derive(Debug, Clone, PartialEq)]
struct Pass {
    /// Tokens run per sequence.
    tokens: Vec<usize>,
    /// Whether each sequence ran its first position in this pass or an earlier one's continuation: position of its first token.
    first_positions: Vec<u32>,
}

/// A model that writes down what it is asked.
struct Recorded {
    model: Box<dyn Model>,
    passes: Arc<Mutex<Vec<Pass>>>,
}

impl Model for Recorded {
    fn spec(&self) -> &ModelSpec {
        self.model.spec()
    }

    fn forward(&self, batch: &Batch, cache: &mut KvCache) -> Result<Logits, Error> {
        let tokens = batch.starts.windows(2).map(|pair| (pair[1] - pair[0]) as usize).collect();
        let first_positions =
            batch.starts[..batch.sequences()].iter().map(|&start| batch.positions[start as usize]).collect();
        self.passes.lock().unwrap().push(Pass { tokens, first_positions });
        self.model.forward(batch, cache)
    }
}

struct Loaded {
    engine: EngineHandle,
    tokenizer: Tokenizer,
    passes: Arc<Mutex<Vec<Pass>>>,
}

/// With [`CacheType::Auto`] the cache is what the server would take.
fn start(limits: EngineLimits) -> Loaded {
    let files = ModelFiles::find(&real_models::smollm2()).unwrap();
    let options = LoadOptions { device: DeviceSpec::Cpu, ..LoadOptions::default() };
    let loaded = load(&files, &options).unwrap();
    let LoadedModel::Causal(model) = loaded.model else { panic!("SmolLM2 is a causal model") };
    let passes = Arc::default();
    let model = Box::new(Recorded { model, passes: Arc::clone(&passes) });
    let limits = match limits.cache_type {
        CacheType::Auto => EngineLimits { cache_type: loaded.cache_type, ..limits },
        _ => limits,
    };
    let engine = Engine::spawn(model, &Device::cpu(), limits).unwrap();
    Loaded { engine, tokenizer: loaded.tokenizer, passes }
}

fn limits() -> EngineLimits {
    EngineLimits {
        cache_blocks: 256,
        cache_type: CacheType::Auto,
        max_running: 32,
        ..EngineLimits::default()
    }
}

/// Thirty-two requests of many lengths, half of them sampled; eight share a beginning that spans cache blocks.
fn requests(tokenizer: &Tokenizer) -> Vec<SequenceRequest> {
    let shared = "The lighthouse keeper wrote in the logbook every evening, and on the last page one could read the following: "
        .repeat(5);
    (0..32u32)
        .map(|number| {
            let text = match number % 4 {
                0 => format!("{shared} entry {number}"),
                1 => format!("Number {number} is"),
                2 => format!("In the year {} the town of {number} hills ", 1800 + number)
                    .repeat(1 + number as usize / 3),
                _ => format!("def function_{number}(x):\n    return"),
            };
            let mut request = SequenceRequest::new(tokenizer.encode(&text, true).unwrap(), 24);
            request.sampling.logprobs = Some(3);
            if number % 2 == 0 {
                request.sampling = SamplingParams {
                    temperature: 0.9,
                    top_p: 0.95,
                    top_k: 50,
                    seed: Some(u64::from(number)),
                    frequency_penalty: 0.1,
                    logprobs: Some(3),
                    ..SamplingParams::default()
                };
            } else {
                request.sampling.temperature = 0.0;
            }
            request
        })
        .collect()
}

/// Everything that came out for one request, to the bit.
#[derive(Debug, PartialEq, Clone)]
struct Answer {
    ids: Vec<u32>,
    logprobs: Vec<u32>,
    alternatives: Vec<(u32, u32)>,
}

async fn answer(engine: &EngineHandle, request: SequenceRequest) -> Answer {
    let mut stream = engine.submit(request).unwrap();
    let mut answer = Answer { ids: vec![], logprobs: vec![], alternatives: vec![] };
    while let Some(event) = stream.next().await {
        if let TokenEvent::Token { id, logprob, .. } = event.unwrap() {
            let logprob = logprob.expect("log-probabilities were asked for");
            answer.ids.push(id);
            answer.logprobs.push(logprob.logprob.to_bits());
            answer.alternatives.extend(logprob.top.iter().map(|(id, value)| (*id, value.to_bits())));
        }
    }
    answer
}

async fn together(engine: &EngineHandle, requests: Vec<SequenceRequest>) -> Vec<Answer> {
    futures_util::future::join_all(requests.into_iter().map(|request| answer(engine, request))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_same_answer_whatever_runs_beside_it() {
    let alone = {
        let loaded = start(EngineLimits {
            prefix_cache: false,
            max_batch_tokens: 2048,
            speculation: Speculation::Off,
            ..limits()
        });
        let mut answers = Vec::new();
        for request in requests(&loaded.tokenizer) {
            answers.push(answer(&loaded.engine, request).await);
        }
        answers
    };
    assert!(alone.iter().all(|answer| !answer.ids.is_empty()));
    assert!(alone.iter().any(|answer| answer.ids != alone[0].ids), "the answers differ from each other");

    for chunk in [16, 64, 512] {
        for prefix_cache in [false, true] {
            let loaded = start(EngineLimits {
                max_batch_tokens: chunk.max(32),
                prefill_chunk: chunk,
                prefix_cache,
                ..limits()
            });
            let answers = together(&loaded.engine, requests(&loaded.tokenizer)).await;
            assert_eq!(answers, alone, "together, chunk {chunk}, prefix cache {prefix_cache}");
            if prefix_cache {
                let answers = together(&loaded.engine, requests(&loaded.tokenizer)).await;
                assert_eq!(answers, alone, "a second time, chunk {chunk}");
                assert!(loaded.engine.stats().prefix_hits > 0, "the cache was used");
            }
        }
    }

    let loaded = start(limits());
    let mut shuffled: Vec<_> = requests(&loaded.tokenizer).into_iter().enumerate().collect();
    shuffled.sort_by_key(|(index, _)| (index * 17 + 5) % 32);
    let (order, shuffled): (Vec<_>, Vec<_>) = shuffled.into_iter().unzip();
    let answers = together(&loaded.engine, shuffled).await;
    for (index, answer) in order.into_iter().zip(answers) {
        assert_eq!(answer, alone[index], "shuffled, request {index}");
    }

    // So few blocks that sequences must give theirs back and start over.
    let loaded = start(EngineLimits { cache_blocks: 12, prefix_cache: false, ..limits() });
    let answers = together(&loaded.engine, requests(&loaded.tokenizer)).await;
    assert_eq!(answers, alone, "with preemption");
    assert!(loaded.engine.stats().preemptions > 0, "sequences were preempted: {:?}", loaded.engine.stats());

    // Several tokens of a sequence in one step, right and wrong ones; with room, and with so little that it must be given
    // back.
    for (cache_blocks, prefix_cache) in [(256, true), (12, false)] {
        let speculation = Speculation::Always;
        let loaded = start(EngineLimits { cache_blocks, prefix_cache, speculation, ..limits() });
        let answers = together(&loaded.engine, requests(&loaded.tokenizer)).await;
        assert_eq!(answers, alone, "guesses wherever there is room, {cache_blocks} blocks");
        let stats = loaded.engine.stats();
        assert!(stats.accepted_tokens > 0 && stats.drafted_tokens > stats.accepted_tokens, "{stats:?}");
    }
}

/// The same over keys and values that are kept as bytes: other answers than f16's perhaps, but always the same ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_cache_of_bytes_gives_the_same_answer_too() {
    let limits = || EngineLimits { cache_type: CacheType::Q8_0, ..limits() };
    let loaded = start(EngineLimits {
        prefix_cache: false,
        max_batch_tokens: 2048,
        speculation: Speculation::Off,
        ..limits()
    });
    let mut alone = Vec::new();
    for request in requests(&loaded.tokenizer) {
        alone.push(answer(&loaded.engine, request).await);
    }

    let loaded = start(EngineLimits { max_batch_tokens: 32, prefill_chunk: 16, ..limits() });
    for time in ["first", "second"] {
        let answers = together(&loaded.engine, requests(&loaded.tokenizer)).await;
        assert_eq!(answers, alone, "together in chunks, {time} time");
    }
    assert!(loaded.engine.stats().prefix_hits > 0, "the cache was used");

    let speculation = Speculation::Always;
    let loaded = start(EngineLimits { cache_blocks: 12, prefix_cache: false, speculation, ..limits() });
    let answers = together(&loaded.engine, requests(&loaded.tokenizer)).await;
    assert_eq!(answers, alone, "with preemption and guesses");
    assert!(loaded.engine.stats().preemptions > 0, "sequences were preempted: {:?}", loaded.engine.stats());
}

/// A text that says the same again and again, in its beginning and, as the model sees that, in its continuation.
fn refrain(tokenizer: &Tokenizer, max_new_tokens: u32) -> SequenceRequest {
    let text = "Row, row, row your boat, gently down the stream. Merrily, merrily, merrily, merrily, life is but a dream.\n"
        .repeat(4);
    let mut request = SequenceRequest::new(tokenizer.encode(&text, true).unwrap(), max_new_tokens);
    request.sampling.temperature = 0.0;
    request.sampling.logprobs = Some(2);
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_was_said_before_takes_fewer_steps_to_say_again() {
    let run = async |speculation| {
        let loaded = start(EngineLimits { speculation, ..limits() });
        let request = refrain(&loaded.tokenizer, 64);
        let answer = answer(&loaded.engine, request).await;
        let stats = *loaded.engine.watch().wait_for(|stats| stats.finished_length == 1).await.unwrap();
        (answer, stats)
    };
    let (plain, plain_stats) = run(Speculation::Off).await;
    let (guessed, stats) = run(Speculation::Auto).await;
    assert_eq!(guessed, plain);
    assert_eq!((plain_stats.drafted_tokens, plain_stats.generated_tokens), (0, stats.generated_tokens));
    assert_eq!(stats.steps + stats.accepted_tokens, plain_stats.steps);
    assert!(stats.accepted_tokens > 16, "{stats:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_long_prompt_stalls_nobody() {
    let loaded = start(EngineLimits { speculation: Speculation::Off, ..limits() });
    let chunk = limits().prefill_chunk;
    let mut running = SequenceRequest::new(loaded.tokenizer.encode("Once upon a time", true).unwrap(), 96);
    running.sampling.temperature = 0.0;
    let mut stream = loaded.engine.submit(running).unwrap();
    for _ in 0..4 {
        stream.next().await.unwrap().unwrap();
    }
    let words = "the quick brown fox jumps over the lazy dog and ".repeat(200);
    let mut ids = loaded.tokenizer.encode(&words, true).unwrap();
    ids.truncate(1500);
    assert_eq!(ids.len(), 1500);
    let mut long = loaded.engine.submit(SequenceRequest::new(ids, 1)).unwrap();
    while let Some(event) = long.next().await {
        event.unwrap();
    }
    drop(stream);

    let passes = loaded.passes.lock().unwrap().clone();
    let mixed: Vec<_> = passes.iter().filter(|pass| pass.tokens.len() == 2).collect();
    assert!(mixed.len() >= 1500 / chunk, "the long prompt ran in chunks: {passes:?}");
    // From the first chunk to the last, every pass also ran the stream that was decoding, and no pass ran more than a chunk.
    let first = passes.iter().position(|pass| pass.tokens.len() == 2).unwrap();
    let last = passes.iter().rposition(|pass| pass.tokens.len() == 2).unwrap();
    for pass in &passes[first..=last] {
        assert!(pass.tokens.contains(&1), "the running stream was left out of {pass:?}");
        assert!(pass.tokens.iter().sum::<usize>() <= chunk + 1, "more than a chunk in {pass:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_hundred_abandoned_streams_leave_nothing_behind() {
    let loaded = start(limits());
    let requests = requests(&loaded.tokenizer);
    for number in 0..100 {
        let mut request = requests[number % requests.len()].clone();
        request.max_new_tokens = 200;
        let mut stream = loaded.engine.submit(request).unwrap();
        // Some leave while they wait, some during the prompt, some after a token or two.
        for _ in 0..number % 4 {
            stream.next().await;
        }
    }
    let mut stats = loaded.engine.watch();
    let settled = stats.wait_for(|stats| stats.running == 0 && stats.waiting == 0).await.unwrap();
    assert_eq!(settled.free_blocks, settled.total_blocks);
}
