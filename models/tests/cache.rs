//! What the cache takes of memory: by its type, when it is made, and when a block is copied.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod allocation;

use sconce_kernels::Level;
use sconce_models::{CacheType, Device, KvCache, ModelKind, ModelSpec};

fn spec() -> ModelSpec {
    ModelSpec {
        architecture: "llama".to_owned(),
        kind: ModelKind::Causal,
        layers: 4,
        hidden_size: 256,
        heads: 4,
        kv_heads: 2,
        head_dim: 64,
        vocab_size: 512,
        context_length: 4096,
        embedding_size: 0,
        weights_bytes: 0,
        scratch_bytes_per_token: 0,
        fingerprint: String::new(),
    }
}

#[test]
fn types_have_names_and_sizes() {
    let numbers = 2 * 4 * 2 * 64 * 32;
    let sizes = [("auto", 2), ("f16", 2), ("bf16", 2), ("f32", 4)].map(|(name, size)| (name, size * numbers));
    for (name, bytes) in sizes.into_iter().chain([("q8_0", numbers / 32 * 34)]) {
        let cache_type: CacheType = name.parse().unwrap();
        assert_eq!(KvCache::bytes_per_block(&spec(), cache_type), bytes, "{name}");
        assert_eq!(serde_json::to_value(cache_type).unwrap(), name);
    }
    assert!("q4_0".parse::<CacheType>().unwrap_err().contains("q8_0"));
}

#[test]
fn copying_a_block_takes_the_memory_of_a_block() {
    assert!(KvCache::new(&spec(), 4, CacheType::Auto, &Device::cpu()).is_err());
    let has_tiles = Level::detect() == Level::Amx;
    assert_eq!(KvCache::new(&spec(), 4, CacheType::Bf16, &Device::cpu()).is_ok(), has_tiles);
    let in_tiles = has_tiles.then_some(CacheType::Bf16);
    for cache_type in [CacheType::F16, CacheType::F32, CacheType::Q8_0].into_iter().chain(in_tiles) {
        let (blocks, block) = (200, KvCache::bytes_per_block(&spec(), cache_type) as usize);
        let (cache, made) = allocation::peak_of(|| KvCache::new(&spec(), blocks, cache_type, &Device::cpu()));
        assert!(made >= blocks * block && made < (blocks + 1) * block, "{cache_type:?}: {made} bytes");
        let mut cache = cache.unwrap();
        let (copied, peak) = allocation::peak_of(|| cache.copy_block(3, 150));
        copied.unwrap();
        assert!(peak <= 2 * block, "{cache_type:?}: {peak} bytes for a block of {block}");
    }
}
