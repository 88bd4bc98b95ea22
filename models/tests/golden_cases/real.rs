//! Real, trained models: what they answer is known from the same files.

use std::path::Path;

use candle_core::quantized::GgmlDType;
use sconce_kernels::Rounding;
use sconce_models::{Arithmetic, CacheType};
use serde_json::Value;

use super::runner::{Runner, best, compare_continuation, distance, ids};
use crate::golden_data::{answers, test_model};

/// Dequantised weights, f32 throughout, in standard deviations of the logits.
const FLOAT_TOLERANCE: f32 = 1e-3;
/// Activations rounded to 8 bits, or all to bf16.
const INTEGER_TOLERANCE: f32 = 0.2;
/// What is served against f32, root mean square.
const MEAN_AS_SERVED: f32 = 0.12;
/// Where there are tiles of bf16.
const MEAN_IN_BF16: f32 = 0.04;
/// Keys and values as bytes, against half precision: any logit, and their root mean square.
const FURTHEST_BY_BYTES: f32 = 1.2;
const MEAN_BY_BYTES: f32 = 0.13;

fn prompts(answers: &Value) -> impl Iterator<Item = &Value> {
    ["prompts", "chat_prompts"].into_iter().flat_map(|kind| answers[kind].as_array().unwrap())
}

/// The twenty best logits after each prompt, and in `Float` the continuations.
fn check(case: &str, path: &Path, arithmetic: Arithmetic, tolerance: f32) {
    let answers = answers(case);
    let mut runner = Runner::load(path, arithmetic);
    for (index, prompt) in prompts(&answers).enumerate() {
        let name = format!("{case} {index}");
        let std = prompt["logits_std"].as_f64().unwrap() as f32;
        let logits = runner.prefill(&ids(&prompt["ids"])).pop().unwrap();
        for entry in prompt["top20"].as_array().unwrap() {
            let (id, expected) = (entry[0].as_u64().unwrap() as usize, entry[1].as_f64().unwrap() as f32);
            let error = (logits[id] - expected).abs() / std;
            assert!(error <= tolerance, "{name}: logit of {id} off by {error} standard deviations");
        }
        let compared = compare_continuation(&mut runner, &name, prompt, tolerance * std);
        assert!(arithmetic != Arithmetic::Float || compared > 0, "{name}");
    }
}

#[test]
fn smollm2_in_float() {
    let path = test_model("SmolLM2-135M-Instruct.Q4_1.gguf");
    check("smollm2", &path, Arithmetic::Float, FLOAT_TOLERANCE);
}

#[test]
fn smollm2_as_served() {
    let path = test_model("SmolLM2-135M-Instruct.Q4_1.gguf");
    check("smollm2", &path, Arithmetic::Auto, INTEGER_TOLERANCE);
    check("smollm2", &path, Arithmetic::Integer, INTEGER_TOLERANCE);
}

/// Every position of every prompt, in standard deviations of the logits: their root mean square distance from those of the same
/// weights in f32.
#[test]
fn smollm2_as_served_is_near_its_weights_in_float() {
    let (path, answers) = (test_model("SmolLM2-135M-Instruct.Q4_1.gguf"), answers("smollm2"));
    let mut float = Runner::load(&path, Arithmetic::Float);
    let in_bf16 = Rounding::best(GgmlDType::Q4_1) == Rounding::Bfloat16;
    let served = if in_bf16 { MEAN_IN_BF16 } else { MEAN_AS_SERVED };
    for (arithmetic, most) in [(Arithmetic::Auto, served), (Arithmetic::Integer, MEAN_AS_SERVED)] {
        let mut runner = Runner::load(&path, arithmetic);
        let (mut squares, mut count) = (0f64, 0usize);
        for prompt in prompts(&answers) {
            let (ids, std) = (ids(&prompt["ids"]), prompt["logits_std"].as_f64().unwrap() as f32);
            for (expected, found) in float.prefill(&ids).into_iter().zip(runner.prefill(&ids)) {
                let square = |(found, expected): (&f32, &f32)| f64::from((found - expected) / std).powi(2);
                squares += found.iter().zip(&expected).map(square).sum::<f64>();
                count += found.len();
            }
        }
        let mean = (squares / count as f64).sqrt() as f32;
        println!("{arithmetic:?}: root mean square {mean}, {count} logits");
        assert!(0.0 < mean && mean <= most, "{arithmetic:?}: logits off by {mean}");
    }
}

/// Every position of every prompt, in standard deviations of the logits: how far any logit moves, how far they move by
/// root mean square, and how much better another best id was before.
#[test]
fn smollm2_over_a_cache_of_bytes() {
    let (path, answers) = (test_model("SmolLM2-135M-Instruct.Q4_1.gguf"), answers("smollm2"));
    let load = |cache_type| Runner::load_with(&path, Arithmetic::Auto, cache_type);
    let (mut halves, mut bytes) = (load(CacheType::F16), load(CacheType::Q8_0));
    let (mut furthest, mut squares, mut count, mut worst_margin) = (0f32, 0f64, 0usize, 0f32);
    for prompt in prompts(&answers) {
        let (ids, std) = (ids(&prompt["ids"]), prompt["logits_std"].as_f64().unwrap() as f32);
        for (expected, found) in halves.prefill(&ids).into_iter().zip(bytes.prefill(&ids)) {
            furthest = furthest.max(distance(&found, &expected) / std);
            let square = |(found, expected): (&f32, &f32)| f64::from((found - expected) / std).powi(2);
            squares += found.iter().zip(&expected).map(square).sum::<f64>();
            count += found.len();
            let (first, second) = (best(&expected), best(&found));
            worst_margin = worst_margin.max((expected[first as usize] - expected[second as usize]) / std);
        }
    }
    let mean = (squares / count as f64).sqrt() as f32;
    println!("furthest {furthest}, root mean square {mean}, margin {worst_margin}, {count} logits");
    assert!(mean > 0.0, "bytes round");
    assert!(furthest <= FURTHEST_BY_BYTES, "a logit off by {furthest}");
    assert!(mean <= MEAN_BY_BYTES, "logits off by {mean}");
    assert!(worst_margin <= FURTHEST_BY_BYTES, "another best id, {worst_margin} below");
}

#[test]
#[ignore = "needs a file of 491 MB"]
fn qwen2_5_coder_in_float() {
    let path = test_model("qwen2.5-coder-0.5b-instruct-q4_k_m.gguf");
    check("qwen2_5_coder_0_5b", &path, Arithmetic::Float, FLOAT_TOLERANCE);
}

#[test]
#[ignore = "needs a file of 491 MB"]
fn qwen2_5_coder_as_served() {
    let path = test_model("qwen2.5-coder-0.5b-instruct-q4_k_m.gguf");
    check("qwen2_5_coder_0_5b", &path, Arithmetic::Auto, INTEGER_TOLERANCE);
}
