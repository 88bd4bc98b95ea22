//! Throughput of the kernels on shapes of SmolLM2-135M: linear layers by type and batch, and attention at
//! depth 2048.
//!
//! Criterion prints bytes per second of weights (or cached keys and values) for one row, where memory is the
//! limit, and elements per second, meaning multiply-adds, for many rows.

use std::hint::black_box;

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sconce_kernels::{AttentionOptions, Linear, PagedBatch, PagedParts, cache_shapes, paged_attention};

const TYPES: [GgmlDType; 6] =
    [GgmlDType::Q4_0, GgmlDType::Q4_1, GgmlDType::Q8_0, GgmlDType::Q6K, GgmlDType::F16, GgmlDType::F32];

fn linear(criterion: &mut Criterion) {
    for (out, inner) in [(576, 576), (1536, 576), (49152, 576)] {
        for dtype in TYPES {
            let inner = if inner % dtype.block_size() == 0 { inner } else { 512 };
            let weight = Tensor::randn(0f32, 1.0, (out, inner), &Device::Cpu).expect("a tensor on the CPU");
            let blocks = QTensor::quantize(&weight, dtype).expect("the shape fits the type");
            let blocks = blocks.data().expect("the tensor is on the CPU");
            let linear =
                Linear::quantised(dtype, &blocks, out, inner, None, &Device::Cpu).expect("a whole matrix");
            let mut group = criterion.benchmark_group(format!("linear/{out}x{inner}"));
            for rows in [1, 8, 64] {
                if out > 10_000 && rows > 8 {
                    continue;
                }
                let x = Tensor::randn(0f32, 1.0, (rows, inner), &Device::Cpu).expect("a tensor on the CPU");
                group.throughput(match rows {
                    1 => Throughput::Bytes(linear.memory_bytes()),
                    _ => Throughput::Elements((rows * out * inner) as u64),
                });
                group.bench_function(BenchmarkId::new(format!("{dtype:?}"), rows), |bencher| {
                    bencher.iter(|| black_box(linear.forward(black_box(&x)).expect("shapes fit")));
                });
            }
            group.finish();
        }
    }
}

fn attention(criterion: &mut Criterion) {
    const DEPTH: usize = 2048;
    const BLOCK: usize = 32;
    let (heads, kv_heads, width) = (9, 3, 64);
    let shapes = cache_shapes(&Device::Cpu, DEPTH / BLOCK, BLOCK, kv_heads, width);
    let [keys, values] = shapes.map(|shape| {
        let cache = Tensor::randn(0f32, 1.0, &shape, &Device::Cpu).expect("a tensor on the CPU");
        cache.to_dtype(DType::F16).expect("f32 narrows to f16")
    });
    let options = AttentionOptions { scale: 0.125, sliding_window: None, softcap: None };
    let mut group = criterion.benchmark_group("attention/depth-2048");
    for rows in [1, 128, 512] {
        let positions: Vec<u32> = (DEPTH - rows..DEPTH).map(|position| position as u32).collect();
        let parts = PagedParts {
            slots: positions.clone(),
            positions,
            starts: vec![0, rows as u32],
            context_lens: vec![DEPTH as u32],
            block_tables: vec![(0..(DEPTH / BLOCK) as u32).collect()],
            block_size: BLOCK,
            blocks: DEPTH / BLOCK,
        };
        let batch = PagedBatch::new(parts, &Device::Cpu).expect("the batch fits the cache");
        let q = Tensor::randn(0f32, 1.0, (rows, heads, width), &Device::Cpu).expect("a tensor on the CPU");
        group.throughput(match rows {
            1 => Throughput::Bytes((2 * 2 * DEPTH * kv_heads * width) as u64),
            _ => Throughput::Elements((2 * rows * (DEPTH - rows / 2) * heads * width) as u64),
        });
        group.bench_function(BenchmarkId::from_parameter(rows), |bencher| {
            bencher.iter(|| {
                black_box(paged_attention(&q, &keys, &values, &batch, &options).expect("shapes fit"))
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(std::time::Duration::from_millis(200))
        .measurement_time(std::time::Duration::from_millis(600));
    targets = linear, attention
}
criterion_main!(benches);
