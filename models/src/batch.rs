//! What one forward pass reads: sequences packed end to end, prefill and decode alike, no padding.

/// One packed batch. Plain vectors: the scheduler builds it without a tensor library.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// `[tokens]` ids to run now.
    pub token_ids: Vec<u32>,
    /// `[tokens]` position of each within its own sequence, from 0.
    pub positions: Vec<u32>,
    /// `[sequences + 1]` where each sequence's tokens start in `token_ids`.
    pub starts: Vec<u32>,
    /// `[sequences]` tokens in cache once this pass is done.
    pub context_lens: Vec<u32>,
    /// `[tokens]` cache slot = block × block size + offset.
    pub slots: Vec<u32>,
    /// `[sequences][blocks]` block ids in order.
    pub block_tables: Vec<Vec<u32>>,
    /// Rows of `token_ids` whose logits are wanted, ascending.
    pub sample_rows: Vec<u32>,
}

impl Batch {
    /// Number of tokens run by this pass.
    pub fn tokens(&self) -> usize {
        self.token_ids.len()
    }

    /// Number of sequences in this pass.
    pub fn sequences(&self) -> usize {
        self.context_lens.len()
    }
}
