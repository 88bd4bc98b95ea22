//! What the server adds to the model: time to first token, and time per token of a step, over HTTP and on the real model.
//!
//! The release program is asked by a client on this machine, by turns with the same passes of the same model in this
//! process, so that both see the same machine. No Criterion: it cannot measure two things by turns.

#[path = "client/mod.rs"]
mod client;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use client::own_server::{self, Launch, OwnServer};
use client::statistics::{median, milliseconds, range};
use client::{Answer, Target};
use futures_util::future::join_all;
use sconce_models::{Batch, Device, DeviceSpec, KvCache, LoadOptions, LoadedModel, Model, ModelFiles, load};
use serde_json::{Value, json};

const BLOCK: usize = KvCache::BLOCK_SIZE;
/// Tokens of a prompt whose answer is timed token by token.
const PROMPT: usize = 64;
/// Tokens of such an answer.
const STEPS: usize = 64;
/// Room for a stream of this process.
const ROOM: usize = 1_024;
const STREAMS: [usize; 3] = [1, 8, 16];
const PROMPTS: [usize; 2] = [32, 512];

/// The model in this process, without the server round it.
struct Alone {
    model: Box<dyn Model>,
    cache: KvCache,
}

impl Alone {
    fn load(path: &Path) -> Self {
        let options = LoadOptions { device: DeviceSpec::Cpu, ..LoadOptions::default() };
        let loaded = load(&ModelFiles::find(path).expect("a model"), &options).expect("a model that loads");
        let LoadedModel::Causal(model) = loaded.model else {
            panic!("the bench needs a model that continues text");
        };
        let blocks = STREAMS[STREAMS.len() - 1] * ROOM / BLOCK;
        let cache =
            KvCache::new(model.spec(), blocks, loaded.cache_type, &Device::cpu()).expect("enough memory");
        Self { model, cache }
    }

    /// The time of one pass over these positions of all streams.
    fn pass(&mut self, streams: usize, positions: std::ops::Range<usize>) -> Duration {
        let blocks = ROOM / BLOCK;
        let mut batch = Batch { starts: vec![0], ..Batch::default() };
        for stream in 0..streams {
            for position in positions.clone() {
                batch.token_ids.push(token(stream, position));
                batch.positions.push(position as u32);
                batch.slots.push((stream * ROOM + position) as u32);
            }
            batch.starts.push(batch.token_ids.len() as u32);
            batch.context_lens.push(positions.end as u32);
            batch
                .block_tables
                .push((stream * blocks..(stream + 1) * blocks).map(|block| block as u32).collect());
            batch.sample_rows.push(batch.token_ids.len() as u32 - 1);
        }
        let start = Instant::now();
        self.model.forward(&batch, &mut self.cache).expect("a consistent batch");
        start.elapsed()
    }

    /// Milliseconds of a decoding step, the median of those that an answer has.
    fn step(&mut self, streams: usize) -> Option<f64> {
        self.pass(streams, 0..PROMPT);
        median(&milliseconds((PROMPT..PROMPT + STEPS).map(|at| self.pass(streams, at..at + 1))))
    }
}

/// Some ordinary token.
fn token(salt: usize, position: usize) -> u32 {
    (1_000 + (salt * 7_919 + position * 31) % 15_000) as u32
}

/// A request for as many tokens, with a prompt that was not sent before.
async fn ask(target: &Target, salt: usize, prompt: usize, tokens: usize) -> Answer {
    let prompt: Vec<u32> = (0..prompt).map(|position| token(salt, position)).collect();
    let body = json!({"prompt": prompt, "max_tokens": tokens, "ignore_eos": true});
    let answer = target.ask("/v1/completions", body).await;
    assert_eq!(answer.failure, None);
    assert_eq!(answer.tokens, tokens as u64);
    answer
}

/// Milliseconds from one token to the next as a client sees it while all streams run: their median.
async fn gap(target: &Target, salt: &mut usize, streams: usize) -> Option<f64> {
    let first = *salt;
    *salt += streams;
    let answers = join_all((first..*salt).map(|salt| ask(target, salt, PROMPT, STEPS + 16))).await;
    let start = answers.iter().filter_map(|answer| answer.pieces.first()).max()?;
    let end = answers.iter().filter_map(|answer| answer.pieces.last()).min()?;
    let within = |pair: &&[Instant]| pair[0] >= *start && pair[1] <= *end;
    let gaps = answers.iter().flat_map(|answer| answer.pieces.windows(2).filter(within));
    median(&milliseconds(gaps.map(|pair| pair[1] - pair[0])))
}

/// One line of the result: the same, with the server and without, in turns.
struct Line {
    name: String,
    server: Vec<f64>,
    alone: Vec<f64>,
}

impl Line {
    fn json(&self) -> Value {
        let differences: Vec<f64> =
            self.server.iter().zip(&self.alone).map(|(server, alone)| server - alone).collect();
        let shares: Vec<f64> =
            differences.iter().zip(&self.alone).map(|(difference, alone)| difference / alone).collect();
        json!({
            "name": self.name,
            "server_ms": median(&self.server),
            "model_alone_ms": median(&self.alone),
            "overhead_ms": median(&differences),
            "overhead_ms_range": range(&differences),
            "overhead_share": median(&shares),
        })
    }
}

async fn measure(path: PathBuf, rounds: usize) -> Result<Value, String> {
    let results = own_server::results()?;
    let launch = Launch {
        program: own_server::program(),
        model: path.clone(),
        arguments: variable("OURS_ARGS").unwrap_or_default().split_whitespace().map(str::to_owned).collect(),
        log: results.join("server.log"),
    };
    let server = OwnServer::start(&launch).await?;
    let target = Target::new(&server.url, None, Some(own_server::MODEL.to_owned())).await?;
    let mut alone = Alone::load(&path);
    let line = |name: String| Line { name, server: Vec::new(), alone: Vec::new() };
    let mut first: Vec<Line> = PROMPTS.iter().map(|n| line(format!("first token, prompt of {n}"))).collect();
    let mut step: Vec<Line> = STREAMS.iter().map(|n| line(format!("token, streams: {n}"))).collect();
    let mut salt = 100;
    // The first round warms up.
    for round in 0..=rounds {
        for (line, prompt) in first.iter_mut().zip(PROMPTS) {
            salt += 1;
            let seen = ask(&target, salt, prompt, 4).await.first().map(|first| first.as_secs_f64() * 1e3);
            let pass = alone.pass(1, 0..prompt).as_secs_f64() * 1e3;
            line.server.extend(seen.filter(|_| round > 0));
            line.alone.extend((round > 0).then_some(pass));
        }
        for (line, streams) in step.iter_mut().zip(STREAMS) {
            let (seen, pass) = (gap(&target, &mut salt, streams).await, alone.step(streams));
            line.server.extend(seen.filter(|_| round > 0));
            line.alone.extend(pass.filter(|_| round > 0));
        }
    }
    let lines: Vec<Value> = first.iter().chain(&step).map(Line::json).collect();
    let start = server.start.as_secs_f64();
    Ok(
        json!({"model": path.file_name().map(|name| name.to_string_lossy()), "ready_after_seconds": start, "lines": lines}),
    )
}

#[allow(clippy::disallowed_methods, reason = "benches have no configuration to ask")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // As Criterion does: `cargo bench -- FILTER` is about one of the benches, and tests only want to know that it starts.
    let is_asked = |argument: &String| argument.starts_with('-') || "server".contains(argument.as_str());
    if !arguments.iter().any(|argument| argument == "--bench") || !arguments.iter().all(is_asked) {
        return ExitCode::SUCCESS;
    }
    let model = variable("MODEL").map_or_else(own_server::test_model, PathBuf::from);
    let rounds = if arguments.iter().any(|argument| argument == "--quick") { 2 } else { 9 };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let measured = runtime
        .map_err(|error| error.to_string())
        .and_then(|runtime| runtime.block_on(measure(model, rounds)))
        .and_then(|report| Ok((own_server::results()?.join("server.json"), format!("{report:#}\n"))))
        .and_then(|(path, text)| {
            print!("{text}");
            std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
        });
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
