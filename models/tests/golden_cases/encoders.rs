//! Embedders and cross-encoders.

use sconce_models::{DeviceSpec, Error, LoadOptions, Loaded, LoadedModel, ModelFiles, ModelKind, load};

use super::runner::{distance, ids, numbers};
use crate::golden_data::{answers, golden, test_model};

fn load_golden(path: &std::path::Path) -> Loaded {
    let options = LoadOptions { device: DeviceSpec::Cpu, ..LoadOptions::default() };
    load(&ModelFiles::find(path).unwrap(), &options).unwrap()
}

/// All sentences in one call, and each alone: the same bits, and within `tolerance` of the golden ones.
fn check_embeddings(case: &str, path: &std::path::Path, tolerance: f32) {
    let loaded = load_golden(path);
    let LoadedModel::Embedder(model) = &loaded.model else {
        panic!("{case} is not an embedder");
    };
    assert_eq!(loaded.spec.kind, ModelKind::Embedding);
    let answers = answers(case);
    let sentences = answers["sentences"].as_array().unwrap();
    let texts: Vec<Vec<u32>> = sentences.iter().map(|sentence| ids(&sentence["ids"])).collect();
    let together = model.embed(&texts).unwrap();
    for ((text, sentence), embedding) in texts.iter().zip(sentences).zip(&together) {
        assert_eq!(embedding.len(), loaded.spec.embedding_size);
        let expected = numbers(&sentence["embedding"]);
        let error = distance(embedding, &expected);
        assert!(error <= tolerance, "{case}, {} tokens: off by {error}", text.len());
        let product =
            |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let lengths = (product(embedding, embedding) * product(&expected, &expected)).sqrt();
        assert!(product(embedding, &expected) / lengths >= 0.99999, "{case}, {} tokens", text.len());
        assert_eq!(
            model.embed(std::slice::from_ref(text)).unwrap()[0],
            *embedding,
            "{case}: alone and together differ"
        );
    }
    for wrong in [vec![], vec![loaded.spec.vocab_size as u32], vec![5; loaded.spec.context_length + 1]] {
        assert!(matches!(model.embed(&[wrong]), Err(Error::Batch(_))), "{case}");
    }
    assert_eq!(model.embed(&[vec![5; loaded.spec.context_length]]).unwrap().len(), 1);
}

#[test]
fn bert_mean() {
    check_embeddings("bert", &golden("bert"), 1e-5);
}

#[test]
fn xlm_roberta_first_token() {
    check_embeddings("xlm_roberta", &golden("xlm_roberta"), 1e-5);
}

#[test]
fn qwen3_last_token() {
    check_embeddings("qwen3_embedding", &golden("qwen3_embedding"), 1e-5);
}

#[test]
fn all_minilm_l6_v2() {
    check_embeddings("minilm", &test_model("all-MiniLM-L6-v2"), 1e-5);
}

#[test]
fn bert_cross_encoder() {
    let loaded = load_golden(&golden("bert_cross_encoder"));
    let LoadedModel::CrossEncoder(model) = &loaded.model else {
        panic!("not a cross-encoder");
    };
    let answers = answers("bert_cross_encoder");
    let pairs = answers["pairs"].as_array().unwrap();
    let texts: Vec<Vec<u32>> = pairs.iter().map(|pair| ids(&pair["ids"])).collect();
    let types: Vec<Vec<u32>> = pairs.iter().map(|pair| ids(&pair["type_ids"])).collect();
    let together = model.score(&texts, &types).unwrap();
    for (index, pair) in pairs.iter().enumerate() {
        let error = distance(&together[index], &numbers(&pair["logits"]));
        assert!(error <= 1e-4, "pair {index}: off by {error}");
        let alone = model.score(&texts[index..=index], &types[index..=index]).unwrap();
        assert_eq!(alone[0], together[index], "pair {index}: alone and together differ");
    }
    let refused =
        |texts: &[Vec<u32>], types: &[Vec<u32>]| matches!(model.score(texts, types), Err(Error::Batch(_)));
    assert!(refused(&[vec![5, 6]], &[vec![0]]));
    assert!(refused(&[vec![5, 6]], &[vec![0, 2]]));
    assert!(refused(&[vec![5, 6]], &[]));
    assert!(refused(&[vec![]], &[vec![]]));
}
