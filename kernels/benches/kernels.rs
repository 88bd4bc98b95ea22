//! The kernels on shapes of SmolLM2-135M: linear layers by type and rows, attention, and what goes element by element.
//!
//! Criterion prints operations per second (a multiplication and an addition are two) and bytes per second, those that
//! have to be read and written at least once; `make bench` sets both beside what the machine can do. Weights are cold:
//! each call has the next of many matrices, as a model's layers follow each other.

use std::hint::black_box;
use std::time::Duration;

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sconce_kernels::{
    AttentionOptions, CacheFormat, Linear, PagedBatch, PagedParts, lazy_zeros, paged_attention, rms_norm,
    rotary, silu_mul, write_cache,
};

const TYPES: [GgmlDType; 7] = [
    GgmlDType::Q4_0,
    GgmlDType::Q4_1,
    GgmlDType::Q8_0,
    GgmlDType::Q4K,
    GgmlDType::Q6K,
    GgmlDType::F16,
    GgmlDType::F32,
];
const HIDDEN: usize = 576;
const VOCAB: usize = 49_152;
const HEADS: usize = 9;
const KV_HEADS: usize = 3;
const HEAD: usize = 64;
const BLOCK: usize = 32;
/// Weights that calls go through in turn: about as many as the model has.
const WEIGHTS: u64 = 100_000_000;

fn random(shape: impl Into<candle_core::Shape>) -> Tensor {
    Tensor::randn(0f32, 1.0, shape, &Device::Cpu).expect("a tensor on the CPU")
}

/// As many equal matrices as make up [`WEIGHTS`].
fn matrices(out: usize, inner: usize, dtype: GgmlDType) -> Vec<Linear> {
    let blocks = QTensor::quantize(&random((out, inner)), dtype).expect("the shape fits the type");
    let blocks = blocks.data().expect("the tensor is on the CPU");
    let one = || Linear::quantised(dtype, &blocks, out, inner, None, &Device::Cpu).expect("a whole matrix");
    let first = one();
    let more = WEIGHTS / first.memory_bytes();
    std::iter::once(first).chain((1..more).map(|_| one())).collect()
}

fn linear(criterion: &mut Criterion) {
    for (out, inner, all_rows) in [
        (HIDDEN, HIDDEN, [1, 8, 512].as_slice()),
        (1_536, HIDDEN, &[1, 4, 8, 16, 64, 512]),
        (VOCAB, HIDDEN, &[1, 8]),
    ] {
        let mut group = criterion.benchmark_group(format!("linear {out}x{inner}"));
        for dtype in TYPES {
            let inner = if inner % dtype.block_size() == 0 { inner } else { 512 };
            let matrices = matrices(out, inner, dtype);
            for &rows in all_rows {
                let x = random((rows, inner));
                group.throughput(Throughput::ElementsAndBytes {
                    elements: (2 * rows * out * inner) as u64,
                    bytes: matrices[0].memory_bytes() + (4 * rows * (out + inner)) as u64,
                });
                let mut turn = matrices.iter().cycle();
                group.bench_function(BenchmarkId::new(format!("{dtype:?}"), rows), |bencher| {
                    bencher.iter(|| {
                        let linear = turn.next().expect("it has no end");
                        black_box(linear.forward(black_box(&x)).expect("shapes fit"))
                    });
                });
            }
        }
        group.finish();
    }
}

/// The last `rows` positions of `streams` contexts of `depth` positions.
fn paged(streams: usize, depth: usize, rows: usize) -> PagedBatch {
    let blocks = depth / BLOCK;
    let positions = || (depth - rows..depth).map(|position| position as u32);
    let parts = PagedParts {
        slots: (0..streams)
            .flat_map(|stream| positions().map(move |at| (stream * depth) as u32 + at))
            .collect(),
        positions: (0..streams).flat_map(|_| positions()).collect(),
        starts: (0..=streams).map(|stream| (stream * rows) as u32).collect(),
        context_lens: vec![depth as u32; streams],
        block_tables: (0..streams)
            .map(|stream| (stream * blocks..(stream + 1) * blocks).map(|block| block as u32).collect())
            .collect(),
        block_size: BLOCK,
        blocks: streams * blocks,
    };
    PagedBatch::new(parts, &Device::Cpu).expect("the batch fits the cache")
}

/// Keys and values of all positions.
fn cache(format: CacheFormat, streams: usize, depth: usize) -> [Tensor; 2] {
    let shapes = format.shapes(&Device::Cpu, streams * depth / BLOCK, BLOCK, KV_HEADS, HEAD);
    let [keys, values] =
        shapes.map(|shape| lazy_zeros(&shape, format.dtype(), &Device::Cpu).expect("memory for the cache"));
    let new = random((streams * depth, KV_HEADS, HEAD));
    write_cache(&new, &new, &keys, &values, &paged(streams, depth, depth)).expect("shapes fit");
    [keys, values]
}

fn attention(criterion: &mut Criterion) {
    let options = AttentionOptions { scale: 0.125, sliding_window: None, softcap: None };
    let mut group = criterion.benchmark_group("attention");
    for (name, streams, depth, rows) in [
        ("decode at 2048", 1, 2_048, 1),
        ("decode at 256, 16 streams", 16, 256, 1),
        ("decode at 2048, 8 streams", 8, 2_048, 1),
        ("prefill 512", 1, 512, 512),
        ("prefill 64 at 2048", 1, 2_048, 64),
    ] {
        let formats = [(CacheFormat::F16, "", 2.0), (CacheFormat::Q8_0, ", q8_0", 34.0 / 32.0)];
        let in_tiles = CacheFormat::fills_tiles(BLOCK, HEAD).then_some((CacheFormat::Bf16, ", bf16", 2.0));
        for (format, suffix, cell_bytes) in formats.into_iter().chain(in_tiles) {
            let [keys, values] = cache(format, streams, depth);
            let batch = paged(streams, depth, rows);
            let q = random((streams * rows, HEADS, HEAD));
            // What a row sees, on average: it does not look ahead.
            let seen = depth - (rows - 1) / 2;
            let cached = (2 * streams * depth * KV_HEADS * HEAD) as f64 * cell_bytes;
            group.throughput(Throughput::ElementsAndBytes {
                elements: (2 * 2 * streams * rows * seen * HEADS * HEAD) as u64,
                bytes: cached as u64 + (2 * 4 * streams * rows * HEADS * HEAD) as u64,
            });
            group.bench_function(format!("{name}{suffix}"), |bencher| {
                bencher.iter(|| {
                    black_box(paged_attention(&q, &keys, &values, &batch, &options).expect("shapes fit"))
                });
            });
        }
    }
    group.finish();
}

fn element_by_element(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("elements");
    for rows in [1, 512] {
        let (x, weight) = (random((rows, HIDDEN)), random(HIDDEN));
        group.throughput(Throughput::Bytes((2 * 4 * rows * HIDDEN) as u64));
        group.bench_function(BenchmarkId::new("rms norm", rows), |bencher| {
            bencher.iter(|| black_box(rms_norm(&x, &weight, 1e-5).expect("shapes fit")));
        });
        let (gate, up) = (random((rows, 1_536)), random((rows, 1_536)));
        group.throughput(Throughput::Bytes((3 * 4 * rows * 1_536) as u64));
        group.bench_function(BenchmarkId::new("silu and product", rows), |bencher| {
            bencher.iter(|| black_box(silu_mul(&gate, &up).expect("shapes fit")));
        });
        let (q, angles) = (random((rows, HEADS, HEAD)), random((rows, HEAD / 2)));
        group.throughput(Throughput::Bytes((2 * 4 * rows * HEADS * HEAD + 4 * rows * HEAD) as u64));
        group.bench_function(BenchmarkId::new("rotary", rows), |bencher| {
            bencher.iter(|| black_box(rotary(&q, &angles, &angles).expect("shapes fit")));
        });
        let (new, batch) = (random((rows, KV_HEADS, HEAD)), paged(1, 512, rows));
        group.throughput(Throughput::Bytes((2 * (4 + 2) * rows * KV_HEADS * HEAD) as u64));
        let formats = [(CacheFormat::F16, "cache write"), (CacheFormat::Q8_0, "cache write, q8_0")];
        let in_tiles =
            CacheFormat::fills_tiles(BLOCK, HEAD).then_some((CacheFormat::Bf16, "cache write, bf16"));
        for (format, name) in formats.into_iter().chain(in_tiles) {
            let [keys, values] = cache(format, 1, 512);
            group.bench_function(BenchmarkId::new(name, rows), |bencher| {
                bencher.iter(|| write_cache(&new, &new, &keys, &values, &batch).expect("shapes fit"));
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600));
    targets = linear, attention, element_by_element
}
criterion_main!(benches);
