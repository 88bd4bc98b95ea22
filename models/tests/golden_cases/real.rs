//! Real, trained models: what they answer is known from the same files.

use std::path::Path;

use sconce_models::Arithmetic;
use serde_json::Value;

use super::runner::{Runner, compare_continuation, ids};
use crate::golden_data::{answers, test_model};

/// Dequantised weights, f32 throughout, in standard deviations of the logits.
const FLOAT_TOLERANCE: f32 = 1e-3;
/// Activations rounded to 8 bits.
const INTEGER_TOLERANCE: f32 = 0.2;

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
        assert!(arithmetic == Arithmetic::Integer || compared > 0, "{name}");
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
    check("smollm2", &path, Arithmetic::Integer, INTEGER_TOLERANCE);
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
    check("qwen2_5_coder_0_5b", &path, Arithmetic::Integer, INTEGER_TOLERANCE);
}
