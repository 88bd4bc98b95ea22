//! Follows an answer token by token, and says which may come next.

use llguidance::TokenParser;
use llguidance::api::StopReason;
use llguidance::toktrie::SimpleVob;

use super::GrammarError;
use super::refusal::fell_over;

/// Why an answer cannot be followed any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MatcherError {
    /// The grammar became too complex for what has been said; how, in words.
    #[error("{0}: it is too complex")]
    TooMuch(&'static str),
    /// The grammar lets nothing through here.
    #[error("it admits no answer here: a rule or a `$ref` leads back to itself, or parts exclude each other")]
    NoAnswer,
    /// The answer is not whole, and no token can follow.
    #[error("the answer cannot be completed: the grammar has a dead end here")]
    DeadEnd,
    /// The matcher fell over.
    #[error("the grammar's state is lost")]
    Lost,
    /// Something else, which is not shown: it may quote the grammar.
    #[error("the grammar cannot be followed any further")]
    Unknown,
}

const ALTERNATIVES: MatcherError = MatcherError::TooMuch("too many alternatives are open at one place");
const WORK: MatcherError = MatcherError::TooMuch("a step takes too much work");
const STATES: MatcherError = MatcherError::TooMuch("it has too many states");

/// What llguidance says, word for word, and what that means to whoever sent the grammar.
const MEANINGS: [(&str, MatcherError); 7] = [
    ("Current row has ", ALTERNATIVES),
    ("Too many items (limit ", ALTERNATIVES),
    ("fuel exhausted", WORK),
    ("maximum relevance check fuel ", WORK),
    ("too many expressions constructed", WORK),
    ("too many states: ", STATES),
    ("NoExtensionBias", MatcherError::NoAnswer),
];

impl MatcherError {
    /// What llguidance said. It keeps the reason for which it stopped to itself once it failed, so that its words, which no
    /// other place reads, are all there is to tell by.
    fn of(error: &str) -> Self {
        if fell_over(error) {
            return Self::Lost;
        }
        // What follows a quotation mark are not its words.
        let own = error.split('"').next().unwrap_or_default();
        let meaning = MEANINGS.iter().find(|(said, _)| own.contains(said));
        meaning.map_or(Self::Unknown, |(_, meaning)| *meaning)
    }

    /// Whether it is too much, and not wrong.
    pub(super) fn is_too_much(self) -> bool {
        matches!(self, Self::TooMuch(_))
    }
}

/// The tokens that may come next.
#[derive(Debug, Clone)]
pub struct Allowed {
    bits: SimpleVob,
    /// Whether the answer is whole as it is, so that it may end here.
    pub may_end: bool,
}

impl Allowed {
    /// Whether this token may come. End tokens may not: see [`Allowed::may_end`].
    pub fn contains(&self, id: u32) -> bool {
        (id as usize) < self.bits.len() && self.bits.get(id as usize)
    }

    /// Adds a token.
    pub fn insert(&mut self, id: u32) {
        if (id as usize) < self.bits.len() {
            self.bits.allow_token(id);
        }
    }

    /// Takes a token out.
    pub fn remove(&mut self, id: u32) {
        if (id as usize) < self.bits.len() {
            self.bits.disallow_token(id);
        }
    }

    /// Whether no token may come.
    pub fn is_empty(&self) -> bool {
        self.bits.is_zero()
    }

    /// The lowest of them.
    pub fn first(&self) -> Option<u32> {
        self.bits.first_bit_set().and_then(|id| u32::try_from(id).ok())
    }

    /// One bit per token, the lowest first: of 32 tokens a word.
    pub fn words(&self) -> &[u32] {
        self.bits.as_slice()
    }
}

/// A grammar and where an answer stands in it.
pub struct Matcher {
    inner: llguidance::Matcher,
    end_token_ids: Vec<u32>,
}

impl Matcher {
    /// At the beginning. Without a refusal where the parser fell over.
    pub(super) fn new(parser: TokenParser) -> Result<Self, Option<GrammarError>> {
        let end_token_ids = parser.token_env.tok_trie().eos_tokens().to_vec();
        let inner = llguidance::Matcher::new(Ok(parser));
        match inner.get_error() {
            None => Ok(Self { inner, end_token_ids }),
            Some(error) => Err(GrammarError::from_compiler("the grammar", &error)),
        }
    }

    /// Which tokens may come next. End tokens are not among them.
    ///
    /// # Errors
    /// [`MatcherError`] if finding out takes too much; the matcher is of no use then.
    pub fn allowed(&mut self) -> Result<Allowed, MatcherError> {
        let mut bits =
            self.inner.compute_mask_or_eos().map_err(|error| MatcherError::of(&error.to_string()))?;
        let mut may_end = self.inner.is_accepting().map_err(|error| MatcherError::of(&error.to_string()))?;
        let is_known = |id: &u32| (*id as usize) < bits.len();
        let ends: Vec<u32> = self.end_token_ids.iter().copied().filter(is_known).collect();
        let had: Vec<u32> = ends.iter().copied().filter(|&id| bits.get(id as usize)).collect();
        ends.iter().for_each(|&id| bits.disallow_token(id));
        // An end token of the grammar's own is an end where nothing else can come and nothing more after it.
        if !may_end && bits.is_zero() {
            may_end = had.into_iter().any(|id| {
                let mut ahead = self.inner.deep_clone();
                let is_taken = ahead.consume_token(id).is_ok();
                is_taken && (ahead.is_accepting().unwrap_or(false) || ahead.is_stopped())
            });
        }
        Ok(Allowed { bits, may_end })
    }

    /// Takes a token that is allowed.
    ///
    /// # Errors
    /// [`MatcherError`] if it is not, or takes too much.
    pub fn consume(&mut self, id: u32) -> Result<(), MatcherError> {
        self.inner.consume_token(id).map_err(|error| MatcherError::of(&error.to_string()))
    }

    /// Takes all tokens that must come now, whatever the model thinks, and gives them.
    ///
    /// # Errors
    /// As [`Matcher::consume`].
    pub fn consume_forced(&mut self) -> Result<Vec<u32>, MatcherError> {
        let mut forced = Vec::new();
        while !self.is_complete() {
            let more = self.inner.compute_ff_tokens();
            if let Some(error) = self.inner.get_error() {
                return Err(MatcherError::of(&error));
            }
            if more.is_empty() {
                break;
            }
            self.inner.consume_tokens(&more).map_err(|error| MatcherError::of(&error.to_string()))?;
            forced.extend(more);
        }
        Ok(forced)
    }

    /// Takes the last tokens back.
    ///
    /// # Errors
    /// As [`Matcher::consume`].
    pub fn take_back(&mut self, tokens: usize) -> Result<(), MatcherError> {
        self.inner.rollback(tokens).map_err(|error| MatcherError::of(&error.to_string()))
    }

    /// Whether the answer is whole and nothing can follow.
    pub fn is_complete(&self) -> bool {
        // It also stops where it finds no way on.
        !matches!(self.inner.stop_reason(), StopReason::NotStopped | StopReason::NoExtensionBias)
            && !self.inner.is_error()
    }
}

/// A clone is at the same place and shares nothing with this one.
impl Clone for Matcher {
    fn clone(&self) -> Self {
        Self { inner: self.inner.deep_clone(), end_token_ids: self.end_token_ids.clone() }
    }
}

impl std::fmt::Debug for Matcher {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Matcher").field("is_complete", &self.is_complete()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_grammar_is_told_by_its_kind() {
        for (said, kind, is_too_much) in [
            ("Parser Error: Current row has 2000 items; max is 1000", ALTERNATIVES, true),
            ("lexer error: too many expressions constructed\n<non-verbose/>", WORK, true),
            ("lexer error: too many states: 9 >= 9", STATES, true),
            ("NoExtensionBias", MatcherError::NoAnswer, false),
            // Of a text that is quoted nothing is to be concluded.
            ("prefix mismatch: applying \"it is too complex\"", MatcherError::Unknown, false),
            ("prefix mismatch: applying \"united states\"", MatcherError::Unknown, false),
            ("prefix mismatch: applying \"fuel exhausted\"", MatcherError::Unknown, false),
            ("no rule for the states of fuel", MatcherError::Unknown, false),
            // Nor of what it fell over.
            ("panic: too many states: 9 >= 9\n<backtrace>", MatcherError::Lost, false),
        ] {
            let error = MatcherError::of(said);
            assert_eq!((error, error.is_too_much()), (kind, is_too_much), "{said}");
        }
        assert_eq!(STATES.to_string(), "it has too many states: it is too complex");
    }

    #[test]
    fn of_what_fell_over_no_language_is_refused() {
        assert_eq!(GrammarError::from_matcher("the schema", MatcherError::Lost), None);
        assert_eq!(GrammarError::from_compiler("the schema", "panic: fuel: index out of bounds"), None);
        let refused = GrammarError::from_compiler("the schema", "DNF too large, fuel exhausted");
        assert!(matches!(refused, Some(GrammarError::TooMuch(_))), "{refused:?}");
    }
}
