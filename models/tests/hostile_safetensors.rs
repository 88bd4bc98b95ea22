//! Safetensors files and indexes from strangers: each is refused with a reason, in bounded memory.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod allocation;
mod golden_data;

use std::fs;
use std::path::Path;

use golden_data::golden;
use proptest::prelude::{ProptestConfig, any, proptest};
use sconce_models::weights::{Weights, open, safetensors::SafetensorsFiles};
use sconce_models::{Arithmetic, Device, Error, ModelFiles};
use serde_json::{Value, json};

/// A file of this header, given as text, and as many bytes of data.
fn file(header: &str, data_bytes: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data_bytes, 0);
    bytes
}

/// A header of tensors `(name, type, shape, start, end)`.
fn header(tensors: &[(&str, &str, &[u64], u64, u64)]) -> String {
    let parts: Vec<String> = tensors
        .iter()
        .map(|(name, dtype, shape, start, end)| {
            format!(
                "{}: {}",
                json!(name),
                json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, end] })
            )
        })
        .collect();
    format!("{{{}}}", parts.join(", "))
}

fn open_bounded(name: &str, bytes: &[u8]) -> Result<SafetensorsFiles, Error> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    fs::write(&path, bytes).unwrap();
    let (result, peak) = allocation::peak_of(|| SafetensorsFiles::open(&[path]));
    assert!(peak < bytes.len() * 2 + (64 << 20), "{name}: {peak} bytes held for a file of {}", bytes.len());
    result
}

fn refused(name: &str, bytes: &[u8]) -> String {
    match open_bounded(name, bytes) {
        Err(error @ Error::InvalidFile { .. }) => error.to_string(),
        other => panic!("{name}: {:?}", other.err()),
    }
}

fn sound() -> String {
    header(&[("a", "F32", &[2, 2], 0, 16), ("b", "BF16", &[4], 16, 24), ("c", "I64", &[], 24, 32)])
}

#[test]
fn the_sound_file_opens() {
    let files = open_bounded("sound", &file(&sound(), 32)).unwrap();
    let weights = files.weights(&Device::cpu());
    assert_eq!(weights.shape("a"), Some(vec![2, 2]));
    assert_eq!(weights.shape("c"), Some(vec![]));
    assert_eq!((weights.total_bytes(), weights.dominant_type().as_str()), (32, "F32"));
    assert!(open_bounded("no tensors", &file("{}", 0)).is_ok());
    assert!(open_bounded("padded", &file(&format!("{}   ", sound()), 32)).is_ok());
    let described = sound().replacen('{', r#"{"__metadata__": {"format": "pt"}, "#, 1);
    assert!(open_bounded("with metadata", &file(&described, 32)).is_ok());
}

#[test]
fn tensors_of_other_types_are_refused_when_they_are_read() {
    let weights = open_bounded("sound", &file(&sound(), 32)).unwrap().weights(&Device::cpu());
    assert!(matches!(weights.tensor("c", &[]), Err(Error::Unsupported { .. })));
}

#[test]
fn a_file_cut_or_lengthened_anywhere_is_refused() {
    let bytes = file(&sound(), 32);
    for length in 0..bytes.len() {
        refused(&format!("cut at {length}"), &bytes[..length]);
    }
    refused("a byte too many", &[&bytes[..], &[0]].concat());
}

#[test]
fn wrong_headers_are_refused() {
    for length in [1 << 63, u64::MAX, 100_000_001, 100_000_000, u64::MAX - 7] {
        let mut bytes = file(&sound(), 32);
        bytes[..8].copy_from_slice(&u64::to_le_bytes(length));
        refused(&format!("length of {length}"), &bytes);
    }
    let one = |shape: &[u64], start: u64, end: u64| header(&[("a", "F32", shape, start, end)]);
    let two = |first: (u64, u64), second: (u64, u64)| {
        header(&[("a", "F32", &[2], first.0, first.1), ("b", "F32", &[2], second.0, second.1)])
    };
    let twice = r#"{"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
        "a": {"dtype": "U8", "shape": [1], "data_offsets": [1, 2]}}"#;
    let deep = format!("{}{}", r#"{"a":"#.repeat(10_000), "}".repeat(10_000));
    let deep_metadata = format!(r#"{{"__metadata__": {}{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    for (name, header, data, reason) in [
        ("no JSON", "hello".to_owned(), 0, "does not start with"),
        ("blanks first", format!("  {}", sound()), 32, "does not start with"),
        ("a list", "[]".into(), 0, "does not start with"),
        ("unclosed", "{".into(), 0, "header"),
        ("two objects", "{}{}".into(), 0, "header"),
        ("name twice", twice.into(), 2, "twice"),
        ("metadata twice", r#"{"__metadata__": {}, "__metadata__": {}}"#.into(), 0, "twice"),
        ("metadata that are no texts", r#"{"__metadata__": {"a": 1}}"#.into(), 0, "header"),
        ("empty name", header(&[("", "U8", &[1], 0, 1)]), 1, "0 bytes"),
        ("long name", header(&[(&"n".repeat(70_000), "U8", &[1], 0, 1)]), 1, "70000 bytes"),
        ("nested deep", deep, 0, "header"),
        ("metadata nested deep", deep_metadata, 0, "header"),
        ("unknown type", header(&[("a", "F128", &[1], 0, 16)]), 16, "F128"),
        ("no type", r#"{"a": {"shape": [1], "data_offsets": [0, 1]}}"#.into(), 1, "dtype"),
        (
            "an unknown field",
            r#"{"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1], "x": 1}}"#.into(),
            1,
            "x",
        ),
        (
            "a shape below zero",
            r#"{"a": {"dtype": "U8", "shape": [-1], "data_offsets": [0, 1]}}"#.into(),
            1,
            "header",
        ),
        (
            "three offsets",
            r#"{"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1, 2]}}"#.into(),
            1,
            "header",
        ),
        ("offsets reversed", one(&[2], 8, 0), 8, "end before they start"),
        ("past the end", one(&[4], 0, 16), 8, "past the end"),
        ("less than the file", one(&[2], 0, 8), 16, "8 bytes"),
        ("offset far off", one(&[2], u64::MAX - 8, u64::MAX), 8, "hole or overlap"),
        ("as long as can be", header(&[("a", "U8", &[u64::MAX], 0, u64::MAX)]), 8, "past the end"),
        ("shape not equal to bytes", one(&[3], 0, 8), 8, "does not take"),
        ("shape product overflows", one(&[1 << 33, 1 << 33], 0, 8), 8, "does not take"),
        ("shape product overflows to the right size", one(&[1 << 62, 8], 0, 0), 0, "does not take"),
        ("9 dimensions", header(&[("a", "U8", &[1; 9], 0, 1)]), 1, "9 dimensions"),
        ("overlapping", two((0, 8), (4, 12)), 12, "hole or overlap"),
        ("the same place", two((0, 8), (0, 8)), 8, "hole or overlap"),
        ("a hole", two((0, 8), (12, 20)), 20, "hole or overlap"),
        ("a hole at the start", one(&[2], 4, 12), 12, "hole or overlap"),
    ] {
        let error = refused(name, &file(&header, data));
        assert!(error.contains(reason), "{name}: {error}");
    }
    let mut invalid = file(&sound(), 32);
    invalid[12] = 0xff;
    assert!(refused("not UTF-8", &invalid).contains("UTF-8"));
}

#[test]
fn a_million_tensors_are_refused_in_bounded_memory() {
    let mut header = String::from("{");
    for number in 0..1_000_000u32 {
        let comma = if number == 0 { "" } else { "," };
        header += &format!(r#"{comma}"t{number}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#);
    }
    header.push('}');
    assert!(refused("10^6 tensors", &file(&header, 0)).contains("more than"));
}

/// A folder with these files beside a `config.json`.
fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(golden("llama/config.json"), folder.path().join("config.json")).unwrap();
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

#[test]
fn an_index_names_files_of_its_folder_only() {
    let one = file(&header(&[("a", "F32", &[1], 0, 4)]), 4);
    let other = file(&header(&[("b", "F32", &[1], 0, 4)]), 4);
    let index = |map: Value| json!({ "metadata": {}, "weight_map": map }).to_string().into_bytes();
    let find = |index: &[u8]| {
        let files = [
            ("s-1.safetensors", &one[..]),
            ("s-2.safetensors", &other),
            ("model.safetensors.index.json", index),
        ];
        let folder = folder(&files);
        let found = ModelFiles::find(folder.path())?;
        open(&found, &Device::cpu(), Arithmetic::Float).map(|opened| opened.weights.total_bytes())
    };
    let good = index(json!({ "a": "s-1.safetensors", "b": "s-2.safetensors" }));
    assert_eq!(find(&good).unwrap(), 8);
    for name in [
        "../s-1.safetensors",
        "/etc/passwd",
        "/s-1.safetensors",
        "./s-1.safetensors",
        "sub/s-1.safetensors",
        "..",
        "",
        "config.json",
        "s-1.safetensors/",
        "s-3.safetensors",
        "s-1.safetensors\u{0}",
    ] {
        assert!(find(&index(json!({ "a": name }))).is_err(), "{name:?}");
    }
    for damaged in
        [index(json!({})), index(json!([])), index(json!({ "a": 1 })), b"{".to_vec(), b"[]".to_vec()]
    {
        assert!(find(&damaged).is_err(), "{}", String::from_utf8_lossy(&damaged));
    }
}

#[test]
fn the_same_tensor_in_two_files_is_refused() {
    let one = file(&header(&[("a", "F32", &[1], 0, 4)]), 4);
    let map = json!({ "weight_map": { "a": "s-1.safetensors", "b": "s-2.safetensors" } }).to_string();
    let files = [
        ("s-1.safetensors", &one[..]),
        ("s-2.safetensors", &one),
        ("model.safetensors.index.json", map.as_bytes()),
    ];
    let folder = folder(&files);
    let found = ModelFiles::find(folder.path()).unwrap();
    assert!(matches!(open(&found, &Device::cpu(), Arithmetic::Float), Err(Error::InvalidFile { .. })));
}

#[test]
fn a_folder_is_recognised_by_what_lies_in_it() {
    let (weights, gguf) = (file("{}", 0), fs::read(golden("gguf/qwen2/qwen2.F16.gguf")).unwrap());
    let kind = |files: &[(&str, &[u8])], keeps_config: bool| {
        let folder = folder(files);
        if !keeps_config {
            fs::remove_file(folder.path().join("config.json")).unwrap();
        }
        let names = |paths: &[std::path::PathBuf]| -> Vec<String> {
            paths.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
        };
        match ModelFiles::find(folder.path()) {
            Ok(ModelFiles::Safetensors { shards, .. }) => Ok(("safetensors", names(&shards), false)),
            Ok(ModelFiles::Gguf { shards, tokenizer }) => Ok(("gguf", names(&shards), tokenizer.is_some())),
            Err(error) => Err(error),
        }
    };
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let split = [("m-00001-of-00002.gguf", &gguf[..]), ("m-00002-of-00002.gguf", &gguf)];
    for (files, keeps_config, expected) in [
        (
            &[("model.safetensors", &weights[..])][..],
            true,
            ("safetensors", names(&["model.safetensors"]), false),
        ),
        (&[("other.safetensors", &weights)], true, ("safetensors", names(&["other.safetensors"]), false)),
        (
            &[("m-00002-of-00002.safetensors", &weights), ("m-00001-of-00002.safetensors", &weights)],
            true,
            ("safetensors", names(&["m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors"]), false),
        ),
        (&[("m.gguf", &gguf)], false, ("gguf", names(&["m.gguf"]), false)),
        (&[("m.gguf", &gguf), ("tokenizer.json", b"{}")], true, ("gguf", names(&["m.gguf"]), true)),
        (&[("m.GGUF", &gguf), ("mmproj-m.gguf", &gguf)], false, ("gguf", names(&["m.GGUF"]), false)),
        (&split, false, ("gguf", names(&["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]), false)),
    ] {
        assert_eq!(kind(files, keeps_config).unwrap(), expected);
    }
    for (name, files, keeps_config) in [
        ("nothing", &[][..], true),
        ("weights without a configuration", &[("model.safetensors", &weights[..])], false),
        ("two models", &[("a.gguf", &gguf), ("b.gguf", &gguf)], false),
        ("a missing shard", &split[..1], false),
        ("the other missing shard", &split[1..], false),
        ("several files without an index", &[("a.safetensors", &weights), ("b.safetensors", &weights)], true),
    ] {
        assert!(matches!(kind(files, keeps_config), Err(Error::NoModel { .. })), "{name}");
    }
    assert!(matches!(ModelFiles::find(Path::new("/nowhere/at/all")), Err(Error::Read { .. })));
    assert!(matches!(ModelFiles::find(&golden("llama/config.json")), Err(Error::NoModel { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn a_header_with_any_change_is_safe(position in 0usize..200, value in any::<u8>(), cut in 0usize..300) {
        let mut bytes = file(&sound(), 32);
        let position = position % bytes.len();
        bytes[position] = value;
        bytes.truncate(cut.max(1));
        let _ = open_bounded("changed", &bytes);
    }
}
