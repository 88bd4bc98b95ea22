//! Token ids → text of one choice: whole characters, stop strings, and which tokens made what is shown.
//!
//! Text that may be the beginning of a stop string is held back until it is known not to be. Tokens (for
//! log-probabilities) leave together with the text they made.

use std::collections::VecDeque;
use std::sync::Arc;

use sconce_models::{Error, TextDecoder};

use crate::generate::TextToken;

/// What became certain.
#[derive(Debug, Default, PartialEq)]
pub struct Piece {
    /// Text to show; may be empty.
    pub text: String,
    /// The tokens that made it, if they are wanted.
    pub tokens: Vec<TextToken>,
    /// The stop string that was met (its number): nothing more will come.
    pub stopped: Option<u32>,
}

impl Piece {
    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty() && self.tokens.is_empty()
    }
}

/// The text of one choice while it grows.
pub struct ChoiceText {
    decoder: Option<TextDecoder>,
    shown: ShownText,
}

impl ChoiceText {
    /// Starts with nothing shown.
    pub fn new(decoder: TextDecoder, stop: Arc<[String]>) -> Self {
        Self { decoder: Some(decoder), shown: ShownText::new(stop) }
    }

    /// Takes the next token; `described` is it again with its log-probability, if that is wanted.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the id does not exist.
    pub fn push(&mut self, id: u32, described: Option<TextToken>) -> Result<Piece, Error> {
        let Some(decoder) = &mut self.decoder else { return Ok(Piece::default()) };
        let text = decoder.push(id)?;
        Ok(self.shown.push(&text, described))
    }

    /// Whether stop strings count from here on.
    pub fn look_for_stops(&mut self, wanted: bool) {
        self.shown.is_looking = wanted;
    }

    /// The engine is done with this choice: gives what was held back.
    pub fn finish(&mut self) -> Piece {
        let rest = self.decoder.take().map(TextDecoder::finish).unwrap_or_default();
        self.shown.finish(&rest)
    }
}

/// Stop strings over growing text. Positions are bytes since the beginning of the answer.
struct ShownText {
    stop: Arc<[String]>,
    held: String,
    released: usize,
    tokens: VecDeque<(usize, TextToken)>,
    stopped: bool,
    /// Whether stop strings count.
    is_looking: bool,
}

impl ShownText {
    fn new(stop: Arc<[String]>) -> Self {
        Self {
            stop,
            held: String::new(),
            released: 0,
            tokens: VecDeque::new(),
            stopped: false,
            is_looking: true,
        }
    }

    fn push(&mut self, text: &str, token: Option<TextToken>) -> Piece {
        if self.stopped {
            return Piece::default();
        }
        let begins_at = self.released + self.held.len();
        self.held.push_str(text);
        if let Some(token) = token {
            self.tokens.push_back((begins_at, token));
        }
        if !self.is_looking {
            return self.release(self.held.len());
        }
        match self.first_stop() {
            Some((stop, position)) => self.cut(stop, position),
            None => self.release(self.held.len() - self.held_back()),
        }
    }

    fn finish(&mut self, rest: &str) -> Piece {
        let mut piece = self.push(rest, None);
        if !self.stopped {
            let last = self.release(self.held.len());
            piece.text.push_str(&last.text);
            piece.tokens.extend(last.tokens);
            piece.tokens.extend(self.tokens.drain(..).map(|(_, token)| token));
        }
        piece
    }

    /// Which stop string is complete first, and where it begins; so the answer does not depend on how the text was cut.
    fn first_stop(&self) -> Option<(u32, usize)> {
        first_complete(&self.held, &self.stop)
    }

    /// Length of the longest end of the text that a stop string begins with.
    fn held_back(&self) -> usize {
        self.stop.iter().map(|stop| overlap(self.held.as_bytes(), stop.as_bytes())).max().unwrap_or(0)
    }

    fn cut(&mut self, stop: u32, length: usize) -> Piece {
        let piece = self.release(length);
        self.stopped = true;
        self.held.clear();
        self.tokens.clear();
        Piece { stopped: Some(stop), ..piece }
    }

    /// Shows the first `length` bytes held. A token goes with its first byte.
    fn release(&mut self, length: usize) -> Piece {
        let text: String = self.held.drain(..length).collect();
        self.released += length;
        let nothing_held = self.held.is_empty();
        let mut tokens = Vec::new();
        while let Some((begins_at, _)) = self.tokens.front()
            && (*begins_at < self.released || nothing_held)
            && let Some((_, token)) = self.tokens.pop_front()
        {
            tokens.push(token);
        }
        Piece { text, tokens, stopped: None }
    }
}

fn first_complete(text: &str, stop: &[String]) -> Option<(u32, usize)> {
    let found = (0..).zip(stop).filter_map(|(number, stop)| {
        text.find(stop.as_str()).map(|begin| (begin + stop.len(), begin, number))
    });
    found.min().map(|(_, begin, number)| (number, begin))
}

/// Length of the longest proper beginning of `stop` that `text` ends with.
fn overlap(text: &[u8], stop: &[u8]) -> usize {
    let longest = text.len().min(stop.len().saturating_sub(1));
    (1..=longest).rev().find(|&length| text.ends_with(&stop[..length])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn token(id: u32) -> TextToken {
        TextToken { id, text: String::new(), bytes: Vec::new(), logprob: None, alternatives: Vec::new() }
    }

    fn stops(texts: &[&str]) -> Arc<[String]> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn a_stop_string_is_found_across_pieces_and_not_shown() {
        let mut shown = ShownText::new(stops(&["END"]));
        assert_eq!(shown.push("one E", None).text, "one ");
        assert_eq!(shown.push("N", None).text, "");
        let last = shown.push("D two", None);
        assert_eq!((last.text.as_str(), last.stopped), ("", Some(0)));
        assert!(shown.push("more", None).is_empty());
        assert!(shown.finish("rest").is_empty());
    }

    #[test]
    fn what_only_looked_like_a_stop_string_is_shown() {
        let mut shown = ShownText::new(stops(&["END"]));
        assert_eq!(shown.push("EN", None).text, "");
        assert_eq!(shown.push("O", None).text, "ENO");
        assert_eq!(shown.push("E", None).text, "");
        let last = shown.finish("");
        assert_eq!((last.text.as_str(), last.stopped), ("E", None));
    }

    #[test]
    fn of_several_stop_strings_the_one_complete_first_wins() {
        let mut shown = ShownText::new(stops(&["cd", "bc"]));
        let piece = shown.push("abcd", None);
        assert_eq!((piece.text.as_str(), piece.stopped), ("a", Some(1)));
    }

    #[test]
    fn tokens_leave_with_their_text() {
        let mut shown = ShownText::new(stops(&["xyz"]));
        assert_eq!(shown.push("a", Some(token(1))).tokens.len(), 1);
        assert_eq!(shown.push("x", Some(token(2))).tokens.len(), 0);
        let both = shown.push("b", Some(token(3)));
        assert_eq!(both.tokens.iter().map(|token| token.id).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(shown.push("cxy", Some(token(4))).tokens.len(), 1);
        let last = shown.push("z", Some(token(5)));
        assert!(last.stopped.is_some() && last.tokens.is_empty());
    }

    #[test]
    fn where_stop_strings_do_not_count_all_is_shown() {
        let mut shown = ShownText::new(stops(&["END"]));
        assert_eq!(shown.push("E", None).text, "");
        shown.is_looking = false;
        let piece = shown.push("ND", None);
        assert_eq!((piece.text.as_str(), piece.stopped), ("END", None));
        shown.is_looking = true;
        assert_eq!(shown.push("x END", None).stopped, Some(0));
    }

    #[test]
    fn a_token_without_text_of_its_own_is_not_lost() {
        let mut shown = ShownText::new(stops(&[]));
        assert_eq!(shown.push("", Some(token(1))).tokens.len(), 1);
    }

    proptest! {
        /// However the text is cut, what is shown is the text up to the first stop string.
        #[test]
        fn shown_text_does_not_depend_on_the_cuts(
            (text, cuts) in "[ab]{0,40}".prop_flat_map(|text| {
                let length = text.len();
                (Just(text), proptest::collection::vec(0..=length, 0..6))
            }),
            stop in proptest::collection::vec("[ab]{1,5}", 0..4),
        ) {
            let expected = first_complete(&text, &stop);
            let mut cuts = cuts;
            cuts.sort_unstable();
            cuts.push(text.len());
            let mut shown = ShownText::new(stop.into());
            let (mut from, mut got, mut stopped) = (0, String::new(), None);
            for cut in cuts {
                let piece = shown.push(&text[from..cut], None);
                prop_assert!(stopped.is_none() || piece.is_empty());
                stopped = stopped.or(piece.stopped);
                got.push_str(&piece.text);
                from = cut;
            }
            let last = shown.finish("");
            got.push_str(&last.text);
            stopped = stopped.or(last.stopped);
            prop_assert_eq!(stopped, expected.map(|(number, _)| number));
            prop_assert_eq!(got.as_str(), &text[..expected.map_or(text.len(), |(_, begin)| begin)]);
        }
    }
}
