//! Tokenizers give the ids that transformers gives, from `tokenizer.json` and from GGUF metadata; damaged ones are refused.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod gguf_writer;
mod golden_data;

use std::path::Path;

use gguf_writer::{GgufFile, Meta};
use golden_data::{answers, golden, read_json, test_model};
use proptest::prelude::{ProptestConfig, any, proptest};
use sconce_models::tokenizer::end_token_ids;
use sconce_models::weights::{Metadata, Opened, gguf, open};
use sconce_models::{Arithmetic, Device, Error, ModelFiles, Tokenizer};
use serde_json::{Value, json};

fn opened(path: &Path) -> (ModelFiles, Opened) {
    let files = ModelFiles::find(path).unwrap();
    let opened = open(&files, &Device::cpu(), Arithmetic::Float).unwrap();
    (files, opened)
}

fn load(path: &Path) -> Tokenizer {
    let (files, opened) = opened(path);
    let rows = opened.config["vocab_size"].as_u64().unwrap() as usize;
    Tokenizer::load(&files, opened.metadata.as_ref(), rows).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

/// Decodes ids one by one, and checks that each piece is what was not given before.
fn streamed(tokenizer: &Tokenizer, ids: &[u32], skip: bool) -> String {
    let mut decoder = tokenizer.decoder(skip);
    let mut text: String = ids.iter().map(|id| decoder.push(*id).unwrap()).collect();
    text.push_str(&decoder.finish());
    text
}

fn check(name: &str, tokenizer: &Tokenizer, answers: &Value) {
    let cases = answers["tokenizer_cases"].as_array().unwrap();
    assert!(cases.len() >= 19, "{name}");
    for case in cases {
        let text = case["text"].as_str().unwrap();
        let expected = ids(&case["ids"]);
        assert_eq!(tokenizer.encode(text, true).unwrap(), expected, "{name}: {text:?}");
        if !case["ids_without_special"].is_null() {
            let plain = ids(&case["ids_without_special"]);
            assert_eq!(tokenizer.encode(text, false).unwrap(), plain, "{name}: {text:?}");
        }
        // `decoded_skip_special` is there where `decoded` keeps special tokens.
        let skipped = case.get("decoded_skip_special").unwrap_or(&case["decoded"]).as_str().unwrap();
        assert_eq!(tokenizer.decode(&expected, true).unwrap(), skipped, "{name}: {text:?}");
        if case.get("decoded_skip_special").is_some() {
            assert_eq!(
                tokenizer.decode(&expected, false).unwrap(),
                case["decoded"].as_str().unwrap(),
                "{name}"
            );
        }
    }
}

#[test]
fn tokenizer_json_gives_the_ids_of_transformers() {
    for case in [
        "llama",
        "llama_rope_llama3",
        "llama_sharded_bf16",
        "mistral",
        "qwen2",
        "qwen3",
        "qwen3_yarn",
        "qwen3_embedding",
        "bert",
        "bert_cross_encoder",
        "xlm_roberta",
    ] {
        check(case, &load(&golden(case)), &answers(case));
    }
}

#[test]
fn gguf_metadata_give_the_ids_of_transformers() {
    for (case, file) in [("llama", "llama.F32"), ("llama256", "llama256.Q8_0"), ("qwen2", "qwen2.F16")] {
        let case = format!("gguf/{case}");
        check(&case, &load(&golden(&case).join(format!("{file}.gguf"))), &answers(&case));
    }
    check("smollm2", &load(&test_model("SmolLM2-135M-Instruct.Q4_1.gguf")), &answers("smollm2"));
}

#[test]
fn minilm_sentences_get_their_ids_uncut() {
    let tokenizer = load(&test_model("all-MiniLM-L6-v2"));
    for sentence in answers("minilm")["sentences"].as_array().unwrap() {
        let expected = ids(&sentence["ids"]);
        let mut found = tokenizer.encode(sentence["text"].as_str().unwrap(), true).unwrap();
        // The answers are cut to 256; the file's own setting of 128 has no effect.
        if found.len() > expected.len() {
            assert_eq!(expected.len(), 256);
            let end = found.pop().unwrap();
            found.truncate(255);
            found.push(end);
        }
        assert_eq!(found, expected, "{}", sentence["text"]);
    }
}

#[test]
fn pairs_get_their_segments() {
    let tokenizer = load(&golden("bert_cross_encoder"));
    for pair in answers("bert_cross_encoder")["pairs"].as_array().unwrap() {
        let (query, document) = (pair["query"].as_str().unwrap(), pair["document"].as_str().unwrap());
        let encoding = tokenizer.encode_pair(query, document).unwrap();
        assert_eq!(encoding.ids, ids(&pair["ids"]));
        assert_eq!(encoding.type_ids, ids(&pair["type_ids"]));
    }
}

#[test]
fn a_stream_gives_the_continuations_of_transformers() {
    for case in ["llama", "llama_sharded_bf16", "mistral", "qwen2", "qwen3"] {
        let tokenizer = load(&golden(case));
        for prompt in answers(case)["prompts"].as_array().unwrap() {
            let text = streamed(&tokenizer, &ids(&prompt["greedy"]), true);
            assert_eq!(text, prompt["greedy_text"].as_str().unwrap(), "{case} {}", prompt["name"]);
        }
    }
}

#[test]
fn a_stream_holds_a_character_back_until_it_is_whole() {
    for case in ["llama", "mistral"] {
        let tokenizer = load(&golden(case));
        let text = "naïve 日本語 😀👩‍🚀";
        let mut decoder = tokenizer.decoder(true);
        for id in tokenizer.encode(text, false).unwrap() {
            let piece = decoder.push(id).unwrap();
            assert!(!piece.contains('\u{fffd}'), "{case}: {piece:?}");
        }
        assert_eq!(decoder.finish(), "");
    }
}

#[test]
fn token_bytes_join_to_the_text() {
    for case in ["llama", "mistral", "qwen3"] {
        let tokenizer = load(&golden(case));
        let text = "The 😀 says: naïve!";
        let bytes: Vec<u8> = tokenizer
            .encode(text, false)
            .unwrap()
            .iter()
            .flat_map(|id| tokenizer.token_bytes(*id).unwrap())
            .collect();
        assert_eq!(String::from_utf8(bytes).unwrap().trim_start(), text, "{case}");
        assert_eq!(tokenizer.token_bytes(1_000_000), None);
    }
}

#[test]
fn special_tokens_are_known() {
    let tokenizer = load(&golden("llama"));
    let end = tokenizer.token_to_id("<|eot_id|>").unwrap();
    assert!(tokenizer.is_special(end) && !tokenizer.is_special(5));
    assert_eq!(tokenizer.encode("a<|eot_id|>", false).unwrap().last(), Some(&end));
    assert_eq!(tokenizer.decode(&[end], true).unwrap(), "");
    assert_eq!(tokenizer.decode(&[end], false).unwrap(), "<|eot_id|>");
    assert_eq!(tokenizer.vocab_size(), 512);
    assert!(matches!(tokenizer.decode(&[512], true), Err(Error::Tokenizer(_))));
}

#[test]
fn end_tokens_are_found_where_files_name_them() {
    for (path, expected) in [
        (golden("llama"), vec![508, 511]),
        (golden("mistral"), vec![2]),
        (golden("qwen3"), vec![505, 507]),
        (golden("gguf/llama/llama.F32.gguf"), vec![508, 511]),
        (golden("gguf/qwen2/qwen2.F16.gguf"), vec![509, 511]),
        (test_model("SmolLM2-135M-Instruct.Q4_1.gguf"), vec![0, 2]),
    ] {
        let (files, opened) = opened(&path);
        let found = end_token_ids(&files, &opened.config, opened.metadata.as_ref(), &load(&path)).unwrap();
        assert_eq!(found, expected, "{}", path.display());
    }
}

#[test]
fn lists_of_end_tokens_are_read() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(golden("llama").join(file), folder.path().join(file)).unwrap();
    }
    let write =
        |name: &str, value: Value| std::fs::write(folder.path().join(name), value.to_string()).unwrap();
    write("generation_config.json", json!({ "eos_token_id": [7, 9, 100_000] }));
    write("tokenizer_config.json", json!({ "eos_token": { "content": "!", "special": true } }));
    let (files, opened) = opened(folder.path());
    let found = end_token_ids(&files, &opened.config, None, &load(folder.path())).unwrap();
    assert_eq!(found, [0, 7, 9, 508, 511]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_text_comes_back_and_the_stream_agrees(text in any::<String>()) {
        let tokenizer = load(&golden("llama"));
        let ids = tokenizer.encode(&text, false).unwrap();
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
        assert_eq!(streamed(&tokenizer, &ids, false), text);
    }

    #[test]
    fn any_ids_decode_the_same_at_once_and_one_by_one(ids in proptest::collection::vec(0u32..512, 0..40)) {
        for case in ["llama", "qwen3"] {
            let tokenizer = load(&golden(case));
            let expected = tokenizers::Tokenizer::from_file(golden(case).join("tokenizer.json")).unwrap();
            let whole = tokenizer.decode(&ids, true).unwrap();
            assert_eq!(whole, expected.decode(&ids, true).unwrap());
            assert_eq!(whole, streamed(&tokenizer, &ids, true));
        }
    }
}

/// The vocabulary of a `tokenizer.json` as a GGUF file's metadata would have it, with scores in place of merges.
fn sentence_piece_metadata(case: &str) -> GgufFile {
    let tokenizer = read_json(&golden(case).join("tokenizer.json"));
    let vocabulary = tokenizer["model"]["vocab"].as_object().unwrap();
    let mut tokens: Vec<(&String, u64)> =
        vocabulary.iter().map(|(token, id)| (token, id.as_u64().unwrap())).collect();
    tokens.sort_by_key(|(_, id)| *id);
    let kind = |token: &str| match token {
        "<unk>" => 2,
        "<s>" | "</s>" => 3,
        byte if byte.starts_with("<0x") => 6,
        _ => 1,
    };
    // Pieces were found one after the other, so an earlier one was the better merge.
    let merges = tokenizer["model"]["merges"].as_array().unwrap();
    let rank = |token: &str| {
        merges
            .iter()
            .position(|pair| format!("{}{}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()) == token)
    };
    let scores = tokens.iter().map(|(token, _)| rank(token).map_or(-1e6, |rank| -(rank as f32))).collect();
    GgufFile::new()
        .with("general.architecture", Meta::text("llama"))
        .with("tokenizer.ggml.model", Meta::text("llama"))
        .with(
            "tokenizer.ggml.tokens",
            Meta::Texts(tokens.iter().map(|(token, _)| (*token).clone()).collect()),
        )
        .with("tokenizer.ggml.scores", Meta::Floats(scores))
        .with(
            "tokenizer.ggml.token_type",
            Meta::Integers(tokens.iter().map(|(token, _)| kind(token)).collect()),
        )
        .with("tokenizer.ggml.bos_token_id", Meta::U32(1))
        .with("tokenizer.ggml.eos_token_id", Meta::U32(2))
}

fn metadata(file: &GgufFile) -> Result<Metadata, Error> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, file.bytes()).unwrap();
    Ok(gguf::GgufFile::open(&[path])?.metadata().clone())
}

fn rebuilt(file: &GgufFile) -> Result<Tokenizer, Error> {
    Tokenizer::from_gguf(&metadata(file)?, 1000)
}

#[test]
fn scores_give_the_ids_that_merges_give() {
    for case in ["mistral", "llama_sharded_bf16"] {
        check(case, &rebuilt(&sentence_piece_metadata(case)).unwrap(), &answers(case));
    }
}

#[test]
fn flags_decide_what_is_put_round_a_text() {
    let with = |bos: bool, eos: bool, prefix: bool| {
        let file = sentence_piece_metadata("mistral")
            .with("tokenizer.ggml.add_bos_token", Meta::Bool(bos))
            .with("tokenizer.ggml.add_eos_token", Meta::Bool(eos))
            .with("tokenizer.ggml.add_space_prefix", Meta::Bool(prefix));
        rebuilt(&file).unwrap()
    };
    let tokenizer = with(false, true, false);
    let found = tokenizer.encode("the", true).unwrap();
    assert_eq!((found[0] == 1, found.last()), (false, Some(&2)));
    assert_eq!(tokenizer.decode(&tokenizer.encode(" the", false).unwrap(), true).unwrap(), " the");
    let pair = with(true, false, true).encode_pair("the", "the").unwrap();
    let half = pair.ids.len() / 2;
    assert_eq!(pair.ids[..half], pair.ids[half..]);
    assert_eq!((pair.type_ids[0], pair.type_ids[half]), (0, 1));
}

/// A byte-level vocabulary of three tokens.
fn small() -> GgufFile {
    GgufFile::new()
        .with("general.architecture", Meta::text("llama"))
        .with("tokenizer.ggml.model", Meta::text("gpt2"))
        .with("tokenizer.ggml.pre", Meta::text("gpt-2"))
        .with("tokenizer.ggml.tokens", Meta::Texts(["a", "b", "ab"].map(str::to_owned).to_vec()))
        .with("tokenizer.ggml.merges", Meta::Texts(vec!["a b".into()]))
}

#[test]
fn a_small_vocabulary_works() {
    let tokenizer = rebuilt(&small()).unwrap();
    assert_eq!(tokenizer.encode("aab", true).unwrap(), [0, 2]);
}

#[test]
fn damaged_vocabularies_are_refused() {
    let texts = |texts: &[&str]| Meta::Texts(texts.iter().map(|text| (*text).to_owned()).collect());
    let pieces = || sentence_piece_metadata("mistral");
    for (name, file) in [
        ("no model", small().without("tokenizer.ggml.model")),
        ("unknown model", small().with("tokenizer.ggml.model", Meta::text("t5"))),
        ("model of another type", small().with("tokenizer.ggml.model", Meta::U32(1))),
        ("unknown pre-tokenizer", small().with("tokenizer.ggml.pre", Meta::text("nobody-knows"))),
        ("no pre-tokenizer", small().without("tokenizer.ggml.pre")),
        ("no tokens", small().without("tokenizer.ggml.tokens")),
        ("empty vocabulary", small().with("tokenizer.ggml.tokens", texts(&[]))),
        ("tokens of another type", small().with("tokenizer.ggml.tokens", Meta::Floats(vec![1.0]))),
        ("the same token twice", small().with("tokenizer.ggml.tokens", texts(&["a", "b", "ab", "a"]))),
        ("no merges", small().without("tokenizer.ggml.merges")),
        ("merges of another type", small().with("tokenizer.ggml.merges", Meta::Integers(vec![1]))),
        ("a merge that is no pair", small().with("tokenizer.ggml.merges", texts(&["ab"]))),
        ("a merge of nothing known", small().with("tokenizer.ggml.merges", texts(&["a c"]))),
        ("a merge that makes nothing known", small().with("tokenizer.ggml.merges", texts(&["b a"]))),
        ("a merge with an empty half", small().with("tokenizer.ggml.merges", texts(&["a "]))),
        ("types of the wrong length", small().with("tokenizer.ggml.token_type", Meta::Integers(vec![1, 1]))),
        ("types of another type", small().with("tokenizer.ggml.token_type", Meta::Floats(vec![1.0; 3]))),
        ("unknown token type", small().with("tokenizer.ggml.token_type", Meta::Integers(vec![1, 1, 77]))),
        (
            "BOS beyond the vocabulary",
            small()
                .with("tokenizer.ggml.bos_token_id", Meta::U32(3))
                .with("tokenizer.ggml.add_bos_token", Meta::Bool(true)),
        ),
        ("BOS without a token", small().with("tokenizer.ggml.add_bos_token", Meta::Bool(true))),
        ("BOS flag of another type", small().with("tokenizer.ggml.add_bos_token", Meta::U32(1))),
        ("no scores", pieces().without("tokenizer.ggml.scores")),
        ("scores of the wrong length", pieces().with("tokenizer.ggml.scores", Meta::Floats(vec![0.0; 3]))),
        ("scores of another type", pieces().with("tokenizer.ggml.scores", Meta::Integers(vec![0; 576]))),
        (
            "scores that are no numbers",
            pieces().with("tokenizer.ggml.scores", Meta::Floats(vec![f32::NAN; 576])),
        ),
        (
            "a token of 100 000 bytes",
            pieces()
                .with("tokenizer.ggml.tokens", texts(&[&"a".repeat(100_000), "a"]))
                .with("tokenizer.ggml.scores", Meta::Floats(vec![0.0; 2]))
                .with("tokenizer.ggml.token_type", Meta::Integers(vec![1; 2])),
        ),
    ] {
        let refused = rebuilt(&file).err().unwrap_or_else(|| panic!("{name} was taken"));
        let is_clear =
            matches!(refused, Error::Tokenizer(_) | Error::InvalidFile { .. } | Error::Unsupported { .. });
        assert!(is_clear, "{name}: {refused}");
    }
}

#[test]
fn tokens_beyond_the_embedding_are_refused() {
    let metadata = metadata(&small()).unwrap();
    assert!(matches!(Tokenizer::from_gguf(&metadata, 2), Err(Error::Tokenizer(_))));
    // An added token beyond it is known, and refused where it would be run.
    let tokenizer = Tokenizer::from_file(&golden("llama").join("tokenizer.json"), 511).unwrap();
    assert!(tokenizer.encode("a", true).is_ok());
    assert!(matches!(tokenizer.encode("a<|eot_id|>", true), Err(Error::Tokenizer(_))));
}

#[test]
fn a_tokenizer_of_another_model_beside_a_gguf_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::copy(golden("gguf/llama/llama.F32.gguf"), &path).unwrap();
    for (case, fits) in [("llama", true), ("mistral", false)] {
        std::fs::copy(golden(case).join("tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
        let (files, opened) = opened(&path);
        let loaded = Tokenizer::load(&files, opened.metadata.as_ref(), 512 + 64);
        assert_eq!(loaded.is_ok(), fits, "{case}: {:?}", loaded.err());
    }
}

#[test]
fn damaged_tokenizer_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    let good = read_json(&golden("llama").join("tokenizer.json"));
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut value = good.clone();
        change(&mut value);
        value.to_string()
    };
    for (name, text) in [
        ("empty", String::new()),
        ("no JSON", "{".into()),
        ("a list", "[]".into()),
        ("nested deep", "[".repeat(100_000)),
        ("no model", changed(&|value| value["model"] = Value::Null)),
        (
            "empty vocabulary",
            changed(&|value| {
                value["model"]["vocab"] = json!({});
                value["model"]["merges"] = json!([]);
            }),
        ),
        ("id beyond the model", changed(&|value| value["model"]["vocab"]["a"] = json!(4_000_000_000u32))),
        ("id of another type", changed(&|value| value["model"]["vocab"]["a"] = json!("x"))),
        ("merge of nothing known", changed(&|value| value["model"]["merges"][0] = json!(["never", "seen"]))),
        (
            "pattern that is none",
            changed(&|value| {
                value["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = json!("(((");
            }),
        ),
    ] {
        std::fs::write(&path, text).unwrap();
        let loaded = Tokenizer::from_file(&path, 512);
        assert!(matches!(loaded, Err(Error::Tokenizer(_))), "{name}: {:?}", loaded.err());
    }
}

#[test]
fn truncation_and_padding_of_the_file_have_no_effect() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    let mut value = read_json(&golden("llama").join("tokenizer.json"));
    value["truncation"] =
        json!({ "direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0 });
    value["padding"] = json!({ "strategy": { "Fixed": 64 }, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "!" });
    std::fs::write(&path, value.to_string()).unwrap();
    let expected = load(&golden("llama")).encode("one two three four five", true).unwrap();
    assert_eq!(
        Tokenizer::from_file(&path, 512).unwrap().encode("one two three four five", true).unwrap(),
        expected
    );
}
