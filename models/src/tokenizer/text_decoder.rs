//! Token ids that arrive one by one → pieces of valid UTF-8. Knows nothing of stop strings: that is the caller's.

use super::Tokenizer;
use super::pieces::{Piece, PieceStyle};
use crate::Error;

/// Ids after which the window of a whole-text decoder is shortened.
const LONG_WINDOW: usize = 64;
/// Ids that are kept then, as context for those to come.
const SHORT_WINDOW: usize = 8;

/// Turns ids that arrive one by one into pieces of valid UTF-8; holds back a character until it is whole.
pub struct TextDecoder {
    tokenizer: Tokenizer,
    skip_special_tokens: bool,
    /// Special tokens that have their text all the same.
    shown: Vec<u32>,
    /// Whether the next text's leading space is the one put before every text.
    at_start: bool,
    /// Bytes of a character that is not whole yet: at most three.
    pending: Vec<u8>,
    window: Window,
}

/// For tokenizers whose tokens have no text of their own: the last ids, and what of them was given out.
#[derive(Default)]
struct Window {
    ids: Vec<u32>,
    given: String,
}

impl TextDecoder {
    pub(super) fn new(tokenizer: &Tokenizer, skip_special_tokens: bool, at_start: bool) -> Self {
        Self {
            tokenizer: tokenizer.clone(),
            skip_special_tokens,
            shown: Vec::new(),
            at_start,
            pending: Vec::new(),
            window: Window::default(),
        }
    }

    /// Gives these special tokens their text, whatever is done with others: for marks that a reader of the text looks for.
    #[must_use]
    pub fn showing(mut self, tokens: Vec<u32>) -> Self {
        self.shown = tokens;
        self
    }

    /// Takes one id; returns the text that became certain (perhaps empty). An id of the model that stands for no token
    /// gives no text.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the id does not exist.
    pub fn push(&mut self, id: u32) -> Result<String, Error> {
        if id as usize >= self.tokenizer.inner.model_rows
            && self.tokenizer.inner.tokenizer.id_to_token(id).is_none()
        {
            return Err(Error::Tokenizer(format!("token {id} does not exist")));
        }
        if self.skip_special_tokens && self.tokenizer.is_special(id) && !self.shown.contains(&id) {
            return Ok(String::new());
        }
        if self.tokenizer.inner.style == PieceStyle::Other {
            return self.window.push(&self.tokenizer, id);
        }
        Ok(match self.tokenizer.piece(id) {
            None => String::new(),
            Some(Piece::Bytes(bytes)) => {
                self.pending.extend(bytes);
                let text = take_whole_characters(&mut self.pending);
                self.without_leading_space(text)
            }
            Some(Piece::Text(text)) => {
                let held = self.take_pending();
                self.without_leading_space(held + &text)
            }
        })
    }

    /// What was held back, lossily.
    pub fn finish(mut self) -> String {
        if self.tokenizer.inner.style == PieceStyle::Other {
            return self.window.rest(&self.tokenizer);
        }
        let held = self.take_pending();
        self.without_leading_space(held)
    }

    fn take_pending(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned()
    }

    fn without_leading_space(&mut self, mut text: String) -> String {
        let strips = PieceStyle::SentencePiece { strips_leading_space: true };
        if self.at_start && !text.is_empty() {
            self.at_start = false;
            if self.tokenizer.inner.style == strips && text.starts_with(' ') {
                text.remove(0);
            }
        }
        text
    }
}

impl Window {
    fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> Result<String, Error> {
        self.ids.push(id);
        let text = self.decode(tokenizer)?;
        if text.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(String::new());
        }
        let new = text[common_prefix(&self.given, &text)..].to_owned();
        self.given = text;
        if self.ids.len() > LONG_WINDOW {
            self.ids.drain(..self.ids.len() - SHORT_WINDOW);
            self.given = self.decode(tokenizer)?;
        }
        Ok(new)
    }

    fn rest(&self, tokenizer: &Tokenizer) -> String {
        let text = self.decode(tokenizer).unwrap_or_default();
        text[common_prefix(&self.given, &text)..].to_owned()
    }

    fn decode(&self, tokenizer: &Tokenizer) -> Result<String, Error> {
        super::guarded("the ids", || tokenizer.inner.tokenizer.decode(&self.ids, false))
    }
}

/// Bytes of the characters that both texts begin with.
fn common_prefix(left: &str, right: &str) -> usize {
    let mut characters = left.chars().zip(right.char_indices());
    match characters.find(|(own, (_, other))| own != other) {
        Some((_, (position, _))) => position,
        None => left.len().min(right.len()),
    }
}

/// Takes whole characters off the front; what can no longer become one is given as U+FFFD, as
/// [`String::from_utf8_lossy`] does.
fn take_whole_characters(bytes: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut taken = 0;
    loop {
        match std::str::from_utf8(&bytes[taken..]) {
            Ok(rest) => {
                text.push_str(rest);
                taken = bytes.len();
                break;
            }
            Err(error) => {
                let valid = taken + error.valid_up_to();
                text.push_str(&String::from_utf8_lossy(&bytes[taken..valid]));
                taken = valid;
                let Some(length) = error.error_len() else { break };
                text.push(char::REPLACEMENT_CHARACTER);
                taken += length;
            }
        }
    }
    bytes.drain(..taken);
    text
}

#[cfg(test)]
mod tests {
    use super::{common_prefix, take_whole_characters};

    #[test]
    fn a_character_is_held_back_until_it_is_whole() {
        let mut bytes = "aé".as_bytes()[..2].to_vec();
        assert_eq!(take_whole_characters(&mut bytes), "a");
        assert_eq!(bytes, [0xc3]);
        bytes.push(0xa9);
        assert_eq!(take_whole_characters(&mut bytes), "é");
        assert!(bytes.is_empty());
    }

    #[test]
    fn what_cannot_become_a_character_is_replaced() {
        for bytes in [&b"\xe4\xbda"[..], b"\xff\xfeb", b"\xf0\x9f\x98\xe4\xbd\xa0", b"\x80"] {
            let mut rest = bytes.to_vec();
            let text = take_whole_characters(&mut rest) + &String::from_utf8_lossy(&rest);
            assert_eq!(text, String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn the_common_prefix_ends_between_characters() {
        assert_eq!(common_prefix("do n't", "don't"), 2);
        assert_eq!(common_prefix("é", "è"), 0);
        assert_eq!(common_prefix("ab", "abc"), 2);
    }
}
