//! Guessed tokens that run beside the last one of a decoding sequence, where they are likely enough to pay.
//!
//! A guess changes no answer: its row is sampled as if the guess had been said, and counts only if it was
//! (`commit.rs`). It takes nothing from anybody: it comes after all that is scheduled, and into blocks that nobody asked
//! for; what a sequence holds beyond its tokens it gives back after the step.
//!
//! What pays: a row makes the step longer ([`StepCost`](crate::engine::step_cost::StepCost)) and brings a token with some
//! probability ([`Lookup`]). The likeliest guesses are taken as long as the step brings more tokens for its time with
//! them than without. Where somebody in the step has no guesses, and so only waits longer for the token of its own, they
//! may not make it longer by more than a quarter.

use sconce_models::KvCache;

use crate::engine::Speculation;
use crate::engine::fairness::{GENERATED_TOKEN, PROMPT_TOKEN};
use crate::engine::lookup::Lookup;
use crate::engine::scheduler::Scheduler;

/// Most guesses of a sequence in one step.
const MOST_OF_ONE: usize = 16;
/// Most guesses of a step: bounds the logits that it has in memory.
const MOST_OF_ALL: usize = 64;
/// Guesses that are less probable are not run, however cheap.
const LEAST_CHANCE: f32 = 0.1;
/// How much longer, as a share, a step may be for those who have no guesses in it.
const PATIENCE: f64 = 0.25;

/// A guess that could run.
struct Candidate {
    /// How probable it is that it is right, and those before it.
    chance: f32,
    /// Index among the running sequences.
    sequence: usize,
}

impl Scheduler {
    /// Adds guesses to the step that is planned so far.
    pub(super) fn schedule_drafts(&mut self) {
        if self.limits.speculation == Speculation::Off {
            return;
        }
        let (candidates, guessing) = self.draft_candidates();
        for candidate in &candidates[..self.worth_running(&candidates, guessing)] {
            self.running[candidate.sequence].drafts.push(0);
        }
        for index in 0..self.running.len() {
            let wanted = self.running[index].drafts.len();
            if wanted > 0 {
                self.write_drafts(index, wanted);
            }
        }
    }

    /// The likeliest guesses of all decoding sequences, likeliest first; and how many sequences have any. Of one sequence
    /// each guess is less likely than the one before it, so it is enough to say how many there are.
    fn draft_candidates(&mut self) -> (Vec<Candidate>, usize) {
        let always = self.limits.speculation == Speculation::Always;
        let (mut candidates, mut guessing) = (Vec::new(), 0);
        for (index, sequence) in self.running.iter_mut().enumerate() {
            if !sequence.is_decoding() || sequence.scheduled == 0 || sequence.behind > 0 {
                continue;
            }
            let group = self.groups.get(sequence.group);
            // The row of the last guess brings a token of its own.
            let room = group.tokens_limit.saturating_sub(sequence.tokens.len() + 1).min(MOST_OF_ONE);
            if room == 0 {
                continue;
            }
            let prediction = || group.request.prediction.clone();
            let lookup = sequence.lookup.get_or_insert_with(|| Lookup::new(group.tokens_limit, prediction()));
            lookup.follow(&sequence.tokens, group.prompt_tokens);
            let candidate = |chance| Candidate { chance, sequence: index };
            let before = candidates.len();
            if always {
                candidates.extend((0..room).map(|_| candidate(1.0)));
            } else {
                let chances =
                    lookup.chances(&sequence.tokens).take(room).take_while(|&chance| chance >= LEAST_CHANCE);
                candidates.extend(chances.map(candidate));
            }
            guessing += usize::from(candidates.len() > before);
        }
        let likeliest_first = |a: &Candidate, b: &Candidate| b.chance.total_cmp(&a.chance);
        if candidates.len() > MOST_OF_ALL {
            candidates.select_nth_unstable_by(MOST_OF_ALL, likeliest_first);
            candidates.truncate(MOST_OF_ALL);
        }
        candidates.sort_unstable_by(likeliest_first);
        (candidates, guessing)
    }

    /// How many of the candidates, likeliest first, the step has room for and is better with.
    fn worth_running(&self, candidates: &[Candidate], guessing: usize) -> usize {
        let rows: usize = self.running.iter().map(|sequence| sequence.scheduled).sum();
        let most = self.limits.max_batch_tokens.saturating_sub(rows).min(candidates.len());
        if self.limits.speculation == Speculation::Always {
            return most;
        }
        let decoding = self.running.iter().filter(|s| s.is_decoding() && s.scheduled > 0).count();
        let all_guess = rows == guessing;
        let row = self.step_cost.of_a_row(rows);
        // The step as it is takes one unit of time and brings what it brings; a prompt's tokens are worth less.
        let prefill = (rows - decoding) as f64 * PROMPT_TOKEN / GENERATED_TOKEN;
        let (mut time, mut tokens) = (1.0, decoding as f64 + prefill);
        for (count, candidate) in candidates[..most].iter().enumerate() {
            let chance = f64::from(candidate.chance);
            let pays = chance / row > tokens / time;
            if !pays || (!all_guess && time + row > 1.0 + PATIENCE) {
                return count;
            }
            time += row;
            tokens += chance;
        }
        most
    }

    /// Writes down up to `wanted` guesses, as far as there are blocks for them.
    fn write_drafts(&mut self, index: usize, wanted: usize) {
        let sequence = &mut self.running[index];
        let needed = (sequence.tokens.len() + wanted).div_ceil(KvCache::BLOCK_SIZE);
        while sequence.table.len() < needed {
            let Some(block) = self.blocks.allocate() else { break };
            sequence.table.push(block);
        }
        let room = sequence.table.len() * KvCache::BLOCK_SIZE - sequence.tokens.len();
        if let Some(lookup) = &sequence.lookup {
            lookup.guess(&sequence.tokens, wanted.min(room), &mut sequence.drafts);
        }
        sequence.scheduled += sequence.drafts.len();
    }

    /// Forgets the guesses of the step; blocks that only they needed are given back.
    pub(super) fn drop_drafts(&mut self) {
        for sequence in self.running.iter_mut().filter(|sequence| !sequence.drafts.is_empty()) {
            sequence.drafts.clear();
            while sequence.table.len() > sequence.blocks_needed() {
                sequence.table.pop().into_iter().for_each(|block| self.blocks.release(block));
            }
        }
    }
}
