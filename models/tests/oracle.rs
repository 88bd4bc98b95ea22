//! The models against candle-transformers' own, on token ids that no golden file holds.
//!
//! A second opinion beside `golden.rs`: another implementation, run in the same process, on the same files.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod golden_data;
#[path = "golden_cases/runner.rs"]
#[allow(dead_code, reason = "the golden tests use the rest")]
mod runner;

use candle_core::quantized::gguf_file::Content;
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{bert, llama, quantized_llama};
use sconce_models::{Arithmetic, DeviceSpec, LoadOptions, LoadedModel, ModelFiles, load};

use golden_data::{golden, read_json};
use runner::{Runner, distance};

/// Token ids that look random and are the same in every run.
fn token_ids(count: usize, below: u32) -> Vec<u32> {
    let next = |state: &u32| Some(state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    std::iter::successors(Some(12_345), next).skip(1).take(count).map(|state| (state >> 8) % below).collect()
}

/// Standard deviation of a row.
fn deviation(row: &[f32]) -> f32 {
    let mean = row.iter().sum::<f32>() / row.len() as f32;
    (row.iter().map(|logit| (logit - mean).powi(2)).sum::<f32>() / row.len() as f32).sqrt()
}

fn tensor(ids: &[u32]) -> Tensor {
    Tensor::new(ids, &Device::Cpu).unwrap().unsqueeze(0).unwrap()
}

fn tensors(case: &str) -> VarBuilder<'static> {
    let bytes = std::fs::read(golden(case).join("model.safetensors")).unwrap();
    VarBuilder::from_buffered_safetensors(bytes, DType::F32, &Device::Cpu).unwrap()
}

#[test]
fn llama_agrees() {
    let config: llama::LlamaConfig =
        serde_json::from_value(read_json(&golden("llama").join("config.json"))).unwrap();
    let config = config.into_config(false);
    let oracle = llama::Llama::load(tensors("llama"), &config).unwrap();
    let mut ours = Runner::load(&golden("llama"), Arithmetic::Float);
    for length in [1, 2, 31, 32, 33, 90] {
        let ids = token_ids(length, 512);
        let mut cache = llama::Cache::new(true, DType::F32, &config, &Device::Cpu).unwrap();
        let expected: Vec<f32> =
            oracle.forward(&tensor(&ids), 0, &mut cache).unwrap().get(0).unwrap().to_vec1().unwrap();
        let found = ours.prefill(&ids).pop().unwrap();
        let error = distance(&found, &expected) / deviation(&expected);
        assert!(error <= 1e-4, "{length} tokens: off by {error} standard deviations");
    }
}

#[test]
fn quantised_llama_agrees() {
    for file in ["llama256.Q4_0.gguf", "llama256.Q4_K_M.gguf"] {
        let path = golden("gguf/llama256").join(file);
        let mut reader = std::fs::File::open(&path).unwrap();
        let content = Content::read(&mut reader).unwrap();
        let mut oracle =
            quantized_llama::ModelWeights::from_gguf(content, &mut reader, &Device::Cpu).unwrap();
        let mut ours = Runner::load(&path, Arithmetic::Integer);
        let ids = token_ids(40, 512);
        let expected: Vec<f32> = oracle.forward(&tensor(&ids), 0).unwrap().get(0).unwrap().to_vec1().unwrap();
        let error = distance(&ours.prefill(&ids).pop().unwrap(), &expected) / deviation(&expected);
        // Both round activations to 8 bits, in blocks of different sizes.
        assert!(error <= 0.3, "{file}: off by {error} standard deviations");
    }
}

#[test]
fn bert_agrees() {
    let config: bert::Config =
        serde_json::from_value(read_json(&golden("bert").join("config.json"))).unwrap();
    let oracle = bert::BertModel::load(tensors("bert"), &config).unwrap();
    let options = LoadOptions { device: DeviceSpec::Cpu, ..LoadOptions::default() };
    let loaded = load(&ModelFiles::find(&golden("bert")).unwrap(), &options).unwrap();
    let LoadedModel::Embedder(ours) = loaded.model else {
        panic!("bert is not an embedder");
    };
    for length in [1, 2, 31, 64, 120] {
        let ids = token_ids(length, 512);
        let types = tensor(&vec![0; length]);
        let hidden = oracle.forward(&tensor(&ids), &types, None).unwrap(); // [1, t, hidden]
        let mean: Vec<f32> = hidden.mean(1).unwrap().get(0).unwrap().to_vec1().unwrap();
        let norm = mean.iter().map(|x| x * x).sum::<f32>().sqrt();
        let expected: Vec<f32> = mean.iter().map(|x| x / norm).collect();
        let error = distance(&ours.embed(&[ids]).unwrap()[0], &expected);
        assert!(error <= 1e-5, "{length} tokens: off by {error}");
    }
}
