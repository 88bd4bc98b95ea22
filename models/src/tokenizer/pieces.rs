//! How the name of a token in the vocabulary becomes text or bytes. Not the streaming: that is `text_decoder.rs`.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::Value;

/// What a token stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// Whole characters.
    Text(String),
    /// Bytes that may be part of a character.
    Bytes(Vec<u8>),
}

/// How names are written in the vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PieceStyle {
    /// Each byte is written as a printable character, as GPT-2 does.
    ByteLevel,
    /// `▁` is a space, `<0xNN>` a byte, as in SentencePiece with byte fallback.
    SentencePiece {
        /// Whether the space before a text is taken off.
        strips_leading_space: bool,
    },
    /// Anything else (WordPiece, Unigram, …): decoded by the tokenizer as a whole.
    Other,
}

/// The character that stands for each byte: printable Latin-1 for itself, the rest from U+0100 on.
pub(super) fn byte_characters() -> [char; 256] {
    let mut next = 0x100;
    std::array::from_fn(|byte| {
        let byte = byte as u8;
        if matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff) {
            return char::from(byte);
        }
        let character = char::from_u32(next).unwrap_or(char::REPLACEMENT_CHARACTER);
        next += 1;
        character
    })
}

static CHARACTER_BYTES: LazyLock<HashMap<char, u8>> =
    LazyLock::new(|| byte_characters().into_iter().zip(0..=255).collect());

impl PieceStyle {
    /// Tells the style from the tokenizer's decoder.
    pub(super) fn of(tokenizer: &tokenizers::Tokenizer) -> Self {
        let decoder = tokenizer.get_decoder().and_then(|decoder| serde_json::to_value(decoder).ok());
        decoder.map_or(Self::Other, |decoder| Self::of_decoder(&decoder))
    }

    fn of_decoder(decoder: &Value) -> Self {
        if decoder["type"] == "ByteLevel" {
            return Self::ByteLevel;
        }
        let Some(steps) = decoder["decoders"].as_array() else { return Self::Other };
        let mut has_byte_fallback = false;
        let mut strips_leading_space = false;
        for step in steps {
            match step["type"].as_str() {
                Some("ByteFallback") => has_byte_fallback = true,
                Some("Fuse") => {}
                Some("Replace") if step["pattern"]["String"] == "▁" && step["content"] == " " => {}
                Some("Strip") if step["content"] == " " && step["start"] == 1 && step["stop"] == 0 => {
                    strips_leading_space = true;
                }
                _ => return Self::Other,
            }
        }
        if has_byte_fallback { Self::SentencePiece { strips_leading_space } } else { Self::Other }
    }

    /// What the token of this name stands for.
    pub(super) fn piece(self, name: &str) -> Piece {
        match self {
            Self::ByteLevel => {
                let bytes: Option<Vec<u8>> =
                    name.chars().map(|character| CHARACTER_BYTES.get(&character).copied()).collect();
                // An added token may have characters that stand for no byte: it is written as it is.
                bytes.map_or_else(|| Piece::Text(name.to_owned()), Piece::Bytes)
            }
            Self::SentencePiece { .. } => match byte_name(name) {
                Some(byte) => Piece::Bytes(vec![byte]),
                None => Piece::Text(name.replace('▁', " ")),
            },
            Self::Other => Piece::Text(name.strip_prefix("##").unwrap_or(name).replace('▁', " ")),
        }
    }
}

/// The byte that `<0xNN>` names.
fn byte_name(name: &str) -> Option<u8> {
    let digits = name.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() != 2 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    u8::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::{Piece, PieceStyle, byte_name};

    #[test]
    fn byte_level_names_give_their_bytes() {
        assert_eq!(PieceStyle::ByteLevel.piece("Ġthe"), Piece::Bytes(b" the".to_vec()));
        assert_eq!(PieceStyle::ByteLevel.piece("Ċ"), Piece::Bytes(b"\n".to_vec()));
        assert_eq!(PieceStyle::ByteLevel.piece("ðŁĺ"), Piece::Bytes(vec![0xf0, 0x9f, 0x98]));
        assert_eq!(PieceStyle::ByteLevel.piece("<｜end｜>"), Piece::Text("<｜end｜>".into()));
    }

    #[test]
    fn sentence_piece_names_give_text_or_a_byte() {
        let style = PieceStyle::SentencePiece { strips_leading_space: true };
        assert_eq!(style.piece("▁the"), Piece::Text(" the".into()));
        assert_eq!(style.piece("<0xE4>"), Piece::Bytes(vec![0xe4]));
        assert_eq!(byte_name("<0xZZ>"), None);
        assert_eq!(byte_name("<0x+1>"), None);
    }
}
