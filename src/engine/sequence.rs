//! The engine's own view of a request: a [`Group`] is the request, a [`Sequence`] one of its answers.
//!
//! State only; who runs when is the scheduler's. The one thing to know: a sequence holds cache blocks exactly while it
//! is `Prefilling` or `Decoding`, and until its prompt has run the sequence of choice 0 stands for all choices.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use sconce_models::KvCache;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::engine::blocks::BlockId;
use crate::engine::lookup::Lookup;
use crate::engine::prefix::PrefixHash;
use crate::engine::sampler::History;
use crate::engine::tab::Tab;
use crate::engine::{EngineError, FinishReason, Guide, PromptLogprob, SequenceRequest, TokenEvent};

/// What a request's event channel carries.
pub(super) type Event = Result<TokenEvent, EngineError>;

/// A request on its way to the engine thread.
pub(super) struct Submission {
    /// What is asked.
    pub(super) request: SequenceRequest,
    /// The engine sends, the caller's `TokenStream` receives. Has room for every event the request can cause, so
    /// sending never waits. Dropping the receiver cancels; dropping the sender before the end means the engine is lost.
    pub(super) events: mpsc::Sender<Event>,
    /// Where its cost is counted; dropped when the engine has let go of it.
    pub(super) tab: Tab,
    /// Its place among those who wait; given back when it starts or ends.
    pub(super) place: Option<OwnedSemaphorePermit>,
    /// When it was submitted.
    pub(super) arrival: Instant,
}

/// Where a sequence stands in line when cache is short: smaller goes before larger. (arrival less the head start of its
/// priority, number of its request, choice). It never changes, so the first in line always gets on.
pub(super) type Rank = (u64, u64, u32);

/// One request and what its answers share.
pub(super) struct Group {
    /// The request, its prompt moved into the sequences.
    pub(super) request: SequenceRequest,
    /// Its events.
    pub(super) events: mpsc::Sender<Event>,
    /// Events of this step that are not sent yet, see [`Group::flush`].
    pub(super) unsent: Vec<Event>,
    /// Where its cost is counted.
    pub(super) tab: Tab,
    /// Its place in the queue, until it starts.
    pub(super) place: Option<OwnedSemaphorePermit>,
    /// When it was submitted.
    pub(super) arrival: Instant,
    /// Counts requests.
    pub(super) serial: u64,
    /// Arrival less head start, see [`Rank`].
    pub(super) standing: u64,
    /// Tokens of the prompt.
    pub(super) prompt_tokens: usize,
    /// Most tokens of prompt and answer.
    pub(super) tokens_limit: usize,
    /// Seed of its random numbers.
    pub(super) seed: u64,
    /// Start of its prefix names.
    pub(super) root: PrefixHash,
    /// Whether its answers have a grammar.
    pub(super) is_guided: bool,
    /// Held as long as the request is: whoever works for it sees when it is gone.
    pub(super) living: Arc<()>,
    /// Whether it has had its first step.
    pub(super) started: bool,
    /// Whether the prompt has run and the caller been told.
    pub(super) prefilled: bool,
    /// Prompt tokens found in the prefix cache at the first start.
    pub(super) cached_tokens: usize,
    /// What is known of the prompt's log-probabilities so far: of tokens 1, 2, …
    pub(super) prompt_logprobs: Vec<PromptLogprob>,
    /// Answers not complete.
    pub(super) unfinished: u32,
}

impl Group {
    /// Sends an event, at the end of the step.
    pub(super) fn send(&mut self, event: Event) {
        self.unsent.push(event);
    }

    /// Hands over what is to be sent. Receivers are woken by it and take processor time, so it is done for all at once when
    /// a step is through: they work while the next pass runs and not between the rows of this one. An absent receiver is
    /// found by the next look for abandoned requests.
    pub(super) fn flush(&mut self) {
        for event in self.unsent.drain(..) {
            let sent = self.events.try_send(event);
            debug_assert!(
                !matches!(sent, Err(mpsc::error::TrySendError::Full(_))),
                "the event channel has room for all events"
            );
        }
    }

    /// Whether log-probabilities of the prompt are still to be found, so that no token of it may be skipped.
    pub(super) fn needs_whole_prompt(&self) -> bool {
        self.request.prompt_logprobs.is_some() && !self.prefilled
    }

    /// The rank of one of its choices.
    pub(super) fn rank(&self, choice: u32) -> Rank {
        (self.standing, self.serial, choice)
    }
}

/// Where a sequence stands. Blocks are held in `Prefilling` and `Decoding` only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// In line, for the first time or after a preemption.
    Waiting,
    /// `done` tokens are in the cache, more than one is to be run.
    Prefilling {
        /// Tokens in the cache.
        done: usize,
    },
    /// All tokens but the last are in the cache, and those before it that a grammar brought with no pass of their own.
    Decoding,
    /// Complete; leaves at the end of the step.
    Finished(FinishReason),
}

/// One answer: prompt and generated tokens, and its blocks.
pub(super) struct Sequence {
    /// Its request.
    pub(super) group: GroupId,
    /// Which answer of the request.
    pub(super) choice: u32,
    /// Its place in line.
    pub(super) rank: Rank,
    /// Prompt, then answer.
    pub(super) tokens: Vec<u32>,
    /// Tokens of the answer, a stop token included.
    pub(super) generated: u32,
    /// Where it stands.
    pub(super) phase: Phase,
    /// Its blocks, in order.
    pub(super) table: Vec<BlockId>,
    /// Names of its full blocks, as far as they are known.
    pub(super) names: Vec<PrefixHash>,
    /// Leading blocks of the table that were filled and given their name.
    pub(super) named: usize,
    /// Blocks `named..expected` are announced to the block manager.
    pub(super) expected: usize,
    /// Tokens before the last one that are not in the cache yet while it decodes.
    pub(super) behind: usize,
    /// Tokens of this step, guesses included.
    pub(super) scheduled: usize,
    /// Guesses of what comes after `tokens` that run in this step; empty between steps.
    pub(super) drafts: Vec<u32>,
    /// Where the guesses come from, once it decodes and guesses are wanted.
    pub(super) lookup: Option<Lookup>,
    /// Its grammar, if it has one; away while it is worked on, and the sequence says nothing meanwhile.
    pub(super) guide: Option<Box<Guide>>,
    /// Tokens that are left of its thought; none: it does not think now, or as long as it likes.
    pub(super) thought_left: Option<u32>,
    /// Token counts for the penalties, if there are any.
    pub(super) history: Option<History>,
}

impl Sequence {
    /// Tokens in the cache.
    pub(super) fn computed(&self) -> usize {
        match self.phase {
            Phase::Waiting => 0,
            Phase::Prefilling { done } => done,
            Phase::Decoding | Phase::Finished(_) => self.tokens.len() - 1 - self.behind,
        }
    }

    /// Tokens to be run before the next one can be sampled.
    pub(super) fn remaining(&self) -> usize {
        self.tokens.len() - self.computed()
    }

    /// Whether it gets one token a step, and more where guesses are right.
    pub(super) fn is_decoding(&self) -> bool {
        self.phase == Phase::Decoding
    }

    /// Whether it goes on, and this token is its last, at this position.
    pub(super) fn has_said(&self, token: u32, position: usize) -> bool {
        // After tokens that came without a pass, what was guessed stands where nobody looked.
        self.is_decoding()
            && self.behind == 0
            && self.tokens.len() == position + 1
            && self.tokens.last() == Some(&token)
    }

    /// Whether its prompt, or what it lost in a preemption, is being run.
    pub(super) fn is_prefilling(&self) -> bool {
        matches!(self.phase, Phase::Prefilling { .. })
    }

    /// Blocks that all its present tokens need.
    pub(super) fn blocks_needed(&self) -> usize {
        self.tokens.len().div_ceil(KvCache::BLOCK_SIZE)
    }

    /// Another answer after the same prompt. It names the same blocks but does not hold them yet.
    pub(super) fn fork(&mut self, choice: u32) -> Self {
        Self {
            group: self.group,
            choice,
            rank: (self.rank.0, self.rank.1, choice),
            tokens: self.tokens.clone(),
            generated: 0,
            phase: self.phase,
            table: self.table.clone(),
            names: self.names.clone(),
            named: self.named,
            expected: self.named,
            behind: 0,
            scheduled: 0,
            drafts: Vec::new(),
            lookup: None,
            guide: self.guide.as_mut().map(|guide| Box::new(guide.fork())),
            thought_left: self.thought_left,
            history: self.history.clone(),
        }
    }
}

/// Which group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct GroupId(usize);

/// All groups; an id is good until its group is removed.
#[derive(Default)]
pub(super) struct Groups {
    places: Vec<Option<Group>>,
    free: Vec<usize>,
}

impl Groups {
    /// Adds a group.
    pub(super) fn insert(&mut self, group: Group) -> GroupId {
        match self.free.pop() {
            Some(index) => {
                self.places[index] = Some(group);
                GroupId(index)
            }
            None => {
                self.places.push(Some(group));
                GroupId(self.places.len() - 1)
            }
        }
    }

    /// The group of a sequence that is still in the scheduler.
    pub(super) fn get(&self, id: GroupId) -> &Group {
        self.places[id.0].as_ref().expect("a group stays until its last sequence is removed")
    }

    /// The same, to be changed.
    pub(super) fn get_mut(&mut self, id: GroupId) -> &mut Group {
        self.places[id.0].as_mut().expect("a group stays until its last sequence is removed")
    }

    /// Takes a group out; its events are sent, and its event sender is dropped with it.
    pub(super) fn remove(&mut self, id: GroupId) -> Option<Group> {
        let mut group = self.places[id.0].take()?;
        // One that never started has its place in the queue still: it is free before whoever waits learns the end.
        group.place = None;
        group.flush();
        self.free.push(id.0);
        Some(group)
    }

    /// Sends what is to be sent.
    pub(super) fn flush(&mut self) {
        self.places.iter_mut().flatten().for_each(Group::flush);
    }

    /// All groups.
    pub(super) fn iter(&self) -> impl Iterator<Item = (GroupId, &Group)> {
        self.places.iter().enumerate().filter_map(|(index, group)| Some((GroupId(index), group.as_ref()?)))
    }

    /// How many have not started.
    pub(super) fn not_started(&self) -> usize {
        self.iter().filter(|(_, group)| !group.started).count()
    }
}

/// Sequences by group, for sets that are small.
pub(super) type GroupSet = Vec<GroupId>;

/// Requests that run now, by tenant: (sequences, weight).
pub(super) type TenantCounts = HashMap<u64, (usize, u32)>;
