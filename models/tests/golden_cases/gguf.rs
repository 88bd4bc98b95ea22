//! Decoders from GGUF files, every block format.

use sconce_models::Arithmetic;

use super::runner::{Runner, compare_continuation, distance, ids, numbers};
use crate::golden_data::{answers, golden};

/// Dequantised weights, f32 throughout, in standard deviations of the logits.
const FLOAT_TOLERANCE: f32 = 1e-4;
/// Activations rounded to 8 bits; random weights forgive less than trained ones.
const INTEGER_TOLERANCE: f32 = 0.3;
/// Dense weights and a cache in half precision.
const HALF_CACHE_TOLERANCE: f32 = 2e-2;

fn check(folder: &str, file: &str) {
    let answers = &answers(folder)["files"][file];
    let std = answers["logits_std"].as_f64().unwrap() as f32;
    let path = golden(folder).join(file);
    let mut float = Runner::load(&path, Arithmetic::Float);
    let mut served =
        [Arithmetic::Auto, Arithmetic::Integer].map(|arithmetic| Runner::load(&path, arithmetic));
    let is_dense = ["F32", "F16", "BF16"].iter().any(|kind| answers["type"] == *kind);
    let rounded = if is_dense { HALF_CACHE_TOLERANCE } else { INTEGER_TOLERANCE };
    for prompt in answers["prompts"].as_array().unwrap() {
        let name = format!("{file} {}", prompt["name"].as_str().unwrap());
        let (prompt_ids, expected) = (ids(&prompt["ids"]), numbers(&prompt["last_logits"]));
        let error = distance(float.prefill(&prompt_ids).last().unwrap(), &expected) / std;
        assert!(error <= FLOAT_TOLERANCE, "{name}: off by {error} standard deviations");
        let compared = compare_continuation(&mut float, &name, prompt, FLOAT_TOLERANCE * std);
        assert!(compared > 0, "{name}");
        for served in &mut served {
            let error = distance(served.prefill(&prompt_ids).last().unwrap(), &expected) / std;
            assert!(error <= rounded, "{name}, as served: off by {error} standard deviations");
        }
    }
}

/// One test per file of a folder.
macro_rules! files {
    ($($test:ident: $folder:literal $file:literal,)*) => {
        $(#[test] fn $test() { check($folder, $file); })*

        #[test]
        fn every_file_is_tested() {
            for folder in ["gguf/llama", "gguf/llama256", "gguf/qwen2"] {
                let answers = answers(folder);
                for name in answers["files"].as_object().unwrap().keys() {
                    assert!([$(($folder, $file)),*].contains(&(folder, name.as_str())), "{folder}/{name}");
                }
            }
        }
    };
}

files! {
    dense_f32: "gguf/llama" "llama.F32.gguf",
    dense_f16: "gguf/llama" "llama.F16.gguf",
    dense_bf16: "gguf/llama" "llama.BF16.gguf",
    mixed_q8_0: "gguf/llama" "llama.Q8_0.gguf",
    q8_0: "gguf/llama256" "llama256.Q8_0.gguf",
    q4_0: "gguf/llama256" "llama256.Q4_0.gguf",
    q4_1: "gguf/llama256" "llama256.Q4_1.gguf",
    q5_0: "gguf/llama256" "llama256.Q5_0.gguf",
    q5_1: "gguf/llama256" "llama256.Q5_1.gguf",
    q2_k: "gguf/llama256" "llama256.Q2_K.gguf",
    q3_k: "gguf/llama256" "llama256.Q3_K.gguf",
    q4_k: "gguf/llama256" "llama256.Q4_K.gguf",
    q5_k: "gguf/llama256" "llama256.Q5_K.gguf",
    q6_k: "gguf/llama256" "llama256.Q6_K.gguf",
    q4_k_m: "gguf/llama256" "llama256.Q4_K_M.gguf",
    qwen2_f16: "gguf/qwen2" "qwen2.F16.gguf",
}
