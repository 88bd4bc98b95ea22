//! How much a client may say: so many frames at once, and so many a second. For what costs us little each, and much in
//! numbers: pings, cancels, messages that mean nothing. A turn that came to its end is none of these, and takes nothing.

use std::time::Duration;

use tokio::time::Instant;

/// Frames at once.
const MOST: u32 = 200;

/// Time after which there is one more.
const EACH: Duration = Duration::from_millis(50);

/// What is left of it.
pub struct Allowance {
    left: u32,
    since: Instant,
}

impl Allowance {
    /// All of it.
    pub fn full(now: Instant) -> Self {
        Self { left: MOST, since: now }
    }

    /// Takes one; false if there is none left.
    pub fn take(&mut self, now: Instant) -> bool {
        let more = now.saturating_duration_since(self.since).as_millis() / EACH.as_millis();
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        if more > 0 {
            self.left = self.left.saturating_add(more).min(MOST);
            // Not now: what is left of the time counts.
            self.since += EACH * more;
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    /// Gives one back: what was said was to the purpose.
    pub fn give_back(&mut self) {
        self.left = (self.left + 1).min(MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_ends_it_and_time_gives_it_back() {
        let start = Instant::now();
        let mut allowance = Allowance::full(start);
        assert!((0..MOST).all(|_| allowance.take(start)));
        assert!(!allowance.take(start) && !allowance.take(start + EACH / 2));
        assert!(allowance.take(start + EACH) && !allowance.take(start + EACH));
        // However long nothing was said: no more than at the beginning.
        let later = start + EACH * (10 * MOST);
        assert!((0..MOST).all(|_| allowance.take(later)));
        assert!(!allowance.take(later));
        // Who says little all the time never runs out.
        assert!((1..5 * MOST).all(|number| allowance.take(later + EACH * number)));
        // Parts of a time add up.
        let mut allowance = Allowance::full(start);
        assert!((0..MOST).all(|_| allowance.take(start)));
        assert!(allowance.take(start + EACH * 3 / 2) && allowance.take(start + EACH * 2));
        assert!(!allowance.take(start + EACH * 2));
    }

    #[test]
    fn what_was_to_the_purpose_takes_nothing() {
        let start = Instant::now();
        let mut allowance = Allowance::full(start);
        for _ in 0..2 * MOST {
            assert!(allowance.take(start));
            allowance.give_back();
        }
        assert!((0..MOST).all(|_| allowance.take(start)) && !allowance.take(start), "and gives nothing");
    }
}
