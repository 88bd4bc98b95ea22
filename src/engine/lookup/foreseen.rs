//! How much of an answer came as it was foretold, for whoever foretold it.
//!
//! It counts from the answer's tokens alone, and so is the same whether or not guesses were run: what a request costs and
//! is told must not depend on what else the engine did.

use std::sync::Arc;

use crate::engine::lookup::Lookup;

/// Follows one answer.
#[derive(Debug, Clone)]
pub struct Foreseen(Option<Following>);

#[derive(Debug, Clone)]
struct Following {
    prediction: Arc<[u32]>,
    tokens_limit: usize,
    answer: Vec<u32>,
}

impl Foreseen {
    /// Of an answer of at most this many tokens, foretold to be these; where there are none there is nothing to count.
    pub fn new(prediction: Arc<[u32]>, tokens_limit: usize) -> Self {
        let is_foretold = !prediction.is_empty();
        Self(is_foretold.then(|| Following { prediction, tokens_limit, answer: Vec::new() }))
    }

    /// The next token of the answer.
    pub fn take(&mut self, id: u32) {
        if let Some(following) = &mut self.0 {
            following.answer.push(id);
        }
    }

    /// The end of it: how many tokens of the prediction were said, and how many were not.
    pub fn count(&self) -> (u32, u32) {
        let Some(Following { prediction, tokens_limit, answer }) = &self.0 else { return (0, 0) };
        let mut lookup = Lookup::new(*tokens_limit, prediction.clone());
        lookup.follow_all(answer, 0);
        let said = lookup.foretold().min(prediction.len());
        let narrow = |count| u32::try_from(count).unwrap_or(u32::MAX);
        (narrow(said), narrow(prediction.len() - said))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(prediction: &[u32], answer: &[u32]) -> (u32, u32) {
        let mut foreseen = Foreseen::new(prediction.into(), 64);
        answer.iter().for_each(|&id| foreseen.take(id));
        foreseen.count()
    }

    #[test]
    fn what_was_foretold_counts_where_it_is_said() {
        let text: Vec<u32> = (1..=20).collect();
        assert_eq!(count(&text, &text), (20, 0));
        assert_eq!(count(&text, &text[..5]), (5, 15), "an answer that breaks off");
        assert_eq!(count(&text, &[]), (0, 20));
        assert_eq!(count(&text, &(30..60).collect::<Vec<_>>()), (0, 20), "something else");
        assert_eq!(count(&[], &text), (0, 0));
        let changed = [&text[..8], &[90, 91], &text[10..]].concat();
        // Two are others, and two more until it is seen where the text goes on.
        assert_eq!(count(&text, &changed), (16, 4));
        let twice = [&text[..], &text[..]].concat();
        assert_eq!(count(&text, &twice), (20, 0), "no token of the prediction counts twice");
    }
}
