//! What a request has cost so far. The engine thread counts; whoever pays reads, also after the request was given up.
//!
//! The one thing to know: the count is final once the engine has let go of the request, which is when its [`Tab`] is
//! dropped. A request that is given up costs what the step that was running still made of it.

use tokio::sync::watch;

/// Tokens that were worked on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// Of the prompt: all of it once its first part is run, none before that. (Of an encoder's inputs: those run.)
    pub prompt_tokens: u32,
    /// Of the prompt, found in the prefix cache.
    pub cached_tokens: u32,
    /// Of all answers, stop tokens included, read by somebody or not.
    pub generated_tokens: u32,
}

/// The engine's end.
pub(super) struct Tab(watch::Sender<Spent>);

impl Tab {
    /// Nothing spent yet.
    pub(super) fn open() -> (Self, Bill) {
        let (sender, receiver) = watch::channel(Spent::default());
        (Self(sender), Bill(receiver))
    }

    /// Adds tokens of a prompt.
    pub(super) fn prompt(&self, tokens: usize, cached: usize) {
        self.count(|spent| {
            spent.prompt_tokens = spent.prompt_tokens.saturating_add(clipped(tokens));
            spent.cached_tokens = spent.cached_tokens.saturating_add(clipped(cached));
        });
    }

    /// Adds one token to the answers.
    pub(super) fn generated(&self) {
        self.count(|spent| spent.generated_tokens = spent.generated_tokens.saturating_add(1));
    }

    /// Wakes nobody: readers wait for the end alone.
    fn count(&self, add: impl FnOnce(&mut Spent)) {
        self.0.send_if_modified(|spent| {
            add(spent);
            false
        });
    }
}

fn clipped(tokens: usize) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
}

/// The payer's end. Clones read the same tab.
#[derive(Debug, Clone)]
pub struct Bill(watch::Receiver<Spent>);

impl Bill {
    /// Up to now.
    pub fn so_far(&self) -> Spent {
        *self.0.borrow()
    }

    /// In the end. Comes within one step of the request's end or of its being given up.
    pub async fn settled(mut self) -> Spent {
        while self.0.changed().await.is_ok() {}
        *self.0.borrow()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_bill_is_settled_when_the_tab_is_closed() {
        let (tab, bill) = Tab::open();
        tab.prompt(7, 4);
        let settling = tokio::spawn(bill.clone().settled());
        tab.generated();
        assert_eq!(bill.so_far().generated_tokens, 1);
        tab.generated();
        drop(tab);
        let spent = Spent { prompt_tokens: 7, cached_tokens: 4, generated_tokens: 2 };
        assert_eq!(settling.await.expect("it does not panic"), spent);
    }
}
