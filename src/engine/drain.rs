//! How fast the queue drains: what a refused caller is told about when to come back.
//!
//! Written by the engine thread, read by whoever submits; one number, no lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A pause longer than this says nothing about a full queue.
const LONGEST_GAP: Duration = Duration::from_secs(60);

/// A moving average of the time between two starts.
#[derive(Debug, Default)]
pub(super) struct DrainRate {
    interval_micros: AtomicU64,
}

impl DrainRate {
    /// A request started this long after the one before it, while others were waiting.
    pub(super) fn record(&self, gap: Duration) {
        let gap = gap.min(LONGEST_GAP).as_micros() as u64;
        let before = self.interval_micros.load(Ordering::Relaxed);
        let after = if before == 0 { gap } else { (before * 7 + gap) / 8 };
        self.interval_micros.store(after.max(1), Ordering::Relaxed);
    }

    /// The time in which half of those who wait will have started: 1 to 60 s.
    pub(super) fn retry_after(&self, waiting: usize) -> Duration {
        let interval = Duration::from_micros(self.interval_micros.load(Ordering::Relaxed));
        let half = u32::try_from(waiting / 2).unwrap_or(u32::MAX);
        interval.saturating_mul(half).clamp(Duration::from_secs(1), LONGEST_GAP)
    }
}

/// Feeds a [`DrainRate`] from a sequence of starts.
#[derive(Debug, Default)]
pub(super) struct Starts {
    last: Option<Instant>,
}

impl Starts {
    /// A request starts; `others_wait` says whether there is a queue behind it.
    pub(super) fn started(&mut self, now: Instant, others_wait: bool, drain: &DrainRate) {
        if let Some(last) = self.last {
            drain.record(now.saturating_duration_since(last));
        }
        self.last = others_wait.then_some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_follows_the_measured_rate() {
        let drain = DrainRate::default();
        assert_eq!(drain.retry_after(100), Duration::from_secs(1), "nothing is known yet");
        let (mut starts, mut now) = (Starts::default(), Instant::now());
        for _ in 0..20 {
            starts.started(now, true, &drain);
            now += Duration::from_millis(500);
        }
        assert_eq!(drain.retry_after(40).as_secs(), 10);
        assert_eq!(drain.retry_after(100_000), LONGEST_GAP);
    }

    #[test]
    fn time_without_a_queue_is_not_counted() {
        let drain = DrainRate::default();
        let (mut starts, now) = (Starts::default(), Instant::now());
        starts.started(now, false, &drain);
        starts.started(now + Duration::from_secs(3_600), true, &drain);
        starts.started(now + Duration::from_secs(3_601), true, &drain);
        assert_eq!(drain.retry_after(20).as_secs(), 10);
    }
}
