//! Who starts next, and who makes room for it.
//!
//! Order: priority class (a class that has been passed over too long goes first, once), then the tenant least served,
//! then what was preempted, then arrival. Nobody overtakes a request that is next but finds no room, except those that
//! wait for a prefix which a running sequence is about to complete: they are passed over meanwhile.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use sconce_models::KvCache;

use crate::engine::blocks::BlockId;
use crate::engine::scheduler::Scheduler;
use crate::engine::scheduler::plan::Budget;
use crate::engine::sequence::{Phase, Rank, Sequence, TenantCounts};

/// A class with requests in line that starts none for this long has its turn, whatever waits above it: low to high. What
/// runs only when nobody else waits is not forgotten, and no more than that.
const CLASS_PATIENCE: [Duration; 3] =
    [Duration::from_secs(60), Duration::from_secs(5), Duration::from_secs(5)];
/// Most requests that are looked at per step only to find that their prefix is still being made.
const MAX_PASSED_OVER: usize = 16;

/// What a waiting sequence would find and need.
struct Fit {
    /// Named blocks it can use.
    found: Vec<BlockId>,
    /// Blocks it needs beyond those.
    new_blocks: usize,
    /// Of `found`, those that count as available now and would no longer.
    idle: usize,
}

impl Scheduler {
    /// Starts waiting sequences while the step has room for prompt tokens.
    pub(super) fn admit_waiting(&mut self, left: &mut Budget, now: Instant) {
        let mut passed_over: Vec<usize> = Vec::new();
        while left.tokens > 0 && passed_over.len() < MAX_PASSED_OVER {
            let Some(index) = self.next_in_line(&passed_over, now) else { return };
            if self.prefix_is_being_made(&self.waiting[index]) {
                passed_over.push(index);
                continue;
            }
            let fit = self.fit(&self.waiting[index]);
            if !self.has_room(&fit, 0, 0) && !self.make_room(index, &fit) {
                return;
            }
            // `make_room` only appends to `waiting`; what it released is idle now, so the fit is looked up anew.
            let fit = self.fit(&self.waiting[index]);
            let rank = self.start(index, fit, passed_over.len(), now);
            // The last of `waiting` has taken the place of what started.
            let moved = self.waiting.len();
            passed_over.iter_mut().filter(|other| **other == moved).for_each(|other| *other = index);
            let position = self.running.partition_point(|other| other.rank < rank);
            self.schedule_chunk(position, left.tokens, left);
        }
    }

    /// Index in `waiting` of the sequence whose turn it is.
    fn next_in_line(&self, passed_over: &[usize], now: Instant) -> Option<usize> {
        let may = |index: &usize| !passed_over.contains(index) && !self.yields(&self.waiting[*index]);
        let candidates = || (0..self.waiting.len()).filter(may);
        let class = |index: usize| self.class_of(&self.waiting[index]);
        let mut present = [false; 3];
        candidates().for_each(|index| present[class(index)] = true);
        let unserved = |class: usize| {
            self.class_served[class].map_or(Duration::ZERO, |last| now.saturating_duration_since(last))
        };
        let overdue = (0..3).filter(|&class| present[class] && unserved(class) >= CLASS_PATIENCE[class]);
        let highest = (0..3).rfind(|&class| present[class])?;
        let turn = overdue.max_by_key(|&class| unserved(class)).unwrap_or(highest);
        candidates().filter(|&index| class(index) == turn).min_by(|&a, &b| {
            let (a, b) = (&self.waiting[a], &self.waiting[b]);
            let (group_a, group_b) = (self.groups.get(a.group), self.groups.get(b.group));
            let served = |tenant| self.fairness.served(tenant);
            served(group_a.request.tenant)
                .total_cmp(&served(group_b.request.tenant))
                .then(group_b.started.cmp(&group_a.started))
                .then(a.rank.cmp(&b.rank))
        })
    }

    /// Blocks of its tokens that may be found in the cache: at least the last token is always run.
    fn findable(&self, sequence: &Sequence) -> usize {
        if self.groups.get(sequence.group).needs_whole_prompt() {
            return 0;
        }
        sequence.names.len().min((sequence.tokens.len() - 1) / KvCache::BLOCK_SIZE)
    }

    /// Whether a running sequence is computing the very block this one would have to compute next.
    fn prefix_is_being_made(&self, sequence: &Sequence) -> bool {
        let names = &sequence.names[..self.findable(sequence)];
        let missing = names.iter().find(|&&name| self.blocks.find(name).is_none());
        missing.is_some_and(|&name| self.blocks.is_expected(name))
    }

    fn fit(&self, sequence: &Sequence) -> Fit {
        let names = &sequence.names[..self.findable(sequence)];
        let found: Vec<BlockId> = names.iter().map_while(|&name| self.blocks.find(name)).collect();
        let idle = found.iter().filter(|&&block| self.blocks.is_idle(block)).count();
        Fit { new_blocks: sequence.blocks_needed() - found.len(), idle, found }
    }

    /// Whether a sequence can start once `slots` sequences with `blocks` blocks have given way. A few blocks are kept
    /// for those that run, so that a start is not followed by a preemption.
    fn has_room(&self, fit: &Fit, slots: usize, blocks: usize) -> bool {
        let staying = self.running.len() - slots;
        let reserve = staying.min(self.blocks.total() / 8);
        staying < self.limits.max_running
            && fit.new_blocks + fit.idle + reserve <= self.blocks.available() + blocks
    }

    /// Preempts sequences that must give way to this one, the last in rank first: those of a lower priority that stand
    /// behind it, and those of a tenant that would still have more of the engine (by weight) than this one's tenant.
    /// Preempts nobody unless it helps.
    fn make_room(&mut self, index: usize, fit: &Fit) -> bool {
        let candidate = &self.waiting[index];
        let (rank, class) = (candidate.rank, self.class_of(candidate));
        let request = &self.groups.get(candidate.group).request;
        let (tenant, weight) = (request.tenant, request.weight.max(1));
        let mut counts = self.tenant_counts();
        let needed: HashSet<BlockId> = fit.found.iter().copied().collect();
        let own = counts.get(&tenant).map_or(0, |count| count.0) as f64 + 1.0;
        let (mut victims, mut blocks) = (Vec::new(), 0);
        for (index, victim) in self.running.iter().enumerate().rev() {
            let victim_class = self.class_of(victim);
            let victim_tenant = self.groups.get(victim.group).request.tenant;
            let Some((count, victim_weight)) = counts.get_mut(&victim_tenant) else { continue };
            let keeps = (*count as f64 - 1.0) / f64::from(*victim_weight);
            let has_more = victim_tenant != tenant && keeps >= own / f64::from(weight);
            let outranked = victim_class < class && rank < victim.rank;
            let outweighed = victim_class <= class && has_more;
            if !outranked && !outweighed {
                continue;
            }
            *count -= 1;
            // What the candidate uses itself is not won by taking it from the victim.
            let won = |block: &BlockId| self.blocks.references(*block) == 1 && !needed.contains(block);
            blocks += victim.table.iter().filter(|block| won(block)).count();
            victims.push(index);
            if self.has_room(fit, victims.len(), blocks) {
                victims.into_iter().for_each(|victim| self.preempt(victim));
                return true;
            }
        }
        false
    }

    fn tenant_counts(&self) -> TenantCounts {
        let mut counts = TenantCounts::new();
        for sequence in &self.running {
            let request = &self.groups.get(sequence.group).request;
            counts.entry(request.tenant).or_insert((0, request.weight.max(1))).0 += 1;
        }
        counts
    }

    /// Moves a waiting sequence among the running, with its blocks.
    fn start(&mut self, index: usize, fit: Fit, passed_over: usize, now: Instant) -> Rank {
        let mut sequence = self.waiting.swap_remove(index);
        let found = fit.found.len();
        fit.found.iter().for_each(|&block| self.blocks.retain(block));
        sequence.table = fit.found;
        for _ in 0..fit.new_blocks {
            sequence.table.push(self.blocks.allocate().expect("room was checked before"));
        }
        sequence.phase = Phase::Prefilling { done: found * KvCache::BLOCK_SIZE };
        sequence.named = found;
        sequence.expected = sequence.names.len().max(found);
        for &name in sequence.names.iter().take(sequence.expected).skip(found) {
            self.blocks.expect(name);
        }
        self.class_served[self.class_of(&sequence)] = Some(now);
        self.note_start(&sequence, found * KvCache::BLOCK_SIZE, passed_over, now);
        let rank = sequence.rank;
        self.insert_running(sequence);
        rank
    }

    /// Counts the first start of a request.
    fn note_start(&mut self, sequence: &Sequence, cached_tokens: usize, passed_over: usize, now: Instant) {
        let group = self.groups.get_mut(sequence.group);
        if group.started {
            return;
        }
        group.started = true;
        group.place = None;
        group.cached_tokens = cached_tokens;
        group.tab.prompt(group.prompt_tokens, cached_tokens);
        if self.limits.prefix_cache {
            self.figures.prefix_queries += group.prompt_tokens as u64;
            self.figures.prefix_hits += cached_tokens as u64;
        }
        let request = &group.request;
        self.fairness.start(request.tenant, request.weight, group.prompt_tokens - cached_tokens);
        self.starts.started(now, self.waiting.len() > passed_over, &self.drain);
    }
}
