//! Token ids → what one choice says: whole characters, told apart by its reader where it has one, up to the first stop
//! text, and with the tokens that made it.
//!
//! Tokens (for log-probabilities) leave together with the text they made.

use std::collections::VecDeque;
use std::sync::Arc;

use sconce_models::{Error, TextDecoder};

use crate::generate::TextToken;
use crate::generate::format::{Part, Reader};
use crate::generate::stops::Stops;

/// What one choice says while it grows.
pub struct ChoiceText {
    decoder: Option<TextDecoder>,
    telling: Telling,
}

/// What is made of the text.
enum Telling {
    /// All of it is text.
    Text(ShownText),
    /// Calls and thoughts are told from it.
    Read(Reader),
}

impl ChoiceText {
    /// Of which all is text, up to the first of these.
    pub fn new(decoder: TextDecoder, stop: Arc<[String]>) -> Self {
        Self { decoder: Some(decoder), telling: Telling::Text(ShownText::new(stop)) }
    }

    /// In which this reader finds what is text.
    pub fn read_by(reader: Reader, decoder: TextDecoder) -> Self {
        Self { decoder: Some(decoder), telling: Telling::Read(reader) }
    }

    /// Takes the next token, and gives what became certain; `described` is it again with its log-probability, if that is
    /// wanted.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the id does not exist.
    pub fn push(&mut self, id: u32, described: Option<TextToken>) -> Result<Vec<Part>, Error> {
        let Some(decoder) = &mut self.decoder else { return Ok(Vec::new()) };
        let text = decoder.push(id)?;
        Ok(match &mut self.telling {
            Telling::Text(shown) => shown.push(&text, described),
            Telling::Read(reader) => reader.push(&text, described),
        })
    }

    /// Nothing more comes: gives what was held back.
    pub fn finish(&mut self) -> Vec<Part> {
        let rest = self.decoder.take().map(TextDecoder::finish).unwrap_or_default();
        match &mut self.telling {
            Telling::Text(shown) => shown.finish(&rest),
            Telling::Read(reader) => {
                let mut parts = reader.push(&rest, None);
                parts.extend(reader.finish());
                parts
            }
        }
    }

    /// The stop text that was met (its number): nothing more will come.
    pub fn stopped(&self) -> Option<u32> {
        match &self.telling {
            Telling::Text(shown) => shown.stops.met(),
            Telling::Read(reader) => reader.stopped(),
        }
    }

    /// Whether what comes next is what the model thinks.
    pub fn is_thinking(&self) -> bool {
        matches!(&self.telling, Telling::Read(reader) if reader.is_thinking())
    }

    /// How many calls are whole.
    pub fn calls_ended(&self) -> u32 {
        if let Telling::Read(reader) = &self.telling { reader.calls_ended() } else { 0 }
    }
}

/// Text up to the first stop text. Positions are bytes since the beginning of the answer.
struct ShownText {
    stops: Stops,
    released: usize,
    tokens: VecDeque<(usize, TextToken)>,
}

impl ShownText {
    fn new(stop: Arc<[String]>) -> Self {
        Self { stops: Stops::new(stop), released: 0, tokens: VecDeque::new() }
    }

    fn push(&mut self, text: &str, token: Option<TextToken>) -> Vec<Part> {
        if self.stops.met().is_some() {
            return Vec::new();
        }
        let begins_at = self.released + self.stops.held();
        self.tokens.extend(token.map(|token| (begins_at, token)));
        let text = self.stops.push(text);
        let parts = self.release(text);
        if self.stops.met().is_some() {
            self.tokens.clear();
        }
        parts
    }

    fn finish(&mut self, rest: &str) -> Vec<Part> {
        let mut parts = self.push(rest, None);
        let held = self.stops.finish();
        parts.extend(self.release(held));
        parts
    }

    /// Shows this text. A token goes with its first byte.
    fn release(&mut self, text: String) -> Vec<Part> {
        self.released += text.len();
        let nothing_held = self.stops.held() == 0;
        let is_shown = |begins_at: usize| begins_at < self.released || nothing_held;
        let shown = self.tokens.iter().take_while(|(begins_at, _)| is_shown(*begins_at)).count();
        let tokens: Vec<TextToken> = self.tokens.drain(..shown).map(|(_, token)| token).collect();
        if text.is_empty() && tokens.is_empty() { Vec::new() } else { vec![Part::Text(text, tokens)] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(id: u32) -> TextToken {
        TextToken { id, text: String::new(), bytes: Vec::new(), logprob: None, alternatives: Vec::new() }
    }

    fn shown(stop: &[&str]) -> ShownText {
        ShownText::new(stop.iter().map(|text| (*text).to_owned()).collect())
    }

    fn ids(parts: &[Part]) -> Vec<u32> {
        let tokens = parts.iter().flat_map(|part| match part {
            Part::Text(_, tokens) => tokens.as_slice(),
            _ => &[],
        });
        tokens.map(|token| token.id).collect()
    }

    #[test]
    fn tokens_leave_with_their_text() {
        let mut shown = shown(&["xyz"]);
        assert_eq!(ids(&shown.push("a", Some(token(1)))), [1]);
        assert!(ids(&shown.push("x", Some(token(2)))).is_empty());
        assert_eq!(ids(&shown.push("b", Some(token(3)))), [2, 3]);
        assert_eq!(ids(&shown.push("cxy", Some(token(4)))), [4]);
        assert!(shown.push("z", Some(token(5))).is_empty());
        assert_eq!((shown.stops.met(), shown.finish("more")), (Some(0), Vec::new()));
    }

    #[test]
    fn a_token_without_text_of_its_own_is_not_lost() {
        let mut shown = shown(&[]);
        assert_eq!(ids(&shown.push("", Some(token(1)))), [1]);
    }
}
