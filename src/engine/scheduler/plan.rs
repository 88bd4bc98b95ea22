//! The plan of one step: a row for every decoding sequence, then prompt tokens up to the budget, then guesses.
//!
//! It also makes the cache ready: new blocks where a sequence grows, copies where a shared block is to be written, and
//! preemption where there is no block left.

use std::time::{Duration, Instant};

use sconce_models::{Batch, KvCache};

use crate::engine::blocks::BlockId;
use crate::engine::scheduler::Scheduler;
use crate::engine::sequence::Sequence;

/// Most rows of logits per step that only serve log-probabilities of prompts: bounds a step's memory.
const PROMPT_ROWS: usize = 64;

/// One planned step.
#[derive(Debug, Default)]
pub(in crate::engine) struct Step {
    /// What the model reads.
    pub(in crate::engine) batch: Batch,
    /// Blocks to copy, in order, before the pass: (from, to).
    pub(in crate::engine) copies: Vec<(u32, u32)>,
    /// One per row of `batch.sample_rows`.
    pub(super) rows: Vec<Row>,
    /// Tokens of prompts (or of what was lost in a preemption) in the batch.
    pub(in crate::engine) prefill_tokens: usize,
}

impl Step {
    /// Whether prompt tokens run beside decoding sequences.
    pub(in crate::engine) fn is_mixed(&self) -> bool {
        self.prefill_tokens > 0 && self.batch.tokens() > self.prefill_tokens
    }
}

/// What a row of logits is for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    /// Index among the running sequences.
    pub(super) sequence: usize,
    /// Position of the token whose logits these are.
    pub(super) position: usize,
    /// That token.
    pub(super) token: u32,
    /// Whether it is a guess.
    pub(super) is_draft: bool,
}

impl Scheduler {
    /// Sets how many prompt tokens a step may run beside decoding sequences from now on.
    pub(in crate::engine) fn limit_prefill(&mut self, tokens: usize) {
        self.limits.prefill_chunk = tokens.max(1);
    }

    /// A step took this long.
    pub(in crate::engine) fn observe(&mut self, step: &Step, took: Duration) {
        if step.prefill_tokens == 0 {
            self.step_cost.observe(step.batch.tokens(), took);
        }
    }

    /// Plans a step; none if there is nothing to run.
    pub(in crate::engine) fn plan(&mut self, now: Instant) -> Option<Step> {
        let mut step = Step::default();
        self.running.iter_mut().for_each(|sequence| sequence.scheduled = 0);
        self.look_who_yields(now);
        self.schedule_tokens(&mut step.copies, now);
        if self.yielding.goes_on() && self.running.iter().all(|sequence| sequence.scheduled == 0) {
            // Those that it yields to find no room.
            self.yielding.stop();
            self.schedule_tokens(&mut step.copies, now);
        }
        self.schedule_drafts();
        self.build(&mut step);
        debug_assert!(
            step.batch.tokens() > 0 || self.is_idle() || self.has_guides_away(),
            "something runs as long as something waits"
        );
        (step.batch.tokens() > 0).then_some(step)
    }

    fn schedule_tokens(&mut self, copies: &mut Vec<(u32, u32)>, now: Instant) {
        self.schedule_decoding(copies);
        self.schedule_prefill(now);
    }

    /// One token for each decoding sequence, best rank first, and those before it that came without a pass; when blocks run
    /// out, the last in rank gives way.
    fn schedule_decoding(&mut self, copies: &mut Vec<(u32, u32)>) {
        let decoding = self.running.iter().filter(|sequence| sequence.is_decoding()).count();
        let mut spare = self.limits.max_batch_tokens.saturating_sub(decoding).min(self.limits.prefill_chunk);
        let mut index = 0;
        while index < self.running.len() {
            let is_away = self.is_away(&self.running[index]);
            if self.running[index].is_decoding() && !is_away && self.has_turn(index) {
                let more = self.running[index].behind.min(spare);
                while index < self.running.len() && !self.make_writable(index, 1 + more, copies) {
                    self.preempt(self.running.len() - 1);
                }
                if let Some(sequence) = self.running.get_mut(index) {
                    sequence.scheduled = 1 + more;
                    spare -= more;
                }
            }
            index += 1;
        }
    }

    /// Gives a decoding sequence blocks of its own for its next `tokens` tokens. False if there are none.
    fn make_writable(&mut self, index: usize, tokens: usize, copies: &mut Vec<(u32, u32)>) -> bool {
        let done = self.running[index].computed();
        let (first, last) = (done / KvCache::BLOCK_SIZE, (done + tokens - 1) / KvCache::BLOCK_SIZE);
        (first..=last).all(|block_index| self.make_block_writable(index, block_index, copies))
    }

    fn make_block_writable(
        &mut self,
        index: usize,
        block_index: usize,
        copies: &mut Vec<(u32, u32)>,
    ) -> bool {
        let sequence = &mut self.running[index];
        let Some(&shared) = sequence.table.get(block_index) else {
            let Some(block) = self.blocks.allocate() else { return false };
            sequence.table.push(block);
            return true;
        };
        if self.blocks.references(shared) == 1 {
            return true;
        }
        let Some(own) = self.blocks.allocate() else { return false };
        copies.push((shared.0, own.0));
        sequence.table[block_index] = own;
        self.blocks.release(shared);
        true
    }

    /// Prompt tokens, up to what a step may have. Running prompts go first, by rank; but while another tenant waits or
    /// prefills beside them they leave half of the step, so that one long prompt does not hold up everybody's first token.
    fn schedule_prefill(&mut self, now: Instant) {
        let decoding: usize = self.running.iter().map(|sequence| sequence.scheduled).sum();
        let room = self.limits.max_batch_tokens - decoding.min(self.limits.max_batch_tokens);
        let budget = if decoding > 0 { room.min(self.limits.prefill_chunk) } else { room };
        let share = if self.prefill_tenants() > 1 { budget.div_ceil(2) } else { budget };
        let mut left = Budget { tokens: budget, prompt_rows: PROMPT_ROWS };
        for index in 0..self.running.len() {
            self.schedule_chunk(index, share, &mut left);
        }
        self.admit_waiting(&mut left, now);
        for index in 0..self.running.len() {
            self.schedule_chunk(index, budget, &mut left);
        }
    }

    /// Tenants that have prompt tokens to run; counts no further than 2.
    fn prefill_tenants(&self) -> usize {
        let wanting = self.running.iter().filter(|sequence| sequence.is_prefilling()).chain(&self.waiting);
        let mut tenants = wanting.map(|sequence| self.groups.get(sequence.group).request.tenant);
        let Some(first) = tenants.next() else { return 0 };
        if tenants.any(|tenant| tenant != first) { 2 } else { 1 }
    }

    /// Adds tokens of a prompt to the step, so that it has at most `most` of them.
    pub(super) fn schedule_chunk(&mut self, index: usize, most: usize, left: &mut Budget) {
        if !self.running[index].is_prefilling() || self.yields(&self.running[index]) {
            return;
        }
        // After the last token something is said.
        let kept = usize::from(self.is_away(&self.running[index]));
        let sequence = &mut self.running[index];
        let mut chunk = (sequence.remaining() - sequence.scheduled)
            .saturating_sub(kept)
            .min(most.saturating_sub(sequence.scheduled))
            .min(left.tokens);
        if self.groups.get(sequence.group).needs_whole_prompt() {
            chunk = chunk.min(left.prompt_rows);
            left.prompt_rows -= chunk;
        }
        sequence.scheduled += chunk;
        left.tokens -= chunk;
    }

    /// Packs what is scheduled: decoding sequences first.
    fn build(&self, step: &mut Step) {
        step.batch.starts.push(0);
        for decoding in [true, false] {
            for (index, sequence) in self.running.iter().enumerate() {
                if sequence.scheduled > 0 && sequence.is_decoding() == decoding {
                    self.pack(index, sequence, step);
                }
            }
        }
    }

    fn pack(&self, index: usize, sequence: &Sequence, step: &mut Step) {
        let done = sequence.computed();
        let end = done + sequence.scheduled;
        let group = self.groups.get(sequence.group);
        // Rows of the prompt whose log-probabilities are known already, from before a preemption, are not asked again.
        let asked = if group.needs_whole_prompt() { group.prompt_logprobs.len() } else { usize::MAX };
        let batch = &mut step.batch;
        for position in done..end {
            let block = sequence.table[position / KvCache::BLOCK_SIZE];
            debug_assert_eq!(self.blocks.references(block), 1, "a shared block is never written");
            let known = sequence.tokens.len();
            let is_draft = position >= known;
            let token = if is_draft { sequence.drafts[position - known] } else { sequence.tokens[position] };
            if position + 1 >= known || position >= asked {
                batch.sample_rows.push(batch.token_ids.len() as u32);
                step.rows.push(Row { sequence: index, position, token, is_draft });
            }
            batch.token_ids.push(token);
            batch.positions.push(position as u32);
            batch.slots.push(slot(block, position));
        }
        batch.starts.push(batch.token_ids.len() as u32);
        batch.context_lens.push(end as u32);
        let blocks = end.div_ceil(KvCache::BLOCK_SIZE);
        batch.block_tables.push(sequence.table[..blocks].iter().map(|block| block.0).collect());
        if sequence.is_prefilling() {
            step.prefill_tokens += sequence.scheduled;
        }
    }
}

/// What is left of a step.
pub(super) struct Budget {
    /// Prompt tokens.
    pub(super) tokens: usize,
    /// Rows for log-probabilities of prompts.
    pub(super) prompt_rows: usize,
}

fn slot(block: BlockId, position: usize) -> u32 {
    block.0 * KvCache::BLOCK_SIZE as u32 + (position % KvCache::BLOCK_SIZE) as u32
}
