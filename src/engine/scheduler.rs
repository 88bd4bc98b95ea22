//! Which sequences run this step, with how many tokens, and what becomes of them afterwards.
//!
//! Pure: no clock, no thread, no tensors; the worker hands in the time and the logits. A step is [`Scheduler::plan`],
//! the forward pass, then [`Scheduler::commit`] or [`Scheduler::fail_step`]; nothing else may change the scheduler in
//! between. `running` is kept best rank first, so whoever must give way is at its end.

mod admission;
mod commit;
mod draft;
mod guided;
mod plan;
#[cfg(test)]
mod tests;
mod yielding;

use std::sync::Arc;
use std::time::{Duration, Instant};

use sconce_models::{KvCache, ModelSpec};

use crate::engine::blocks::BlockManager;
use crate::engine::drain::{DrainRate, Starts};
use crate::engine::fairness::Fairness;
use crate::engine::prefix::PrefixHasher;
use crate::engine::sampler::History;
use crate::engine::sequence::{Group, GroupId, Groups, Phase, Sequence, Submission};
use crate::engine::step_cost::StepCost;
use crate::engine::{
    EngineError, EngineLimits, EngineStats, FinishReason, Priority, ThoughtLimit, TokenEvent,
};
pub(super) use plan::Step;
use yielding::Yielding;

/// How much later than a high one a request counts as having arrived when cache is short: by its priority, low to high.
const LATER: [Duration; 3] = [Duration::from_secs(630), Duration::from_secs(30), Duration::ZERO];

/// Owner of all sequences and of the block ids.
pub(super) struct Scheduler {
    limits: EngineLimits,
    /// Most tokens any sequence may have.
    tokens_limit: usize,
    blocks: BlockManager,
    hasher: PrefixHasher,
    fairness: Fairness,
    drain: Arc<DrainRate>,
    starts: Starts,
    step_cost: StepCost,
    groups: Groups,
    /// Without blocks, in no order.
    waiting: Vec<Sequence>,
    /// With blocks, best rank first.
    running: Vec<Sequence>,
    /// When a request of each priority last started (or began to wait with none before it).
    class_served: [Option<Instant>; 3],
    /// Whether what is of the lowest priority stands still in this step, and since when it has.
    yielding: Yielding,
    figures: EngineStats,
    serial: u64,
    seeds: u64,
    epoch: Instant,
}

/// Most tokens a sequence may have, prompt and answer: the model's context, if the cache has room for it.
pub(super) fn tokens_limit(spec: &ModelSpec, limits: &EngineLimits) -> usize {
    spec.context_length.min(limits.cache_blocks * KvCache::BLOCK_SIZE)
}

impl Scheduler {
    /// An idle scheduler. `seed` is where seeds of requests without one are drawn from; `now` is its first moment.
    pub(super) fn new(
        mut limits: EngineLimits,
        spec: &ModelSpec,
        drain: Arc<DrainRate>,
        seed: u64,
        now: Instant,
    ) -> Self {
        limits.max_batch_tokens = limits.max_batch_tokens.max(1);
        limits.prefill_chunk = limits.prefill_chunk.max(1);
        // Every running sequence may be decoding, and each needs its row; one row is left for a prompt.
        limits.max_running = limits.max_running.clamp(1, limits.max_batch_tokens);
        Self {
            tokens_limit: tokens_limit(spec, &limits),
            blocks: BlockManager::new(limits.cache_blocks),
            hasher: PrefixHasher::random(),
            fairness: Fairness::default(),
            drain,
            starts: Starts::default(),
            step_cost: StepCost::default(),
            groups: Groups::default(),
            waiting: Vec::new(),
            running: Vec::new(),
            class_served: [None; 3],
            yielding: Yielding::default(),
            figures: EngineStats { total_blocks: limits.cache_blocks, ..EngineStats::default() },
            serial: 0,
            seeds: seed,
            epoch: now,
            limits,
        }
    }

    /// Whether there is nothing to run and nothing that waits.
    pub(super) fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    /// The figures as they stand.
    pub(super) fn stats(&self) -> EngineStats {
        EngineStats {
            waiting: self.groups.not_started(),
            running: self.running.len(),
            free_blocks: self.blocks.available(),
            ..self.figures
        }
    }

    /// Takes a request into the queue. It has been checked: a prompt of known tokens that fits the limit.
    pub(super) fn accept(&mut self, submission: Submission) {
        let Submission { mut request, events, tab, place, arrival } = submission;
        let prompt = std::mem::take(&mut request.prompt);
        let thought_left = request.thought.and_then(ThoughtLimit::at_start);
        let guide = request.guide.take();
        request.choices = request.choices.max(1);
        request.stop_token_ids.sort_unstable();
        request.stop_token_ids.dedup();
        let root = self.hasher.root((!request.shared_prefix).then_some(request.tenant));
        let mut names = Vec::new();
        if self.limits.prefix_cache {
            self.hasher.extend(root, &mut names, &prompt);
        }
        let class = class(request.priority);
        if !self.waiting.iter().any(|other| self.class_of(other) == class) {
            self.class_served[class] = Some(arrival);
        }
        self.fairness.enter(request.tenant);
        self.serial += 1;
        self.seeds = self.seeds.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let group = Group {
            serial: self.serial,
            standing: self.standing(arrival, request.priority),
            prompt_tokens: prompt.len(),
            tokens_limit: self.tokens_limit.min(prompt.len() + request.max_new_tokens as usize),
            seed: request.sampling.seed.unwrap_or(self.seeds),
            root,
            is_guided: guide.is_some(),
            living: Arc::new(()),
            started: false,
            prefilled: false,
            cached_tokens: 0,
            prompt_logprobs: Vec::new(),
            unfinished: request.choices,
            events,
            unsent: Vec::new(),
            tab,
            place,
            arrival,
            request,
        };
        let history = History::for_prompt(&group.request.sampling, &prompt);
        let rank = group.rank(0);
        let group = self.groups.insert(group);
        self.waiting.push(Sequence {
            group,
            choice: 0,
            rank,
            tokens: prompt,
            generated: 0,
            phase: Phase::Waiting,
            table: Vec::new(),
            names,
            named: 0,
            expected: 0,
            behind: 0,
            scheduled: 0,
            drafts: Vec::new(),
            lookup: None,
            guide,
            thought_left,
            history,
        });
    }

    /// Lets go of requests whose receiver is gone.
    pub(super) fn release_abandoned(&mut self) {
        let gone = self.groups.iter().filter(|(_, group)| group.events.is_closed());
        let gone: Vec<GroupId> = gone.map(|(id, _)| id).collect();
        for id in gone {
            self.figures.finished_abandoned += 1;
            self.remove_group(id);
        }
    }

    /// Ends requests whose time is up: with an error while they have not started, with what they have otherwise.
    pub(super) fn expire(&mut self, now: Instant) {
        let queue_timeout = self.limits.queue_timeout;
        let is_late = |group: &Group| {
            let waited = now.saturating_duration_since(group.arrival);
            group.request.deadline.is_some_and(|deadline| deadline <= now)
                || (!group.started && group.request.priority > Priority::Batch && waited >= queue_timeout)
        };
        let late: Vec<GroupId> =
            self.groups.iter().filter(|(_, group)| is_late(group)).map(|(id, _)| id).collect();
        for id in late {
            self.figures.finished_deadline += 1;
            self.send_expired(id);
            self.remove_group(id);
        }
    }

    fn send_expired(&mut self, id: GroupId) {
        let group = self.groups.get_mut(id);
        if !group.started {
            group.send(Err(EngineError::DeadlineExceeded));
            return;
        }
        let mut ended: Vec<(u32, u32)> = (0..group.request.choices).map(|choice| (choice, 0)).collect();
        if group.prefilled {
            let sequences = self.running.iter().chain(&self.waiting).filter(|sequence| sequence.group == id);
            ended = sequences.map(|sequence| (sequence.choice, sequence.generated)).collect();
        }
        for (choice, generated_tokens) in ended {
            let reason = FinishReason::Deadline;
            group.send(Ok(TokenEvent::Finished { choice, reason, generated_tokens }));
        }
    }

    /// Ends a request by a fault. What it computed may be wrong, so nobody is to find its blocks again.
    fn fail_group(&mut self, id: GroupId, reason: &str) {
        for sequence in self.running.iter().filter(|sequence| sequence.group == id) {
            for &block in &sequence.table {
                self.blocks.unname(block);
            }
        }
        self.figures.finished_failed += 1;
        self.groups.get_mut(id).send(Ok(TokenEvent::Failed { reason: reason.to_owned() }));
        self.remove_group(id);
    }

    /// Ends a request by an error of its own. What it computed is right.
    fn refuse_group(&mut self, id: GroupId, error: EngineError) {
        self.figures.finished_failed += 1;
        self.groups.get_mut(id).send(Err(error));
        self.remove_group(id);
    }

    /// Takes a request out with all its sequences.
    fn remove_group(&mut self, id: GroupId) {
        let mut index = 0;
        while index < self.running.len() {
            if self.running[index].group == id {
                let mut sequence = self.running.remove(index);
                self.release_blocks(&mut sequence);
            } else {
                index += 1;
            }
        }
        self.waiting.retain(|sequence| sequence.group != id);
        if let Some(group) = self.groups.remove(id) {
            self.fairness.leave(group.request.tenant, group.started);
        }
    }

    /// Gives all blocks of a sequence back.
    fn release_blocks(&mut self, sequence: &mut Sequence) {
        for &name in sequence.names.iter().take(sequence.expected).skip(sequence.named) {
            self.blocks.unexpect(name);
        }
        // The end of a prefix goes idle first, so it is taken before what it builds on.
        for block in sequence.table.drain(..).rev() {
            self.blocks.release(block);
        }
        sequence.named = 0;
        sequence.expected = 0;
        sequence.behind = 0;
        sequence.scheduled = 0;
        sequence.drafts.clear();
        sequence.lookup = None;
    }

    /// Takes the blocks of a running sequence; it waits and will run again what it has so far.
    fn preempt(&mut self, index: usize) {
        let mut sequence = self.running.remove(index);
        self.release_blocks(&mut sequence);
        sequence.behind = 0;
        sequence.phase = Phase::Waiting;
        self.waiting.push(sequence);
        self.figures.preemptions += 1;
    }

    /// Puts a sequence that holds blocks among the running, by rank.
    fn insert_running(&mut self, sequence: Sequence) {
        let index = self.running.partition_point(|other| other.rank < sequence.rank);
        self.running.insert(index, sequence);
    }

    fn standing(&self, arrival: Instant, priority: Priority) -> u64 {
        let standing = arrival.saturating_duration_since(self.epoch) + LATER[class(priority)];
        u64::try_from(standing.as_micros()).unwrap_or(u64::MAX)
    }

    fn class_of(&self, sequence: &Sequence) -> usize {
        class(self.groups.get(sequence.group).request.priority)
    }
}

/// A priority as an index, low to high.
fn class(priority: Priority) -> usize {
    match priority {
        Priority::Batch => 0,
        Priority::Normal => 1,
        Priority::High => 2,
    }
}
