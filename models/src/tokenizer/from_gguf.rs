//! A tokenizer from a GGUF file's metadata: byte-level BPE (`gpt2`) and SentencePiece-like BPE (`llama`).
//!
//! The metadata come from strangers: arrays must be of the right type and length, ids within the vocabulary, merges made
//! of tokens. SentencePiece vocabularies have scores and no merges; which pair is merged first follows from the score of
//! what it makes, so merges are derived from them once.

use std::collections::HashMap;

use serde_json::{Value, json};
use tokenizers::models::bpe::BPE;
use tokenizers::{
    AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper,
    Tokenizer as HfTokenizer,
};

use super::pre_tokenizers::{self, PreTokenizer};
use crate::Error;
use crate::weights::Metadata;

/// Most bytes of one token of a SentencePiece vocabulary.
const MAX_TOKEN_BYTES: usize = 1024;
/// Most merges; the largest vocabularies known have 600 000.
const MAX_MERGES: usize = 1 << 22;

/// What a token is for, as the file numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TokenKind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

impl TokenKind {
    fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            0 | 1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => return None,
        })
    }
}

/// The vocabulary as the file has it.
struct Vocabulary<'a> {
    tokens: Vec<&'a str>,
    kinds: Vec<TokenKind>,
    ids: HashMap<&'a str, u32>,
}

/// Builds the tokenizer.
pub(super) fn build(metadata: &Metadata) -> Result<HfTokenizer, Error> {
    let model = metadata.text("tokenizer.ggml.model")?.ok_or_else(|| refused("the file has none"))?;
    let vocabulary = Vocabulary::read(metadata)?;
    let mut tokenizer = match model {
        "gpt2" => byte_level(metadata, &vocabulary)?,
        "llama" => sentence_piece(metadata, &vocabulary)?,
        other => return Err(Error::Unsupported { what: "GGUF tokenizer", value: other.to_owned() }),
    };
    vocabulary.add_tokens(&mut tokenizer)?;
    Ok(tokenizer)
}

fn refused(reason: impl Into<String>) -> Error {
    Error::Tokenizer(reason.into())
}

impl<'a> Vocabulary<'a> {
    fn read(metadata: &'a Metadata) -> Result<Self, Error> {
        let tokens = metadata.texts("tokenizer.ggml.tokens")?.unwrap_or_default();
        if tokens.is_empty() {
            return Err(refused("the vocabulary is empty"));
        }
        let kinds = match metadata.integers("tokenizer.ggml.token_type")? {
            None => vec![TokenKind::Normal; tokens.len()],
            Some(numbers) => numbers
                .into_iter()
                .map(|number| {
                    TokenKind::from_number(number)
                        .ok_or_else(|| refused(format!("token type {number} is not known")))
                })
                .collect::<Result<_, _>>()?,
        };
        if kinds.len() != tokens.len() {
            return Err(refused(format!(
                "there are {} token types for {} tokens",
                kinds.len(),
                tokens.len()
            )));
        }
        let mut ids = HashMap::with_capacity(tokens.len());
        for (id, token) in tokens.iter().enumerate() {
            if let Some(other) = ids.insert(*token, id as u32) {
                return Err(refused(format!("tokens {other} and {id} are both `{}`", token.escape_debug())));
            }
        }
        Ok(Self { tokens, kinds, ids })
    }

    fn by_name(&self) -> tokenizers::models::bpe::Vocab {
        self.ids.iter().map(|(token, id)| ((*token).to_owned(), *id)).collect()
    }

    /// The token whose id is stored under `key`.
    fn special(&self, metadata: &Metadata, key: &str) -> Result<Option<(&'a str, u32)>, Error> {
        let Some(id) = metadata.unsigned(key)? else { return Ok(None) };
        match usize::try_from(id).ok().and_then(|id| self.tokens.get(id)) {
            Some(token) => Ok(Some((token, id as u32))),
            None => Err(refused(format!("`{key}` is {id}, and there are {} tokens", self.tokens.len()))),
        }
    }

    /// Control and user-defined tokens are found in a text before it is cut.
    fn add_tokens(&self, tokenizer: &mut HfTokenizer) -> Result<(), Error> {
        let added = self.tokens.iter().zip(&self.kinds).filter(|(token, _)| !token.is_empty());
        let added = added.filter_map(|(token, kind)| match kind {
            TokenKind::Control | TokenKind::Unknown => Some(AddedToken::from(*token, true).normalized(false)),
            TokenKind::UserDefined => Some(AddedToken::from(*token, false).normalized(false)),
            TokenKind::Normal | TokenKind::Unused | TokenKind::Byte => None,
        });
        tokenizer.add_tokens(added).map_err(|e| refused(e.to_string()))?;
        Ok(())
    }

    /// Which of BOS and EOS are put round a text, as the file or else the tokenizer's family says.
    fn post_processor(
        &self,
        metadata: &Metadata,
        adds_bos: bool,
    ) -> Result<Option<PostProcessorWrapper>, Error> {
        let mut around = [None, None];
        for (place, (name, default)) in around.iter_mut().zip([("bos", adds_bos), ("eos", false)]) {
            let token = self.special(metadata, &format!("tokenizer.ggml.{name}_token_id"))?;
            let wanted = metadata.boolean(&format!("tokenizer.ggml.add_{name}_token"))?;
            *place = token.filter(|_| wanted.unwrap_or(default));
            if wanted == Some(true) && place.is_none() {
                return Err(refused(format!("a {name} token is to be added, and there is none")));
            }
        }
        if around == [None, None] {
            return Ok(None);
        }
        let template = |parts: &[(&str, u32)]| -> Vec<Value> {
            let mut pieces = Vec::new();
            for (sequence, type_id) in parts {
                let special = |token: Option<(&str, u32)>| {
                    token.map(|(token, _)| json!({ "SpecialToken": { "id": token, "type_id": type_id } }))
                };
                pieces.extend(special(around[0]));
                pieces.push(json!({ "Sequence": { "id": sequence, "type_id": type_id } }));
                pieces.extend(special(around[1]));
            }
            pieces
        };
        let tokens: serde_json::Map<String, Value> = around
            .iter()
            .flatten()
            .map(|(token, id)| ((*token).to_owned(), json!({ "id": token, "ids": [id], "tokens": [token] })))
            .collect();
        let value = json!({
            "type": "TemplateProcessing",
            "single": template(&[("A", 0)]),
            "pair": template(&[("A", 0), ("B", 1)]),
            "special_tokens": tokens,
        });
        Ok(Some(component(value)?))
    }
}

/// A part of a tokenizer, from what `tokenizer.json` would say.
fn component<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, Error> {
    serde_json::from_value(value).map_err(|e| refused(e.to_string()))
}

fn byte_level(metadata: &Metadata, vocabulary: &Vocabulary<'_>) -> Result<HfTokenizer, Error> {
    let name = metadata.text("tokenizer.ggml.pre")?.unwrap_or("default");
    let family = pre_tokenizers::by_name(name)
        .ok_or_else(|| Error::Unsupported { what: "GGUF pre-tokenizer", value: name.to_owned() })?;
    let merges = metadata.texts("tokenizer.ggml.merges")?.ok_or_else(|| refused("the merges are missing"))?;
    if merges.len() > MAX_MERGES {
        return Err(refused(format!("{} merges are more than {MAX_MERGES}", merges.len())));
    }
    let merges = merges
        .into_iter()
        .map(|merge| match merge.split_once(' ') {
            Some((left, right)) => Ok((left.to_owned(), right.to_owned())),
            None => Err(refused(format!("the merge `{}` is not a pair", merge.escape_debug()))),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let builder =
        BPE::builder().vocab_and_merges(vocabulary.by_name(), merges).ignore_merges(family.ignore_merges);
    let mut tokenizer = HfTokenizer::new(builder.build().map_err(|e| refused(e.to_string()))?);
    if family.composes {
        let normalizer: NormalizerWrapper = component(json!({ "type": "NFC" }))?;
        tokenizer.with_normalizer(Some(normalizer)).map_err(|e| refused(e.to_string()))?;
    }
    tokenizer.with_pre_tokenizer(Some(cutting(&family)?));
    let decoder: DecoderWrapper = component(byte_level_json())?;
    tokenizer.with_decoder(Some(decoder));
    tokenizer.with_post_processor(vocabulary.post_processor(metadata, family.adds_bos)?);
    Ok(tokenizer)
}

fn byte_level_json() -> Value {
    json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false })
}

fn cutting(family: &PreTokenizer) -> Result<PreTokenizerWrapper, Error> {
    let splits = family.patterns.iter().map(
        |pattern| json!({ "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false }),
    );
    let steps: Vec<Value> = splits.chain([byte_level_json()]).collect();
    component(json!({ "type": "Sequence", "pretokenizers": steps }))
}

fn sentence_piece(metadata: &Metadata, vocabulary: &Vocabulary<'_>) -> Result<HfTokenizer, Error> {
    let scores =
        metadata.floats("tokenizer.ggml.scores")?.ok_or_else(|| refused("the scores are missing"))?;
    if scores.len() != vocabulary.tokens.len() {
        let reason = format!("there are {} scores for {} tokens", scores.len(), vocabulary.tokens.len());
        return Err(refused(reason));
    }
    if scores.iter().any(|score| !score.is_finite()) {
        return Err(refused("a score is not a finite number"));
    }
    let merges = merges_from_scores(vocabulary, &scores)?;
    let mut builder =
        BPE::builder().vocab_and_merges(vocabulary.by_name(), merges).byte_fallback(true).fuse_unk(true);
    if let Some(at) = vocabulary.kinds.iter().position(|kind| *kind == TokenKind::Unknown) {
        builder = builder.unk_token(vocabulary.tokens[at].to_owned());
    }
    let mut tokenizer = HfTokenizer::new(builder.build().map_err(|e| refused(e.to_string()))?);
    let prefix = metadata.boolean("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let mut normalizers = vec![json!({ "type": "Replace", "pattern": { "String": " " }, "content": "▁" })];
    let mut decoders = vec![
        json!({ "type": "Replace", "pattern": { "String": "▁" }, "content": " " }),
        json!({ "type": "ByteFallback" }),
        json!({ "type": "Fuse" }),
    ];
    if prefix {
        normalizers.insert(0, json!({ "type": "Prepend", "prepend": "▁" }));
        decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    let normalizer: NormalizerWrapper = component(json!({ "type": "Sequence", "normalizers": normalizers }))?;
    tokenizer.with_normalizer(Some(normalizer)).map_err(|e| refused(e.to_string()))?;
    let decoder: DecoderWrapper = component(json!({ "type": "Sequence", "decoders": decoders }))?;
    tokenizer.with_decoder(Some(decoder));
    tokenizer.with_post_processor(vocabulary.post_processor(metadata, true)?);
    Ok(tokenizer)
}

/// All pairs of tokens that make a token, those first that make the one with the highest score.
fn merges_from_scores(vocabulary: &Vocabulary<'_>, scores: &[f32]) -> Result<Vec<(String, String)>, Error> {
    let mut merges = Vec::new();
    for (id, token) in vocabulary.tokens.iter().enumerate() {
        if vocabulary.kinds[id] != TokenKind::Normal {
            continue;
        }
        if token.len() > MAX_TOKEN_BYTES {
            return Err(refused(format!(
                "token {id} has {} bytes, more than {MAX_TOKEN_BYTES}",
                token.len()
            )));
        }
        for (middle, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(middle);
            let (Some(left), Some(right)) = (vocabulary.ids.get(left), vocabulary.ids.get(right)) else {
                continue;
            };
            let is_normal = |id: &u32| vocabulary.kinds[*id as usize] == TokenKind::Normal;
            if is_normal(left) && is_normal(right) {
                merges.push((scores[id], *left, *right));
            }
        }
        if merges.len() > MAX_MERGES {
            return Err(refused(format!("the scores give more than {MAX_MERGES} merges")));
        }
    }
    merges.sort_by(|one, other| {
        other.0.total_cmp(&one.0).then_with(|| (one.1, one.2).cmp(&(other.1, other.2)))
    });
    let name = |id: u32| vocabulary.tokens[id as usize].to_owned();
    Ok(merges.into_iter().map(|(_, left, right)| (name(left), name(right))).collect())
}
