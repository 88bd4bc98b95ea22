//! What is known of a model once it was loaded, beside its shape.

use sconce_models::{CacheType, Features, KvCache, ModelSpec};

use crate::manager::self_test::SelfTest;

/// What was found out while it was loaded. Stays true while it is away.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// Most common weight type, by bytes: `Q4_1`, `F16`, …
    pub quantisation: String,
    /// How its keys and values are kept.
    pub cache_type: CacheType,
    /// Its format for conversations, in its own words, if it has one.
    pub chat_template: Option<String>,
    /// How it writes calls, where an administrator said so.
    pub tool_format: Option<String>,
    /// What its files say of its use.
    pub features: Features,
    /// How its own test went.
    pub self_test: SelfTest,
}

impl Profile {
    /// Bytes of keys and values that each token of a context takes.
    pub fn cache_bytes_per_token(&self, spec: &ModelSpec) -> u64 {
        KvCache::bytes_per_block(spec, self.cache_type) / KvCache::BLOCK_SIZE as u64
    }
}
