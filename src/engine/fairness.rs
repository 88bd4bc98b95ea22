//! Whose turn it is: one counter of service per tenant, divided by its weight; the smallest goes first.
//!
//! It orders tenants only; priority classes and the order within a tenant are the scheduler's. Source: Sheng et al.,
//! "Fairness in Serving Large Language Models", OSDI 2024, <https://arxiv.org/abs/2401.00588>, algorithm 2 (the
//! virtual token counter): a tenant that comes back is lifted to the least served of those who wait, so that being
//! away earns no credit.

use std::collections::HashMap;

/// What a prompt token counts.
pub(super) const PROMPT_TOKEN: f64 = 1.0;
/// What a generated token counts: it needs a step of its own.
pub(super) const GENERATED_TOKEN: f64 = 2.0;
/// Tenants remembered while they ask for nothing.
const MAX_REMEMBERED: usize = 4_096;

#[derive(Debug, Default)]
struct Share {
    served: f64,
    /// Requests not yet started.
    waiting: usize,
    /// Requests started and not ended.
    started: usize,
}

/// The counters of all tenants that are here or were lately.
#[derive(Debug, Default)]
pub(super) struct Fairness {
    tenants: HashMap<u64, Share>,
    /// Counter of the tenant that was chosen last: where one starts when nobody waits.
    last_chosen: f64,
}

impl Fairness {
    /// A request begins to wait.
    pub(super) fn enter(&mut self, tenant: u64) {
        let returns = self.tenants.get(&tenant).is_none_or(|share| share.waiting == 0);
        if returns {
            let queued = self.tenants.values().filter(|share| share.waiting > 0);
            let least = queued.map(|share| share.served).min_by(f64::total_cmp).unwrap_or(self.last_chosen);
            let share = self.tenants.entry(tenant).or_default();
            share.served = share.served.max(least);
        }
        self.tenants.entry(tenant).or_default().waiting += 1;
        self.forget_idle();
    }

    /// A waiting request starts, with this many prompt tokens to run.
    pub(super) fn start(&mut self, tenant: u64, weight: u32, prompt_tokens: usize) {
        if let Some(share) = self.tenants.get_mut(&tenant) {
            self.last_chosen = share.served;
            share.waiting = share.waiting.saturating_sub(1);
            share.started += 1;
        }
        self.charge(tenant, weight, PROMPT_TOKEN * prompt_tokens as f64);
    }

    /// A request ends, started or not.
    pub(super) fn leave(&mut self, tenant: u64, started: bool) {
        if let Some(share) = self.tenants.get_mut(&tenant) {
            let count = if started { &mut share.started } else { &mut share.waiting };
            *count = count.saturating_sub(1);
        }
        // With nobody here there is nothing to be fair about.
        if self.tenants.values().all(|share| share.waiting + share.started == 0) {
            self.tenants.clear();
            self.last_chosen = 0.0;
        }
    }

    /// Counts service.
    pub(super) fn charge(&mut self, tenant: u64, weight: u32, amount: f64) {
        if let Some(share) = self.tenants.get_mut(&tenant) {
            share.served += amount / f64::from(weight.max(1));
        }
    }

    /// The service a tenant has had, by weight.
    pub(super) fn served(&self, tenant: u64) -> f64 {
        self.tenants.get(&tenant).map_or(0.0, |share| share.served)
    }

    fn forget_idle(&mut self) {
        if self.tenants.len() > MAX_REMEMBERED {
            self.tenants.retain(|_, share| share.waiting + share.started > 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Serves 1,000 equal requests of tenants that always have one waiting; counts the turns of each.
    fn turns(weights: &[u32]) -> Vec<usize> {
        let mut fairness = Fairness::default();
        let mut turns = vec![0; weights.len()];
        (0..weights.len()).for_each(|tenant| fairness.enter(tenant as u64));
        for _ in 0..1_000 {
            let next = (0..weights.len())
                .min_by(|&a, &b| fairness.served(a as u64).total_cmp(&fairness.served(b as u64)))
                .unwrap();
            turns[next] += 1;
            fairness.enter(next as u64);
            fairness.start(next as u64, weights[next], 10);
        }
        turns
    }

    #[test]
    fn turns_follow_the_weights() {
        assert_eq!(turns(&[1, 1]), [500, 500]);
        let turns = turns(&[1, 3]);
        assert!(turns[1].abs_diff(750) <= 2, "{turns:?}");
    }

    #[test]
    fn being_away_earns_no_credit() {
        let mut fairness = Fairness::default();
        fairness.enter(1);
        fairness.enter(1);
        fairness.start(1, 1, 1_000);
        fairness.enter(2);
        assert_eq!(fairness.served(2), 1_000.0, "the newcomer starts where the least served one stands");
        fairness.start(2, 1, 10);
        fairness.leave(2, true);
        fairness.enter(2);
        assert_eq!(fairness.served(2), 1_010.0, "who comes back keeps what was used");
    }

    #[test]
    fn absent_tenants_are_forgotten() {
        let mut fairness = Fairness::default();
        fairness.enter(u64::MAX);
        for tenant in 0..3 * MAX_REMEMBERED as u64 {
            fairness.enter(tenant);
            fairness.leave(tenant, false);
        }
        assert!(fairness.tenants.len() <= MAX_REMEMBERED + 1);
        fairness.leave(u64::MAX, false);
        assert!(fairness.tenants.is_empty());
    }
}
