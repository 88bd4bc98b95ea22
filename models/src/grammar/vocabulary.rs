//! A model's tokens as llguidance sees them: their bytes in a tree, and how forced text is cut into tokens.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use toktrie::{TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv};

use super::GrammarError;
use crate::Tokenizer;
use crate::tokenizer::TokenText;

/// Longer tokens are left out: the tree has no room for them, and no model says them.
const LONGEST_TOKEN_BYTES: usize = 512;
/// Most ids that the tree has room for.
const MOST_TOKENS: usize = 1 << 22;

struct Vocabulary {
    trie: TokTrie,
    tokenizer: Tokenizer,
    /// Whether text that stands alone is cut as it is within a text, so that it may be forced.
    is_canonical: bool,
}

/// Lays a vocabulary out.
pub(super) fn environment(tokenizer: &Tokenizer, end_token_ids: &[u32]) -> Result<TokEnv, GrammarError> {
    let rows = tokenizer.model_rows();
    if !tokenizer.has_texts() || rows > MOST_TOKENS {
        let reason = "this model's tokens have no text of their own, so its answers cannot be constrained";
        return Err(GrammarError::Unsupported(reason.to_owned()));
    }
    let words: Vec<Vec<u8>> = (0..rows as u32).map(|id| word(tokenizer, id)).collect();
    let end = end_token_ids.first().copied().unwrap_or(toktrie::INVALID_TOKEN);
    let info = TokRxInfo::new(rows as u32, end);
    // The tree has assertions, and vocabularies come from strangers.
    let trie = catch_unwind(AssertUnwindSafe(|| TokTrie::from(&info, &words)));
    let trie =
        trie.map_err(|_| GrammarError::Unsupported("this model's vocabulary cannot be laid out".to_owned()))?;
    let trie = if end_token_ids.is_empty() { trie } else { trie.with_eos_tokens(end_token_ids) };
    let is_canonical = tokenizer.is_byte_level();
    Ok(Arc::new(Vocabulary { trie, tokenizer: tokenizer.clone(), is_canonical }))
}

/// The bytes of a token; none for one that no text has.
fn word(tokenizer: &Tokenizer, id: u32) -> Vec<u8> {
    let bytes = match tokenizer.token_text(id) {
        None => return Vec::new(),
        // So marked, it is told from text that looks like it, and allowed only where a grammar names the token.
        Some(TokenText::Special(name)) => [&[TokTrie::SPECIAL_TOKEN_MARKER], name.as_bytes()].concat(),
        Some(TokenText::Bytes(bytes)) if bytes.first() == Some(&TokTrie::SPECIAL_TOKEN_MARKER) => Vec::new(),
        Some(TokenText::Bytes(bytes)) => bytes,
    };
    if bytes.len() <= LONGEST_TOKEN_BYTES { bytes } else { Vec::new() }
}

impl Vocabulary {
    fn tokenize(&self, text: &str) -> Vec<TokenId> {
        match self.tokenizer.encode(text, false) {
            // The tokenizer may add a space, compose characters, or see a special token in the text.
            Ok(ids) if self.trie.decode_raw(&ids) == text.as_bytes() => ids,
            _ => self.trie.greedy_tokenize(text.as_bytes()),
        }
    }
}

impl TokenizerEnv for Vocabulary {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        self.trie.tokenize_with_greedy_fallback(bytes, |text| self.tokenize(text))
    }

    fn tokenize_is_canonical(&self) -> bool {
        self.is_canonical
    }
}
