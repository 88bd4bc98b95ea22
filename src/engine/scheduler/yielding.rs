//! What has the lowest priority takes what is left over: it stands still while anybody else waits for a first token, and
//! beside answers that are being written it makes no step much longer.
//!
//! Not who starts and who gives way (`admission.rs`). The one thing to know: who stands still keeps its blocks, and goes on
//! where it was; and nobody stands still for ever, since something is always going on in a busy server.

use std::time::{Duration, Instant};

use crate::engine::scheduler::Scheduler;
use crate::engine::sequence::Sequence;

/// After standing still for so long everybody has a step.
const LONGEST: Duration = Duration::from_secs(5);

/// How much longer, as a share, a step may be for those who write answers.
const PATIENCE: f64 = 0.25;

/// What the lowest priority may do in a step.
#[derive(Debug, Default)]
pub(super) struct Yielding {
    stands_still: bool,
    /// Since when it has had no step; none if it had one.
    since: Option<Instant>,
    /// Sequences of the lowest priority that may decode in this step; none: all.
    left: Option<usize>,
}

impl Yielding {
    /// Whether the lowest priority stands still in this step.
    pub(super) fn goes_on(&self) -> bool {
        self.stands_still
    }

    /// Lets it run after all.
    pub(super) fn stop(&mut self) {
        *self = Self::default();
    }
}

impl Scheduler {
    /// Decides for the step that is about to be planned.
    pub(super) fn look_who_yields(&mut self, now: Instant) {
        let others = |sequence: &&Sequence| self.class_of(sequence) > 0;
        let begins = self.waiting.iter().any(|sequence| others(&sequence))
            || self.running.iter().filter(others).any(Sequence::is_prefilling);
        let writing = self.running.iter().filter(others).count();
        let beside = (PATIENCE / self.step_cost.of_a_row(writing.max(1))) as usize;
        let is_held = begins || (writing > 0 && beside == 0);
        let has_lowest =
            self.running.iter().chain(&self.waiting).any(|sequence| self.class_of(sequence) == 0);
        if !is_held || !has_lowest {
            self.yielding.stop();
            self.yielding.left = (writing > 0).then_some(beside);
            return;
        }
        let since = *self.yielding.since.get_or_insert(now);
        if now.saturating_duration_since(since) >= LONGEST {
            self.yielding.stop();
        } else {
            self.yielding.stands_still = true;
        }
    }

    /// Whether a sequence stands still in this step.
    pub(super) fn yields(&self, sequence: &Sequence) -> bool {
        self.yielding.stands_still && self.class_of(sequence) == 0
    }

    /// Whether a running sequence may decode in this step.
    pub(super) fn has_turn(&mut self, index: usize) -> bool {
        let sequence = &self.running[index];
        if self.class_of(sequence) > 0 {
            return true;
        }
        if self.yielding.stands_still {
            return false;
        }
        match &mut self.yielding.left {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }
}
