//! Names of cached blocks: a keyed hash of everything up to and including a block's tokens.
//!
//! Not the table of blocks (that is `blocks.rs`). The key is drawn once per engine, so nobody outside can make two
//! different prefixes collide, and the chain starts from a salt, so tenants do not find each other's blocks unless
//! both ask for it.

use sconce_models::KvCache;
use uuid::Uuid;

/// 128 bits that name a full block together with all blocks before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct PrefixHash([u8; 16]);

/// Makes [`PrefixHash`]es: BLAKE3 in its keyed mode over (parent, tokens).
pub(super) struct PrefixHasher {
    key: [u8; 32],
}

impl PrefixHasher {
    /// A hasher with a key of its own.
    pub(super) fn random() -> Self {
        let mut key = [0; 32];
        key[..16].copy_from_slice(Uuid::new_v4().as_bytes());
        key[16..].copy_from_slice(Uuid::new_v4().as_bytes());
        Self { key }
    }

    /// Where a chain starts: the tenant's own salt, or the one salt of all who share (`None`).
    pub(super) fn root(&self, tenant: Option<u64>) -> PrefixHash {
        let mut salt = [0; 9];
        if let Some(tenant) = tenant {
            salt[0] = 1;
            salt[1..].copy_from_slice(&tenant.to_le_bytes());
        }
        self.hash(&salt)
    }

    /// Appends the hashes of the full blocks of `tokens` that `hashes` does not name yet.
    pub(super) fn extend(&self, root: PrefixHash, hashes: &mut Vec<PrefixHash>, tokens: &[u32]) {
        let mut input = [0; 16 + 4 * KvCache::BLOCK_SIZE];
        for block in tokens.chunks_exact(KvCache::BLOCK_SIZE).skip(hashes.len()) {
            let parent = hashes.last().copied().unwrap_or(root);
            input[..16].copy_from_slice(&parent.0);
            for (place, token) in input[16..].chunks_exact_mut(4).zip(block) {
                place.copy_from_slice(&token.to_le_bytes());
            }
            hashes.push(self.hash(&input));
        }
    }

    fn hash(&self, input: &[u8]) -> PrefixHash {
        let digest = blake3::keyed_hash(&self.key, input);
        let mut short = [0; 16];
        short.copy_from_slice(&digest.as_bytes()[..16]);
        PrefixHash(short)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes(hasher: &PrefixHasher, tenant: Option<u64>, tokens: &[u32]) -> Vec<PrefixHash> {
        let mut hashes = Vec::new();
        hasher.extend(hasher.root(tenant), &mut hashes, tokens);
        hashes
    }

    #[test]
    fn a_block_is_named_by_all_tokens_before_it() {
        let hasher = PrefixHasher::random();
        let tokens: Vec<u32> = (0..100).collect();
        let mut other = tokens.clone();
        other[0] = 7;
        let (a, b) = (hashes(&hasher, Some(1), &tokens), hashes(&hasher, Some(1), &other));
        assert_eq!(a.len(), 3, "only full blocks have a name");
        assert!(a.iter().zip(&b).all(|(a, b)| a != b), "a change in the first block changes all names");
        assert_eq!(a[..2], hashes(&hasher, Some(1), &tokens[..70])[..]);
    }

    #[test]
    fn tenants_and_engines_do_not_meet() {
        let (hasher, other) = (PrefixHasher::random(), PrefixHasher::random());
        let tokens: Vec<u32> = (0..32).collect();
        let own = hashes(&hasher, Some(0), &tokens);
        assert_ne!(own, hashes(&hasher, Some(1), &tokens));
        assert_ne!(own, hashes(&hasher, None, &tokens));
        assert_ne!(own, hashes(&other, Some(0), &tokens));
    }

    #[test]
    fn extending_later_gives_the_same_names() {
        let hasher = PrefixHasher::random();
        let tokens: Vec<u32> = (0..128).collect();
        let mut grown = hashes(&hasher, None, &tokens[..40]);
        hasher.extend(hasher.root(None), &mut grown, &tokens);
        assert_eq!(grown, hashes(&hasher, None, &tokens));
    }
}
