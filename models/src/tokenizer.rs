//! Text ↔ token ids, and token ids → valid UTF-8 pieces while they arrive.

use std::sync::Arc;

use crate::Error;

/// A model's tokenizer. Cheap to clone, shared between threads.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<tokenizers::Tokenizer>,
}

/// An encoded text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoding {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Segment of each token (0 or 1): for pairs.
    pub type_ids: Vec<u32>,
}

impl Tokenizer {
    /// Encodes a text. `add_special_tokens` puts in what the tokenizer's own post-processor adds (BOS, `[CLS]`, …).
    /// Never truncates or pads.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the text cannot be encoded.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, Error> {
        let _ = (text, add_special_tokens, &self.inner);
        todo!("models helper")
    }

    /// Encodes a pair (query, document), special tokens included.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if a text cannot be encoded.
    pub fn encode_pair(&self, first: &str, second: &str) -> Result<Encoding, Error> {
        let _ = (first, second);
        todo!("models helper")
    }

    /// Decodes ids as one text.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if an id does not exist.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String, Error> {
        let _ = (ids, skip_special_tokens);
        todo!("models helper")
    }

    /// Starts decoding a stream of ids.
    pub fn decoder(&self, skip_special_tokens: bool) -> TextDecoder {
        let _ = skip_special_tokens;
        todo!("models helper")
    }

    /// The bytes a token stands for, as far as they can be told on their own (byte-level and byte-fallback tokens give
    /// their raw bytes); for `logprobs`.
    pub fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        let _ = id;
        todo!("models helper")
    }

    /// Number of ids, added tokens included.
    pub fn vocab_size(&self) -> usize {
        todo!("models helper")
    }

    /// The id of a token given literally.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        let _ = token;
        todo!("models helper")
    }

    /// Whether this id is a special (control) token.
    pub fn is_special(&self, id: u32) -> bool {
        let _ = id;
        todo!("models helper")
    }
}

/// Turns ids that arrive one by one into pieces of valid UTF-8; holds back a character until it is whole.
pub struct TextDecoder {
    // state is the models helper's business
    _private: (),
}

impl TextDecoder {
    /// Takes one id; returns the text that became certain (perhaps empty).
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the id does not exist.
    pub fn push(&mut self, id: u32) -> Result<String, Error> {
        let _ = id;
        todo!("models helper")
    }

    /// What was held back, lossily.
    pub fn finish(self) -> String {
        todo!("models helper")
    }
}
