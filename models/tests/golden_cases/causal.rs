//! Decoders from safetensors.

use sconce_models::Arithmetic;
use serde_json::Value;

use super::runner::{Runner, compare_continuation, distance, ids, numbers, with_config};
use crate::golden_data::{answers, golden};

/// f32 throughout, in standard deviations of the logits.
const FLOAT_TOLERANCE: f32 = 1e-4;
/// Dense weights and a cache in half precision.
const HALF_CACHE_TOLERANCE: f32 = 2e-2;

/// The five best of every position, best first; ids that are not the same must be as good, within `tolerance`.
fn compare_best_five(name: &str, rows: &[Vec<f32>], top5: &Value, tolerance: f32) {
    let top5 = top5.as_array().unwrap();
    assert_eq!(rows.len(), top5.len(), "{name}");
    for (position, (row, expected)) in rows.iter().zip(top5).enumerate() {
        let mut order: Vec<usize> = (0..row.len()).collect();
        order.sort_by(|&a, &b| row[b].total_cmp(&row[a]).then(a.cmp(&b)));
        for (&found, expected) in order.iter().zip(ids(expected)) {
            let gap = row[found] - row[expected as usize];
            assert!(gap.abs() <= 2.0 * tolerance, "{name} position {position}: {found} is not {expected}");
        }
    }
}

fn check(case: &str) {
    let answers = answers(case);
    let std = answers["logits_std"].as_f64().unwrap() as f32;
    let mut float = Runner::load(&golden(case), Arithmetic::Float);
    let mut served = Runner::load(&golden(case), Arithmetic::Auto);
    let mut compared = 0;
    for prompt in answers["prompts"].as_array().unwrap() {
        let name = format!("{case} {}", prompt["name"].as_str().unwrap());
        let (prompt_ids, expected) = (ids(&prompt["ids"]), numbers(&prompt["last_logits"]));
        let rows = float.prefill(&prompt_ids);
        let error = distance(&rows[rows.len() - 1], &expected) / std;
        assert!(error <= FLOAT_TOLERANCE, "{name}: off by {error} standard deviations");
        compare_best_five(&name, &rows, &prompt["top5"], FLOAT_TOLERANCE * std);
        compared += compare_continuation(&mut float, &name, prompt, FLOAT_TOLERANCE * std);
        let error = distance(served.prefill(&prompt_ids).last().unwrap(), &expected) / std;
        assert!(error <= HALF_CACHE_TOLERANCE, "{name}, half-precision cache: off by {error}");
    }
    // All prompts' 24 steps, but for one that may part at a near tie.
    assert!(compared >= 4 * 24, "{case}: only {compared} steps of the continuations could be compared");
}

#[test]
fn llama() {
    check("llama");
}

#[test]
fn llama_with_rope_scaling_of_llama3() {
    check("llama_rope_llama3");
}

#[test]
fn llama_in_bf16_shards_with_biases() {
    check("llama_sharded_bf16");
}

#[test]
fn mistral_with_a_window() {
    check("mistral");
}

#[test]
fn qwen2() {
    check("qwen2");
}

#[test]
fn qwen3() {
    check("qwen3");
}

#[test]
fn qwen3_with_yarn() {
    check("qwen3_yarn");
}

/// The reference says how far a misread setting puts the logits off: read so on purpose, ours go as far.
#[test]
fn a_misread_setting_shows_as_it_does_in_the_reference() {
    let mut compared = 0;
    for case in ["llama", "llama_rope_llama3", "mistral", "qwen3_yarn"] {
        let answers = answers(case);
        let std = answers["logits_std"].as_f64().unwrap() as f32;
        for (change, expected) in answers["wrong_config_error_in_std"].as_object().unwrap() {
            let folder = with_config(case, &serde_json::from_str(change).unwrap());
            let mut runner = Runner::load(folder.path(), Arithmetic::Float);
            let errors = answers["prompts"].as_array().unwrap().iter().map(|prompt| {
                let last = runner.prefill(&ids(&prompt["ids"])).pop().unwrap();
                distance(&last, &numbers(&prompt["last_logits"])) / std
            });
            let (found, expected) = (errors.fold(0.0, f32::max), expected.as_f64().unwrap() as f32);
            assert!(
                (found - expected).abs() <= 0.02 * expected,
                "{case} {change}: {found}, the reference {expected}"
            );
            compared += 1;
        }
    }
    assert_eq!(compared, 6);
}
