//! What loading says of good files, and how it refuses bad ones.

use std::path::Path;

use sconce_kernels::Level;
use sconce_models::{
    Arithmetic, CacheType, DeviceSpec, Error, Inspection, LoadOptions, Loaded, LoadedModel, ModelFiles,
    ModelKind, inspect, load,
};
use serde_json::json;

use super::runner::{Runner, with_config};
use crate::golden_data::golden;

fn options() -> LoadOptions {
    LoadOptions { device: DeviceSpec::Cpu, ..LoadOptions::default() }
}

fn load_at(path: &Path) -> Result<Loaded, Error> {
    load(&ModelFiles::find(path).unwrap(), &options())
}

fn inspect_at(path: &Path) -> Inspection {
    inspect(&ModelFiles::find(path).unwrap()).unwrap()
}

#[test]
fn inspection_foretells_what_loading_finds() {
    let cases = ["llama", "llama_sharded_bf16", "qwen3", "bert", "bert_cross_encoder", "qwen3_embedding"];
    let files =
        ["gguf/llama/llama.F16.gguf", "gguf/llama256/llama256.Q8_0.gguf", "gguf/qwen2/qwen2.F16.gguf"];
    for case in cases.iter().chain(&files) {
        let (told, found) = (inspect_at(&golden(case)), load_at(&golden(case)).unwrap().spec);
        assert!(told.file_bytes >= told.spec.weights_bytes, "{case}");
        assert!(found.fingerprint.starts_with("fp_"), "{case}");
        let (less, more) = (
            found.weights_bytes.min(told.spec.weights_bytes),
            found.weights_bytes.max(told.spec.weights_bytes),
        );
        assert!(
            more as f64 <= 1.25 * less as f64,
            "{case}: {} foretold, {} found",
            told.spec.weights_bytes,
            found.weights_bytes
        );
        let told = sconce_models::ModelSpec {
            weights_bytes: found.weights_bytes,
            fingerprint: found.fingerprint.clone(),
            ..told.spec
        };
        assert_eq!(told, found, "{case}");
    }
}

#[test]
fn the_kind_follows_from_the_files() {
    let kind = |case: &str| inspect_at(&golden(case)).spec.kind;
    assert_eq!(kind("qwen3"), ModelKind::Causal);
    assert_eq!(kind("qwen3_embedding"), ModelKind::Embedding);
    assert_eq!(kind("bert"), ModelKind::Embedding);
    assert_eq!(kind("bert_cross_encoder"), ModelKind::CrossEncoder);
    assert_eq!(inspect_at(&golden("gguf/llama256/llama256.Q4_1.gguf")).quantisation, "Q4_1");
}

#[test]
fn the_context_is_the_smallest_of_all_limits() {
    let limited = |case: &str, context_length: Option<usize>| {
        let files = ModelFiles::find(&golden(case)).unwrap();
        load(&files, &LoadOptions { context_length, ..options() }).unwrap().spec.context_length
    };
    assert_eq!(limited("llama", None), 256);
    assert_eq!(limited("llama", Some(100)), 100);
    assert_eq!(limited("llama", Some(1000)), 256);
    // 120 of 128 positions, says sentence_bert_config.json.
    assert_eq!(limited("bert", None), 120);
    assert_eq!(limited("bert", Some(64)), 64);
    // No such file: 128 positions; and 130 less the two that padding takes, of which 120 are used.
    assert_eq!(limited("bert_cross_encoder", None), 128);
    assert_eq!(limited("xlm_roberta", None), 120);
}

#[test]
fn the_fingerprint_names_weights_and_arithmetic() {
    let fingerprint = |case: &str, options: LoadOptions| {
        load(&ModelFiles::find(&golden(case)).unwrap(), &options).unwrap().spec.fingerprint
    };
    let served = fingerprint("llama", options());
    assert_eq!(served, fingerprint("llama", options()));
    assert_ne!(served, fingerprint("llama", LoadOptions { arithmetic: Arithmetic::Float, ..options() }));
    assert_ne!(served, fingerprint("llama", LoadOptions { cache_type: CacheType::F32, ..options() }));
    assert_ne!(served, fingerprint("llama_rope_llama3", options()));
    // Of quantised weights: who asks for integers gets the cache that goes with them, and another name only where there are tiles.
    let quantised = |arithmetic: Arithmetic, cache_type: CacheType| {
        let files = ModelFiles::find(&golden("gguf/llama256").join("llama256.Q4_1.gguf")).unwrap();
        let loaded = load(&files, &LoadOptions { arithmetic, cache_type, ..options() }).unwrap();
        (loaded.spec.fingerprint, loaded.cache_type)
    };
    let has_tiles = Level::detect() == Level::Amx;
    let kept = if has_tiles { CacheType::Bf16 } else { CacheType::F16 };
    let (served, cache_type) = quantised(Arithmetic::Auto, CacheType::Auto);
    assert_eq!(cache_type, kept);
    assert_eq!(served == quantised(Arithmetic::Auto, CacheType::F16).0, !has_tiles);
    let (integers, cache_type) = quantised(Arithmetic::Integer, CacheType::Auto);
    assert_eq!(cache_type, CacheType::F16);
    assert_eq!(served == integers, !has_tiles);
    assert_eq!(integers, quantised(Arithmetic::Integer, CacheType::F16).0);
}

#[test]
fn a_configuration_that_does_not_fit_is_refused() {
    for (change, named) in [
        (json!({"model_type": "mamba"}), "mamba"),
        (json!({"num_attention_heads": 0}), "num_attention_heads"),
        (json!({"num_key_value_heads": 3}), "key/value heads"),
        (json!({"rms_norm_eps": 0.0}), "rms_norm_eps"),
        (json!({"rope_theta": 0.0}), "rope_theta"),
        (json!({"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}), "longrope"),
        (json!({"hidden_act": "gelu"}), "gelu"),
        (json!({"hidden_size": 128, "head_dim": 16}), "shape"),
        (json!({"num_hidden_layers": 4}), "model.layers.3"),
        (json!({"attention_bias": true}), "bias"),
        (json!({"vocab_size": 100}), "token"),
    ] {
        let folder = with_config("llama", &change);
        let message = match load_at(folder.path()) {
            Ok(_) => panic!("{change} was accepted"),
            Err(error) => error.to_string(),
        };
        assert!(message.contains(named), "{change}: {message}");
    }
}

#[test]
fn weights_that_are_no_numbers_load_and_give_no_panic() {
    let folder = with_config("llama", &json!({}));
    let path = folder.path().join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    for (index, number) in bytes[8 + header..].chunks_exact_mut(4).enumerate() {
        let odd = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0][index % 4];
        number.copy_from_slice(&odd.to_le_bytes());
    }
    std::fs::write(&path, bytes).unwrap();
    for arithmetic in [Arithmetic::Integer, Arithmetic::Float] {
        let mut runner = Runner::load(folder.path(), arithmetic);
        let rows = runner.prefill(&[1, 2, 3]);
        assert!(rows[2].iter().all(|logit| logit.is_nan()));
    }
}

#[test]
fn suggestions_and_end_tokens_are_read() {
    let folder = with_config("llama", &json!({}));
    let suggestions = json!({"eos_token_id": [7, 511], "temperature": 0.6, "top_p": 0.9, "top_k": 40,
        "repetition_penalty": -1.0});
    std::fs::write(folder.path().join("generation_config.json"), suggestions.to_string()).unwrap();
    let defaults = load_at(folder.path()).unwrap().defaults;
    assert!(defaults.end_token_ids.contains(&7) && defaults.end_token_ids.contains(&511));
    assert_eq!((defaults.temperature, defaults.top_p, defaults.top_k), (Some(0.6), Some(0.9), Some(40)));
    assert_eq!(defaults.repetition_penalty, None);
}

#[test]
fn a_cache_of_another_model_is_refused() {
    let mut runner = Runner::load(&golden("llama"), Arithmetic::Integer);
    let other = Runner::load(&golden("qwen3"), Arithmetic::Integer);
    runner.cache = other.cache;
    let batch = sconce_models::Batch {
        token_ids: vec![1],
        positions: vec![0],
        starts: vec![0, 1],
        context_lens: vec![1],
        slots: vec![0],
        block_tables: vec![vec![0]],
        sample_rows: vec![],
    };
    assert!(matches!(runner.model.forward(&batch, &mut runner.cache), Err(Error::Batch(_))));
    let mut right = Runner::load(&golden("llama"), Arithmetic::Integer);
    assert_eq!(right.model.forward(&batch, &mut right.cache).unwrap().rows(), 0);
}

#[test]
fn every_loaded_model_says_the_same_of_itself() {
    for case in ["llama", "bert", "bert_cross_encoder"] {
        let loaded = load_at(&golden(case)).unwrap();
        assert_eq!(*loaded.model.spec(), loaded.spec);
        let is_causal = matches!(loaded.model, LoadedModel::Causal(_));
        assert_eq!(is_causal, loaded.spec.kind == ModelKind::Causal);
    }
}

#[test]
fn the_chat_template_comes_from_wherever_the_format_keeps_it() {
    let template = |case: &str| load_at(&golden(case)).unwrap().chat_template;
    for case in ["llama", "gguf/llama/llama.F32.gguf", "llama_sharded_bf16", "qwen2"] {
        assert!(template(case).is_some(), "{case}");
    }
    assert!(template("bert").is_none());
}
