//! Tokens per second of the real model's forward pass: a prompt of 512 tokens, decoding for 1 to 16 streams, and decoding
//! with 2,048 tokens in the cache.
//!
//! Not the engine: no scheduling, no sampling. Needs `make test-models`, or a GGUF file in `MODEL`. Writes down what a
//! pass has to read and compute, from which `make bench` says how fast the machine would let it be.

#[path = "../tests/golden_data/mod.rs"]
mod golden_data;

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use candle_core::quantized::gguf_file::Content;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sconce_models::{
    Batch, CacheType, Device, DeviceSpec, KvCache, LoadOptions, LoadedModel, Model, ModelFiles, load,
};
use serde_json::{Value, json};

const BLOCK: usize = KvCache::BLOCK_SIZE;
/// Tokens in a decoding stream's cache.
const CONTEXT: usize = 256;
const DEEP: usize = 2_048;
const PROMPT: usize = 512;

#[allow(clippy::disallowed_methods, reason = "benches have no configuration to ask")]
fn file() -> PathBuf {
    let given = std::env::var_os("MODEL").filter(|path| !path.is_empty());
    given.map_or_else(|| golden_data::test_model("SmolLM2-135M-Instruct.Q4_1.gguf"), PathBuf::from)
}

/// A model, and how its keys and values are kept unless something else is asked for.
fn model(path: &Path) -> (Box<dyn Model>, CacheType) {
    let options = LoadOptions { device: DeviceSpec::Cpu, ..LoadOptions::default() };
    let loaded = load(&ModelFiles::find(path).expect("a model"), &options).expect("a model that loads");
    let LoadedModel::Causal(model) = loaded.model else {
        panic!("the test model continues text");
    };
    (model, loaded.cache_type)
}

fn cache(model: &dyn Model, cache_type: CacheType) -> KvCache {
    let blocks = (16 * CONTEXT).max(DEEP) / BLOCK;
    KvCache::new(model.spec(), blocks, cache_type, &Device::cpu()).expect("memory")
}

/// Some positions of `streams` contexts that have room for `context` tokens; the logits of each one's last.
fn batch(streams: usize, context: usize, positions: Range<usize>) -> Batch {
    let blocks = context.div_ceil(BLOCK);
    let mut batch = Batch { starts: vec![0], ..Batch::default() };
    for stream in 0..streams {
        for position in positions.clone() {
            batch.token_ids.push(((stream * 7919 + position * 31) % 40_000) as u32);
            batch.positions.push(position as u32);
            batch.slots.push((stream * blocks * BLOCK + position) as u32);
        }
        batch.starts.push(batch.token_ids.len() as u32);
        batch.context_lens.push(positions.end as u32);
        batch.block_tables.push((stream * blocks..(stream + 1) * blocks).map(|block| block as u32).collect());
        batch.sample_rows.push(batch.token_ids.len() as u32 - 1);
    }
    batch
}

/// What passes over this model read and compute, by the headers of its file and its shape.
fn cost(path: &Path, model: &dyn Model) -> Value {
    let mut file = File::open(path).expect("it was just read");
    let content = Content::read(&mut file).expect("it was just read");
    let (mut bytes, mut layers, mut embedding, mut head) = (0, 0, (0, 0), (0, 0));
    let mut floats = 0;
    for (name, tensor) in &content.tensor_infos {
        let count = tensor.shape.elem_count();
        floats += if tensor.ggml_dtype.block_size() == 1 { count } else { 0 };
        let size = count / tensor.ggml_dtype.block_size() * tensor.ggml_dtype.type_size();
        match name.as_str() {
            "token_embd.weight" => embedding = (count, size),
            "output.weight" => head = (count, size),
            _ if tensor.shape.rank() == 2 => (layers, bytes) = (layers + count, bytes + size),
            _ => bytes += size,
        }
    }
    // Without a matrix of its own for the output, the embeddings are read as one.
    let head = if head.0 == 0 { embedding } else { head };
    let spec = model.spec();
    json!({
        "model": path.file_name().map(|name| name.to_string_lossy()),
        "weight_bytes": bytes + head.1,
        "layer_operations": 2 * layers,
        "head_operations": 2 * head.0,
        "cache_bytes_per_position": KvCache::bytes_per_block(spec, CacheType::F16) / BLOCK as u64,
        "attention_operations_per_position": 4 * spec.layers * spec.heads * spec.head_dim,
        "is_float": floats > layers / 2,
    })
}

/// Beside what Criterion writes, in the build's folder.
fn write_cost(cost: &Value) {
    let executable = std::env::current_exe().expect("this program is a file");
    let folder = executable.ancestors().nth(3).expect("it lies in target/release/deps").join("bench");
    std::fs::create_dir_all(&folder).expect("the build folder can be written");
    std::fs::write(folder.join("model.json"), cost.to_string()).expect("it can be written");
}

fn forward(criterion: &mut Criterion) {
    let path = file();
    let (model, cache_type) = model(&path);
    let mut halves = cache(model.as_ref(), cache_type);
    let mut bytes = cache(model.as_ref(), CacheType::Q8_0);
    write_cost(&cost(&path, model.as_ref()));
    let mut group = criterion.benchmark_group("model");
    let prompt = batch(1, PROMPT, 0..PROMPT);
    group.throughput(Throughput::Elements(PROMPT as u64));
    group.bench_function(BenchmarkId::new("prefill", PROMPT), |bencher| {
        bencher.iter(|| model.forward(&prompt, &mut halves).expect("a consistent batch"));
    });
    for (streams, context, is_bytes) in [
        (1, CONTEXT, false),
        (4, CONTEXT, false),
        (8, CONTEXT, false),
        (16, CONTEXT, false),
        (1, DEEP, false),
        (1, DEEP, true),
    ] {
        let (cache, name) = if is_bytes { (&mut bytes, " over q8_0") } else { (&mut halves, "") };
        for start in (0..context).step_by(PROMPT) {
            let part = batch(streams, context, start..context.min(start + PROMPT));
            model.forward(&part, cache).expect("a consistent batch");
        }
        let step = batch(streams, context, context - 1..context);
        group.throughput(Throughput::Elements(streams as u64));
        group.bench_function(BenchmarkId::new(format!("decode at {context}{name}"), streams), |bencher| {
            bencher.iter(|| model.forward(&step, cache).expect("a consistent batch"));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(5));
    targets = forward
}
criterion_main!(benches);
