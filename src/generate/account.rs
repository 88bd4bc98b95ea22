//! What a request costs, as the engine counts it; outlives the generation, which may be dropped before it is done.
//!
//! Not the `usage` of an answer: that ends with the last token shown. A stop text is found when its tokens have been
//! made, and an answer that is given up has tokens that nobody read; both are in here.

use futures_util::future::join_all;

use crate::engine::Bill;
use crate::generate::{Timings, Usage};

/// What all parts of a request cost. Empty until something is handed to an engine.
#[derive(Debug, Clone, Default)]
pub struct Account(Vec<Bill>);

impl Account {
    pub(super) fn add(&mut self, bill: Bill) {
        self.0.push(bill);
    }

    /// Whether an engine was asked for anything.
    pub fn is_open(&self) -> bool {
        !self.0.is_empty()
    }

    /// The final count: comes within a step of the generation's end or drop.
    pub async fn settled(self) -> Usage {
        let spent = join_all(self.0.into_iter().map(Bill::settled)).await;
        spent.into_iter().fold(Usage::default(), |sum, spent| Usage {
            prompt_tokens: sum.prompt_tokens.saturating_add(spent.prompt_tokens),
            cached_tokens: sum.cached_tokens.saturating_add(spent.cached_tokens),
            completion_tokens: sum.completion_tokens.saturating_add(spent.generated_tokens),
            // The engine does not know what a token is for.
            reasoning_tokens: 0,
            accepted_prediction_tokens: 0,
            rejected_prediction_tokens: 0,
            timings: Timings::default(),
        })
    }
}
