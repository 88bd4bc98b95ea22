//! Tensors as files hold them: the same model read from safetensors and from GGUF is the same, and files are found.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod golden_data;

use std::path::Path;

use golden_data::{answers, golden, read_json};
use sconce_models::weights::{Opened, open};
use sconce_models::{Arithmetic, Device, Error, ModelFiles};
use serde_json::Value;

fn opened(path: &Path) -> Opened {
    let files = ModelFiles::find(path).expect("the model is found");
    open(&files, &Device::cpu(), Arithmetic::Float).expect("the model opens")
}

fn numbers(opened: &Opened, name: &str) -> Vec<f32> {
    let shape = opened.weights.shape(name).unwrap_or_else(|| panic!("{name} is missing"));
    let tensor = opened.weights.tensor(name, &shape).expect("the tensor is read");
    tensor.flatten_all().and_then(|flat| flat.to_vec1()).expect("a dense f32 tensor")
}

/// The tensors of a decoder with Llama's layout.
fn decoder_names(layers: u64, parts: &[&str]) -> Vec<String> {
    let outside = ["model.embed_tokens.weight", "model.norm.weight"].map(str::to_owned);
    let within =
        (0..layers).flat_map(|layer| parts.iter().map(move |part| format!("model.layers.{layer}.{part}")));
    outside.into_iter().chain(within).collect()
}

const LLAMA_PARTS: [&str; 9] = [
    "input_layernorm.weight",
    "self_attn.q_proj.weight",
    "self_attn.k_proj.weight",
    "self_attn.v_proj.weight",
    "self_attn.o_proj.weight",
    "post_attention_layernorm.weight",
    "mlp.gate_proj.weight",
    "mlp.up_proj.weight",
    "mlp.down_proj.weight",
];

#[test]
fn gguf_holds_the_same_llama_as_safetensors() {
    let reference = opened(&golden("llama"));
    let mut names = decoder_names(3, &LLAMA_PARTS);
    names.push("lm_head.weight".into());
    for (file, tolerance) in [("F32", 0.0), ("F16", 1e-3), ("BF16", 8e-3), ("Q8_0", 8e-3)] {
        let gguf = opened(&golden(&format!("gguf/llama/llama.{file}.gguf")));
        assert_eq!(gguf.weights.dominant_type(), file);
        for name in &names {
            let (expected, found) = (numbers(&reference, name), numbers(&gguf, name));
            let largest = expected.iter().fold(0f32, |largest, number| largest.max(number.abs()));
            for (one, other) in expected.iter().zip(&found) {
                assert!((one - other).abs() <= tolerance * largest, "{file} {name}: {one} and {other}");
            }
        }
    }
}

#[test]
fn gguf_holds_the_same_qwen2_with_its_biases() {
    let reference = opened(&golden("qwen2"));
    let gguf = opened(&golden("gguf/qwen2/qwen2.F16.gguf"));
    let biases = ["self_attn.q_proj.bias", "self_attn.k_proj.bias", "self_attn.v_proj.bias"];
    let parts: Vec<&str> = LLAMA_PARTS.into_iter().chain(biases).collect();
    for name in decoder_names(3, &parts) {
        for (one, other) in numbers(&reference, &name).iter().zip(&numbers(&gguf, &name)) {
            assert!((one - other).abs() <= 1e-3, "{name}: {one} and {other}");
        }
    }
    assert!(!gguf.weights.contains("lm_head.weight"), "tied models have no output matrix");
}

#[test]
fn gguf_metadata_say_what_config_json_says() {
    for (folder, file) in [("llama", "gguf/llama/llama.F32.gguf"), ("qwen2", "gguf/qwen2/qwen2.F16.gguf")] {
        let reference = read_json(&golden(folder).join("config.json"));
        let config = opened(&golden(file)).config;
        for key in [
            "model_type",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
            "max_position_embeddings",
            "vocab_size",
            "tie_word_embeddings",
            "eos_token_id",
            "rope_scaling",
            "hidden_act",
        ] {
            assert_eq!(config[key], reference[key], "{file}: {key}");
        }
        for key in ["rope_theta", "rms_norm_eps"] {
            let (one, other) = (config[key].as_f64().unwrap(), reference[key].as_f64().unwrap());
            assert!((one - other).abs() < 1e-7 * other, "{file}: {key}: {one} and {other}");
        }
        assert_eq!(config["head_dim"], 16);
    }
}

#[test]
fn every_quantised_file_opens_and_names_its_type() {
    let files = answers("gguf/llama256")["files"].as_object().cloned().unwrap();
    assert!(files.len() > 10);
    for (file, expected) in &files {
        let model = opened(&golden("gguf/llama256").join(file));
        let types = expected["tensor_types"].as_object().unwrap();
        let dominant = model.weights.dominant_type();
        assert!(types.contains_key(&dominant), "{file}: {dominant} of {types:?}");
        assert!(numbers(&model, "model.embed_tokens.weight").iter().all(|number| number.is_finite()));
    }
}

#[test]
fn shards_are_one_model() {
    let model = opened(&golden("llama_sharded_bf16"));
    assert_eq!(model.weights.dominant_type(), "BF16");
    let config: &Value = &model.config;
    let hidden = config["hidden_size"].as_u64().unwrap() as usize;
    for layer in 0..config["num_hidden_layers"].as_u64().unwrap() {
        let name = format!("model.layers.{layer}.input_layernorm.weight");
        assert_eq!(model.weights.shape(&name), Some(vec![hidden]), "{name}");
    }
    let index = read_json(&golden("llama_sharded_bf16").join("model.safetensors.index.json"));
    assert_eq!(Some(model.weights.total_bytes()), index["metadata"]["total_size"].as_u64());
}

#[test]
fn a_wrong_name_or_shape_is_refused() {
    for path in [golden("llama"), golden("gguf/llama/llama.F32.gguf")] {
        let weights = opened(&path).weights;
        assert!(matches!(weights.tensor("model.nothing.weight", &[1]), Err(Error::MissingTensor { .. })));
        assert!(matches!(weights.tensor("model.norm.weight", &[65]), Err(Error::Shape { .. })));
        let swapped = weights.linear("model.layers.0.mlp.down_proj.weight", 112, 64, None);
        assert!(matches!(swapped, Err(Error::Shape { .. })));
    }
}

#[test]
fn a_linear_layer_holds_the_rows_of_its_tensor() {
    for arithmetic in [Arithmetic::Float, Arithmetic::Integer] {
        let files = ModelFiles::find(&golden("gguf/llama256/llama256.Q4_K.gguf")).unwrap();
        let model = open(&files, &Device::cpu(), arithmetic).unwrap();
        let shape = model.weights.shape("model.embed_tokens.weight").unwrap();
        let linear = model.weights.linear("model.embed_tokens.weight", shape[0], shape[1], None).unwrap();
        let rows: Vec<Vec<f32>> = linear.embed(&[0, 5, 511]).unwrap().to_vec2().unwrap();
        let all = numbers(&model, "model.embed_tokens.weight");
        for (row, id) in rows.iter().zip([0, 5, 511]) {
            assert_eq!(row, &all[id * shape[1]..(id + 1) * shape[1]]);
        }
    }
}

#[test]
fn the_content_hash_names_the_weights() {
    let hash = |path: &str| opened(&golden(path)).weights.content_hash().unwrap();
    let once = hash("gguf/llama/llama.F32.gguf");
    assert_eq!(once, hash("gguf/llama/llama.F32.gguf"));
    assert_ne!(once, hash("gguf/llama/llama.F16.gguf"));
    assert_ne!(once, hash("llama"));

    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy.gguf");
    let mut bytes = std::fs::read(golden("gguf/llama/llama.F32.gguf")).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&copy, bytes).unwrap();
    assert_ne!(once, opened(&copy).weights.content_hash().unwrap());
}

#[test]
fn a_file_that_shrinks_after_it_was_opened_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    for (name, source) in [
        ("model.gguf", golden("gguf/llama/llama.F32.gguf")),
        ("model.safetensors", golden("llama/model.safetensors")),
    ] {
        let path = folder.path().join(name);
        std::fs::copy(source, &path).unwrap();
        std::fs::copy(golden("llama/config.json"), folder.path().join("config.json")).unwrap();
        let model = opened(if name == "model.gguf" { &path } else { folder.path() });
        std::fs::File::options().write(true).open(&path).unwrap().set_len(40_000).unwrap();
        let read = model.weights.tensor("model.norm.weight", &[64]);
        assert!(matches!(read, Err(Error::Read { .. })), "{name}: {read:?}");
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn only_plain_files_are_opened() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
    let refused = ModelFiles::find(&path).unwrap_err().to_string();
    assert!(refused.contains("plain file"), "{refused}");
}
