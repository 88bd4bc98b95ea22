//! The same bits whatever else is in the batch: packed, chunked, in scattered blocks, behind a prefix found in the cache.

use std::path::PathBuf;

use sconce_kernels::Level;
use sconce_models::{Arithmetic, CacheType, KvCache};

use super::runner::{Runner, Sequence, ids};
use crate::golden_data::{answers, golden};

const BLOCK: usize = KvCache::BLOCK_SIZE;

/// Models that take different ways through the kernels: grouped queries, a window, head norms, integer products.
fn models() -> Vec<(PathBuf, Vec<Vec<u32>>)> {
    let prompts = |case: &str| {
        let answers = answers(case);
        answers["prompts"].as_array().unwrap().iter().map(|prompt| ids(&prompt["ids"])).collect::<Vec<_>>()
    };
    let gguf = |file: &str| (golden("gguf/llama256").join(file), prompts("llama"));
    let mut models: Vec<_> =
        ["llama", "llama_sharded_bf16", "mistral", "qwen3"].map(|case| (golden(case), prompts(case))).into();
    models.extend([gguf("llama256.Q4_1.gguf"), gguf("llama256.Q4_K_M.gguf"), gguf("llama256.Q8_0.gguf")]);
    models
}

fn for_each_model(check: impl Fn(&mut Runner, &[Vec<u32>], &str)) {
    for (path, prompts) in models() {
        let kinds = [
            (Arithmetic::Auto, CacheType::Auto),
            (Arithmetic::Auto, CacheType::F16),
            (Arithmetic::Integer, CacheType::F16),
            (Arithmetic::Integer, CacheType::Q8_0),
            (Arithmetic::Float, CacheType::F32),
        ];
        let in_tiles = (Level::detect() == Level::Amx).then_some((Arithmetic::Float, CacheType::Bf16));
        for (arithmetic, cache_type) in kinds.into_iter().chain(in_tiles) {
            let mut runner = Runner::load_with(&path, arithmetic, cache_type);
            check(&mut runner, &prompts, &format!("{} {arithmetic:?} {cache_type:?}", path.display()));
        }
    }
}

/// Bits of rows, so that a difference of a NaN or of a sign of zero shows too.
fn bits(rows: &[Vec<f32>]) -> Vec<Vec<u32>> {
    rows.iter().map(|row| row.iter().map(|logit| logit.to_bits()).collect()).collect()
}

fn assert_same(found: &[Vec<f32>], alone: &[Vec<f32>], what: &str) {
    assert_eq!(found.len(), alone.len(), "{what}");
    for (position, (found, alone)) in bits(found).iter().zip(bits(alone)).enumerate() {
        assert!(*found == alone, "{what}: position {position} has other bits");
    }
}

#[test]
fn packed_together_is_as_alone() {
    for_each_model(|runner, prompts, name| {
        let alone: Vec<_> = prompts.iter().map(|prompt| runner.prefill(prompt)).collect();
        let mut first = 0;
        let mut sequences: Vec<Sequence> = prompts
            .iter()
            .map(|prompt| {
                let sequence = Sequence::new(prompt, first, prompt.len());
                first += sequence.blocks.len() as u32;
                sequence
            })
            .collect();
        let counts: Vec<usize> = prompts.iter().map(Vec::len).collect();
        let packed = runner.step(&mut sequences, &counts);
        assert_same(&packed, &alone.concat(), name);
    });
}

#[test]
fn in_chunks_is_as_whole() {
    for_each_model(|runner, prompts, name| {
        let prompt = prompts.iter().max_by_key(|prompt| prompt.len()).unwrap();
        let whole = runner.prefill(prompt);
        for chunk in [1, 3, 16, 64] {
            let mut sequence = [Sequence::new(prompt, 7, prompt.len())];
            let mut rows = Vec::new();
            while sequence[0].done < prompt.len() {
                let count = chunk.min(prompt.len() - sequence[0].done);
                rows.extend(runner.step(&mut sequence, &[count]));
            }
            assert_same(&rows, &whole, &format!("{name}, chunks of {chunk}"));
        }
    });
}

#[test]
fn scattered_blocks_are_as_blocks_in_order() {
    for_each_model(|runner, prompts, name| {
        let prompt = prompts.iter().max_by_key(|prompt| prompt.len()).unwrap();
        let in_order = runner.prefill(prompt);
        let mut sequence = [Sequence::new(prompt, 0, prompt.len())];
        for (index, block) in sequence[0].blocks.iter_mut().enumerate() {
            *block = [61, 2, 40, 17, 5][index % 5];
        }
        let scattered = runner.step(&mut sequence, &[prompt.len()]);
        assert_same(&scattered, &in_order, name);
    });
}

#[test]
fn a_prefix_found_in_the_cache_is_as_a_computed_one() {
    for_each_model(|runner, prompts, name| {
        let prompt = prompts.iter().max_by_key(|prompt| prompt.len()).unwrap();
        let whole = runner.prefill(prompt); // leaves its blocks 0, 1, … behind
        let shared = prompt.len() / BLOCK - 1;
        let mut sequence = [Sequence::new(prompt, 0, prompt.len())];
        for (block, fresh) in sequence[0].blocks.iter_mut().skip(shared).zip(30..) {
            *block = fresh;
        }
        sequence[0].done = shared * BLOCK;
        let rest = runner.step(&mut sequence, &[prompt.len() - shared * BLOCK]);
        assert_same(&rest, &whole[shared * BLOCK..], name);
    });
}

#[test]
fn a_copied_block_is_as_the_first() {
    for_each_model(|runner, prompts, name| {
        let prompt = prompts.iter().max_by_key(|prompt| prompt.len()).unwrap();
        let whole = runner.prefill(prompt);
        runner.cache.copy_block(0, 50).unwrap();
        let mut sequence = [Sequence::new(prompt, 9, prompt.len())];
        sequence[0].blocks[0] = 50;
        sequence[0].done = BLOCK;
        let rest = runner.step(&mut sequence, &[prompt.len() - BLOCK]);
        assert_same(&rest, &whole[BLOCK..], name);
    });
}

#[test]
fn decoding_beside_a_prefill_is_as_alone() {
    for_each_model(|runner, prompts, name| {
        let mut order: Vec<_> = prompts.iter().filter(|prompt| prompt.len() >= 7).collect();
        order.sort_by_key(|prompt| prompt.len());
        let (short, long) = (order[0], order[order.len() - 1]);
        let (alone_short, alone_long) = (runner.prefill(short), runner.prefill(long));
        // Four tokens at once, then one at a time beside chunks of the other.
        let mut sequences = [Sequence::new(short, 0, short.len()), Sequence::new(long, 20, long.len())];
        runner.step(&mut sequences, &[4, 0]);
        let mut found_long = Vec::new();
        for position in 4..short.len() {
            let chunk = 11.min(long.len() - sequences[1].done);
            let rows = runner.step(&mut sequences, &[1, chunk]);
            assert_same(&rows[..1], &alone_short[position..=position], name);
            found_long.extend_from_slice(&rows[1..]);
        }
        assert_same(&found_long, &alone_long[..found_long.len()], name);
    });
}
