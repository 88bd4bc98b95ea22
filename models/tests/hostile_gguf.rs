//! GGUF headers from strangers: each is refused with a reason, and costs no more memory than its length and 64 MiB.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod allocation;
mod gguf_writer;

use std::fs;
use std::path::{Path, PathBuf};

use gguf_writer::{GgufFile, Meta, string};
use proptest::prelude::{ProptestConfig, any, proptest};
use sconce_models::weights::{gguf, open};
use sconce_models::{Arithmetic, Device, Error, ModelFiles};
use tempfile::TempDir;

/// A file that is sound: two tensors, a few pairs of each type.
fn sound() -> GgufFile {
    GgufFile::new()
        .with("general.architecture", Meta::text("llama"))
        .with("general.alignment", Meta::U32(32))
        .with("llama.block_count", Meta::U32(1))
        .with("some.flag", Meta::Bool(true))
        .with("some.number", Meta::F32(1.5))
        .with("some.texts", Meta::Texts(vec!["a".into(), "bc".into()]))
        .with("some.numbers", Meta::Integers(vec![1, 2, 3]))
        .tensor("token_embd.weight", &[32, 4], 0, 0)
        .tensor("output_norm.weight", &[32], 0, 512)
        .data(640)
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

/// Opens a file under the allocation bound.
fn open_bounded(name: &str, path: &Path) -> Result<gguf::GgufFile, Error> {
    let length = fs::metadata(path).unwrap().len() as usize;
    let (result, peak) = allocation::peak_of(|| gguf::GgufFile::open(&[path.to_owned()]));
    assert!(peak < length + (64 << 20), "{name}: {peak} bytes held for a file of {length}");
    result
}

fn refused(name: &str, bytes: &[u8]) -> String {
    let folder = Folder::new();
    let path = folder.write("model.gguf", bytes);
    match open_bounded(name, &path) {
        Err(error @ (Error::InvalidFile { .. } | Error::Unsupported { .. })) => error.to_string(),
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn the_sound_file_opens() {
    let folder = Folder::new();
    for (name, file) in [
        ("version 3", sound()),
        ("version 2", GgufFile { version: 2, ..sound() }),
        ("no alignment", sound().without("general.alignment")),
        ("no tensors", GgufFile { tensors: Vec::new(), data_bytes: 0, ..sound() }),
    ] {
        let path = folder.write("model.gguf", &file.bytes());
        open_bounded(name, &path).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let bytes = sound().bytes();
    for length in 0..bytes.len() {
        refused(&format!("cut at {length}"), &bytes[..length]);
    }
}

#[test]
fn a_header_with_one_byte_changed_gives_an_error_or_a_model() {
    let folder = Folder::new();
    let bytes = sound().bytes();
    for position in 0..sound().header().len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[position] = value;
            let path = folder.write("model.gguf", &changed);
            if let Ok(file) = open_bounded(&format!("byte {position} = {value}"), &path) {
                // What was taken must also be readable, or be refused in its turn.
                let _ = file.config();
            }
        }
    }
}

const HUGE: [u64; 4] = [1 << 63, u64::MAX, (1 << 42) + 1, u64::MAX / 8];

#[test]
fn huge_counts_and_lengths_are_refused() {
    for huge in HUGE {
        let name = |what: &str| format!("{what} {huge}");
        refused(&name("tensors"), &GgufFile { tensor_count: Some(huge), ..sound() }.bytes());
        refused(&name("pairs"), &GgufFile { pair_count: Some(huge), ..sound() }.bytes());
        let number = huge.to_le_bytes();
        refused(&name("text"), &sound().with("x", Meta::Raw(8, number.to_vec())).bytes());
        for element in [0u32, 5, 8, 10, 12] {
            let array = [&element.to_le_bytes()[..], &number].concat();
            refused(&name("array"), &sound().with("x", Meta::Raw(9, array)).bytes());
        }
        let mut key = sound().header();
        key.truncate(24);
        key.extend(number);
        key.resize(4096, 0);
        refused(&name("key"), &key);
        refused(&name("dimension"), &sound().tensor("x", &[huge], 0, 0).bytes());
        refused(&name("product"), &sound().tensor("x", &[huge, 32, 32], 0, 0).bytes());
        refused(&name("product of blocks"), &sound().tensor("x", &[32, huge, 1 << 40], 2, 0).bytes());
        refused(&name("offset"), &sound().tensor("x", &[32], 0, huge).bytes());
        refused(&name("aligned offset"), &sound().tensor("x", &[32], 0, huge & !31).bytes());
    }
}

#[test]
fn counts_that_the_file_is_too_short_for_are_refused() {
    // Each is below the reader's own limits, so the length of the file must be what refuses it.
    refused("tensors", &GgufFile { tensor_count: Some(60_000), ..sound() }.bytes());
    refused("pairs", &GgufFile { pair_count: Some(60_000), ..sound() }.bytes());
    for (element, count) in [(8u32, 2_000_000u64), (5, 2_000_000), (12, 2_000_000)] {
        let array = [&element.to_le_bytes()[..], &count.to_le_bytes()].concat();
        refused("array", &sound().with("x", Meta::Raw(9, array)).bytes());
    }
    refused("text", &sound().with("x", Meta::Raw(8, (1u64 << 40).to_le_bytes().to_vec())).bytes());
}

#[test]
fn a_header_full_of_empty_texts_is_bounded() {
    // Texts cost more in memory than in the file if each is kept for itself.
    let folder = Folder::new();
    let texts = |arrays: usize| {
        (0..arrays).fold(sound(), |file, number| {
            file.with(&format!("texts.{number}"), Meta::Texts(vec![String::new(); 1_000_000]))
        })
    };
    let path = folder.write("model.gguf", &texts(7).bytes());
    open_bounded("empty texts", &path).unwrap();
    assert!(refused("too many empty texts", &texts(10).bytes()).contains("header is longer"));
}

#[test]
fn wrong_beginnings_are_refused_by_name() {
    for (name, file, reason) in [
        ("magic", GgufFile { magic: *b"GGML", ..sound() }, "does not start with"),
        ("version 0", GgufFile { version: 0, ..sound() }, "version 0"),
        ("version 1", GgufFile { version: 1, ..sound() }, "version 1"),
        ("version 4", GgufFile { version: 4, ..sound() }, "version 4"),
        ("big-endian", GgufFile { version: 3u32.swap_bytes(), ..sound() }, "big-endian"),
    ] {
        let error = refused(name, &file.bytes());
        assert!(error.contains(reason), "{name}: {error}");
    }
    assert!(refused("empty", b"").contains("end of the file"));
    assert!(refused("a page", b"<!DOCTYPE html><html>").contains("does not start with"));
}

#[test]
fn damaged_metadata_are_refused() {
    let nested = |depth: usize| {
        let mut bytes = Vec::new();
        for _ in 0..depth {
            bytes.extend(9u32.to_le_bytes());
            bytes.extend(1u64.to_le_bytes());
        }
        bytes
    };
    for (name, file, reason) in [
        ("unknown type", sound().with("x", Meta::Raw(13, vec![0; 8])), "unknown type"),
        (
            "unknown element",
            sound().with("x", Meta::Raw(9, vec![99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
            "unknown type",
        ),
        ("array of arrays", sound().with("x", Meta::Raw(9, nested(1))), "array of arrays"),
        ("arrays nested deep", sound().with("x", Meta::Raw(9, nested(10_000))), "array of arrays"),
        ("key twice", sound().and("some.flag", Meta::Bool(false)), "twice"),
        ("empty key", sound().and("", Meta::Bool(false)), "0 bytes"),
        ("long key", sound().and(&"k".repeat(70_000), Meta::Bool(false)), "70000 bytes"),
        ("truth value of 2", sound().with("x", Meta::Raw(7, vec![2])), "neither true nor false"),
        (
            "text that is none",
            sound().with("x", Meta::Raw(8, [&1u64.to_le_bytes()[..], &[0xff]].concat())),
            "UTF-8",
        ),
        ("alignment of 0", sound().with("general.alignment", Meta::U32(0)), "alignment 0"),
        ("alignment of 3", sound().with("general.alignment", Meta::U32(3)), "alignment 3"),
        ("alignment of 4", sound().with("general.alignment", Meta::U32(4)), "alignment 4"),
        ("alignment of 2^31", sound().with("general.alignment", Meta::U32(1 << 31)), "alignment 2147483648"),
        ("alignment that is text", sound().with("general.alignment", Meta::text("32")), "alignment"),
        ("alignment that is a float", sound().with("general.alignment", Meta::F32(32.0)), "alignment"),
    ] {
        let error = refused(name, &file.bytes());
        assert!(error.contains(reason), "{name}: {error}");
    }
}

#[test]
fn damaged_tensors_are_refused() {
    let dimensions = |count: usize| vec![1u64; count];
    for (name, file, reason) in [
        ("name twice", sound().tensor("output_norm.weight", &[32], 0, 0), "twice"),
        (
            "same name in both conventions",
            sound().tensor("model.norm.weight", &[8], 0, 640).data(1280),
            "twice",
        ),
        ("empty name", sound().tensor("", &[32], 0, 0), "0 bytes"),
        ("no dimension", sound().tensor("x", &[], 0, 0), "0 dimensions"),
        ("5 dimensions", sound().tensor("x", &dimensions(5), 0, 0), "5 dimensions"),
        ("10^6 dimensions", sound().tensor("x", &dimensions(1_000_000), 0, 0), "1000000 dimensions"),
        ("dimension of 0", sound().tensor("x", &[32, 0], 0, 0), "dimension is 0"),
        ("half a block", sound().tensor("x", &[48], 2, 0), "whole number of blocks"),
        ("half a super-block", sound().tensor("x", &[128, 2], 12, 0), "whole number of blocks"),
        ("IQ4_XS", sound().tensor("x", &[256], 23, 0), "IQ4_XS"),
        ("MXFP4", sound().tensor("x", &[256], 39, 0), "MXFP4"),
        ("I32", sound().tensor("x", &[256], 26, 0), "I32"),
        ("unknown type", sound().tensor("x", &[256], 1000, 0), "number 1000"),
        ("unaligned", sound().tensor("x", &[8], 0, 641).data(2000), "not aligned"),
        ("past the end", sound().tensor("x", &[32], 0, 640), "past the end"),
        ("a little past the end", sound().data(639), "past the end"),
        ("overlapping", sound().tensor("x", &[32], 0, 480), "overlap"),
        ("the same place", sound().tensor("x", &[32], 0, 512), "overlap"),
    ] {
        let error = refused(name, &file.bytes());
        assert!(error.contains(reason), "{name}: {error}");
    }
}

#[test]
fn shards_that_do_not_belong_together_are_refused() {
    let split = |number: u32, count: u32, name: &str| {
        GgufFile::new()
            .with("general.architecture", Meta::text("llama"))
            .with("split.no", Meta::U32(number))
            .with("split.count", Meta::U32(count))
            .tensor(name, &[32], 0, 0)
            .data(128)
    };
    let open_all = |files: &[GgufFile]| {
        let folder = Folder::new();
        let paths: Vec<PathBuf> = files
            .iter()
            .enumerate()
            .map(|(number, file)| folder.write(&format!("m-{number}.gguf"), &file.bytes()))
            .collect();
        gguf::GgufFile::open(&paths)
    };
    open_all(&[split(0, 2, "a"), split(1, 2, "b")]).expect("both shards in order");
    for (name, files) in [
        ("one of two", vec![split(0, 2, "a")]),
        ("wrong order", vec![split(1, 2, "a"), split(0, 2, "b")]),
        ("one twice", vec![split(0, 2, "a"), split(0, 2, "b")]),
        ("counts that differ", vec![split(0, 2, "a"), split(1, 3, "b")]),
        ("the same tensor in both", vec![split(0, 2, "a"), split(1, 2, "a")]),
        ("not numbered", vec![split(0, 2, "a"), sound()]),
        (
            "number of another type",
            vec![split(0, 2, "a"), split(1, 2, "b").with("split.no", Meta::text("1"))],
        ),
        ("none", vec![]),
    ] {
        assert!(open_all(&files).is_err(), "{name}");
    }
}

/// The metadata of a llama that loads.
fn llama() -> GgufFile {
    sound()
        .with("llama.embedding_length", Meta::U32(32))
        .with("llama.feed_forward_length", Meta::U32(64))
        .with("llama.context_length", Meta::U32(128))
        .with("llama.attention.head_count", Meta::U32(4))
        .with("llama.attention.head_count_kv", Meta::U32(2))
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let folder = Folder::new();
    let path = folder.write("model.gguf", &llama().bytes());
    let config = open_bounded("sound", &path).unwrap().config().unwrap();
    assert_eq!((&config["num_attention_heads"], &config["head_dim"]), (&4.into(), &8.into()));
    let with = |key: &str, value: Meta| llama().with(key, value);
    for (name, file) in [
        ("no architecture", llama().without("general.architecture")),
        ("architecture that is a number", with("general.architecture", Meta::U32(1))),
        ("unknown architecture", with("general.architecture", Meta::text("mamba"))),
        ("no layers", with("llama.block_count", Meta::U32(0))),
        ("no width", llama().without("llama.embedding_length")),
        ("no heads", with("llama.attention.head_count", Meta::U32(0))),
        ("heads that do not divide", with("llama.attention.head_count", Meta::U32(5))),
        ("heads per layer", with("llama.attention.head_count", Meta::Integers(vec![4]))),
        (
            "heads below zero",
            with("llama.attention.head_count", Meta::Raw(5, (-4i32).to_le_bytes().to_vec())),
        ),
        ("heads that are text", with("llama.attention.head_count", Meta::text("4"))),
        ("context of 2^40", with("llama.context_length", Meta::Raw(10, (1u64 << 40).to_le_bytes().to_vec()))),
        ("epsilon of 0", with("llama.attention.layer_norm_rms_epsilon", Meta::F32(0.0))),
        ("epsilon that is no number", with("llama.attention.layer_norm_rms_epsilon", Meta::F32(f32::NAN))),
        ("rotary base of 0", with("llama.rope.freq_base", Meta::F32(0.0))),
        ("rotary base below 0", with("llama.rope.freq_base", Meta::F32(-1.0))),
        ("infinite rotary base", with("llama.rope.freq_base", Meta::F32(f32::INFINITY))),
        ("rotary scaling of 0", with("llama.rope.scaling.factor", Meta::F32(0.0))),
        ("unknown rotary scaling", with("llama.rope.scaling.type", Meta::text("longrope"))),
        ("values of another width", with("llama.attention.value_length", Meta::U32(16))),
        ("part of a head rotated", with("llama.rope.dimension_count", Meta::U32(4))),
        ("experts", with("llama.expert_count", Meta::U32(8))),
        ("softcapping", with("llama.attn_logit_softcapping", Meta::F32(50.0))),
        ("more tokens than embeddings", with("tokenizer.ggml.tokens", Meta::Texts(vec!["a".into(); 5]))),
    ] {
        let path = folder.write("model.gguf", &file.bytes());
        let config = open_bounded(name, &path).unwrap().config();
        assert!(config.is_err(), "{name}: {config:?}");
    }
}

#[test]
fn heads_that_do_not_fit_a_projection_are_refused() {
    let folder = Folder::new();
    let file = GgufFile { tensors: Vec::new(), ..llama() }
        .tensor("token_embd.weight", &[32, 4], 0, 0)
        .tensor("blk.0.attn_q.weight", &[32, 12], 0, 512)
        .data(512 + 32 * 12 * 4);
    let path = folder.write("model.gguf", &file.bytes());
    let opened = open(&ModelFiles::find(&path).unwrap(), &Device::cpu(), Arithmetic::Float).unwrap();
    let read = opened.weights.tensor("model.layers.0.self_attn.q_proj.weight", &[12, 32]);
    assert!(matches!(read, Err(Error::InvalidFile { .. })), "{read:?}");
}

#[test]
fn texts_are_read_as_they_were_written() {
    let folder = Folder::new();
    let path = folder.write("model.gguf", &sound().with("x", Meta::Raw(8, string("é\0"))).bytes());
    let file = open_bounded("sound", &path).unwrap();
    let metadata = file.metadata();
    assert_eq!(metadata.text("x").unwrap(), Some("é\0"));
    assert_eq!(metadata.texts("some.texts").unwrap(), Some(vec!["a", "bc"]));
    assert_eq!(metadata.integers("some.numbers").unwrap(), Some(vec![1, 2, 3]));
    assert_eq!(metadata.boolean("some.flag").unwrap(), Some(true));
    assert_eq!(metadata.float("some.number").unwrap(), Some(1.5));
    assert_eq!(metadata.unsigned("missing").unwrap(), None);
    assert!(metadata.text("some.flag").is_err() && metadata.texts("some.numbers").is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn any_bytes_after_a_sound_beginning_are_safe(tail in proptest::collection::vec(any::<u8>(), 0..400), keep in 0usize..260) {
        let mut bytes = sound().header();
        bytes.truncate(keep);
        bytes.extend(tail);
        let folder = Folder::new();
        let path = folder.write("model.gguf", &bytes);
        if let Ok(file) = open_bounded("random", &path) {
            let _ = file.config();
        }
    }
}
