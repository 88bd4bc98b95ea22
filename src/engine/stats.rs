//! What the engine says of itself, for metrics, `/health` and tests.

/// A snapshot, published after each step through a `watch` channel.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct EngineStats {
    /// Requests not yet started.
    pub waiting: usize,
    /// Sequences holding cache blocks.
    pub running: usize,
    /// All cache blocks.
    pub total_blocks: usize,
    /// Blocks that no sequence holds (kept prefixes count as free: they can be taken at once).
    pub free_blocks: usize,
    /// Steps run so far.
    pub steps: u64,
    /// Prompt tokens run so far (found in the prefix cache not counted).
    pub prefill_tokens: u64,
    /// Tokens generated so far.
    pub generated_tokens: u64,
    /// Tokens guessed and run so far.
    pub drafted_tokens: u64,
    /// Of those, how many were right.
    pub accepted_tokens: u64,
    /// Tokens so far that a grammar left no choice about, taken together with the one before them.
    pub forced_tokens: u64,
    /// Prompt tokens looked up in the prefix cache so far.
    pub prefix_queries: u64,
    /// Prompt tokens found there so far.
    pub prefix_hits: u64,
    /// Sequences that gave their blocks back to be recomputed, so far.
    pub preemptions: u64,
    /// Requests that ended by each way, so far: stop, length, abandoned, deadline, failed.
    pub finished_stop: u64,
    /// Ended at their length limit.
    pub finished_length: u64,
    /// Given up by their caller.
    pub finished_abandoned: u64,
    /// Ended by deadline.
    pub finished_deadline: u64,
    /// Failed in the engine.
    pub finished_failed: u64,
}
