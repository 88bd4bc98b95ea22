//! What one more row costs a step, measured while it runs.
//!
//! A pass reads all weights whatever it is for, and then does something for each row: `time = pass + row × rows`. On a
//! GPU a row is next to nothing and on two CPU cores a quarter of a pass, so whether a guess is worth its row cannot be
//! written down once for all. Steps that only decode are measured and the line is fitted to them, old ones fading.
//! Answers do not depend on it, only their timing does. No clock: the worker hands in the times.

use std::time::Duration;

/// What an old step still counts when the next one is measured: the last fifty or so matter.
const FADING: f64 = 0.98;
/// A row as a share of a pass, as long as nothing is known: little, so that it is tried and measured.
const EXPECTED_ROW: f64 = 1.0 / 16.0;
/// What that expectation weighs, in steps that are one row away from the mean.
const EXPECTED_WEIGHT: f64 = 4.0;
/// A step that took longer than expected by more than this was held up by something else.
const OUTLIER: f64 = 2.0;
/// Steps after which there is an expectation.
const KNOWN_AFTER: f64 = 8.0;
/// No row is cheaper than this share of its step.
const CHEAPEST_ROW: f64 = 1.0 / 1_024.0;

/// Weighted sums over the steps of the past.
#[derive(Debug, Clone, Default)]
pub(super) struct StepCost {
    steps: f64,
    rows: f64,
    seconds: f64,
    rows_rows: f64,
    rows_seconds: f64,
}

impl StepCost {
    /// A step that only decoded ran this many rows in this time.
    pub(super) fn observe(&mut self, rows: usize, took: Duration) {
        let rows = rows as f64;
        let mut seconds = took.as_secs_f64();
        if self.steps >= KNOWN_AFTER {
            let (pass, row) = self.line();
            seconds = seconds.min(OUTLIER * (pass + row * rows));
        }
        self.steps = self.steps * FADING + 1.0;
        self.rows = self.rows * FADING + rows;
        self.seconds = self.seconds * FADING + seconds;
        self.rows_rows = self.rows_rows * FADING + rows * rows;
        self.rows_seconds = self.rows_seconds * FADING + rows * seconds;
    }

    /// What one more row costs, as a share of a step of `rows` rows.
    pub(super) fn of_a_row(&self, rows: usize) -> f64 {
        let (pass, row) = self.line();
        let step = pass + row * rows as f64;
        if step > 0.0 { (row / step).max(CHEAPEST_ROW) } else { CHEAPEST_ROW }
    }

    /// (pass, row), fitted.
    fn line(&self) -> (f64, f64) {
        if self.steps == 0.0 {
            return (1.0, EXPECTED_ROW);
        }
        let (rows, seconds) = (self.rows / self.steps, self.seconds / self.steps);
        let spread = (self.rows_rows - rows * self.rows).max(0.0);
        let rise = self.rows_seconds - rows * self.seconds;
        let expected = seconds * EXPECTED_ROW / (1.0 + EXPECTED_ROW * rows);
        let row = (rise + EXPECTED_WEIGHT * expected) / (spread + EXPECTED_WEIGHT);
        // Rows are counted from 1, so the mean is not 0.
        let row = row.clamp(0.0, seconds / rows);
        (seconds - row * rows, row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After steps of these rows, on a machine where a pass takes 2 ms and a row `row` µs.
    fn measured(row: u64, rows: impl IntoIterator<Item = usize>) -> StepCost {
        let mut cost = StepCost::default();
        for rows in rows {
            cost.observe(rows, Duration::from_micros(2_000 + row * rows as u64));
        }
        cost
    }

    fn near(found: f64, expected: f64) -> bool {
        (found - expected).abs() < 0.1 * expected
    }

    #[test]
    fn it_learns_what_a_row_costs() {
        let varied = || (0..200).map(|step| 1 + step % 9);
        for row in [20, 500, 4_000] {
            let cost = measured(row, varied());
            for rows in [1, 8] {
                let row = row as f64;
                let expected = row / (2_000.0 + row * rows as f64);
                assert!(
                    near(cost.of_a_row(rows), expected),
                    "{row} µs, {rows} rows: {}",
                    cost.of_a_row(rows)
                );
            }
        }
    }

    #[test]
    fn before_anything_is_known_a_row_is_cheap() {
        assert!(near(StepCost::default().of_a_row(1), EXPECTED_ROW / (1.0 + EXPECTED_ROW)));
        let same = measured(900, vec![1; 100]);
        assert!(near(same.of_a_row(1), EXPECTED_ROW / (1.0 + EXPECTED_ROW)), "one row says nothing of two");
    }

    #[test]
    fn a_step_that_was_held_up_says_little() {
        let mut cost = measured(500, (0..200).map(|step| 1 + step % 4));
        let before = cost.of_a_row(1);
        cost.observe(4, Duration::from_secs(10));
        assert!((cost.of_a_row(1) / before - 1.0).abs() < 0.5, "{before} {}", cost.of_a_row(1));
    }

    #[test]
    fn nonsense_leads_to_no_nonsense() {
        let mut cost = StepCost::default();
        for (rows, took) in
            [(1, Duration::ZERO), (9, Duration::ZERO), (64, Duration::from_secs(1)), (1, Duration::MAX)]
        {
            cost.observe(rows, took);
            let share = cost.of_a_row(rows);
            assert!(share.is_finite() && (CHEAPEST_ROW..=1.0).contains(&share), "{share}");
        }
    }
}
