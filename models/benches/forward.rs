//! Tokens per second of the real model's forward pass: a prompt of 512 tokens, and decoding for 1 to 16 streams.
//!
//! Not the engine: no scheduling, no sampling. Needs `make test-models`.

#[path = "../tests/golden_data/mod.rs"]
mod golden_data;

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sconce_models::{
    Batch, CacheType, Device, DeviceSpec, KvCache, LoadOptions, LoadedModel, Model, ModelFiles, load,
};

const BLOCK: usize = KvCache::BLOCK_SIZE;
/// Tokens in a decoding stream's cache.
const CONTEXT: usize = 256;

fn model() -> (Box<dyn Model>, KvCache) {
    let path = golden_data::test_model("SmolLM2-135M-Instruct.Q4_1.gguf");
    let options = LoadOptions { device: DeviceSpec::Cpu, ..LoadOptions::default() };
    let loaded = load(&ModelFiles::find(&path).expect("a model"), &options).expect("a model that loads");
    let LoadedModel::Causal(model) = loaded.model else {
        panic!("the test model continues text");
    };
    let cache =
        KvCache::new(model.spec(), 16 * CONTEXT / BLOCK, CacheType::F16, &Device::cpu()).expect("memory");
    (model, cache)
}

/// The last `count` tokens of `streams` contexts of `context` tokens, the logits of each one's last.
fn batch(streams: usize, context: usize, count: usize) -> Batch {
    let blocks = context.div_ceil(BLOCK);
    let mut batch = Batch { starts: vec![0], ..Batch::default() };
    for stream in 0..streams {
        for position in context - count..context {
            batch.token_ids.push(((stream * 7919 + position * 31) % 40_000) as u32);
            batch.positions.push(position as u32);
            batch.slots.push((stream * blocks * BLOCK + position) as u32);
        }
        batch.starts.push(batch.token_ids.len() as u32);
        batch.context_lens.push(context as u32);
        batch.block_tables.push((stream * blocks..(stream + 1) * blocks).map(|block| block as u32).collect());
        batch.sample_rows.push(batch.token_ids.len() as u32 - 1);
    }
    batch
}

fn forward(criterion: &mut Criterion) {
    let (model, mut cache) = model();
    let mut group = criterion.benchmark_group("smollm2-135m-q4_1");
    group.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(5));
    let prompt = batch(1, 512, 512);
    group.throughput(Throughput::Elements(512));
    group.bench_function("prefill/512", |bencher| {
        bencher.iter(|| model.forward(&prompt, &mut cache).expect("a consistent batch"));
    });
    for streams in [1, 4, 8, 16] {
        model.forward(&batch(streams, CONTEXT, CONTEXT), &mut cache).expect("a consistent batch");
        let step = batch(streams, CONTEXT, 1);
        group.throughput(Throughput::Elements(streams as u64));
        group.bench_with_input(BenchmarkId::new("decode", streams), &step, |bencher, step| {
            bencher.iter(|| model.forward(step, &mut cache).expect("a consistent batch"));
        });
    }
    group.finish();
}

criterion_group!(benches, forward);
criterion_main!(benches);
