//! Every operation, at every SIMD level this machine has, at odd shapes, against plain arithmetic and
//! candle's own operations; and the promise that a row's bits depend on that row alone.
#![allow(clippy::unwrap_used)] // In a test an unwrap is an assertion.

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};
use proptest::prelude::{ProptestConfig, Strategy, any, prop_assert_eq, proptest};
use proptest::sample::select;
use sconce_kernels::{
    AttentionOptions, CacheFormat, Cpu, Level, Linear, PagedBatch, PagedParts, Pool, Rounding, composed, on,
};

const QUANTISED: [GgmlDType; 11] = [
    GgmlDType::Q4_0,
    GgmlDType::Q4_1,
    GgmlDType::Q5_0,
    GgmlDType::Q5_1,
    GgmlDType::Q8_0,
    GgmlDType::Q2K,
    GgmlDType::Q3K,
    GgmlDType::Q4K,
    GgmlDType::Q5K,
    GgmlDType::Q6K,
    GgmlDType::Q8K,
];

const FORMATS: [CacheFormat; 4] = [CacheFormat::F16, CacheFormat::F32, CacheFormat::Bf16, CacheFormat::Q8_0];

/// How near attention is to candle's: in bf16 queries and weights are rounded, too.
fn tolerance(format: CacheFormat) -> f32 {
    if format == CacheFormat::Bf16 { 1e-2 } else { 2e-5 }
}

const ROUNDINGS: [Rounding; 2] = [Rounding::Bytes, Rounding::Bfloat16];

/// A quantised matrix for one of the two ways of multiplying it.
fn matrix(
    rounding: Rounding,
    dtype: GgmlDType,
    blocks: &[u8],
    out: usize,
    inner: usize,
    bias: Option<&Tensor>,
) -> Linear {
    Linear::quantised_for(rounding, dtype, blocks, (out, inner), bias, &Device::Cpu).unwrap()
}

/// A small generator, so that a failing case is named by its seed.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * 2.0
    }

    fn tensor(&mut self, shape: &[usize]) -> Tensor {
        let count = shape.iter().product();
        Tensor::from_vec((0..count).map(|_| self.next()).collect::<Vec<_>>(), shape, &Device::Cpu).unwrap()
    }
}

/// Pools of one, two and three threads, alive for all tests.
fn pools() -> [&'static Pool; 3] {
    static POOLS: std::sync::OnceLock<[Pool; 3]> = std::sync::OnceLock::new();
    POOLS.get_or_init(|| [Pool::new(1), Pool::new(2), Pool::new(3)]).each_ref()
}

/// Every level on one thread, then the best on several.
fn processors() -> Vec<Cpu> {
    let levels = Level::supported().into_iter().map(|level| Cpu::with(level, pools()[0]).unwrap());
    let threads = pools().into_iter().map(|pool| Cpu::with(Level::detect(), pool).unwrap());
    levels.chain(threads).collect()
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    values(tensor).into_iter().map(f32::to_bits).collect()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_dtype(DType::F32).unwrap().to_vec1().unwrap()
}

fn assert_close(found: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let difference = (found - expected).abs();
        assert!(
            difference <= tolerance * (1.0 + expected.abs()),
            "{what}[{index}]: {found} against {expected}"
        );
    }
}

/// `x` as the kernels round it: blocks of 32 to multiples of a 127th of the largest.
fn rounded(x: &[f32]) -> Vec<f32> {
    let block = |values: &[f32]| {
        let largest = values.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        let (scale, inverse) = (largest / 127.0, if largest > 0.0 { 127.0 / largest } else { 0.0 });
        values.iter().map(move |value| (value * inverse).round_ties_even() * scale).collect::<Vec<_>>()
    };
    x.chunks(32).flat_map(block).collect()
}

/// To the nearest bf16.
fn narrowed(values: &[f32]) -> Vec<f32> {
    values.iter().map(|value| half::bf16::from_f32(*value).to_f32()).collect()
}

/// Rows and weights as a way of multiplying has them.
fn as_multiplied(rounding: Rounding, x: &[f32], weights: &[f32]) -> (Vec<f32>, Vec<f32>) {
    match rounding {
        Rounding::Bytes => (rounded(x), weights.to_vec()),
        Rounding::Bfloat16 => (narrowed(x), narrowed(weights)),
    }
}

fn product(x: &[f32], weights: &[f32], inner: usize) -> Vec<f32> {
    let dot = |x: &[f32], row: &[f32]| {
        x.iter().zip(row).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum::<f64>() as f32
    };
    x.chunks(inner).flat_map(|x| weights.chunks(inner).map(move |row| dot(x, row))).collect()
}

fn quantise(noise: &mut Noise, dtype: GgmlDType, out: usize, inner: usize) -> (Vec<u8>, Vec<f32>) {
    let tensor = QTensor::quantize(&noise.tensor(&[out, inner]), dtype).unwrap();
    let blocks = tensor.data().unwrap().into_owned();
    (blocks, values(&tensor.dequantize(&Device::Cpu).unwrap()))
}

fn rows_of(x: &Tensor, order: &[usize]) -> Tensor {
    let ids: Vec<u32> = order.iter().map(|row| *row as u32).collect();
    x.index_select(&Tensor::new(ids, &Device::Cpu).unwrap(), 0).unwrap()
}

fn forward(cpu: Cpu, linear: &Linear, x: &Tensor) -> Tensor {
    Linear::forward_all_on(cpu, &[linear], x).unwrap().remove(0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn quantised_linear_is_the_product_with_its_weights(
        dtype in select(&QUANTISED[..]), rounding in select(&ROUNDINGS[..]), seed in any::<u64>(), out in 1usize..70,
        units in 1usize..4, tokens in 1usize..60, with_bias in any::<bool>(),
    ) {
        let mut noise = Noise(seed);
        let inner = units * dtype.block_size();
        let (blocks, weights) = quantise(&mut noise, dtype, out, inner);
        let bias = with_bias.then(|| noise.tensor(&[out]));
        let linear = matrix(rounding, dtype, &blocks, out, inner, bias.as_ref());
        let ids: Vec<u32> = (0..out as u32).rev().collect();
        let embedded = values(&linear.embed(&ids).unwrap());
        let expected: Vec<f32> = weights.chunks(inner).rev().flatten().copied().collect();
        assert_close(&embedded, &expected, 1e-6, "embed");

        let x = noise.tensor(&[tokens, inner]);
        let (rows, weights) = as_multiplied(rounding, &values(&x), &weights);
        let mut expected = product(&rows, &weights, inner);
        if let Some(bias) = &bias {
            let bias = values(bias);
            expected.iter_mut().enumerate().for_each(|(index, value)| *value += bias[index % out]);
        }
        let reference = forward(processors()[0], &linear, &x);
        assert_close(&values(&reference), &expected, 2e-5 * (inner as f32).sqrt(), "forward");
        for cpu in processors() {
            prop_assert_eq!(bits(&forward(cpu, &linear, &x)), bits(&reference), "{:?}", cpu);
        }
    }

    #[test]
    fn dense_linear_is_the_product_with_its_weights(
        dtype in select(vec![DType::F32, DType::F16, DType::BF16]), seed in any::<u64>(), out in 1usize..120,
        inner in 1usize..100, tokens in 1usize..100,
    ) {
        let mut noise = Noise(seed);
        let weight = noise.tensor(&[out, inner]).to_dtype(dtype).unwrap();
        let linear = Linear::dense(&weight, None).unwrap();
        let x = noise.tensor(&[tokens, inner]);
        let expected = product(&values(&x), &values(&weight), inner);
        let reference = forward(processors()[0], &linear, &x);
        assert_close(&values(&reference), &expected, 1e-5, "forward");
        for cpu in processors() {
            prop_assert_eq!(bits(&forward(cpu, &linear, &x)), bits(&reference), "{:?}", cpu);
        }
        prop_assert_eq!(values(&linear.embed(&[out as u32 - 1]).unwrap()), values(&weight.narrow(0, out - 1, 1).unwrap()));
    }

    #[test]
    fn a_row_of_a_linear_depends_on_that_row_alone(
        dtype in select([&QUANTISED[..], &[GgmlDType::F32, GgmlDType::F16, GgmlDType::BF16]].concat()),
        rounding in select(&ROUNDINGS[..]), seed in any::<u64>(), tokens in 2usize..70, shift in 1usize..40,
    ) {
        let mut noise = Noise(seed);
        let inner = 2 * dtype.block_size().max(32);
        let (blocks, _) = quantise(&mut noise, dtype, 50, inner);
        let (other_blocks, _) = quantise(&mut noise, dtype, 21, inner);
        let linear = matrix(rounding, dtype, &blocks, 50, inner, None);
        let other = matrix(rounding, dtype, &other_blocks, 21, inner, None);
        let x = noise.tensor(&[tokens, inner]);
        let whole = linear.forward(&x).unwrap();
        let order: Vec<usize> = (0..tokens).map(|row| (row + shift) % tokens).rev().collect();
        for cpu in processors() {
            let moved = forward(cpu, &linear, &rows_of(&x, &order));
            prop_assert_eq!(bits(&moved), bits(&rows_of(&whole, &order)), "permuted, {:?}", cpu);
            let alone = forward(cpu, &linear, &x.narrow(0, tokens / 2, 1).unwrap());
            prop_assert_eq!(bits(&alone), bits(&whole.narrow(0, tokens / 2, 1).unwrap()), "alone, {:?}", cpu);
            let pair = Linear::forward_all_on(cpu, &[&other, &linear], &x).unwrap();
            prop_assert_eq!(bits(&pair[1]), bits(&whole), "beside another, {:?}", cpu);
            prop_assert_eq!(bits(&pair[0]), bits(&forward(cpu, &other, &x)), "first of two, {:?}", cpu);
            let residual = noise.tensor(&[tokens, 50]);
            let onto = linear.forward_onto_on(cpu, &x.clone().into(), residual.copy().unwrap()).unwrap();
            prop_assert_eq!(bits(&onto), bits(&(&residual + &whole).unwrap()), "onto, {:?}", cpu);
        }
    }

    #[test]
    fn norms_rotary_and_gate_match_candle(seed in any::<u64>(), tokens in 1usize..20, heads in 1usize..4, half in 1usize..40) {
        let mut noise = Noise(seed);
        let width = 2 * half + 3;
        let x = noise.tensor(&[tokens, heads, width]);
        let (weight, bias) = (noise.tensor(&[width]), noise.tensor(&[width]));
        let (cos, sin) = (noise.tensor(&[tokens, half]), noise.tensor(&[tokens, half]));
        let other = noise.tensor(&[tokens, heads, width]);
        type Run<'a> = Box<dyn Fn(Cpu) -> Tensor + 'a>;
        let cases: [(&str, Run<'_>, Tensor); 4] = [
            ("rms_norm", Box::new(|cpu| on::rms_norm_on(cpu, &x, &weight, 1e-5).unwrap()),
                composed::rms_norm(&x, &weight, 1e-5).unwrap()),
            ("layer_norm", Box::new(|cpu| on::layer_norm_on(cpu, &x, &weight, &bias, 1e-5).unwrap()),
                composed::layer_norm(&x, &weight, &bias, 1e-5).unwrap()),
            ("rotary", Box::new(|cpu| on::rotary_on(cpu, &x, &cos, &sin).unwrap()),
                composed::rotary(&x, &cos, &sin).unwrap()),
            ("silu_mul", Box::new(|cpu| on::silu_mul_on(cpu, &x, &other).unwrap()),
                composed::silu_mul(&x, &other).unwrap()),
        ];
        for (name, run, expected) in cases {
            let reference = run(processors()[0]);
            assert_close(&values(&reference), &values(&expected), 1e-5, name);
            for cpu in processors() {
                prop_assert_eq!(bits(&run(cpu)), bits(&reference), "{} {:?}", name, cpu);
            }
        }
    }
}

/// A block of any type with arbitrary bits in its codes and small scales, at the largest values that may be
/// summed.
fn extreme_blocks(noise: &mut Noise, dtype: GgmlDType, count: usize) -> Vec<u8> {
    let halves_at: &[usize] = match dtype {
        GgmlDType::Q4_0 | GgmlDType::Q5_0 | GgmlDType::Q8_0 => &[0],
        GgmlDType::Q4_1 | GgmlDType::Q5_1 | GgmlDType::Q8_1 | GgmlDType::Q4K | GgmlDType::Q5K => &[0, 2],
        GgmlDType::Q2K => &[80, 82],
        GgmlDType::Q3K => &[108],
        GgmlDType::Q6K => &[208],
        _ => &[],
    };
    let mut blocks = vec![0u8; count * dtype.type_size()];
    for block in blocks.chunks_exact_mut(dtype.type_size()) {
        let kind = noise.next();
        for byte in block.iter_mut() {
            *byte = if kind < -0.5 {
                0xff
            } else if kind < 0.0 {
                0
            } else if kind < 0.3 {
                0x80
            } else {
                (noise.next() * 128.0) as i8 as u8
            };
        }
        for at in halves_at {
            block[*at..at + 2].copy_from_slice(&half::f16::from_f32(noise.next() * 0.1).to_le_bytes());
        }
        if dtype == GgmlDType::Q8K {
            block[..4].copy_from_slice(&(noise.next() * 0.1).to_le_bytes());
        }
    }
    blocks
}

#[test]
fn the_largest_codes_do_not_overflow() {
    let mut noise = Noise(11);
    let types = QUANTISED.into_iter().chain([GgmlDType::Q8_1]);
    for (dtype, rounding) in types.flat_map(|dtype| ROUNDINGS.map(|rounding| (dtype, rounding))) {
        let inner = 2 * dtype.block_size();
        let blocks = extreme_blocks(&mut noise, dtype, 2 * 33);
        let linear = matrix(rounding, dtype, &blocks, 33, inner, None);
        let ids: Vec<u32> = (0..33).collect();
        let weights = values(&linear.embed(&ids).unwrap());
        if dtype != GgmlDType::Q8_1 {
            let storage =
                candle_core::quantized::QStorage::from_data(blocks.into(), &Device::Cpu, dtype).unwrap();
            let theirs = QTensor::new(storage, (33, inner)).unwrap().dequantize(&Device::Cpu).unwrap();
            assert_close(&weights, &values(&theirs), 1e-6, "embed");
        }
        let signs =
            (0..53 * inner).map(|_| if noise.next() > -0.3 { 2.0 } else { -2.0 }).collect::<Vec<f32>>();
        let x = Tensor::from_vec(signs, (53, inner), &Device::Cpu).unwrap();
        let reference = forward(processors()[0], &linear, &x);
        let (_, weights) = as_multiplied(rounding, &[], &weights);
        assert_close(&values(&reference), &product(&values(&x), &weights, inner), 1e-3, "forward");
        for cpu in processors() {
            assert_eq!(bits(&forward(cpu, &linear, &x)), bits(&reference), "{dtype:?} {rounding:?} {cpu:?}");
        }
    }
}

/// Sequences over one cache, whose blocks are dealt out in a scrambled order.
#[derive(Debug, Clone)]
struct Scene {
    seed: u64,
    contexts: Vec<usize>,
    kv_heads: usize,
    group: usize,
    width: usize,
    block_size: usize,
    format: CacheFormat,
    options: AttentionOptions,
    /// What lies in the cache where nobody has written yet.
    stale: f32,
}

/// Scenes whose cache is whole tiles of bf16.
fn scenes_in_tiles() -> impl Strategy<Value = Scene> {
    let sizes = (1usize..3, 1usize..6, select(vec![32usize, 64, 96, 128]));
    let options = (proptest::option::of(1usize..300), proptest::option::of(1f32..30.0));
    let contexts = proptest::collection::vec(1usize..400, 1..4);
    let stale = select(vec![f32::NAN, 0.0, -0.0, 3e38, 1e-39, -1.5]);
    (any::<u64>(), contexts, sizes, options, stale).prop_map(
        |(seed, contexts, (kv_heads, group, width), (sliding_window, softcap), stale)| Scene {
            seed,
            contexts,
            kv_heads,
            group,
            width,
            block_size: 32,
            format: CacheFormat::Bf16,
            options: AttentionOptions { scale: 1.0 / (width as f32).sqrt(), sliding_window, softcap },
            stale,
        },
    )
}

fn scenes() -> impl Strategy<Value = Scene> {
    let widths = select(vec![8usize, 16, 33, 48, 64, 80]);
    let sizes = (1usize..4, 1usize..4, widths, select(vec![8usize, 12, 16, 24, 32]));
    let options = (proptest::option::of(1usize..70), proptest::option::of(1f32..30.0));
    let contexts = proptest::collection::vec(1usize..150, 1..4);
    let formats = select(FORMATS.to_vec());
    (any::<u64>(), contexts, sizes, formats, options).prop_map(
        |(seed, contexts, (kv_heads, group, width, block_size), format, (sliding_window, softcap))| Scene {
            seed,
            contexts,
            kv_heads,
            group,
            width,
            block_size,
            format,
            options: AttentionOptions { scale: 1.0 / (width as f32).sqrt(), sliding_window, softcap },
            stale: f32::NAN,
        },
    )
}

/// A scene's tensors: queries, keys and values of every position, and the cache they go to.
struct Stage {
    scene: Scene,
    q: Vec<Tensor>,
    k: Vec<Tensor>,
    v: Vec<Tensor>,
    keys: Tensor,
    values: Tensor,
    tables: Vec<Vec<u32>>,
    blocks: usize,
}

impl Stage {
    fn new(scene: &Scene) -> Self {
        let mut noise = Noise(scene.seed);
        let needs: Vec<usize> =
            scene.contexts.iter().map(|context| context.div_ceil(scene.block_size)).collect();
        let blocks = needs.iter().sum::<usize>() + 2;
        let mut free: Vec<u32> = (0..blocks as u32).collect();
        let tables = needs.iter().map(|need| {
            (0..*need)
                .map(|_| free.swap_remove((noise.next().abs() * free.len() as f32) as usize % free.len()))
                .collect()
        });
        let tables = tables.collect();
        let mut make = |heads: usize| {
            let shapes = scene.contexts.iter().map(|context| [*context, heads, scene.width]);
            shapes.map(|shape| noise.tensor(&shape)).collect::<Vec<_>>()
        };
        let (q, k, v) = (make(scene.kv_heads * scene.group), make(scene.kv_heads), make(scene.kv_heads));
        let shapes = scene.format.shapes(&Device::Cpu, blocks, scene.block_size, scene.kv_heads, scene.width);
        // What a freed block left behind must not be read.
        let [keys, values] = shapes.map(|shape| match scene.format {
            // As scales, these bits are no number.
            CacheFormat::Q8_0 => Tensor::full(0x7e7ei16, &shape, &Device::Cpu).unwrap(),
            format => {
                Tensor::full(scene.stale, &shape, &Device::Cpu).unwrap().to_dtype(format.dtype()).unwrap()
            }
        });
        Self { scene: scene.clone(), q, k, v, keys, values, tables, blocks }
    }

    /// The batch that runs positions `ranges[s]` of each sequence `s`.
    fn batch(&self, ranges: &[std::ops::Range<usize>]) -> PagedBatch {
        let block_size = self.scene.block_size;
        let mut parts =
            PagedParts { starts: vec![0], block_size, blocks: self.blocks, ..PagedParts::default() };
        for (range, table) in ranges.iter().zip(&self.tables) {
            for position in range.clone() {
                parts.positions.push(position as u32);
                parts
                    .slots
                    .push(table[position / block_size] * block_size as u32 + (position % block_size) as u32);
            }
            parts.starts.push(parts.positions.len() as u32);
            parts.context_lens.push(range.end as u32);
            parts.block_tables.push(table.clone());
        }
        PagedBatch::new(parts, &Device::Cpu).unwrap()
    }

    fn gather(&self, tensors: &[Tensor], ranges: &[std::ops::Range<usize>]) -> Tensor {
        let parts: Vec<Tensor> = tensors
            .iter()
            .zip(ranges)
            .map(|(tensor, range)| tensor.narrow(0, range.start, range.len()).unwrap())
            .collect();
        Tensor::cat(&parts, 0).unwrap()
    }

    /// Writes and attends one batch.
    fn run(&self, cpu: Cpu, ranges: &[std::ops::Range<usize>]) -> Tensor {
        let batch = self.batch(ranges);
        let (k, v) = (self.gather(&self.k, ranges), self.gather(&self.v, ranges));
        sconce_kernels::write_cache(&k, &v, &self.keys, &self.values, &batch).unwrap();
        let q = self.gather(&self.q, ranges);
        on::paged_attention_on(cpu, &q, &self.keys, &self.values, &batch, &self.scene.options).unwrap()
    }

    fn whole(&self) -> Vec<std::ops::Range<usize>> {
        self.scene.contexts.iter().map(|context| 0..*context).collect()
    }
}

/// What a cache in q8_0 keeps of rows `[t, kv, d]`: 32 dimensions are multiples of a scale, a 127th of the largest as
/// half precision has it.
fn as_codes(rows: &Tensor) -> Tensor {
    let width = rows.dim(2).unwrap();
    let group = |values: &[f32]| {
        let largest = values.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        let scale = half::f16::from_f32(largest / 127.0).to_f32();
        let code = |value: &f32| (value * (1.0 / scale)).round_ties_even().clamp(-127.0, 127.0);
        values.iter().map(|value| if scale > 0.0 { code(value) * scale } else { 0.0 }).collect::<Vec<_>>()
    };
    let kept: Vec<f32> = values(rows)
        .chunks(width)
        .flat_map(|head| head.chunks(32).flat_map(group).collect::<Vec<_>>())
        .collect();
    Tensor::from_vec(kept, rows.shape(), &Device::Cpu).unwrap()
}

/// Keys and values of a cache of pairs as `[blocks, block, kv, d]`.
fn unpaired(stage: &Stage) -> [Tensor; 2] {
    let &Scene { kv_heads, width, block_size, .. } = &stage.scene;
    let keys = stage.keys.reshape((stage.blocks, kv_heads, width.div_ceil(2), block_size, 2)).unwrap();
    let keys = keys.permute((0, 3, 1, 2, 4)).unwrap().flatten(3, 4).unwrap().narrow(3, 0, width).unwrap();
    let values = stage.values.reshape((stage.blocks, kv_heads, block_size.div_ceil(2), width, 2)).unwrap();
    let values = values.permute((0, 2, 4, 1, 3)).unwrap().flatten(1, 2).unwrap();
    [keys, values.narrow(1, 0, block_size).unwrap()]
}

/// What candle's operations make of a whole scene, and the caches of keys and values that they make it of.
fn composition(stage: &Stage) -> (Tensor, [Tensor; 2]) {
    let (scene, whole) = (&stage.scene, stage.whole());
    let (batch, q) = (stage.batch(&whole), stage.gather(&stage.q, &whole));
    let (k, v) = (stage.gather(&stage.k, &whole), stage.gather(&stage.v, &whole));
    let (k, v, plain) = match scene.format {
        CacheFormat::Q8_0 => (as_codes(&k), as_codes(&v), DType::F32),
        format => (k, v, format.dtype()),
    };
    let shape = (stage.blocks, scene.block_size, scene.kv_heads, scene.width);
    let caches = [0, 1].map(|_| Tensor::zeros(shape, plain, &Device::Cpu).unwrap());
    composed::write_cache(&k, &v, &caches[0], &caches[1], &batch).unwrap();
    let attended = composed::paged_attention(&q, &caches[0], &caches[1], &batch, &scene.options).unwrap();
    (attended, caches)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn paged_attention_matches_the_composition(scene in scenes()) {
        let stage = Stage::new(&scene);
        let whole = stage.whole();
        let reference = stage.run(processors()[0], &whole);
        for cpu in processors() {
            prop_assert_eq!(bits(&stage.run(cpu, &whole)), bits(&reference), "{:?}", cpu);
        }
        let (expected, [keys, values_]) = composition(&stage);
        assert_close(&values(&reference), &values(&expected), tolerance(scene.format), "attention");
        // Both as `[blocks, block, kv, d]`.
        let written = match scene.format {
            CacheFormat::Q8_0 => return Ok(()),
            CacheFormat::Bf16 => unpaired(&stage),
            _ => [stage.keys.permute((0, 3, 1, 2)).unwrap(), stage.values.transpose(1, 2).unwrap()],
        };
        for (written, expected) in [(&written[0], &keys), (&written[1], &values_)] {
            let cells = values(written).into_iter().zip(values(expected));
            prop_assert_eq!(cells.filter(|(found, expected)| !found.is_nan() && found != expected).count(), 0);
        }
    }

    /// Where blocks are whole tiles of bf16: each level, decode, and what was in the cache before.
    #[test]
    fn attention_in_tiles_is_that_of_plain_numbers(scene in scenes_in_tiles()) {
        let stage = Stage::new(&scene);
        let whole = stage.whole();
        let reference = stage.run(processors()[0], &whole);
        assert_close(&values(&reference), &values(&composition(&stage).0), tolerance(scene.format), "attention");
        let starts: Vec<usize> = scene.contexts.iter().scan(0, |at, context| {
            *at += context;
            Some(*at - 1)
        }).collect();
        let last: Vec<_> = scene.contexts.iter().map(|context| context - 1..*context).collect();
        for cpu in processors() {
            prop_assert_eq!(bits(&stage.run(cpu, &whole)), bits(&reference), "{:?}", cpu);
            prop_assert_eq!(bits(&stage.run(cpu, &last)), bits(&rows_of(&reference, &starts)), "decode, {:?}", cpu);
        }
        let clean = Stage::new(&Scene { stale: 0.0, ..scene });
        prop_assert_eq!(bits(&clean.run(Cpu::host(), &whole)), bits(&reference), "nothing stale");
    }

    #[test]
    fn chunks_and_decode_give_the_bits_of_the_whole(scene in scenes(), chunk in 1usize..60) {
        let stage = Stage::new(&scene);
        let whole = stage.run(Cpu::host(), &stage.whole());
        let again = Stage::new(&scene);
        let longest = scene.contexts.iter().max().copied().unwrap();
        let mut rows: Vec<Vec<u32>> = vec![Vec::new(); scene.contexts.len()];
        for (step, start) in (0..longest).step_by(chunk).enumerate() {
            let ranges: Vec<_> = scene.contexts.iter().map(|end| start.min(*end)..(start + chunk).min(*end)).collect();
            // A sequence that is done takes no rows, but its context must stay valid.
            let out = again.run(processors()[step % processors().len()], &ranges);
            let mut first = 0;
            for (range, rows) in ranges.iter().zip(&mut rows) {
                rows.extend(bits(&out.narrow(0, first, range.len()).unwrap()));
                first += range.len();
            }
        }
        prop_assert_eq!(rows.concat(), bits(&whole));
    }

    #[test]
    fn packed_attention_matches_the_composition(
        seed in any::<u64>(), lengths in proptest::collection::vec(0usize..80, 1..5), kv_heads in 1usize..3, group in 1usize..4,
    ) {
        let mut noise = Noise(seed);
        let starts: Vec<u32> = std::iter::once(0).chain(lengths.iter().scan(0, |sum, length| {
            *sum += *length as u32;
            Some(*sum)
        })).collect();
        let tokens = lengths.iter().sum();
        let (q, k, v) = (noise.tensor(&[tokens, kv_heads * group, 24]), noise.tensor(&[tokens, kv_heads, 24]), noise.tensor(&[tokens, kv_heads, 24]));
        let expected = composed::packed_attention(&q, &k, &v, &starts, 0.2).unwrap();
        let reference = on::packed_attention_on(processors()[0], &q, &k, &v, &starts, 0.2).unwrap();
        assert_close(&values(&reference), &values(&expected), 2e-5, "packed");
        for cpu in processors() {
            let found = on::packed_attention_on(cpu, &q, &k, &v, &starts, 0.2).unwrap();
            prop_assert_eq!(bits(&found), bits(&reference), "{:?}", cpu);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// What is handed to a matrix rounded, without having been in memory, gives the bits of the operations one by one.
    #[test]
    fn rows_made_for_a_matrix_give_the_bits_of_plain_ones(
        seed in any::<u64>(), dtype in select(&QUANTISED[..]), rounding in select(&ROUNDINGS[..]), tokens in 1usize..90,
        biased in any::<bool>(),
    ) {
        let mut noise = Noise(seed);
        let (inner, between) = (256, 512);
        let mut make = |out: usize, inner: usize| {
            let (blocks, _) = quantise(&mut noise, dtype, out, inner);
            let bias = biased.then(|| noise.tensor(&[out]));
            matrix(rounding, dtype, &blocks, out, inner, bias.as_ref())
        };
        let (gate, up, down) = (make(between, inner), make(between, inner), make(inner, between));
        let dense = Linear::dense(&noise.tensor(&[inner, between]), None).unwrap();
        let (x, weight) = (noise.tensor(&[tokens, inner]), noise.tensor(&[inner]));
        for cpu in processors() {
            let normed = on::rms_norm_on(cpu, &x, &weight, 1e-5).unwrap();
            let plain = Linear::forward_all_on(cpu, &[&gate, &up], &normed).unwrap();
            let input = on::rms_norm_for_on(cpu, &x, &weight, 1e-5, &[&gate, &up]).unwrap();
            let found = Linear::forward_input_on(cpu, &[&gate, &up], &input).unwrap();
            prop_assert_eq!(bits(&found[0]), bits(&plain[0]), "norm, {:?}", cpu);
            prop_assert_eq!(bits(&found[1]), bits(&plain[1]), "norm, {:?}", cpu);
            let expected = on::silu_mul_on(cpu, &plain[0], &plain[1]).unwrap();
            for reader in [&down, &dense] {
                let gated = on::gated_on(cpu, &gate, &up, &input, reader).unwrap();
                let found = Linear::forward_input_on(cpu, &[reader], &gated).unwrap().remove(0);
                prop_assert_eq!(bits(&found), bits(&forward(cpu, reader, &expected)), "gate, {:?}", cpu);
            }
            // Rows that were rounded are of no use to a matrix that is not.
            let rounded = on::gated_on(cpu, &gate, &up, &input, &down).unwrap();
            assert!(Linear::forward_input_on(cpu, &[&dense], &rounded).is_err());
        }
    }

    /// The same for matrices that are not quantised, few rows and many.
    #[test]
    fn a_gate_of_plain_matrices_gives_the_bits_of_its_operations(
        seed in any::<u64>(), dtype in select(&[DType::F32, DType::F16, DType::BF16][..]),
        tokens in select(&[1usize, 47, 48, 61, 130][..]), between in select(&[16usize, 40, 100, 144][..]),
        inner in select(&[48usize, 70][..]), biased in any::<bool>(),
    ) {
        let mut noise = Noise(seed);
        let mut matrix = |out: usize| {
            let bias = biased.then(|| noise.tensor(&[out]));
            Linear::dense(&noise.tensor(&[out, inner]).to_dtype(dtype).unwrap(), bias.as_ref()).unwrap()
        };
        let (gate, up) = (matrix(between), matrix(between));
        let (x, reader) = (noise.tensor(&[tokens, inner]), Linear::dense(&noise.tensor(&[8, between]), None).unwrap());
        let plain = Linear::forward_all_on(processors()[0], &[&gate, &up], &x).unwrap();
        let expected = on::silu_mul_on(processors()[0], &plain[0], &plain[1]).unwrap();
        let expected = bits(&forward(processors()[0], &reader, &expected));
        for cpu in processors() {
            let gated = on::gated_on(cpu, &gate, &up, &x.clone().into(), &reader).unwrap();
            let found = Linear::forward_input_on(cpu, &[&reader], &gated).unwrap().remove(0);
            prop_assert_eq!(&bits(&found), &expected, "{:?}", cpu);
        }
    }

    #[test]
    fn attention_made_for_a_matrix_gives_the_bits_of_plain_rows(scene in scenes()) {
        let mut noise = Noise(scene.seed);
        let stage = Stage::new(&scene);
        let whole = stage.whole();
        let inner = scene.kv_heads * scene.group * scene.width;
        let dense = Linear::dense(&noise.tensor(&[40, inner]), None).unwrap();
        let packed: Vec<Linear> = if inner.is_multiple_of(32) {
            let (blocks, _) = quantise(&mut noise, GgmlDType::Q4_1, 40, inner);
            ROUNDINGS.map(|rounding| matrix(rounding, GgmlDType::Q4_1, &blocks, 40, inner, None)).into()
        } else {
            Vec::new()
        };
        for cpu in processors() {
            let plain = stage.run(cpu, &whole).flatten_from(1).unwrap();
            let (batch, q) = (stage.batch(&whole), stage.gather(&stage.q, &whole));
            for reader in packed.iter().chain([&dense]) {
                let tensors = [&q, &stage.keys, &stage.values];
                let rows = on::paged_attention_for_on(cpu, tensors, &batch, &scene.options, reader).unwrap();
                let found = Linear::forward_input_on(cpu, &[reader], &rows).unwrap().remove(0);
                prop_assert_eq!(bits(&found), bits(&forward(cpu, reader, &plain)), "{:?}", cpu);
            }
        }
    }
}

/// Long enough for several segments of eight blocks, and for splitting one row's work.
#[test]
fn long_contexts_decode_to_the_bits_of_the_prefill() {
    for format in FORMATS {
        long_contexts(format);
    }
}

fn long_contexts(format: CacheFormat) {
    let options = AttentionOptions { scale: 0.125, sliding_window: None, softcap: None };
    let block_size = if format == CacheFormat::Bf16 { 32 } else { 16 };
    let (contexts, kv_heads, group, width) = (vec![700, 3], 2, 3, 64);
    let stale = f32::NAN;
    let scene = Scene { seed: 7, contexts, kv_heads, group, width, block_size, format, options, stale };
    let stage = Stage::new(&scene);
    let whole = stage.run(processors()[0], &stage.whole());
    for cpu in processors() {
        let last = stage.run(cpu, &[699..700, 2..3]);
        assert_eq!(bits(&last.narrow(0, 0, 1).unwrap()), bits(&whole.narrow(0, 699, 1).unwrap()), "{cpu:?}");
        assert_eq!(bits(&last.narrow(0, 1, 1).unwrap()), bits(&whole.narrow(0, 702, 1).unwrap()), "{cpu:?}");
    }
    for window in [1, 200, 300] {
        let scene =
            Scene { options: AttentionOptions { sliding_window: Some(window), ..options }, ..scene.clone() };
        let stage = Stage::new(&scene);
        let whole = stage.run(processors()[0], &stage.whole());
        let last = stage.run(Cpu::host(), &[698..700, 0..3]);
        assert_eq!(bits(&last), bits(&rows_of(&whole, &[698, 699, 700, 701, 702])));
    }
}

/// Shapes that do not come out even: more heads in a group than read a block as it lies, blocks that do not fill whole
/// lanes, widths of an odd number of vectors, a last segment that is not full, a window that begins within a step.
#[test]
fn uneven_shapes_decode_to_the_bits_of_the_prefill() {
    for (group, width, block_size, sliding_window) in [
        (9, 64usize, 16, None),
        (2, 48, 12, None),
        (2, 80, 24, Some(70)),
        (3, 80, 32, None),
        (3, 48, 32, Some(120)),
        // Whole tiles of bf16, two and four times sixteen dimensions of values, more and fewer than sixteen queries.
        (3, 64, 32, Some(120)),
        (1, 96, 32, None),
        (17, 32, 32, None),
    ] {
        for format in FORMATS {
            let options =
                AttentionOptions { scale: 1.0 / (width as f32).sqrt(), sliding_window, softcap: None };
            let contexts = vec![300, 41];
            let stale = f32::NAN;
            uneven(&Scene {
                seed: 5,
                contexts,
                kv_heads: 2,
                group,
                width,
                block_size,
                format,
                options,
                stale,
            });
        }
    }
}

fn uneven(scene: &Scene) {
    let stage = Stage::new(scene);
    let whole = stage.run(processors()[0], &stage.whole());
    assert_close(&values(&whole), &values(&composition(&stage).0), tolerance(scene.format), "attention");
    let last = rows_of(&whole, &[299, 340]);
    for cpu in processors() {
        assert_eq!(bits(&stage.run(cpu, &stage.whole())), bits(&whole), "{scene:?} {cpu:?}");
        assert_eq!(bits(&stage.run(cpu, &[299..300, 40..41])), bits(&last), "{scene:?} {cpu:?}");
    }
}

/// One position more in a block, or less, is nothing to the others; a spoilt one spoils who sees it.
#[test]
fn a_position_is_stored_on_its_own() {
    for (format, width) in [(CacheFormat::Q8_0, 80), (CacheFormat::F16, 64), (CacheFormat::Bf16, 64)] {
        spoil_a_position(format, width);
    }
}

fn spoil_a_position(format: CacheFormat, width: usize) {
    let options = AttentionOptions { scale: 0.1, sliding_window: None, softcap: None };
    let (contexts, stale) = (vec![20], 0.0);
    let scene =
        Scene { seed: 3, contexts, kv_heads: 2, group: 2, width, block_size: 32, format, options, stale };
    let stage = Stage::new(&scene);
    let whole = stage.run(Cpu::host(), std::slice::from_ref(&(0..20)));
    // The same rows, but for the last one, which is a thousand times as large, and then no number.
    for factor in [1000.0, f64::NAN] {
        let mut other = Stage::new(&scene);
        for rows in [&mut other.k, &mut other.v] {
            let (head, last) = (rows[0].narrow(0, 0, 19).unwrap(), rows[0].narrow(0, 19, 1).unwrap());
            rows[0] = Tensor::cat(&[head, (last * factor).unwrap()], 0).unwrap();
        }
        let found = other.run(Cpu::host(), std::slice::from_ref(&(0..20)));
        assert_eq!(bits(&found.narrow(0, 0, 19).unwrap()), bits(&whole.narrow(0, 0, 19).unwrap()));
        assert_ne!(bits(&found.narrow(0, 19, 1).unwrap()), bits(&whole.narrow(0, 19, 1).unwrap()));
        let last = values(&found.narrow(0, 19, 1).unwrap());
        assert_eq!(last.iter().all(|value| value.is_nan()), factor.is_nan());
    }
}

/// More rows than stay in a cache at once, and matrices of both ways of multiplying side by side.
#[test]
fn many_rows_and_mixed_matrices_give_the_bits_of_each() {
    let mut noise = Noise(17);
    let (inner, tokens) = (2048, 300);
    let x = noise.tensor(&[tokens, inner]);
    for dtype in [GgmlDType::Q4_1, GgmlDType::Q6K] {
        let (blocks, _) = quantise(&mut noise, dtype, 33, inner);
        let [bytes, narrow] = ROUNDINGS.map(|rounding| matrix(rounding, dtype, &blocks, 33, inner, None));
        for linear in [&bytes, &narrow] {
            let whole = linear.forward(&x).unwrap();
            let some = [0, 15, 160, 175, 176, 299];
            let plain = forward(processors()[0], linear, &rows_of(&x, &some));
            assert_eq!(bits(&rows_of(&whole, &some)), bits(&plain), "{dtype:?}");
        }
        let both = Linear::forward_all(&[&bytes, &narrow], &x).unwrap();
        assert_eq!(bits(&both[0]), bits(&bytes.forward(&x).unwrap()));
        assert_eq!(bits(&both[1]), bits(&narrow.forward(&x).unwrap()));
    }
    let mut make = |rounding: Rounding, dtype: GgmlDType, out: usize, inner: usize| {
        let (blocks, _) = quantise(&mut noise, dtype, out, inner);
        matrix(rounding, dtype, &blocks, out, inner, None)
    };
    let (types, between) = ([GgmlDType::Q4_1, GgmlDType::Q5_0], 64);
    let x = x.narrow(1, 0, 128).unwrap().contiguous().unwrap();
    for (first, second, third) in (0..8).map(|kind| (kind & 1, kind >> 1 & 1, kind >> 2)) {
        let gate = make(ROUNDINGS[first], types[0], between, 128);
        let up = make(ROUNDINGS[first], types[second], between, 128);
        let reader = make(ROUNDINGS[third], types[0], 40, between);
        let plain = Linear::forward_all(&[&gate, &up], &x).unwrap();
        let expected = reader.forward(&on::silu_mul_on(Cpu::host(), &plain[0], &plain[1]).unwrap()).unwrap();
        let gated = on::gated_on(Cpu::host(), &gate, &up, &x.clone().into(), &reader).unwrap();
        let found = Linear::forward_input(&[&reader], &gated).unwrap().remove(0);
        assert_eq!(bits(&found), bits(&expected), "{first} {second} {third}");
        let nothing = x.narrow(0, 0, 0).unwrap();
        let gated = on::gated_on(Cpu::host(), &gate, &up, &nothing.into(), &reader).unwrap();
        assert_eq!(Linear::forward_input(&[&reader], &gated).unwrap()[0].dims(), [0, 40]);
    }
}

#[test]
fn composed_linear_agrees_with_the_kernel() {
    let mut noise = Noise(3);
    for dtype in [GgmlDType::Q4_0, GgmlDType::Q4K, GgmlDType::Q8_0] {
        let (blocks, _) = quantise(&mut noise, dtype, 20, 256);
        let x = noise.tensor(&[3, 256]);
        let ours = matrix(Rounding::Bytes, dtype, &blocks, 20, 256, None);
        let narrow = matrix(Rounding::Bfloat16, dtype, &blocks, 20, 256, None);
        let theirs = composed::ComposedLinear::quantised(dtype, &blocks, 20, 256, &Device::Cpu).unwrap();
        let found = values(&ours.forward(&x).unwrap());
        assert_close(&found, &values(&theirs.forward(&x).unwrap()), 0.05, "rounded activations");
        let found = values(&narrow.forward(&x).unwrap());
        assert_close(&found, &values(&theirs.forward(&x).unwrap()), 0.05, "bf16");
        let ids = Tensor::new(&[19u32, 0], &Device::Cpu).unwrap();
        assert_close(
            &values(&ours.embed(&[19, 0]).unwrap()),
            &values(&theirs.embed(&ids).unwrap()),
            1e-6,
            "embed",
        );
        assert_eq!(theirs.memory_bytes(), blocks.len());
    }
    let weight = noise.tensor(&[5, 40]);
    let x = noise.tensor(&[3, 40]);
    let theirs = composed::ComposedLinear::dense(&weight).unwrap().forward(&x).unwrap();
    assert_close(
        &values(&Linear::dense(&weight, None).unwrap().forward(&x).unwrap()),
        &values(&theirs),
        1e-5,
        "dense",
    );
}

#[test]
fn a_value_that_is_not_finite_spoils_its_row_only() {
    let mut noise = Noise(5);
    let (blocks, _) = quantise(&mut noise, GgmlDType::Q4_1, 20, 64);
    let clean = noise.tensor(&[3, 64]);
    let mut data = values(&clean);
    data[64 + 5] = f32::INFINITY;
    let spoilt = Tensor::from_vec(data, (3, 64), &Device::Cpu).unwrap();
    for (cpu, rounding) in processors().into_iter().flat_map(|cpu| ROUNDINGS.map(|rounding| (cpu, rounding)))
    {
        let linear = matrix(rounding, GgmlDType::Q4_1, &blocks, 20, 64, None);
        let (clean, spoilt) = (forward(cpu, &linear, &clean), forward(cpu, &linear, &spoilt));
        assert_eq!(bits(&rows_of(&clean, &[0, 2])), bits(&rows_of(&spoilt, &[0, 2])));
        assert!(values(&rows_of(&spoilt, &[1])).iter().all(|value| !value.is_finite()));
    }
}

#[test]
fn wrong_shapes_are_errors() {
    let mut noise = Noise(1);
    let cpu = Device::Cpu;
    assert!(Linear::quantised(GgmlDType::Q4_0, &[0; 17], 1, 32, None, &cpu).is_err());
    assert!(Linear::quantised(GgmlDType::Q4_0, &[0; 18], 1, 31, None, &cpu).is_err());
    assert!(Linear::quantised(GgmlDType::Q4_0, &[0; 18], 1, 0, None, &cpu).is_err());
    assert!(Linear::quantised(GgmlDType::Q4_0, &[0; 18], usize::MAX, 32, None, &cpu).is_err());
    assert!(Linear::quantised(GgmlDType::F32, &[0; 12], 1, usize::MAX, None, &cpu).is_err());
    let linear = Linear::dense(&noise.tensor(&[4, 8]), None).unwrap();
    assert!(Linear::dense(&noise.tensor(&[4, 8]), Some(&noise.tensor(&[5]))).is_err());
    assert!(Linear::dense(&noise.tensor(&[4]), None).is_err());
    assert!(linear.forward(&noise.tensor(&[3, 9])).is_err());
    assert!(linear.forward(&noise.tensor(&[8])).is_err());
    assert!(linear.embed(&[4]).is_err());
    assert_eq!(linear.forward(&noise.tensor(&[0, 8])).unwrap().dims(), [0, 4]);
    assert!(sconce_kernels::rms_norm(&noise.tensor(&[3, 4]), &noise.tensor(&[5]), 1e-5).is_err());
    assert!(
        sconce_kernels::layer_norm(&noise.tensor(&[3, 4]), &noise.tensor(&[4]), &noise.tensor(&[1]), 1e-5)
            .is_err()
    );
    assert!(sconce_kernels::silu_mul(&noise.tensor(&[3, 4]), &noise.tensor(&[3, 5])).is_err());
    let (cos, sin) = (noise.tensor(&[3, 3]), noise.tensor(&[3, 3]));
    assert!(sconce_kernels::rotary(&noise.tensor(&[3, 1, 4]), &cos, &sin).is_err());
    let q = noise.tensor(&[4, 3, 8]);
    let k = noise.tensor(&[4, 2, 8]);
    assert!(sconce_kernels::packed_attention(&q, &k, &k, &[0, 4], 1.0).is_err());
    assert!(sconce_kernels::packed_attention(&q, &q, &q, &[0, 3], 1.0).is_err());
    assert!(sconce_kernels::packed_attention(&q, &q, &q, &[0, 4, 2, 4], 1.0).is_err());
}

#[test]
fn a_batch_that_leads_outside_its_cache_is_refused() {
    let good = PagedParts {
        positions: vec![0, 1, 5],
        starts: vec![0, 2, 3],
        context_lens: vec![2, 6],
        slots: vec![4, 5, 9],
        block_tables: vec![vec![1], vec![0, 2]],
        block_size: 4,
        blocks: 3,
    };
    let refused = |change: &dyn Fn(&mut PagedParts)| {
        let mut parts = good.clone();
        change(&mut parts);
        PagedBatch::new(parts, &Device::Cpu).is_err()
    };
    assert!(!refused(&|_| ()));
    assert!(refused(&|parts| parts.starts = vec![0, 2]));
    assert!(refused(&|parts| parts.starts = vec![0, 3, 2]));
    assert!(refused(&|parts| parts.starts = Vec::new()));
    assert!(refused(&|parts| parts.slots[0] = 12));
    assert!(refused(&|parts| parts.slots[0] = 5));
    assert!(refused(&|parts| parts.slots.truncate(2)));
    assert!(refused(&|parts| parts.positions[2] = 6));
    assert!(refused(&|parts| parts.context_lens[1] = 9));
    assert!(refused(&|parts| parts.context_lens.truncate(1)));
    assert!(refused(&|parts| parts.block_tables[1][1] = 3));
    assert!(refused(&|parts| parts.block_size = 0));
}
