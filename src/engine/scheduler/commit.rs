//! After the forward pass: tokens are drawn, sequences advance, end, or fork into the choices of their request.

use crate::engine::blocks::BlockManager;
use crate::engine::fairness::{GENERATED_TOKEN, PROMPT_TOKEN};
use crate::engine::sampler::Sampler;
use crate::engine::scheduler::Scheduler;
use crate::engine::scheduler::guided::{Fault, Said, Saying, finish};
use crate::engine::scheduler::plan::{Row, Step};
use crate::engine::sequence::{Group, GroupId, GroupSet, Phase, Sequence};
use crate::engine::{EngineError, FinishReason, TokenEvent};
use sconce_models::KvCache;

impl Scheduler {
    /// Takes over what the pass computed. `logits` are the rows of `step.batch.sample_rows`, each `vocab` wide.
    pub(in crate::engine) fn commit(
        &mut self,
        step: &Step,
        logits: &mut [f32],
        vocab: usize,
        sampler: &mut Sampler,
    ) {
        self.figures.steps += 1;
        self.figures.prefill_tokens += step.prefill_tokens as u64;
        self.advance();
        let mut failed: Vec<(GroupId, Fault)> = Vec::new();
        let mut forked: Vec<Sequence> = Vec::new();
        for (row, values) in step.rows.iter().zip(logits.chunks_exact_mut(vocab)) {
            let group = self.running[row.sequence].group;
            if failed.iter().any(|(id, _)| *id == group) {
                continue;
            }
            if let Err(fault) = self.take_row(*row, values, sampler, &mut forked) {
                failed.push((group, fault));
            }
        }
        forked.into_iter().for_each(|sequence| self.place_fork(sequence));
        for (group, fault) in failed {
            match fault {
                Fault::NotFinite => {
                    self.fail_group(group, "the model's output holds values that are not numbers");
                }
                Fault::Grammar(error) => {
                    self.refuse_group(group, EngineError::Grammar { reason: error.to_string() });
                }
            }
        }
        self.remove_finished();
        self.drop_drafts();
        self.forget_guesses();
        self.groups.flush();
    }

    /// Ends every request that had a part in a step whose pass failed. The others go on.
    pub(in crate::engine) fn fail_step(&mut self, reason: &str) {
        self.figures.steps += 1;
        let mut failed: GroupSet = Vec::new();
        for sequence in self.running.iter().filter(|sequence| sequence.scheduled > 0) {
            if !failed.contains(&sequence.group) {
                failed.push(sequence.group);
            }
        }
        failed.into_iter().for_each(|group| self.fail_group(group, reason));
    }

    /// Counts the tokens of the step as cached and names the blocks that are full now. Guesses do not count yet.
    fn advance(&mut self) {
        for index in 0..self.running.len() {
            // Who cannot say what comes after the last token runs that again.
            let again = usize::from(self.is_missed(index));
            let sequence = &mut self.running[index];
            if sequence.scheduled == 0 {
                continue;
            }
            self.figures.drafted_tokens += sequence.drafts.len() as u64;
            let run = sequence.scheduled - sequence.drafts.len() - again;
            let done = sequence.computed() + run;
            sequence.behind -= sequence.behind.min(run);
            if sequence.is_prefilling() {
                sequence.phase = Phase::Prefilling { done };
            }
            self.name_blocks(index, done);
        }
    }

    /// Names the blocks of a sequence that are full of its first `done` tokens.
    fn name_blocks(&mut self, index: usize, done: usize) {
        if !self.limits.prefix_cache {
            return;
        }
        let sequence = &mut self.running[index];
        let root = self.groups.get(sequence.group).root;
        self.hasher.extend(root, &mut sequence.names, &sequence.tokens[..done]);
        name_full_blocks(sequence, done / KvCache::BLOCK_SIZE, &mut self.blocks);
    }

    /// Draws from a row what it is for. The row after a guess counts only if the guess is what was drawn before it.
    fn take_row(
        &mut self,
        row: Row,
        values: &mut [f32],
        sampler: &mut Sampler,
        forked: &mut Vec<Sequence>,
    ) -> Result<(), Fault> {
        if row.is_draft {
            let sequence = &self.running[row.sequence];
            // What may come after it is not worked out here: the step would wait for it.
            let is_ready = sequence.guide.as_ref().is_none_or(|guide| guide.is_ready());
            if !is_ready || !sequence.has_said(row.token, row.position) {
                return Ok(());
            }
            self.figures.accepted_tokens += 1;
            self.name_blocks(row.sequence, row.position + 1);
        }
        let is_away = self.is_away(&self.running[row.sequence]);
        let sequence = &mut self.running[row.sequence];
        let group = self.groups.get_mut(sequence.group);
        if let Some(&next) = sequence.tokens.get(row.position + 1) {
            let top = group.request.prompt_logprobs.unwrap_or(0);
            let found = sampler.logprob(values, next, top)?;
            group.prompt_logprobs.push((found.logprob, found.top));
            return Ok(());
        }
        if is_away {
            return Ok(());
        }
        let is_first = !group.prefilled;
        if is_first {
            send_prefilled(group);
        }
        if group.request.max_new_tokens == 0 {
            sequence.phase = Phase::Finished(FinishReason::Length);
            (0..group.request.choices).for_each(|choice| finish(group, choice, FinishReason::Length, 0));
            return Ok(());
        }
        let mut said = Said::default();
        let mut saying = Saying { group, values, sampler, said: &mut said };
        let outcome = saying.say(sequence, is_first.then_some(forked));
        self.figures.generated_tokens += u64::from(said.drawn + said.forced);
        self.figures.forced_tokens += u64::from(said.forced);
        let cost = GENERATED_TOKEN * f64::from(said.drawn) + PROMPT_TOKEN * f64::from(said.forced);
        self.fairness.charge(group.request.tenant, group.request.weight, cost);
        outcome
    }

    /// A new answer shares its sibling's blocks if it may run at once; otherwise it waits like one preempted.
    fn place_fork(&mut self, mut sequence: Sequence) {
        if matches!(sequence.phase, Phase::Finished(_)) {
            return;
        }
        if self.running.len() < self.limits.max_running {
            sequence.table.iter().for_each(|&block| self.blocks.retain(block));
            self.insert_running(sequence);
            return;
        }
        sequence.table.clear();
        sequence.named = 0;
        sequence.expected = 0;
        sequence.behind = 0;
        sequence.phase = Phase::Waiting;
        self.waiting.push(sequence);
    }

    /// Removes complete sequences, and requests with nothing left to answer.
    fn remove_finished(&mut self) {
        let mut index = 0;
        while index < self.running.len() {
            let Phase::Finished(reason) = self.running[index].phase else {
                index += 1;
                continue;
            };
            let mut sequence = self.running.remove(index);
            self.release_blocks(&mut sequence);
            self.close_if_complete(sequence.group, reason);
        }
    }

    fn close_if_complete(&mut self, id: GroupId, reason: FinishReason) {
        if self.groups.get(id).unfinished > 0 {
            return;
        }
        match reason {
            FinishReason::Stop(_) | FinishReason::Complete => self.figures.finished_stop += 1,
            FinishReason::Length => self.figures.finished_length += 1,
            FinishReason::Deadline => self.figures.finished_deadline += 1,
        }
        self.remove_group(id);
    }
}

/// Names the blocks before `full` that have no name yet.
fn name_full_blocks(sequence: &mut Sequence, full: usize, blocks: &mut BlockManager) {
    for index in sequence.named..full {
        let name = sequence.names[index];
        blocks.name(sequence.table[index], name);
        if index < sequence.expected {
            blocks.unexpect(name);
        }
    }
    sequence.named = sequence.named.max(full);
}

fn send_prefilled(group: &mut Group) {
    group.prefilled = true;
    let known = std::mem::take(&mut group.prompt_logprobs);
    group.send(Ok(TokenEvent::Prefilled {
        cached_tokens: group.cached_tokens as u32,
        prompt_logprobs: group.request.prompt_logprobs.map(|_| known),
    }));
}
