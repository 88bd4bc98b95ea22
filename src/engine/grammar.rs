//! What a grammar has to say in a sequence: which tokens may come next, which must, and when the answer is whole.
//!
//! A [`Guide`] goes with its sequence. While a pass runs nobody needs it, so it is lent to a thread that works out what
//! may come after each token of the step ([`MaskThread`](crate::engine::masks::MaskThread)). One that is not back when
//! the pass is through misses the step, and its sequence says nothing in it; nobody waits for it but that sequence. The one
//! thing to know: tokens that must come are taken together with the one before them, and depend on the answer alone; so an
//! answer is the same whatever else runs and however many tokens a step brings.

use std::collections::VecDeque;
use std::sync::Arc;

use sconce_models::grammar::{Allowed, Matcher, MatcherError};

/// A grammar in an answer.
#[derive(Debug, Clone)]
pub struct Guide {
    /// Where the answer stands in it; none: at the beginning, of which there is no copy yet.
    matcher: Option<Matcher>,
    /// As it was at the beginning, for where a guess has led it astray; shared by all answers that are held to it.
    beginning: Arc<Matcher>,
    /// Copies of this guide for other answers of its request, made ahead.
    copies: Vec<Guide>,
    /// What it has taken since.
    taken: Vec<u32>,
    /// Whether guesses are walked: not any more once one has led astray.
    walks: bool,
    /// The grammar begins after these tokens of the answer; none: it has begun.
    after: Option<Vec<u32>>,
    /// What may come next, then what may come after each guess of the step, as far as it was worked out.
    ready: VecDeque<Allowed>,
    /// Tokens that the grammar has taken already and the sequence has not.
    forced: VecDeque<u32>,
    /// The thread that was to work it out fell over.
    is_broken: bool,
}

/// What may come next.
#[derive(Debug, Clone, Copy)]
pub enum Next<'a> {
    /// Anything.
    Any,
    /// One token, whatever the model thinks.
    Only(u32),
    /// These tokens.
    Among(&'a Allowed),
    /// Nothing: the answer is whole.
    End,
}

impl Guide {
    /// A grammar that the whole answer belongs to; the matcher is at its beginning.
    pub fn new(beginning: Arc<Matcher>) -> Self {
        Self {
            matcher: None,
            beginning,
            copies: Vec::new(),
            taken: Vec::new(),
            walks: true,
            after: None,
            ready: VecDeque::new(),
            forced: VecDeque::new(),
            is_broken: false,
        }
    }

    /// A grammar that what comes after the first of these tokens' occurrences belongs to; before that anything may be
    /// said, also an end. Without tokens it begins at once.
    pub fn after(beginning: Arc<Matcher>, tokens: Vec<u32>) -> Self {
        Self { after: Some(tokens).filter(|tokens| !tokens.is_empty()), ..Self::new(beginning) }
    }

    /// The guide of another answer, which begins where this one is: one of those made ahead, if there is any.
    pub(super) fn fork(&mut self) -> Self {
        self.copies.pop().unwrap_or_else(|| self.clone())
    }

    /// Makes so many copies ahead.
    pub(super) fn copy_ahead(&mut self, copies: usize) {
        if self.copies.len() < copies {
            self.copies.clear();
            self.copies = (0..copies).map(|_| self.clone()).collect();
        }
    }

    /// What may come next. `stops` are the tokens that end the answer, which they may only where it is whole, and not
    /// where it is `too_short`.
    ///
    /// # Errors
    /// [`MatcherError`] if the grammar became too complex.
    pub(super) fn next(&mut self, stops: &[u32], too_short: bool) -> Result<Next<'_>, MatcherError> {
        if self.after.is_some() {
            return Ok(Next::Any);
        }
        if let Some(&id) = self.forced.front() {
            return Ok(Next::Only(id));
        }
        if self.is_broken {
            return Err(MatcherError::Lost);
        }
        let matcher = standing(&mut self.matcher, &self.beginning);
        if matcher.is_complete() {
            return Ok(Next::End);
        }
        if self.ready.is_empty() {
            self.ready.push_back(matcher.allowed()?);
        }
        let Some(allowed) = self.ready.front_mut() else { return Ok(Next::End) };
        if allowed.may_end && !too_short {
            stops.iter().for_each(|&id| allowed.insert(id));
        } else {
            without(allowed, stops);
        }
        match (allowed.is_empty(), allowed.may_end) {
            (false, _) => Ok(Next::Among(allowed)),
            // It is whole and may end, but there is no token to say so with, or it is too short.
            (true, true) => Ok(Next::End),
            (true, false) => Err(MatcherError::DeadEnd),
        }
    }

    /// Takes the token that was said; `tokens` is the answer with it. Gives the tokens that must follow and are to be
    /// taken now; with `one_by_one` they come as [`Next::Only`] instead.
    ///
    /// # Errors
    /// As [`Guide::next`].
    pub(super) fn take(&mut self, tokens: &[u32], one_by_one: bool) -> Result<Vec<u32>, MatcherError> {
        self.ready.pop_front();
        let matcher = standing(&mut self.matcher, &self.beginning);
        if let Some(after) = &self.after {
            if !tokens.ends_with(after) {
                return Ok(Vec::new());
            }
            self.after = None;
        } else if self.forced.pop_front().is_some() {
            return Ok(Vec::new());
        } else if let Some(&id) = tokens.last() {
            matcher.consume(id)?;
            self.taken.push(id);
        }
        let forced = matcher.consume_forced()?;
        self.taken.extend(&forced);
        if !forced.is_empty() {
            self.ready.clear();
        }
        if one_by_one {
            self.forced.extend(forced);
            return Ok(Vec::new());
        }
        Ok(forced)
    }

    /// Whether it has not begun.
    pub(super) fn is_waiting(&self) -> bool {
        self.after.is_some()
    }

    /// Whether nothing can follow.
    pub(super) fn is_complete(&self) -> bool {
        let matcher = self.matcher.as_ref().unwrap_or(&self.beginning);
        self.after.is_none() && self.forced.is_empty() && matcher.is_complete()
    }

    /// Whether what may come next is known, or takes no work.
    pub(super) fn is_ready(&self) -> bool {
        let Some(matcher) = &self.matcher else { return self.is_broken };
        self.after.is_some()
            || !self.forced.is_empty()
            || self.is_broken
            || !self.ready.is_empty()
            || matcher.is_complete()
    }

    /// Works out what may come next, and after each of these guesses as long as they may come at all.
    pub(super) fn prepare(&mut self, guesses: &[u32]) -> Result<(), MatcherError> {
        if self.is_ready() {
            return Ok(());
        }
        let matcher = standing(&mut self.matcher, &self.beginning);
        if self.after.is_some() || matcher.is_complete() {
            return Ok(());
        }
        self.ready.push_back(matcher.allowed()?);
        if self.walks && self.walk(guesses).is_err() {
            // Not every grammar can be taken back in, and a guess that the model would never say may be too much for it.
            // Guesses may not change an answer: it is as if there had been none.
            self.walks = false;
            self.ready.truncate(1);
            self.matcher = None;
            let matcher = standing(&mut self.matcher, &self.beginning);
            for &id in &self.taken {
                matcher.consume(id)?;
            }
        }
        Ok(())
    }

    /// The matcher goes ahead and comes back: a copy of it would copy all that its lexer has found out.
    fn walk(&mut self, guesses: &[u32]) -> Result<(), MatcherError> {
        let matcher = standing(&mut self.matcher, &self.beginning);
        let mut steps = 0;
        for &guess in guesses {
            if !self.ready.back().is_some_and(|allowed| allowed.contains(guess)) {
                break;
            }
            matcher.consume(guess)?;
            steps += 1;
            if matcher.is_complete() {
                break;
            }
            self.ready.push_back(matcher.allowed()?);
        }
        matcher.take_back(steps)
    }

    /// The thread that works for it fell over.
    pub(super) fn break_it(&mut self) {
        self.is_broken = true;
    }

    /// Forgets what was worked out for guesses.
    pub(super) fn forget(&mut self) {
        self.ready.clear();
    }

    /// Forgets what was worked out for guesses of a step that it missed; what may come next still holds.
    pub(super) fn keep_next(&mut self) {
        self.ready.truncate(1);
    }
}

/// Where an answer stands: at the beginning, at first, for which it gets a copy of its own.
fn standing<'a>(matcher: &'a mut Option<Matcher>, beginning: &Matcher) -> &'a mut Matcher {
    matcher.get_or_insert_with(|| beginning.clone())
}

/// Takes stop tokens out that the grammar has as text, unless there is nothing else to say.
fn without(allowed: &mut Allowed, stops: &[u32]) {
    let had: Vec<u32> = stops.iter().copied().filter(|&id| allowed.contains(id)).collect();
    had.iter().for_each(|&id| allowed.remove(id));
    if allowed.is_empty() {
        had.iter().for_each(|&id| allowed.insert(id));
    }
}

#[cfg(test)]
mod tests {
    use sconce_models::Tokenizer;
    use sconce_models::grammar::{Grammars, Language};

    use super::*;

    const VOCABULARY: u32 = 512;

    /// Ten tokens, each the first that may come; before each, guesses of the same kind were walked if there are to be any.
    fn said(guide: &mut Guide, guesses: usize) -> Vec<u32> {
        let mut tokens = Vec::new();
        while tokens.len() < 10 {
            let next = match guide.next(&[], false).expect("it can be followed") {
                Next::Among(allowed) => (0..VOCABULARY).find(|&id| allowed.contains(id)).expect("a token"),
                Next::Only(id) => id,
                Next::Any | Next::End => break,
            };
            tokens.push(next);
            guide.take(&tokens, true).expect("it is allowed");
            guide.prepare(&vec![next; guesses]).expect("it can go on");
        }
        tokens
    }

    fn grammars() -> Grammars {
        let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tests/golden");
        let tokenizer = Tokenizer::from_file(&golden.join("llama/tokenizer.json"), VOCABULARY as usize)
            .expect("it is sound");
        Grammars::new(tokenizer, vec![2])
    }

    #[test]
    fn guesses_lead_no_grammar_astray() {
        let grammars = grammars();
        // In a text of so many tokens nothing can be taken back.
        let cannot_go_back = "start: text /[0-9]{20}/\ntext[max_tokens=3]: /[a-z]*/";
        for grammar in ["start: /[a-z]{40}/", cannot_go_back] {
            let language = Language::Lark(grammar.to_owned());
            let guide = || Guide::new(grammars.compile(&language, None).expect("it is sound"));
            let alone = said(&mut guide(), 0);
            assert!(!alone.is_empty());
            let mut guided = guide();
            assert_eq!(said(&mut guided, 3), alone, "{grammar}");
            assert_eq!(guided.walks, grammar != cannot_go_back);
        }
    }

    /// A copy takes time, which the thread that prepares has and the one that hands out answers has not.
    #[test]
    fn what_is_compiled_is_shared_until_it_is_prepared_for_an_answer_and_its_siblings() {
        let grammars = grammars();
        let language = Language::Regex("[a-z]{40}".to_owned());
        let compile = || grammars.compile(&language, None).expect("it is sound");
        assert!(Arc::ptr_eq(&compile(), &compile()));
        let mut guide = Guide::after(compile(), vec![7]);
        assert!(guide.matcher.is_none() && !guide.is_ready());
        guide.prepare(&[]).expect("it can be followed");
        assert!(guide.is_ready() && guide.is_waiting());

        let mut guide = Guide::new(compile());
        guide.prepare(&[]).expect("it can be followed");
        guide.copy_ahead(2);
        let mut others: Vec<Guide> = (0..3).map(|_| guide.fork()).collect();
        assert!(guide.copies.is_empty());
        let text = said(&mut guide, 0);
        assert!(others.iter_mut().all(|other| other.is_ready() && said(other, 0) == text));
    }
}
