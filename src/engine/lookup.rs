//! Guesses of what a sequence says next: where it repeats its prompt or itself, the guess is what followed last time.
//!
//! It runs no model and decides no answer: guesses are checked in the pass that would have run anyway (the scheduler's
//! `draft.rs`), so a wrong one costs time only. The one thing to know: it follows the tokens whether or not guesses were
//! run. How often it would have been right is therefore known of every sequence at no cost, also of one whose guesses
//! are not worth running just now. Source: Saxena, "Prompt Lookup Decoding", 2023,
//! <https://github.com/apoorvumang/prompt-lookup-decoding>; Yang et al., "Inference with Reference", 2023,
//! <https://arxiv.org/abs/2304.04487>.

/// Fewest tokens that must agree before a place counts as a repetition.
const SHORTEST: usize = 2;
/// Most tokens that are looked up at once. A place that agrees in more is recognised by comparing.
const LONGEST: usize = 4;
/// Agreement beyond this says nothing more.
const MOST_MATCHED: usize = 32;
/// Entries of the table per token of the sequence: one for each length that is looked up, and some air.
const PLACES_PER_TOKEN: usize = 4;
/// Most entries of a table: 512 KiB a sequence. In a longer one newer places push out older ones.
const MOST_PLACES: usize = 1 << 17;
/// Tokens taken in at most per step: a long prompt is indexed in several, so that no step waits for it.
const MOST_PER_STEP: usize = 8_192;

/// Follows one sequence.
#[derive(Debug, Clone)]
pub(super) struct Lookup {
    /// By the hash of a few tokens, the positions after the last two places where they stood, the later one at the hash
    /// and the other beside it (at `index ^ 1`); 0 is none. Whatever is found is compared, so a clash of hashes loses a
    /// place and no more.
    places: Vec<u32>,
    /// Tokens taken in.
    seen: usize,
    /// Length at which a place was last looked for.
    searched: usize,
    /// Position of the token that is expected next; counts only while `matched` is not 0.
    next: usize,
    /// Tokens before `next` that agree with the end of the sequence, up to [`MOST_MATCHED`].
    matched: usize,
    /// How often it was right, by [`class`] of `matched`.
    odds: [Odds; CLASSES],
}

impl Lookup {
    /// For a sequence of at most this many tokens, none of them taken in yet.
    pub(super) fn new(tokens_limit: usize) -> Self {
        let places = tokens_limit.saturating_mul(PLACES_PER_TOKEN).clamp(64, MOST_PLACES).next_power_of_two();
        Self {
            places: vec![0; places],
            seen: 0,
            searched: 0,
            next: 0,
            matched: 0,
            odds: [Odds::default(); CLASSES],
        }
    }

    /// Takes in the tokens that are new. Those from `prompt_tokens` on are the answer: it learns from them how good its
    /// guesses are.
    pub(super) fn follow(&mut self, tokens: &[u32], prompt_tokens: usize) {
        let until = tokens.len().min(self.seen + MOST_PER_STEP);
        while self.seen < until {
            if self.seen >= prompt_tokens {
                self.search(&tokens[..self.seen]);
                self.judge(tokens[self.seen] == tokens[self.next]);
            }
            self.enter(&tokens[..self.seen]);
            self.seen += 1;
        }
        if self.seen == tokens.len() && self.seen >= prompt_tokens {
            self.search(tokens);
        }
    }

    /// How probable it is that the next token, the next two, the next three … after `tokens` are what it expects. Empty
    /// if it expects nothing.
    pub(super) fn chances(&self, tokens: &[u32]) -> impl Iterator<Item = f32> {
        let length = if self.expects(tokens) { usize::MAX } else { 0 };
        (0..length).scan(1.0, |chance, further| {
            let class = class(self.matched + further);
            *chance *= self.odds[class].chance(class);
            Some(*chance)
        })
    }

    /// The `count` tokens it expects after `tokens`; some tokens of the sequence if it expects nothing. What repeats itself
    /// to its very end is expected to go on so.
    pub(super) fn guess(&self, tokens: &[u32], count: usize, guesses: &mut Vec<u32>) {
        let from = if self.expects(tokens) { self.next } else { tokens.len() / 2 };
        guesses.clear();
        for position in from..from + count {
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
        if is_right {
            self.next += 1;
            self.matched = MOST_MATCHED.min(self.matched + 1);
        } else {
            self.matched = 0;
        }
    }

    /// Looks for the last place whose end is the end of `tokens`, the longest first.
    fn search(&mut self, tokens: &[u32]) {
        if self.matched > 0 || self.searched == tokens.len() {
            return;
        }
        self.searched = tokens.len();
        for length in (SHORTEST..=LONGEST.min(tokens.len())).rev() {
            let index = self.index(&tokens[tokens.len() - length..]);
            for place in [self.places[index], self.places[index ^ 1]] {
                let agreeing = agreement(&tokens[..place as usize], tokens);
                if agreeing >= length && agreeing > self.matched {
                    (self.next, self.matched) = (place as usize, agreeing);
                }
            }
            if self.matched > 0 {
                return;
            }
        }
    }

    /// Remembers that the end of `tokens` stands there.
    fn enter(&mut self, tokens: &[u32]) {
        for length in SHORTEST..=LONGEST.min(tokens.len()) {
            let index = self.index(&tokens[tokens.len() - length..]);
            self.places[index ^ 1] = self.places[index];
            self.places[index] = tokens.len() as u32;
        }
    }

    fn index(&self, tokens: &[u32]) -> usize {
        let mix = |hash: u64, &token: &u32| (hash ^ u64::from(token)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let hash = tokens.iter().fold(tokens.len() as u64, |hash, token| mix(hash.rotate_left(29), token));
        // The table's length is a power of two, at least 64.
        (hash >> (u64::BITS - self.places.len().trailing_zeros())) as usize
    }
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
        let mut lookup = Lookup::new(4_096);
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
        let mut lookup = Lookup::new(4 * MOST_PER_STEP);
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

    proptest! {
        /// Whatever comes: places stay within the sequence, and what it says of itself is true.
        #[test]
        fn a_guess_is_what_followed_an_equal_end(
            tokens in proptest::collection::vec(0_u32..6, 1..200),
            prompt_tokens in 1_usize..100,
        ) {
            let prompt_tokens = prompt_tokens.min(tokens.len());
            let stepwise = lookup(&tokens, prompt_tokens);
            let mut at_once = Lookup::new(4_096);
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
