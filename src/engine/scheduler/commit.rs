//! After the forward pass: tokens are drawn, sequences advance, end, or fork into the choices of their request.

use crate::engine::blocks::BlockManager;
use crate::engine::fairness::GENERATED_TOKEN;
use crate::engine::sampler::{Draw, NotFinite, Sampled, Sampler};
use crate::engine::scheduler::Scheduler;
use crate::engine::scheduler::plan::{Row, Step};
use crate::engine::sequence::{Group, GroupId, GroupSet, Phase, Sequence};
use crate::engine::{FinishReason, TokenEvent};
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
        let mut failed: GroupSet = Vec::new();
        let mut forked: Vec<Sequence> = Vec::new();
        for (row, values) in step.rows.iter().zip(logits.chunks_exact_mut(vocab)) {
            let group = self.running[row.sequence].group;
            if failed.contains(&group) {
                continue;
            }
            if self.take_row(*row, values, sampler, &mut forked).is_err() {
                failed.push(group);
            }
        }
        forked.into_iter().for_each(|sequence| self.place_fork(sequence));
        for group in failed {
            self.fail_group(group, "the model's output holds values that are not numbers");
        }
        self.remove_finished();
        self.drop_drafts();
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
            let sequence = &mut self.running[index];
            if sequence.scheduled == 0 {
                continue;
            }
            self.figures.drafted_tokens += sequence.drafts.len() as u64;
            let done = sequence.computed() + sequence.scheduled - sequence.drafts.len();
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
    ) -> Result<(), NotFinite> {
        if row.is_draft {
            if !self.running[row.sequence].has_said(row.token, row.position) {
                return Ok(());
            }
            self.figures.accepted_tokens += 1;
            self.name_blocks(row.sequence, row.position + 1);
        }
        let sequence = &mut self.running[row.sequence];
        let group = self.groups.get_mut(sequence.group);
        if let Some(&next) = sequence.tokens.get(row.position + 1) {
            let top = group.request.prompt_logprobs.unwrap_or(0);
            let found = sampler.logprob(values, next, top)?;
            group.prompt_logprobs.push((found.logprob, found.top));
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
        if is_first {
            for choice in 1..group.request.choices {
                let mut sibling = sequence.fork(choice);
                let sampled = sample(group, &sibling, values, sampler)?;
                take_token(group, &mut sibling, sampled);
                self.figures.generated_tokens += 1;
                forked.push(sibling);
            }
        }
        let sampled = sample(group, sequence, values, sampler)?;
        take_token(group, sequence, sampled);
        self.figures.generated_tokens += 1;
        let tokens = if is_first { group.request.choices } else { 1 };
        self.fairness.charge(group.request.tenant, group.request.weight, GENERATED_TOKEN * f64::from(tokens));
        Ok(())
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
            FinishReason::Stop(_) => self.figures.finished_stop += 1,
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

fn sample(
    group: &Group,
    sequence: &Sequence,
    values: &mut [f32],
    sampler: &mut Sampler,
) -> Result<Sampled, NotFinite> {
    let request = &group.request;
    let too_short = sequence.generated < request.min_new_tokens;
    let draw = Draw {
        params: &request.sampling,
        seed: group.seed,
        choice: sequence.choice,
        position: sequence.tokens.len() as u32,
        forbidden: if too_short { &request.stop_token_ids } else { &[] },
        history: sequence.history.as_ref(),
    };
    sampler.sample(values, &draw)
}

/// Adds a drawn token to an answer, tells the caller, and ends the answer if it is complete.
fn take_token(group: &mut Group, sequence: &mut Sequence, sampled: Sampled) {
    let Sampled { id, logprob } = sampled;
    let may_stop = sequence.generated >= group.request.min_new_tokens;
    sequence.generated += 1;
    group.tab.generated();
    sequence.phase = Phase::Decoding;
    let ended = if may_stop && group.request.stop_token_ids.binary_search(&id).is_ok() {
        Some(FinishReason::Stop(id))
    } else {
        sequence.tokens.push(id);
        if let Some(history) = &mut sequence.history {
            history.push(id);
        }
        group.send(Ok(TokenEvent::Token { choice: sequence.choice, id, logprob }));
        (sequence.tokens.len() >= group.tokens_limit).then_some(FinishReason::Length)
    };
    if let Some(reason) = ended {
        sequence.phase = Phase::Finished(reason);
        finish(group, sequence.choice, reason, sequence.generated);
    }
}

fn finish(group: &mut Group, choice: u32, reason: FinishReason, generated_tokens: u32) {
    group.unfinished -= 1;
    group.send(Ok(TokenEvent::Finished { choice, reason, generated_tokens }));
}
