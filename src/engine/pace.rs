//! How many prompt tokens a step may run beside streams that are decoding.
//!
//! A fixed number would be a short pause for a small model and a long one for a large model or a slow machine; so it is
//! what was measured to fit into [`GAP`]. Answers do not depend on it, only their timing does.

use std::time::Duration;

/// What a running stream may wait for its next token because of somebody's prompt.
const GAP: Duration = Duration::from_millis(150);

/// Fewer tokens than this would read all weights for next to nothing.
const LEAST: usize = 16;

/// The present number, and how it learns.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    most: usize,
    chunk: usize,
}

impl Pace {
    /// Starts with `most`, and never goes above it.
    pub(super) fn new(most: usize) -> Self {
        Self { most: most.max(1), chunk: most.max(1) }
    }

    /// Prompt tokens that the next step may run beside decoding sequences.
    pub(super) fn chunk(&self) -> usize {
        self.chunk
    }

    /// A step that ran `prefill_tokens` beside decoding sequences took this long.
    pub(super) fn observe(&mut self, prefill_tokens: usize, took: Duration) {
        if prefill_tokens == 0 {
            return;
        }
        // Part of the time is the decoding rows' own; to blame it all on the prompt errs on the short side.
        let fits = GAP.as_secs_f64() / took.as_secs_f64().max(1e-6) * prefill_tokens as f64;
        let fits = if fits >= self.most as f64 { self.most } else { fits as usize };
        // Down at once, up by an eighth: one quick step (a shallow prompt) says little about the next.
        let grown = self.chunk + self.chunk.div_ceil(8);
        self.chunk = fits.min(grown).clamp(LEAST.min(self.most), self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps of a machine that takes this long for each prompt token.
    fn settle(pace: &mut Pace, per_token: Duration) -> usize {
        for _ in 0..64 {
            let chunk = pace.chunk();
            pace.observe(chunk, per_token * chunk as u32);
        }
        pace.chunk()
    }

    #[test]
    fn a_quick_machine_runs_whole_chunks_and_a_slow_one_what_fits() {
        let mut pace = Pace::new(64);
        assert_eq!(settle(&mut pace, Duration::from_millis(1)), 64);
        assert_eq!(settle(&mut pace, Duration::from_millis(5)), 30);
        assert_eq!(settle(&mut pace, Duration::from_secs(1)), LEAST, "but always goes on");
        assert_eq!(settle(&mut pace, Duration::ZERO), 64, "and recovers");
    }

    #[test]
    fn steps_without_prompt_tokens_say_nothing() {
        let mut pace = Pace::new(64);
        pace.observe(0, Duration::from_secs(9));
        assert_eq!(pace.chunk(), 64);
    }

    #[test]
    fn it_stays_below_what_was_set() {
        assert_eq!(settle(&mut Pace::new(4), Duration::ZERO), 4);
        assert_eq!(settle(&mut Pace::new(0), Duration::from_secs(1)), 1);
    }
}
