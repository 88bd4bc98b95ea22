//! Drives a causal model as an engine would, but plainly: sequences, blocks, steps.

use std::path::Path;

use sconce_models::{
    Arithmetic, Batch, CacheType, Device, DeviceSpec, KvCache, LoadOptions, LoadedModel, Model, ModelFiles,
    load,
};
use serde_json::Value;

use crate::golden_data::{golden, read_json};

const BLOCK: usize = KvCache::BLOCK_SIZE;

/// A sequence and the blocks that hold it.
pub struct Sequence {
    pub ids: Vec<u32>,
    pub blocks: Vec<u32>,
    /// Tokens that are in the cache.
    pub done: usize,
}

impl Sequence {
    /// In blocks `first`, `first + 1`, … with room for `room` tokens.
    pub fn new(ids: &[u32], first: u32, room: usize) -> Self {
        Self { ids: ids.to_vec(), blocks: (first..first + room.div_ceil(BLOCK) as u32).collect(), done: 0 }
    }

    fn slot(&self, position: usize) -> u32 {
        self.blocks[position / BLOCK] * BLOCK as u32 + (position % BLOCK) as u32
    }
}

/// A model, its cache and how it was loaded.
pub struct Runner {
    pub model: Box<dyn Model>,
    pub cache: KvCache,
}

impl Runner {
    pub fn load(path: &Path, arithmetic: Arithmetic) -> Self {
        let cache_type = match arithmetic {
            Arithmetic::Float => CacheType::F32,
            Arithmetic::Auto => CacheType::Auto,
            Arithmetic::Integer => CacheType::F16,
        };
        Self::load_with(path, arithmetic, cache_type)
    }

    pub fn load_with(path: &Path, arithmetic: Arithmetic, cache_type: CacheType) -> Self {
        let options = LoadOptions { device: DeviceSpec::Cpu, arithmetic, cache_type, context_length: None };
        let loaded = load(&ModelFiles::find(path).unwrap(), &options).unwrap();
        let LoadedModel::Causal(model) = loaded.model else {
            panic!("{} is not a causal model", path.display());
        };
        let cache = KvCache::new(model.spec(), 64, loaded.cache_type, &Device::cpu()).unwrap();
        Self { model, cache }
    }

    /// Runs the next `count` tokens of each sequence named in one pass; the logits of all those rows, in order.
    pub fn step(&mut self, sequences: &mut [Sequence], counts: &[usize]) -> Vec<Vec<f32>> {
        let mut batch = Batch { starts: vec![0], ..Batch::default() };
        for (sequence, &count) in sequences.iter_mut().zip(counts).filter(|(_, count)| **count > 0) {
            let positions = sequence.done..sequence.done + count;
            batch.token_ids.extend_from_slice(&sequence.ids[positions.clone()]);
            batch.slots.extend(positions.clone().map(|position| sequence.slot(position)));
            batch.positions.extend(positions.map(|position| position as u32));
            batch.starts.push(batch.token_ids.len() as u32);
            sequence.done += count;
            batch.context_lens.push(sequence.done as u32);
            batch.block_tables.push(sequence.blocks.clone());
        }
        batch.sample_rows = (0..batch.token_ids.len() as u32).collect();
        let logits = self.model.forward(&batch, &mut self.cache).unwrap();
        let vocab = logits.vocab();
        logits.into_host().unwrap().chunks(vocab).map(<[f32]>::to_vec).collect()
    }

    /// Logits of every position of one prompt, in one pass.
    pub fn prefill(&mut self, ids: &[u32]) -> Vec<Vec<f32>> {
        let mut sequence = [Sequence::new(ids, 0, ids.len())];
        self.step(&mut sequence, &[ids.len()])
    }
}

/// A list of token ids.
pub fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// A list of numbers.
pub fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
}

/// The id with the highest logit; the lowest of equals.
pub fn best(logits: &[f32]) -> u32 {
    let better = |best: usize, next: usize| if logits[next] > logits[best] { next } else { best };
    (0..logits.len()).reduce(better).unwrap() as u32
}

/// Largest distance of two rows.
pub fn distance(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(found, expected)| (found - expected).abs()).fold(0.0, f32::max)
}

/// Logarithm of the probability of one id.
pub fn log_probability(logits: &[f32], id: u32) -> f64 {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit - top).exp()).sum();
    f64::from(logits[id as usize] - top) - sum.ln()
}

/// Continues `prompt["ids"]` with the golden continuation and compares each step's best id and its probability, until a
/// step whose two best are closer than twice `tolerance` (in logits) goes the other way. Returns the steps compared.
pub fn compare_continuation(runner: &mut Runner, name: &str, prompt: &Value, tolerance: f32) -> usize {
    let (start, greedy) = (ids(&prompt["ids"]), ids(&prompt["greedy"]));
    let (margins, expected) = (numbers(&prompt["greedy_margin"]), numbers(&prompt["greedy_logprob"]));
    let all: Vec<u32> = start.iter().chain(&greedy).copied().collect();
    let mut sequence = [Sequence::new(&all, 0, all.len())];
    let mut logits = runner.step(&mut sequence, &[start.len()]).pop().unwrap();
    for step in 0..greedy.len() {
        let found = best(&logits);
        if found != greedy[step] {
            let margin = margins[step];
            assert!(
                margin < 2.0 * tolerance,
                "{name} step {step}: {found} is not {}, margin {margin}",
                greedy[step]
            );
            return step;
        }
        let probability = log_probability(&logits, found);
        let error = (probability - f64::from(expected[step])).abs();
        assert!(error <= f64::from(2.0 * tolerance), "{name} step {step}: log probability off by {error}");
        logits = runner.step(&mut sequence, &[1]).pop().unwrap();
    }
    greedy.len()
}

/// A copy of a golden checkpoint with another configuration.
pub fn with_config(case: &str, change: &Value) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(golden(case)).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
    }
    let mut config = read_json(&golden(case).join("config.json"));
    for (name, value) in change.as_object().unwrap() {
        config[name] = value.clone();
    }
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    folder
}
