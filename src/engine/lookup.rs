//! Guesses of what a sequence says next: where it repeats its prompt or itself, the guess is what followed last time.
//!
//! It runs no model and decides no answer: guesses are checked in the pass that would have run anyway (the scheduler's
//! `draft.rs`), so a wrong one costs time only. The one thing to know: it follows the tokens whether or not guesses were
//! run. How often it would have been right is therefore known of every sequence at no cost, also of one whose guesses
//! are not worth running just now. Source: Saxena, "Prompt Lookup Decoding", 2023,
//! <https://github.com/apoorvumang/prompt-lookup-decoding>; Yang et al., "Inference with Reference", 2023,
//! <https://arxiv.org/abs/2304.04487>.

mod foreseen;
mod places;

use std::sync::Arc;

pub use foreseen::Foreseen;
use places::{LONGEST, Places, SHORTEST};

/// Agreement beyond this says nothing more.
const MOST_MATCHED: usize = 32;
/// Tokens taken in at most per step: a long prompt is indexed in several, so that no step waits for it.
const MOST_PER_STEP: usize = 8_192;
/// That a prediction is the answer from its beginning is as sure as where so many tokens agree.
const FORETOLD: usize = 8;

/// Follows one sequence.
#[derive(Debug, Clone)]
pub(super) struct Lookup {
    /// Where the sequence's tokens stood before.
    places: Places,
    /// Tokens taken in.
    seen: usize,
    /// Length at which a place was last looked for; none yet.
    searched: Option<usize>,
    /// What the answer is said to be.
    prediction: Option<Prediction>,
    /// `next` is a position of the prediction, not of the sequence.
    is_foretold: bool,
    /// Position of the token that is expected next; counts only while `matched` is not 0.
    next: usize,
    /// Tokens before `next` that agree with the end of the sequence, up to [`MOST_MATCHED`].
    matched: usize,
    /// How often it was right, by [`class`] of `matched`.
    odds: [Odds; CLASSES],
}

/// Another text to look in.
#[derive(Debug, Clone)]
struct Prediction {
    tokens: Arc<[u32]>,
    places: Places,
    /// Tokens taken in.
    seen: usize,
    /// Tokens of the answer that were expected by it, and came.
    right: usize,
}

impl Prediction {
    /// Takes in at most so many of its tokens.
    fn enter(&mut self, most: usize) -> usize {
        let until = self.tokens.len().min(self.seen + most);
        (self.seen..until).for_each(|seen| self.places.enter(&self.tokens[..seen]));
        until - std::mem::replace(&mut self.seen, until)
    }
}

impl Lookup {
    /// For a sequence of at most this many tokens, none of them taken in yet; its answer is said to be `prediction`, if that
    /// is not empty.
    pub(super) fn new(tokens_limit: usize, prediction: Arc<[u32]>) -> Self {
        let prediction = (!prediction.is_empty()).then(|| Prediction {
            places: Places::new(prediction.len()),
            tokens: prediction,
            seen: 0,
            right: 0,
        });
        Self {
            places: Places::new(tokens_limit),
            seen: 0,
            searched: None,
            prediction,
            is_foretold: false,
            next: 0,
            matched: 0,
            odds: [Odds::default(); CLASSES],
        }
    }

    /// Takes in the tokens that are new. Those from `prompt_tokens` on are the answer: it learns from them how good its
    /// guesses are.
    pub(super) fn follow(&mut self, tokens: &[u32], prompt_tokens: usize) {
        let entered = self.prediction.as_mut().map_or(0, |prediction| prediction.enter(MOST_PER_STEP));
        let until = tokens.len().min(self.seen + MOST_PER_STEP - entered);
        while self.seen < until {
            if self.seen >= prompt_tokens {
                self.search(&tokens[..self.seen], prompt_tokens);
                self.judge(self.expected(tokens) == Some(tokens[self.seen]));
            }
            self.places.enter(&tokens[..self.seen]);
            self.seen += 1;
        }
        let is_ready = self.prediction.as_ref().is_none_or(|text| text.seen == text.tokens.len());
        if self.seen == tokens.len() && self.seen >= prompt_tokens && is_ready {
            self.search(tokens, prompt_tokens);
        }
    }

    /// The same, however many there are.
    fn follow_all(&mut self, tokens: &[u32], prompt_tokens: usize) {
        while self.seen < tokens.len() {
            self.follow(tokens, prompt_tokens);
        }
    }

    /// Tokens of the answer that came as the prediction had them.
    fn foretold(&self) -> usize {
        self.prediction.as_ref().map_or(0, |prediction| prediction.right)
    }

    /// The token at `next`.
    fn expected(&self, tokens: &[u32]) -> Option<u32> {
        match &self.prediction {
            Some(prediction) if self.is_foretold => prediction.tokens.get(self.next).copied(),
            _ => tokens.get(self.next).copied(),
        }
    }

    /// Tokens of the prediction from `next` on, where that is there.
    fn foretold_rest(&self) -> Option<&[u32]> {
        let prediction = self.prediction.as_ref().filter(|_| self.is_foretold)?;
        prediction.tokens.get(self.next..)
    }

    /// How probable it is that the next token, the next two, the next three … after `tokens` are what it expects. Empty
    /// if it expects nothing.
    pub(super) fn chances(&self, tokens: &[u32]) -> impl Iterator<Item = f32> {
        let length = match (self.expects(tokens), self.foretold_rest()) {
            (false, _) => 0,
            (true, Some(rest)) => rest.len(),
            (true, None) => usize::MAX,
        };
        (0..length).scan(1.0, |chance, further| {
            let class = class(self.matched + further);
            *chance *= self.odds[class].chance(class);
            Some(*chance)
        })
    }

    /// The `count` tokens it expects after `tokens`; some tokens of the sequence if it expects nothing. What repeats itself
    /// to its very end is expected to go on so.
    pub(super) fn guess(&self, tokens: &[u32], count: usize, guesses: &mut Vec<u32>) {
        guesses.clear();
        let from = match (self.expects(tokens), self.foretold_rest()) {
            (false, _) => tokens.len() / 2,
            (true, None) => self.next,
            (true, Some(rest)) => {
                guesses.extend(rest.iter().take(count));
                tokens.len() / 2
            }
        };
        for position in from..from + (count - guesses.len()) {
            let token = tokens.get(position).or_else(|| guesses.get(position - tokens.len()));
            guesses.extend(token.copied());
        }
    }

    fn expects(&self, tokens: &[u32]) -> bool {
        self.matched > 0 && self.seen == tokens.len()
    }

    /// The token after those that were taken in is known.
    fn judge(&mut self, is_right: bool) {
        if self.matched == 0 {
            return;
        }
        self.odds[class(self.matched)].count(is_right);
        if !is_right {
            self.matched = 0;
            return;
        }
        self.next += 1;
        self.matched = MOST_MATCHED.min(self.matched + 1);
        if let Some(prediction) = self.prediction.as_mut().filter(|_| self.is_foretold) {
            prediction.right += 1;
            if self.next == prediction.tokens.len() {
                self.matched = 0;
            }
        }
    }

    /// Looks for the last place whose end is the end of `tokens`, the longest first, and in the prediction before the
    /// sequence. An answer of which nothing is there yet is expected to begin as the prediction does.
    fn search(&mut self, tokens: &[u32], prompt_tokens: usize) {
        if self.matched > 0 || self.searched == Some(tokens.len()) {
            return;
        }
        self.searched = Some(tokens.len());
        if self.prediction.is_some() && tokens.len() == prompt_tokens {
            (self.is_foretold, self.next, self.matched) = (true, 0, FORETOLD);
            return;
        }
        for length in (SHORTEST..=LONGEST.min(tokens.len())).rev() {
            let few = &tokens[tokens.len() - length..];
            if let Some(prediction) = &self.prediction {
                // After its last token it expects nothing.
                let places = prediction.places.of(few).into_iter().filter(|&at| at < prediction.tokens.len());
                let best = longest(places, &prediction.tokens, tokens, length);
                if best.1 > self.matched {
                    (self.is_foretold, self.next, self.matched) = (true, best.0, best.1);
                }
            }
            let best = longest(self.places.of(few).into_iter(), tokens, tokens, length);
            if best.1 > self.matched {
                (self.is_foretold, self.next, self.matched) = (false, best.0, best.1);
            }
            if self.matched > 0 {
                return;
            }
        }
    }
}

/// Of these places of a text the first whose end agrees in most with the end of `tokens`, and in how many; 0 where none
/// agrees in `least`.
fn longest(
    places: impl Iterator<Item = usize>,
    text: &[u32],
    tokens: &[u32],
    least: usize,
) -> (usize, usize) {
    places.fold((0, 0), |best, place| {
        let agreeing = agreement(&text[..place], tokens);
        if agreeing >= least && agreeing > best.1 { (place, agreeing) } else { best }
    })
}

/// Tokens in which two texts agree, from their ends; counts no further than [`MOST_MATCHED`].
fn agreement(a: &[u32], b: &[u32]) -> usize {
    a.iter().rev().zip(b.iter().rev()).take(MOST_MATCHED).take_while(|(a, b)| a == b).count()
}

/// Kinds of agreement that are told apart.
const CLASSES: usize = 5;
/// What each kind is taken to be worth before anything is known: a guess after two tokens that agree is seldom right, one
/// after sixteen nearly always.
const EXPECTED: [f32; CLASSES] = [0.15, 0.3, 0.55, 0.8, 0.9];
/// Guesses that this expectation weighs.
const EXPECTED_WEIGHT: f32 = 3.0;
/// What a guess still counts when the next one is judged.
const FADING: f32 = 0.95;

/// The kind of an agreement in this many tokens.
fn class(matched: usize) -> usize {
    match matched {
        0..=2 => 0,
        3 => 1,
        4..=7 => 2,
        8..=15 => 3,
        _ => 4,
    }
}

/// Guesses of one kind; old ones fade.
#[derive(Debug, Clone, Copy, Default)]
struct Odds {
    right: f32,
    all: f32,
}

impl Odds {
    fn count(&mut self, is_right: bool) {
        self.right = self.right * FADING + if is_right { 1.0 } else { 0.0 };
        self.all = self.all * FADING + 1.0;
    }

    fn chance(&self, class: usize) -> f32 {
        (self.right + EXPECTED_WEIGHT * EXPECTED[class]) / (self.all + EXPECTED_WEIGHT)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One that has followed `tokens`, of which the first `prompt_tokens` are the prompt.
    fn lookup(tokens: &[u32], prompt_tokens: usize) -> Lookup {
        let mut lookup = Lookup::new(4_096, [].into());
        for length in prompt_tokens..=tokens.len() {
            lookup.follow(&tokens[..length], prompt_tokens);
        }
        lookup
    }

    fn guess(tokens: &[u32], count: usize) -> Vec<u32> {
        let lookup = lookup(tokens, tokens.len());
        let mut guesses = Vec::new();
        if lookup.matched > 0 {
            lookup.guess(tokens, count, &mut guesses);
        }
        guesses
    }

    #[test]
    fn it_expects_what_followed_the_last_time() {
        assert_eq!(guess(&[1, 2, 3, 4, 5, 9, 2, 3], 3), [4, 5, 9]);
        assert_eq!(guess(&[2, 3, 7, 1, 2, 3, 8, 1, 2, 3], 1), [8], "the later of two places");
        assert_eq!(guess(&[6, 2, 3, 7, 9, 2, 3, 8, 6, 2, 3], 1), [7], "the place that agrees in more");
        assert_eq!(guess(&[1, 2, 3, 4, 5, 6], 4), [0; 0]);
        assert_eq!(guess(&[1, 2, 1], 4), [0; 0], "one token is no repetition");
        assert_eq!(guess(&[1], 4), [0; 0]);
    }

    #[test]
    fn what_repeats_itself_to_its_end_is_expected_to_go_on() {
        assert_eq!(guess(&[9, 4, 5, 4, 5, 4, 5], 5), [4, 5, 4, 5, 4]);
        assert_eq!(guess(&[7, 7, 7], 4), [7, 7, 7, 7]);
    }

    fn first_chance(tokens: &[u32], prompt_tokens: usize) -> f32 {
        lookup(tokens, prompt_tokens).chances(tokens).next().unwrap_or(0.0)
    }

    #[test]
    fn the_longer_it_agrees_the_surer_it_is() {
        let text: Vec<u32> = (0..40).collect();
        let repeated = |length: usize| [&text[..], &text[..length]].concat();
        let sure: Vec<f32> = [2, 3, 5, 12, 30].map(|length| first_chance(&repeated(length), 40)).to_vec();
        assert!(sure.is_sorted() && sure[0] < 0.3 && sure[4] > 0.9, "{sure:?}");
        let chances: Vec<f32> = lookup(&repeated(30), 40).chances(&repeated(30)).take(16).collect();
        assert!(chances.is_sorted_by(|a, b| a >= b) && chances[15] > 0.2, "{chances:?}");
    }

    #[test]
    fn a_sequence_that_only_seems_to_repeat_itself_is_found_out_and_forgiven() {
        // Pairs of the prompt come again, never with what followed them.
        let prompt: Vec<u32> = (0..300).collect();
        let mut tokens = prompt.clone();
        for pair in 0..60 {
            tokens.extend([pair * 4, pair * 4 + 1, 1_000 + pair]);
        }
        tokens.extend([8, 9]);
        assert!(first_chance(&tokens, 300) < 0.05);
        // Then it copies: long agreement is another matter than short.
        tokens.extend(100..140);
        assert!(first_chance(&tokens, 300) > 0.9);
    }

    #[test]
    fn a_long_prompt_is_taken_in_by_parts() {
        let tokens: Vec<u32> = (0..3 * MOST_PER_STEP as u32).chain([5, 6, 7]).collect();
        let mut lookup = Lookup::new(4 * MOST_PER_STEP, [].into());
        for _ in 0..3 {
            lookup.follow(&tokens, tokens.len());
            assert_eq!(lookup.chances(&tokens).next(), None);
        }
        lookup.follow(&tokens, tokens.len());
        let mut guesses = Vec::new();
        lookup.guess(&tokens, 2, &mut guesses);
        assert!(lookup.chances(&tokens).next().is_some());
        assert_eq!(guesses, [8, 9]);
    }

    /// What it expects after each length of the answer, as far as that is what the prediction has.
    fn foretold(prediction: &[u32], tokens: &[u32], prompt_tokens: usize) -> Vec<Vec<u32>> {
        let mut lookup = Lookup::new(4_096, prediction.into());
        let mut expected = Vec::new();
        for length in prompt_tokens..=tokens.len() {
            lookup.follow(&tokens[..length], prompt_tokens);
            let count = lookup.chances(&tokens[..length]).take(3).count();
            let mut guesses = Vec::new();
            lookup.guess(&tokens[..length], count, &mut guesses);
            expected.push(guesses);
        }
        expected
    }

    #[test]
    fn a_prediction_is_expected_from_its_beginning_to_its_end() {
        let expected = foretold(&[11, 12, 13, 14], &[1, 2, 11, 12, 13, 14], 2);
        assert_eq!(expected, [vec![11, 12, 13], vec![12, 13, 14], vec![13, 14], vec![14], vec![]]);
    }

    #[test]
    fn a_prediction_is_found_again_behind_what_is_new() {
        let expected = foretold(&[11, 12, 13, 14, 15], &[1, 2, 99, 12, 13, 14], 2);
        assert_eq!(expected[1..], [vec![], vec![], vec![14, 15], vec![15]]);
        // Where prompt and prediction say the same, the prediction is meant.
        let expected = foretold(&[11, 12, 13, 14], &[12, 13, 77, 99, 12, 13], 3);
        assert_eq!(expected[3], [14]);
        // The prompt where it agrees in more.
        let expected = foretold(&[12, 13, 14], &[99, 12, 13, 77, 1, 99, 12, 13], 5);
        assert_eq!(expected[3], [77, 1, 99]);
    }

    proptest! {
        /// With a prediction: in one go or token by token, guesses are there in full.
        #[test]
        fn a_prediction_is_followed_in_one_go_or_token_by_token(
            prediction in proptest::collection::vec(0_u32..6, 0..40),
            tokens in proptest::collection::vec(0_u32..6, 1..80),
            prompt_tokens in 0_usize..60,
        ) {
            let prompt_tokens = prompt_tokens.min(tokens.len());
            let (mut stepwise, mut at_once) =
                (Lookup::new(80, prediction.clone().into()), Lookup::new(80, prediction.into()));
            for length in prompt_tokens..=tokens.len() {
                stepwise.follow(&tokens[..length], prompt_tokens);
                let mut guesses = Vec::new();
                stepwise.guess(&tokens[..length.max(1)], 16, &mut guesses);
                prop_assert_eq!(guesses.len(), 16);
            }
            at_once.follow(&tokens, prompt_tokens);
            prop_assert_eq!(format!("{stepwise:?}"), format!("{at_once:?}"));
        }

        /// Whatever comes: places stay within the sequence, and what it says of itself is true.
        #[test]
        fn a_guess_is_what_followed_an_equal_end(
            tokens in proptest::collection::vec(0_u32..6, 1..200),
            prompt_tokens in 1_usize..100,
        ) {
            let prompt_tokens = prompt_tokens.min(tokens.len());
            let stepwise = lookup(&tokens, prompt_tokens);
            let mut at_once = Lookup::new(4_096, [].into());
            at_once.follow(&tokens, prompt_tokens);
            prop_assert_eq!(format!("{stepwise:?}"), format!("{at_once:?}"), "in one go or token by token");
            if stepwise.matched > 0 {
                prop_assert!(stepwise.next < tokens.len());
                prop_assert_eq!(agreement(&tokens[..stepwise.next], &tokens), stepwise.matched);
            }
            let mut guesses = Vec::new();
            stepwise.guess(&tokens, 16, &mut guesses);
            prop_assert_eq!(guesses.len(), 16);
            prop_assert!(guesses.iter().all(|guess| tokens.contains(guess)));
        }
    }
}
