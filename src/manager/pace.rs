//! How long a download will take at the pace of its last seconds. Says nothing where that would be a guess.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The pace is that of this last while.
const WINDOW: Duration = Duration::from_secs(10);
/// A pace measured over less than this is chance.
const LEAST: Duration = Duration::from_secs(2);
/// Looks that are closer to each other than this are one.
const STEP: Duration = Duration::from_millis(200);

/// What came when.
#[derive(Debug, Default)]
pub(super) struct Pace {
    looks: VecDeque<(Instant, u64)>,
}

impl Pace {
    /// So many bytes are here now.
    pub(super) fn look(&mut self, now: Instant, bytes: u64) {
        // It began anew: what was measured is of another transfer.
        if self.looks.back().is_some_and(|(_, before)| bytes < *before) {
            self.looks.clear();
        }
        while self.looks.front().is_some_and(|(at, _)| now.duration_since(*at) > WINDOW) {
            self.looks.pop_front();
        }
        // The newest look moves on until it is far enough from the one before it.
        let mut latest = self.looks.iter().rev().map(|(at, _)| *at);
        if let (Some(last), Some(before)) = (latest.next(), latest.next())
            && last.duration_since(before) < STEP
        {
            self.looks.pop_back();
        }
        self.looks.push_back((now, bytes));
    }

    /// So many bytes were here already: they say nothing of the pace.
    pub(super) fn skip(&mut self, bytes: u64) {
        for (_, seen) in &mut self.looks {
            *seen = seen.saturating_add(bytes);
        }
    }

    /// Seconds until `bytes` more are here; none before the pace is known, or while nothing comes.
    pub(super) fn seconds_for(&self, bytes: u64) -> Option<u64> {
        let (first, last) = (self.looks.front()?, self.looks.back()?);
        let time = last.0.duration_since(first.0);
        let gained = last.1.checked_sub(first.1).filter(|gained| *gained > 0)?;
        if time < LEAST {
            return None;
        }
        let milliseconds = u128::from(bytes).checked_mul(time.as_millis())? / u128::from(gained);
        u64::try_from(milliseconds.div_ceil(1000)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_pace_tells_how_long_it_will_take() {
        let start = Instant::now();
        let mut pace = Pace::default();
        for tenth in 0..=40 {
            let now = start + Duration::from_millis(100 * tenth);
            pace.look(now, tenth * 1000);
            let known = pace.seconds_for(50_000);
            assert_eq!(known.is_some(), tenth >= 20, "at {tenth}: {known:?}");
            assert!(known.is_none_or(|seconds| seconds == 5), "at {tenth}: {known:?}");
        }
        assert!(pace.looks.len() < 30, "few looks are kept");
    }

    #[test]
    fn what_was_here_before_and_what_stands_still_is_no_pace() {
        let start = Instant::now();
        let second = |number| start + Duration::from_secs(number);
        let mut pace = Pace::default();
        pace.look(second(0), 0);
        pace.look(second(3), 3000);
        pace.skip(1_000_000);
        pace.look(second(4), 1_004_000);
        assert_eq!(pace.seconds_for(1000), Some(1));
        for late in 5..30 {
            pace.look(second(late), 1_004_000);
        }
        assert_eq!(pace.seconds_for(1000), None, "nothing comes any more");
        pace.look(second(31), 10);
        assert_eq!(pace.seconds_for(1000), None, "it began anew");
    }
}
