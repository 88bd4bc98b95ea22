//! What the engine is asked and what it answers. Nothing here runs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sconce_models::CacheType;

use crate::engine::Guide;

/// How tokens are chosen. Checked at the edge; the engine takes it as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// 0 takes the best token; otherwise logits are divided by it. 0..=2 at the edge.
    pub temperature: f32,
    /// Keep the smallest set of tokens whose probability reaches this; 1 keeps all.
    pub top_p: f32,
    /// Keep this many best tokens; 0 keeps all.
    pub top_k: u32,
    /// Keep tokens at least this probable relative to the best; 0 keeps all.
    pub min_p: f32,
    /// Locally typical sampling (Meister et al. 2022); 1 keeps all.
    pub typical_p: f32,
    /// Divides positive and multiplies negative logits of tokens in prompt or answer (Keskar et al. 2019); 1 is off.
    pub repetition_penalty: f32,
    /// Taken off the logit of a token for being in the answer already; 0 is off.
    pub presence_penalty: f32,
    /// Taken off per time a token is in the answer already; 0 is off.
    pub frequency_penalty: f32,
    /// Added to logits: (token id, bias).
    pub logit_bias: Vec<(u32, f32)>,
    /// The random number of a token comes from (seed, choice, position) alone. None: the engine draws a seed.
    pub seed: Option<u64>,
    /// Whether chosen tokens come with their log-probability, and how many alternatives with it. The
    /// log-probabilities are of the model's distribution before temperature and filters (after bias and penalties
    /// is not meant: they are the raw log-softmax).
    pub logprobs: Option<u32>,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            typical_p: 1.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: None,
            logprobs: None,
        }
    }
}

/// Who goes first when not all can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub enum Priority {
    /// Only when nobody else waits.
    Batch,
    /// The usual.
    #[default]
    Normal,
    /// Before the others.
    High,
}

/// A thought that may have only so many tokens: when they are used up, it is ended for the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThoughtLimit {
    /// The token that begins one, at the beginning of an answer.
    pub begin: Option<u32>,
    /// The token that ends one.
    pub end: u32,
    /// The prompt began one.
    pub is_open: bool,
    /// Most tokens of it, the one that ends it not counted.
    pub budget: u32,
}

impl ThoughtLimit {
    /// Latest place of an answer at which a thought may begin: some models say a line's end first.
    const LATEST: u32 = 3;

    /// What is left of the budget before anything was said; none: the answer is no thought.
    pub(super) fn at_start(self) -> Option<u32> {
        self.is_open.then_some(self.budget)
    }

    /// What is left after the token `id`, the `number`th of an answer, of what was `left` before.
    pub(super) fn after(self, id: u32, number: u32, left: Option<u32>) -> Option<u32> {
        match left {
            Some(_) if id == self.end => None,
            Some(left) => Some(left.saturating_sub(1)),
            None if Some(id) == self.begin && number <= Self::LATEST => Some(self.budget),
            None => None,
        }
    }
}

/// One request: a prompt and how to continue it, `choices` times.
#[derive(Debug, Clone)]
pub struct SequenceRequest {
    /// The prompt, at least one token.
    pub prompt: Vec<u32>,
    /// How tokens are chosen.
    pub sampling: SamplingParams,
    /// Answers wanted; they share the prompt's cache blocks. At least 1.
    pub choices: u32,
    /// Most tokens per answer; 0 only runs the prompt (for `prompt_logprobs`).
    pub max_new_tokens: u32,
    /// End tokens are not looked at before this many tokens.
    pub min_new_tokens: u32,
    /// Tokens that end an answer: the model's end tokens (unless ignored) and the caller's.
    pub stop_token_ids: Vec<u32>,
    /// What the answer must belong to, if it must.
    pub guide: Option<Box<Guide>>,
    /// How long its answers may think, if that is bounded.
    pub thought: Option<ThoughtLimit>,
    /// What the answer is said to be; another text to guess from. Empty: nothing is said.
    pub prediction: Arc<[u32]>,
    /// Log-probabilities of the prompt's tokens, with this many alternatives. Such a request takes no prefix-cache hit.
    pub prompt_logprobs: Option<u32>,
    /// Whose request it is, opaque: waiting requests are served fairly between tenants, and cached prefixes are
    /// shared only within one tenant unless `shared_prefix` is set.
    pub tenant: u64,
    /// The tenant's share relative to others, at least 1.
    pub weight: u32,
    /// Who goes first.
    pub priority: Priority,
    /// Cached prefixes of all tenants with this flag are shared.
    pub shared_prefix: bool,
    /// When to give up, waiting or running.
    pub deadline: Option<Instant>,
}

impl SequenceRequest {
    /// A request with everything at its default.
    pub fn new(prompt: Vec<u32>, max_new_tokens: u32) -> Self {
        Self {
            prompt,
            sampling: SamplingParams::default(),
            choices: 1,
            max_new_tokens,
            min_new_tokens: 0,
            stop_token_ids: Vec::new(),
            guide: None,
            thought: None,
            prediction: Arc::default(),
            prompt_logprobs: None,
            tenant: 0,
            weight: 1,
            priority: Priority::Normal,
            shared_prefix: false,
            deadline: None,
        }
    }
}

/// A token with its log-probability and the best alternatives, best first.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    /// Natural logarithm of the model's probability.
    pub logprob: f32,
    /// (token id, log-probability), best first; as many as were asked for.
    pub top: Vec<(u32, f32)>,
}

/// Log-probability of a prompt token, and the best alternatives: (token id, log-probability), best first.
pub type PromptLogprob = (f32, Vec<(u32, f32)>);

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// A stop token (its id). The token itself is not sent as a [`TokenEvent::Token`].
    Stop(u32),
    /// The grammar is complete: nothing could follow.
    Complete,
    /// `max_new_tokens` or the context length is reached.
    Length,
    /// The deadline passed.
    Deadline,
}

/// What comes out of the engine, in order per choice.
#[derive(Debug, Clone, PartialEq)]
pub enum TokenEvent {
    /// The prompt is in the cache; sent once, before the first token.
    Prefilled {
        /// Prompt tokens found in the prefix cache.
        cached_tokens: u32,
        /// Log-probabilities of prompt tokens 1.. (the first has none), if they were asked for.
        prompt_logprobs: Option<Vec<PromptLogprob>>,
    },
    /// One more token of an answer.
    Token {
        /// Which answer, from 0.
        choice: u32,
        /// Its id.
        id: u32,
        /// Present if log-probabilities were asked for.
        logprob: Option<TokenLogprob>,
    },
    /// An answer is complete. The stream ends after one of these per choice.
    Finished {
        /// Which answer, from 0.
        choice: u32,
        /// Why.
        reason: FinishReason,
        /// Tokens generated for it, the stop token included: what is metered.
        generated_tokens: u32,
    },
    /// The engine could not go on with this request (a NaN, a fault). The stream ends.
    Failed {
        /// What the log says too; not for clients.
        reason: String,
    },
}

/// What an engine may use and how long it lets others wait.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineLimits {
    /// KV blocks to allocate (32 positions each).
    pub cache_blocks: usize,
    /// How keys and values are stored.
    pub cache_type: CacheType,
    /// Most tokens in one step.
    pub max_batch_tokens: usize,
    /// Most prompt tokens of one step while other sequences are decoding; fewer are run where these would make them wait
    /// for more than about 150 ms.
    pub prefill_chunk: usize,
    /// Most sequences in one step.
    pub max_running: usize,
    /// Most requests waiting; one more is refused.
    pub max_waiting: usize,
    /// How long a request may wait before its first step.
    pub queue_timeout: Duration,
    /// Whether full blocks are kept and found again.
    pub prefix_cache: bool,
    /// Whether tokens are guessed where a sequence repeats its prompt or itself.
    pub speculation: Speculation,
}

/// Whether tokens are guessed and checked several at a time. It changes when tokens come, never which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Speculation {
    /// One token a step.
    Off,
    /// Where it pays: as far as guesses are likely, and steps not much longer for them.
    #[default]
    Auto,
    /// As much as fits, whether or not it pays, with guesses out of the air where there are no better ones. It is for
    /// tests of what must not depend on guesses.
    Always,
}

impl Default for EngineLimits {
    fn default() -> Self {
        Self {
            cache_blocks: 256,
            cache_type: CacheType::F16,
            max_batch_tokens: 512,
            prefill_chunk: 64,
            max_running: 64,
            max_waiting: 256,
            queue_timeout: Duration::from_secs(120),
            prefix_cache: true,
            speculation: Speculation::Auto,
        }
    }
}
