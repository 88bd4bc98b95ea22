//! What the servers are asked, and what is measured of it. To add a scenario: a variant, a title, and a function that gives
//! an [`Outcome`].

use std::time::{Duration, Instant};

use clap::ValueEnum;
use futures_util::StreamExt;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::client::Answer;
use crate::client::process::{Neighbours, resident_mebibytes};
use crate::client::statistics::{milliseconds, quantile};
use crate::edits::EDITS;
use crate::prompts::{Draws, Scale, lengths};
use crate::sides::Side;

const CHAT: &str = "/v1/chat/completions";

/// How much is asked.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub quick: bool,
    /// Answers go on past the model's end, so that all are equally long.
    pub ignore_end: bool,
    pub scale: Scale,
}

impl Size {
    fn pick(&self, whole: usize, quick: usize) -> usize {
        if self.quick { quick } else { whole }
    }
}

/// One figure of one turn.
#[derive(Debug, Clone)]
pub struct Figure {
    pub name: &'static str,
    pub value: Option<f64>,
}

/// What one turn gave.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    pub figures: Vec<Figure>,
    /// What was not as it should be.
    pub problems: Vec<String>,
    /// What was asked and answered, in the order of the requests.
    pub digests: Vec<u64>,
}

impl Outcome {
    /// With all that is wrong with the answers.
    fn of(answers: &[Answer], wanted: Option<usize>) -> Self {
        let mut problems = Vec::new();
        let failed: Vec<&String> = answers.iter().filter_map(|answer| answer.failure.as_ref()).collect();
        if let Some(first) = failed.first() {
            problems.push(format!("{} of {} requests failed: {first}", failed.len(), answers.len()));
        }
        let whole = answers.iter().filter(|answer| answer.failure.is_none());
        let counts: Vec<u64> = whole.map(|answer| answer.tokens).collect();
        let short = wanted.map_or(0, |wanted| counts.iter().filter(|count| **count != wanted as u64).count());
        if short > 0 {
            let (all, least) = (counts.len(), counts.iter().min().copied().unwrap_or(0));
            let wanted = wanted.unwrap_or(0);
            problems.push(format!("{short} of {all} answers do not have {wanted} tokens (least: {least})"));
        }
        let digests = answers.iter().map(|answer| answer.digest).collect();
        Self { figures: Vec::new(), problems, digests }
    }

    fn with(mut self, name: &'static str, value: Option<f64>) -> Self {
        self.figures.push(Figure { name, value: value.filter(|value| value.is_finite()) });
        self
    }
}

/// The kinds of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    Memory,
    Chats,
    Shared,
    Stall,
    Lookup,
    Neighbour,
}

impl Scenario {
    /// Memory first, while nothing has been kept yet.
    pub const ALL: [Self; 6] =
        [Self::Memory, Self::Chats, Self::Shared, Self::Stall, Self::Lookup, Self::Neighbour];

    /// How many requests at a time, once for each run of the scenario.
    pub fn streams(self, chosen: &[usize]) -> Vec<usize> {
        match self {
            Self::Chats => chosen.to_vec(),
            Self::Memory | Self::Shared => vec![8],
            Self::Stall | Self::Lookup | Self::Neighbour => vec![1],
        }
    }

    pub fn title(self, streams: usize) -> String {
        match self {
            Self::Memory => format!("memory: {streams} streams of 1,024 tokens"),
            Self::Chats => format!("chats: 20–400 prompt tokens, 128 out, {streams} at a time"),
            Self::Shared => {
                format!("shared: one system prompt of 1,500 tokens, 128 out, {streams} at a time")
            }
            Self::Stall => "stall: a stream runs while a prompt of 1,500 tokens arrives".to_owned(),
            Self::Lookup => "lookup: summaries and edits, one at a time".to_owned(),
            Self::Neighbour => "neighbour: one stream, alone and with half of the cores taken".to_owned(),
        }
    }

    /// One side's turn. Each round has prompts of its own, the same for both sides.
    pub async fn run(self, side: &Side, streams: usize, round: usize, size: &Size) -> Outcome {
        let draws = Draws::new((round * 101 + self as usize * 7 + streams) as u64);
        match self {
            Self::Memory => memory(side, streams, draws, size).await,
            Self::Chats => chats(side, streams, draws, size).await,
            Self::Shared => shared(side, streams, draws, size).await,
            Self::Stall => stall(side, draws, size).await,
            Self::Lookup => lookup(side, size).await,
            Self::Neighbour => neighbour(side, draws, size).await,
        }
    }
}

fn chat(system: Option<&str>, user: &str, tokens: usize, size: &Size) -> Value {
    let system = system.map(|text| json!({"role": "system", "content": text}));
    let messages: Vec<Value> = system.into_iter().chain([json!({"role": "user", "content": user})]).collect();
    let mut body = json!({"messages": messages, "max_tokens": tokens});
    if size.ignore_end {
        body["ignore_eos"] = json!(true);
    }
    body
}

/// All answers, in the order of the requests, and the time from the first request to the end of the last answer.
async fn ask_all(side: &Side, bodies: Vec<Value>, at_a_time: usize) -> (Vec<Answer>, Duration) {
    let begun = Instant::now();
    let asked = stream::iter(bodies.into_iter().enumerate())
        .map(|(number, body)| async move { (number, side.target.ask(CHAT, body).await) })
        .buffer_unordered(at_a_time);
    let mut answers: Vec<(usize, Answer)> = asked.collect().await;
    let elapsed = begun.elapsed();
    answers.sort_by_key(|(number, _)| *number);
    (answers.into_iter().map(|(_, answer)| answer).collect(), elapsed)
}

fn rate(answers: &[Answer], elapsed: Duration) -> Option<f64> {
    let tokens: u64 = answers.iter().map(|answer| answer.tokens).sum();
    (tokens > 0).then(|| tokens as f64 / elapsed.as_secs_f64())
}

/// Tokens per second of one stream, from its first token on.
fn decode_rate(answers: &[Answer]) -> Option<f64> {
    let tokens: u64 = answers.iter().map(|answer| answer.tokens.saturating_sub(1)).sum();
    let time: Duration = answers.iter().map(Answer::decoding).sum();
    (tokens > 0 && !time.is_zero()).then(|| tokens as f64 / time.as_secs_f64())
}

fn with_waiting_times(outcome: Outcome, answers: &[Answer]) -> Outcome {
    let first = milliseconds(answers.iter().filter_map(Answer::first));
    let gaps = milliseconds(answers.iter().flat_map(|answer| answer.gaps().collect::<Vec<_>>()));
    outcome
        .with("time to first token, p50, ms", quantile(&first, 0.5))
        .with("time to first token, p95, ms", quantile(&first, 0.95))
        .with("between tokens, p50, ms", quantile(&gaps, 0.5))
        .with("between tokens, p95, ms", quantile(&gaps, 0.95))
}

fn prompt_tokens(answers: &[Answer]) -> Option<f64> {
    let counts: Vec<f64> = answers.iter().map(|answer| answer.prompt_tokens as f64).collect();
    Some(counts.iter().sum::<f64>() / counts.len() as f64)
}

async fn chats(side: &Side, streams: usize, mut draws: Draws, size: &Size) -> Outcome {
    let whole = if streams < 4 { 24 } else { 64.max(4 * streams) };
    let count = size.pick(if streams == 4 { 40 } else { whole }, 2 * streams);
    let tokens = size.pick(128, 32);
    let bodies = lengths(count, 20, 400).into_iter().map(|length| {
        let text = draws.text(size.scale.words(length));
        chat(None, &text, tokens, size)
    });
    let (answers, elapsed) = ask_all(side, bodies.collect(), streams).await;
    let outcome = Outcome::of(&answers, size.ignore_end.then_some(tokens))
        .with("output, tokens/s", rate(&answers, elapsed))
        .with("prompt tokens, mean", prompt_tokens(&answers));
    with_waiting_times(outcome, &answers)
}

async fn shared(side: &Side, streams: usize, mut draws: Draws, size: &Size) -> Outcome {
    let system = draws.text(size.scale.words(1_500));
    let (count, tokens) = (size.pick(32, streams), size.pick(128, 32));
    let bodies = (0..count).map(|_| chat(Some(&system), &draws.text(20), tokens, size));
    let (answers, elapsed) = ask_all(side, bodies.collect(), streams).await;
    let outcome = Outcome::of(&answers, size.ignore_end.then_some(tokens))
        .with("output, tokens/s", rate(&answers, elapsed))
        .with("prompt tokens, mean", prompt_tokens(&answers));
    with_waiting_times(outcome, &answers)
}

/// Once the stream runs, the prompt is sent; the stream is hung up on some tokens after that was answered.
async fn stall(side: &Side, mut draws: Draws, size: &Size) -> Outcome {
    const BEFORE: usize = 24;
    let long = chat(None, &draws.text(size.scale.words(1_500)), 2, size);
    let running = chat(None, &draws.text(24), 1_536, size);
    let (runs, go) = oneshot::channel();
    let (answered, mut is_answered) = oneshot::channel();
    let mut runs = Some(runs);
    let mut left = None;
    let stream = side.target.ask_and_watch(CHAT, running, |answer| {
        if answer.pieces.len() >= BEFORE
            && let Some(runs) = runs.take()
        {
            let _ = runs.send(());
        }
        if left.is_none() && is_answered.try_recv().is_ok() {
            left = Some(8);
        }
        left = left.map(|left: u32| left.saturating_sub(1));
        left != Some(0)
    });
    let prompt = async {
        go.await.ok()?;
        let answer = side.target.ask(CHAT, long).await;
        let _ = answered.send(());
        Some(answer)
    };
    let (stream, prompt) = tokio::join!(stream, prompt);
    let prompt = prompt.unwrap_or_else(|| stream.clone());
    let gaps: Vec<(Instant, f64)> =
        stream.pieces.windows(2).map(|pair| (pair[1], (pair[1] - pair[0]).as_secs_f64() * 1e3)).collect();
    let during = gaps.iter().filter(|(end, _)| *end > prompt.sent).map(|(_, gap)| *gap);
    let before: Vec<f64> = gaps.iter().filter(|(end, _)| *end <= prompt.sent).map(|(_, gap)| *gap).collect();
    let during: Vec<f64> = during.collect();
    let mut outcome = Outcome::of(&[stream, prompt.clone()], None);
    if left.is_none() {
        outcome.problems.push("the stream ended before the prompt was answered".to_owned());
    }
    outcome
        .with("worst gap, ms", quantile(&during, 1.0))
        .with("gap before, p50, ms", quantile(&before, 0.5))
        .with("time to the prompt's first token, ms", prompt.first().map(|first| first.as_secs_f64() * 1e3))
        .with("prompt tokens, mean", prompt_tokens(&[prompt]))
}

async fn memory(side: &Side, streams: usize, mut draws: Draws, size: &Size) -> Outcome {
    let (prompt, tokens) = (size.pick(512, 256), size.pick(512, 64));
    let words = size.scale.words(prompt);
    let bodies = (0..streams).map(|_| chat(None, &draws.text(words), tokens, size)).collect();
    let Some(process) = side.process else {
        let mut outcome = Outcome::default().with("resident, most, MiB", None);
        outcome.problems.push("its process is not known: PEER_PID or OURS_PID says it".to_owned());
        return outcome;
    };
    let before = resident_mebibytes(process);
    let mut most = before;
    let asked = ask_all(side, bodies, streams);
    tokio::pin!(asked);
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    let (answers, _) = loop {
        tokio::select! {
            done = &mut asked => break done,
            _ = tick.tick() => most = resident_mebibytes(process).into_iter().chain(most).reduce(f64::max),
        }
    };
    Outcome::of(&answers, size.ignore_end.then_some(tokens))
        .with("resident before, MiB", before)
        .with("resident, most, MiB", most)
}

/// Answers end where the model ends them: what follows would repeat itself, and flatter.
async fn lookup(side: &Side, size: &Size) -> Outcome {
    let size = Size { ignore_end: false, ..*size };
    let edits = &EDITS[..size.pick(EDITS.len(), 3)];
    let bodies = edits.iter().map(|(task, text)| chat(None, &format!("{task}\n\n{text}"), 256, &size));
    let (answers, elapsed) = ask_all(side, bodies.collect(), 1).await;
    Outcome::of(&answers, None)
        .with("decode, tokens/s", decode_rate(&answers))
        .with("output, tokens/s", rate(&answers, elapsed))
        .with("tokens, in all", Some(answers.iter().map(|answer| answer.tokens).sum::<u64>() as f64))
}

async fn neighbour(side: &Side, mut draws: Draws, size: &Size) -> Outcome {
    let (count, tokens) = (size.pick(4, 1), size.pick(128, 64));
    let mut bodies =
        || -> Vec<Value> { (0..count).map(|_| chat(None, &draws.text(32), tokens, size)).collect() };
    let (alone, _) = ask_all(side, bodies(), 1).await;
    let neighbours = Neighbours::start();
    let (beside, _) = ask_all(side, bodies(), 1).await;
    let failure = neighbours.err();
    let (alone_rate, beside_rate) = (decode_rate(&alone), decode_rate(&beside));
    let mut outcome = Outcome::of(&[alone, beside].concat(), size.ignore_end.then_some(tokens));
    outcome.problems.extend(failure);
    outcome
        .with("decode alone, tokens/s", alone_rate)
        .with("decode beside, tokens/s", beside_rate)
        .with("kept, share", beside_rate.zip(alone_rate).map(|(beside, alone)| beside / alone))
}
