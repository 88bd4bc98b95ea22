//! What a sequence says next: a token is drawn, within its grammar if it has one, and whatever must follow comes with it.

use std::sync::Arc;

use sconce_models::grammar::MatcherError;

use crate::engine::grammar::Next;
use crate::engine::masks::Lent;
use crate::engine::sampler::{Draw, NotFinite, Sampled, Sampler};
use crate::engine::scheduler::Scheduler;
use crate::engine::scheduler::plan::Step;
use crate::engine::sequence::{Group, Phase, Sequence};
use crate::engine::{EngineError, FinishReason, TokenEvent, TokenLogprob};

/// Why a request cannot go on.
pub(super) enum Fault {
    /// The model's output is not numbers.
    NotFinite,
    /// Its grammar became too complex.
    Grammar(MatcherError),
}

impl From<NotFinite> for Fault {
    fn from(_: NotFinite) -> Self {
        Self::NotFinite
    }
}

impl From<MatcherError> for Fault {
    fn from(error: MatcherError) -> Self {
        Self::Grammar(error)
    }
}

/// Tokens that came of a row.
#[derive(Default)]
pub(super) struct Said {
    /// Drawn from its logits.
    pub(super) drawn: u32,
    /// Left no choice about, after those.
    pub(super) forced: u32,
}

impl Scheduler {
    /// Hands out the grammars that the step will ask and that are not ready, to be prepared while the pass runs.
    pub(in crate::engine) fn lend_guides(&mut self, step: &Step) -> Vec<Lent> {
        let mut lent: Vec<Lent> = Vec::new();
        for row in &step.rows {
            let sequence = &mut self.running[row.sequence];
            if row.position + 1 < sequence.tokens.len() {
                continue;
            }
            if let Some(guide) = sequence.guide.take_if(|guide| !guide.is_ready()) {
                let group = self.groups.get(sequence.group);
                lent.push(Lent {
                    owner: (group.serial, sequence.choice),
                    tenant: group.request.tenant,
                    guide,
                    guesses: sequence.drafts.clone(),
                    siblings: if group.prefilled { 0 } else { group.request.choices as usize - 1 },
                    request: Arc::downgrade(&group.living),
                });
            }
        }
        lent
    }

    /// Takes one back, wherever its sequence is now; of a sequence that is gone it is let go.
    pub(in crate::engine) fn return_guide(&mut self, mut lent: Lent) {
        let owner = lent.owner;
        let groups = &self.groups;
        let mut sequences = self.running.iter_mut().chain(&mut self.waiting);
        let Some(sequence) = sequences.find(|s| (groups.get(s.group).serial, s.choice) == owner) else {
            return;
        };
        if lent.guesses != sequence.drafts {
            lent.guide.keep_next();
        }
        sequence.guide = Some(lent.guide);
    }

    /// Whether any grammar is away.
    pub(in crate::engine) fn has_guides_away(&self) -> bool {
        self.running.iter().chain(&self.waiting).any(|sequence| self.is_away(sequence))
    }

    /// Whether the grammar of a sequence is away, so that it can say nothing now.
    pub(super) fn is_away(&self, sequence: &Sequence) -> bool {
        sequence.guide.is_none() && self.groups.get(sequence.group).is_guided
    }

    /// Whether a grammar that the step will ask is away.
    pub(in crate::engine) fn misses_guides(&self, step: &Step) -> bool {
        step.rows.iter().any(|row| self.is_missed(row.sequence))
    }

    /// Whether the step brings anything without the grammars that are away.
    pub(in crate::engine) fn has_others(&self, step: &Step) -> bool {
        let missed = step.rows.iter().filter(|row| self.is_missed(row.sequence)).count();
        step.batch.tokens() > missed
    }

    /// Whether a sequence has its last token in the step, and nobody can say what may come after it.
    pub(super) fn is_missed(&self, index: usize) -> bool {
        let sequence = &self.running[index];
        let run = sequence.scheduled - sequence.drafts.len();
        run > 0 && sequence.computed() + run == sequence.tokens.len() && self.is_away(sequence)
    }

    /// The thread that had them is gone: their requests end.
    pub(in crate::engine) fn lose_guides(&mut self) {
        while let Some(group) =
            self.running.iter().chain(&self.waiting).find(|s| self.is_away(s)).map(|s| s.group)
        {
            let reason = MatcherError::Lost.to_string();
            self.refuse_group(group, EngineError::Grammar { reason });
        }
    }

    /// What was worked out for a step holds for that step; for a sequence that had no part in it, it holds on.
    pub(super) fn forget_guesses(&mut self) {
        let those = self.running.iter_mut().filter(|sequence| sequence.scheduled > 0);
        those.filter_map(|sequence| sequence.guide.as_mut()).for_each(|guide| guide.forget());
    }
}

/// A row that something is said by.
pub(super) struct Saying<'a> {
    pub(super) group: &'a mut Group,
    pub(super) values: &'a mut [f32],
    pub(super) sampler: &'a mut Sampler,
    pub(super) said: &'a mut Said,
}

impl Saying<'_> {
    /// Goes on with an answer, and with the other ones where this row is the prompt's.
    pub(super) fn say(
        &mut self,
        sequence: &mut Sequence,
        forked: Option<&mut Vec<Sequence>>,
    ) -> Result<(), Fault> {
        if let Some(forked) = forked {
            for choice in 1..self.group.request.choices {
                let mut sibling = sequence.fork(choice);
                self.say_next(&mut sibling)?;
                forked.push(sibling);
            }
        }
        self.say_next(sequence)
    }

    /// Draws the next token of an answer, and takes it and what must follow it.
    fn say_next(&mut self, sequence: &mut Sequence) -> Result<(), Fault> {
        let Some(Sampled { id, logprob }) = self.sample(sequence)? else {
            end(self.group, sequence, FinishReason::Complete);
            return Ok(());
        };
        self.said.drawn += 1;
        take_token(self.group, sequence, id, logprob);
        let Some(mut guide) = sequence.guide.take().filter(|_| sequence.phase == Phase::Decoding) else {
            return Ok(());
        };
        let one_by_one = self.group.request.sampling.logprobs.is_some();
        let forced = guide.take(&sequence.tokens[self.group.prompt_tokens..], one_by_one)?;
        for id in forced {
            if sequence.phase == Phase::Decoding {
                self.said.forced += 1;
                take_token(self.group, sequence, id, None);
                sequence.behind += 1;
            }
        }
        if sequence.phase == Phase::Decoding && guide.is_complete() {
            end(self.group, sequence, FinishReason::Complete);
        }
        sequence.guide = Some(guide);
        Ok(())
    }

    /// None if nothing may come any more.
    fn sample(&mut self, sequence: &mut Sequence) -> Result<Option<Sampled>, Fault> {
        let request = &self.group.request;
        let too_short = sequence.generated < request.min_new_tokens;
        let is_free = sequence.guide.as_ref().is_none_or(|guide| guide.is_waiting());
        let thought_over = request.thought.filter(|_| is_free && sequence.thought_left == Some(0));
        let next = match (thought_over, &mut sequence.guide) {
            (Some(limit), _) => Next::Only(limit.end),
            (None, Some(guide)) => guide.next(&request.stop_token_ids, too_short)?,
            (None, None) if self.group.is_guided => return Err(MatcherError::Lost.into()),
            (None, None) => Next::Any,
        };
        if matches!(next, Next::End) {
            return Ok(None);
        }
        let draw = Draw {
            params: &request.sampling,
            seed: self.group.seed,
            choice: sequence.choice,
            position: sequence.tokens.len() as u32,
            forbidden: if too_short { &request.stop_token_ids } else { &[] },
            history: sequence.history.as_ref(),
            next,
        };
        Ok(Some(self.sampler.sample(self.values, &draw)?))
    }
}

/// Adds a token to an answer, tells the caller, and ends the answer if it is complete.
fn take_token(group: &mut Group, sequence: &mut Sequence, id: u32, logprob: Option<TokenLogprob>) {
    let may_stop = sequence.generated >= group.request.min_new_tokens;
    sequence.generated += 1;
    group.tab.generated();
    sequence.phase = Phase::Decoding;
    if may_stop && group.request.stop_token_ids.binary_search(&id).is_ok() {
        return end(group, sequence, FinishReason::Stop(id));
    }
    if let Some(limit) = group.request.thought {
        sequence.thought_left = limit.after(id, sequence.generated, sequence.thought_left);
    }
    sequence.tokens.push(id);
    if let Some(history) = &mut sequence.history {
        history.push(id);
    }
    group.send(Ok(TokenEvent::Token { choice: sequence.choice, id, logprob }));
    if sequence.tokens.len() >= group.tokens_limit {
        end(group, sequence, FinishReason::Length);
    }
}

fn end(group: &mut Group, sequence: &mut Sequence, reason: FinishReason) {
    sequence.phase = Phase::Finished(reason);
    finish(group, sequence.choice, reason, sequence.generated);
}

/// Tells the caller that an answer has ended.
pub(super) fn finish(group: &mut Group, choice: u32, reason: FinishReason, generated_tokens: u32) {
    group.unfinished -= 1;
    group.send(Ok(TokenEvent::Finished { choice, reason, generated_tokens }));
}
