//! Stop texts in a text that grows. What may be the beginning of one is held back until it is known not to be.

use std::sync::Arc;

/// Looks for them.
#[derive(Debug, Default)]
pub struct Stops {
    texts: Arc<[String]>,
    /// The end of what was taken that may be the beginning of one; once one was met, all from its beginning on.
    held: String,
    met: Option<u32>,
}

impl Stops {
    /// Looks for these.
    pub fn new(texts: Arc<[String]>) -> Self {
        Self { texts, ..Self::default() }
    }

    /// Takes more text, and gives what surely stands before any of them. Nothing comes after one.
    pub fn push(&mut self, text: &str) -> String {
        if self.met.is_some() {
            return String::new();
        }
        self.held.push_str(text);
        let free = match first_complete(&self.held, &self.texts) {
            Some((number, begin)) => {
                self.met = Some(number);
                begin
            }
            None => self.held.len() - self.held_back(),
        };
        self.held.drain(..free).collect()
    }

    /// The text ends here, or another begins: gives what was held back.
    pub fn finish(&mut self) -> String {
        if self.met.is_some() { String::new() } else { std::mem::take(&mut self.held) }
    }

    /// The number of the one that was met.
    pub fn met(&self) -> Option<u32> {
        self.met
    }

    /// How many bytes of what was taken were not given.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Length of the longest end of the text that one of them begins with.
    fn held_back(&self) -> usize {
        self.texts.iter().map(|stop| overlap(self.held.as_bytes(), stop.as_bytes())).max().unwrap_or(0)
    }
}

/// Which is complete first, and where it begins; so the answer does not depend on how the text was cut.
fn first_complete(text: &str, stops: &[String]) -> Option<(u32, usize)> {
    let found = (0..).zip(stops).filter_map(|(number, stop)| {
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

    fn stops(texts: &[&str]) -> Stops {
        Stops::new(texts.iter().map(|text| (*text).to_owned()).collect())
    }

    #[test]
    fn a_stop_text_is_found_across_pieces_and_not_shown() {
        let mut stops = stops(&["END"]);
        assert_eq!(stops.push("one E"), "one ");
        assert_eq!(stops.push("N"), "");
        assert_eq!((stops.push("D two").as_str(), stops.met()), ("", Some(0)));
        assert_eq!((stops.push("more"), stops.finish()), (String::new(), String::new()));
    }

    #[test]
    fn what_only_looked_like_a_stop_text_is_shown() {
        let mut stops = stops(&["END"]);
        assert_eq!(stops.push("EN"), "");
        assert_eq!(stops.push("O"), "ENO");
        assert_eq!(stops.push("E"), "");
        assert_eq!((stops.finish().as_str(), stops.met()), ("E", None));
    }

    #[test]
    fn of_several_stop_texts_the_one_complete_first_wins() {
        let mut stops = stops(&["cd", "bc"]);
        assert_eq!((stops.push("abcd").as_str(), stops.met()), ("a", Some(1)));
    }

    proptest! {
        /// However the text is cut, what is shown is the text up to the first stop text.
        #[test]
        fn shown_text_does_not_depend_on_the_cuts(
            (text, cuts) in "[ab]{0,40}".prop_flat_map(|text| {
                let length = text.len();
                (Just(text), proptest::collection::vec(0..=length, 0..6))
            }),
            texts in proptest::collection::vec("[ab]{1,5}", 0..4),
        ) {
            let expected = first_complete(&text, &texts);
            let mut cuts = cuts;
            cuts.sort_unstable();
            cuts.push(text.len());
            let mut stops = Stops::new(texts.into());
            let (mut from, mut shown) = (0, String::new());
            for cut in cuts {
                let had_met = stops.met().is_some();
                let piece = stops.push(&text[from..cut]);
                prop_assert!(!had_met || piece.is_empty());
                shown.push_str(&piece);
                from = cut;
            }
            shown.push_str(&stops.finish());
            prop_assert_eq!(stops.met(), expected.map(|(number, _)| number));
            prop_assert_eq!(shown.as_str(), &text[..expected.map_or(text.len(), |(_, begin)| begin)]);
        }
    }
}
