//! Text ↔ token ids, and token ids → valid UTF-8 pieces while they arrive.
//!
//! `tokenizer.json` is read by the `tokenizers` crate; a GGUF file's vocabulary is rebuilt in `from_gguf.rs`. How a
//! token's name becomes bytes is `pieces.rs`. No truncation and no padding here, whatever the files say.

mod end_tokens;
mod from_gguf;
mod pieces;
mod pre_tokenizers;
mod text_decoder;

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

pub use self::end_tokens::end_token_ids;
pub(crate) use self::end_tokens::token_text;
use self::pieces::{Piece, PieceStyle};
pub use self::text_decoder::TextDecoder;
use crate::weights::{Metadata, read_bounded};
use crate::{Error, ModelFiles};

/// Most bytes of a `tokenizer.json`; the largest known is 35 MB.
const MAX_TOKENIZER_BYTES: u64 = 128 << 20;

/// A model's tokenizer. Cheap to clone, shared between threads.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
}

struct Inner {
    tokenizer: tokenizers::Tokenizer,
    style: PieceStyle,
    special: HashSet<u32>,
    /// Rows of the model's embedding: ids from here on cannot be run.
    model_rows: usize,
}

/// What a token stands for.
pub(crate) enum TokenText {
    /// It steers; this is its name.
    Special(String),
    /// It is text, perhaps a part of a character.
    Bytes(Vec<u8>),
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
    /// Loads a model's tokenizer: `tokenizer.json` if there is one, else what a GGUF file's metadata say. `model_rows` is
    /// the number of rows of the embedding (`vocab_size`); token ids must be below it.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if it is missing, damaged, of an unknown kind, or does not fit the model; [`Error::Read`].
    pub fn load(files: &ModelFiles, metadata: Option<&Metadata>, model_rows: usize) -> Result<Self, Error> {
        let path = match files {
            ModelFiles::Gguf { tokenizer, .. } => tokenizer.clone(),
            ModelFiles::Safetensors { folder, .. } => Some(folder.join("tokenizer.json")),
        };
        match (path, metadata) {
            (Some(path), metadata) => {
                let tokenizer = Self::from_file(&path, model_rows)?;
                if let Some(metadata) = metadata {
                    tokenizer.check_belongs_to(metadata)?;
                }
                Ok(tokenizer)
            }
            (None, Some(metadata)) => Self::from_gguf(metadata, model_rows),
            (None, None) => Err(Error::Tokenizer("the model has none".into())),
        }
    }

    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// As [`Tokenizer::load`].
    pub fn from_file(path: &Path, model_rows: usize) -> Result<Self, Error> {
        let bytes = read_bounded(path, "tokenizer.json", MAX_TOKENIZER_BYTES)?;
        let tokenizer = guarded("tokenizer.json", || tokenizers::Tokenizer::from_bytes(&bytes))?;
        Self::new(tokenizer, model_rows)
    }

    /// Rebuilds the tokenizer that a GGUF file's metadata describe.
    ///
    /// # Errors
    /// As [`Tokenizer::load`].
    pub fn from_gguf(metadata: &Metadata, model_rows: usize) -> Result<Self, Error> {
        Self::new(from_gguf::build(metadata)?, model_rows)
    }

    fn new(mut tokenizer: tokenizers::Tokenizer, model_rows: usize) -> Result<Self, Error> {
        tokenizer.with_truncation(None).map_err(|e| Error::Tokenizer(e.to_string()))?;
        tokenizer.with_padding(None);
        let vocabulary = tokenizer.get_vocab(false);
        let Some(highest) = vocabulary.values().max() else {
            return Err(Error::Tokenizer("the vocabulary is empty".into()));
        };
        if *highest as usize >= model_rows {
            let reason = format!("token {highest} is beyond the model's {model_rows} embeddings");
            return Err(Error::Tokenizer(reason));
        }
        let added = tokenizer.get_added_tokens_decoder();
        let special = added.iter().filter(|(_, token)| token.special).map(|(id, _)| *id).collect();
        let style = PieceStyle::of(&tokenizer);
        Ok(Self { inner: Arc::new(Inner { tokenizer, style, special, model_rows }) })
    }

    /// A `tokenizer.json` that was put beside a GGUF file must be the one it was converted with.
    fn check_belongs_to(&self, metadata: &Metadata) -> Result<(), Error> {
        let Some(tokens) = metadata.texts("tokenizer.ggml.tokens")? else { return Ok(()) };
        // Converters rewrite a few added tokens; another model's vocabulary differs nearly everywhere.
        let step = (tokens.len() / 1000).max(1);
        let sample = tokens.iter().enumerate().step_by(step);
        let known =
            sample.filter_map(|(id, token)| Some((token, self.inner.tokenizer.id_to_token(id as u32)?)));
        let (mut compared, mut different) = (0, 0);
        for (token, own) in known {
            compared += 1;
            different += usize::from(*token != own);
        }
        if compared == 0 || different * 20 > compared {
            return Err(Error::Tokenizer(
                "the tokenizer.json beside the GGUF file belongs to another model".into(),
            ));
        }
        Ok(())
    }

    /// Encodes a text. `add_special_tokens` puts in what the tokenizer's own post-processor adds (BOS, `[CLS]`, …).
    /// Never truncates or pads.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the text cannot be encoded, or has a token that the model has no embedding for.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, Error> {
        let encoding = guarded("the text", || self.inner.tokenizer.encode_fast(text, add_special_tokens))?;
        self.checked(encoding.get_ids())
    }

    /// Encodes a pair (query, document), special tokens included.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_pair(&self, first: &str, second: &str) -> Result<Encoding, Error> {
        let encoding = guarded("the texts", || self.inner.tokenizer.encode_fast((first, second), true))?;
        Ok(Encoding { ids: self.checked(encoding.get_ids())?, type_ids: encoding.get_type_ids().to_vec() })
    }

    /// Decodes ids as one text. Ids of the model that stand for no token are passed over.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if an id does not exist.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String, Error> {
        let mut decoder = TextDecoder::new(self, skip_special_tokens, true);
        let mut text = String::new();
        for id in ids {
            text.push_str(&decoder.push(*id)?);
        }
        text.push_str(&decoder.finish());
        Ok(text)
    }

    /// Starts decoding a stream of ids that continue a text: unlike [`Tokenizer::decode`], the space that
    /// SentencePiece-like tokenizers put before a text is kept, as it is the one between the prompt and its continuation.
    pub fn decoder(&self, skip_special_tokens: bool) -> TextDecoder {
        TextDecoder::new(self, skip_special_tokens, false)
    }

    /// The bytes a token stands for, as far as they can be told on their own (byte-level and byte-fallback tokens give
    /// their raw bytes); for `logprobs`.
    pub fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        Some(match self.piece(id)? {
            Piece::Text(text) => text.into_bytes(),
            Piece::Bytes(bytes) => bytes,
        })
    }

    /// What a token stands for where an answer is checked by its bytes; none for an id without a token.
    pub(crate) fn token_text(&self, id: u32) -> Option<TokenText> {
        if self.is_special(id) {
            return self.inner.tokenizer.id_to_token(id).map(TokenText::Special);
        }
        self.token_bytes(id).map(TokenText::Bytes)
    }

    /// Whether a token's text can be told without its neighbours.
    pub(crate) fn has_texts(&self) -> bool {
        self.inner.style != PieceStyle::Other
    }

    /// Whether a text is cut into tokens by its bytes alone, wherever it stands.
    pub(crate) fn is_byte_level(&self) -> bool {
        self.inner.style == PieceStyle::ByteLevel
    }

    /// Rows of the model's embedding: ids are below it.
    pub(crate) fn model_rows(&self) -> usize {
        self.inner.model_rows
    }

    /// Number of ids, added tokens included.
    pub fn vocab_size(&self) -> usize {
        self.inner.tokenizer.get_vocab_size(true)
    }

    /// The id of a token given literally.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.tokenizer.token_to_id(token)
    }

    /// Whether the model has an embedding for this id.
    pub fn has_embedding(&self, id: u32) -> bool {
        (id as usize) < self.inner.model_rows
    }

    /// Encodes a text that goes on where another one ended: without special tokens, and without the space that
    /// SentencePiece-like tokenizers put before a text.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_continuation(&self, text: &str) -> Result<Vec<u32>, Error> {
        // A character that no word has, and after which every pre-tokenizer of this kind goes on as within a text.
        const MARK: &str = "\u{263a}";
        let ids = self.encode(text, false)?;
        let first = self.encode("a", false)?.first().and_then(|id| self.token_bytes(*id));
        if first.is_none_or(|bytes| !bytes.starts_with(b" ")) {
            return Ok(ids);
        }
        let (mark, marked) = (self.encode(MARK, false)?, self.encode(&format!("{MARK}{text}"), false)?);
        Ok(marked.strip_prefix(mark.as_slice()).map_or(ids, <[u32]>::to_vec))
    }

    /// The beginning of a text that its first `tokens` tokens make, special tokens not counted.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn beginning<'text>(&self, text: &'text str, tokens: usize) -> Result<&'text str, Error> {
        let encoding = guarded("the text", || self.inner.tokenizer.encode_char_offsets(text, false))?;
        let Some((next, _)) = encoding.get_offsets().get(tokens) else { return Ok(text) };
        let end = text.char_indices().nth(*next).map_or(text.len(), |(at, _)| at);
        Ok(text[..end].trim_end())
    }

    /// A token's name in the vocabulary.
    pub fn name(&self, id: u32) -> Option<String> {
        self.inner.tokenizer.id_to_token(id)
    }

    /// Whether this id is a special (control) token.
    pub fn is_special(&self, id: u32) -> bool {
        self.inner.special.contains(&id)
    }

    fn piece(&self, id: u32) -> Option<Piece> {
        let name = self.inner.tokenizer.id_to_token(id)?;
        Some(self.inner.style.piece(&name))
    }

    fn checked(&self, ids: &[u32]) -> Result<Vec<u32>, Error> {
        match ids.iter().find(|id| **id as usize >= self.inner.model_rows) {
            None => Ok(ids.to_vec()),
            Some(id) => {
                let name = self.inner.tokenizer.id_to_token(*id).unwrap_or_default();
                Err(Error::Tokenizer(format!("the model has no embedding for the token `{name}` ({id})")))
            }
        }
    }
}

/// Runs code of the `tokenizers` crate on data from strangers. It has assertions that such data can fail; they must not
/// take the server down, and nothing half-changed is kept when one does.
fn guarded<T>(what: &str, work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, Error> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Error::Tokenizer(format!("{what}: {error}"))),
        Err(_) => Err(Error::Tokenizer(format!("{what} cannot be processed"))),
    }
}
