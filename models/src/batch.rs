//! What one forward pass reads: sequences packed end to end, prefill and decode alike, no padding.

use crate::{Error, KvCache};

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

    /// Checks that the lists agree with each other, with a vocabulary, a context and a cache of `blocks` blocks, so that
    /// no kernel has to doubt an index.
    pub(crate) fn check(&self, vocab_size: usize, context_length: usize, blocks: usize) -> Result<(), Error> {
        self.check_lengths()?;
        if let Some(id) = self.token_ids.iter().find(|&&id| id as usize >= vocab_size) {
            return refuse(format!("token id {id} of a vocabulary of {vocab_size}"));
        }
        for sequence in 0..self.sequences() {
            self.check_sequence(sequence, context_length, blocks)?;
        }
        let mut slots = self.slots.clone();
        slots.sort_unstable();
        if let Some(pair) = slots.windows(2).find(|pair| pair[0] == pair[1]) {
            return refuse(format!("slot {} is written twice", pair[0]));
        }
        Ok(())
    }

    fn check_lengths(&self) -> Result<(), Error> {
        let (tokens, sequences) = (self.tokens(), self.sequences());
        if tokens == 0 {
            return refuse("no tokens".into());
        }
        if self.positions.len() != tokens || self.slots.len() != tokens {
            let (positions, slots) = (self.positions.len(), self.slots.len());
            return refuse(format!("{tokens} tokens, {positions} positions, {slots} slots"));
        }
        if self.starts.len() != sequences + 1 || self.block_tables.len() != sequences {
            let (starts, tables) = (self.starts.len(), self.block_tables.len());
            return refuse(format!("{sequences} sequences, {starts} starts, {tables} block tables"));
        }
        let whole =
            self.starts.first() == Some(&0) && self.starts.last().map(|&end| end as usize) == Some(tokens);
        if !whole || self.starts.windows(2).any(|pair| pair[0] >= pair[1]) {
            return refuse("starts do not cut the tokens into sequences".into());
        }
        let ascending = self.sample_rows.windows(2).all(|pair| pair[0] < pair[1]);
        if !ascending || self.sample_rows.last().is_some_and(|&row| row as usize >= tokens) {
            return refuse(format!("sample rows are not ascending rows of {tokens}"));
        }
        Ok(())
    }

    /// The last tokens of a context, at the slots its block table gives them.
    fn check_sequence(&self, sequence: usize, context_length: usize, blocks: usize) -> Result<(), Error> {
        let rows = self.starts[sequence] as usize..self.starts[sequence + 1] as usize;
        let (context, table) = (self.context_lens[sequence] as usize, &self.block_tables[sequence]);
        if context > context_length || context < rows.len() {
            let tokens = rows.len();
            return refuse(format!(
                "sequence {sequence}: context of {context}, {tokens} tokens, limit {context_length}"
            ));
        }
        if table.len() < context.div_ceil(KvCache::BLOCK_SIZE) {
            return refuse(format!("sequence {sequence}: {} blocks for a context of {context}", table.len()));
        }
        if let Some(block) = table.iter().find(|&&block| block as usize >= blocks) {
            return refuse(format!("sequence {sequence}: block {block} of a cache of {blocks}"));
        }
        let first = context - rows.len();
        for (position, row) in (first..).zip(rows) {
            let block = table[position / KvCache::BLOCK_SIZE] as usize;
            let slot = block * KvCache::BLOCK_SIZE + position % KvCache::BLOCK_SIZE;
            if self.positions[row] as usize != position || self.slots[row] as usize != slot {
                let (position_found, slot_found) = (self.positions[row], self.slots[row]);
                return refuse(format!(
                    "row {row}: position {position_found} in slot {slot_found}, expected {position} in {slot}"
                ));
            }
        }
        Ok(())
    }
}

fn refuse(reason: String) -> Result<(), Error> {
    Err(Error::Batch(reason))
}

#[cfg(test)]
mod tests {
    use super::Batch;

    /// Two sequences: the second half of a context of 40 in blocks 3 and 1, and a first token in block 0.
    fn batch() -> Batch {
        Batch {
            token_ids: vec![7, 8, 9],
            positions: vec![38, 39, 0],
            starts: vec![0, 2, 3],
            context_lens: vec![40, 1],
            slots: vec![32 + 6, 32 + 7, 0],
            block_tables: vec![vec![3, 1], vec![0]],
            sample_rows: vec![1, 2],
        }
    }

    fn refusal(change: impl FnOnce(&mut Batch)) -> String {
        let mut batch = batch();
        change(&mut batch);
        batch.check(10, 64, 4).unwrap_err().to_string()
    }

    #[test]
    fn a_consistent_batch_passes() {
        batch().check(10, 64, 4).unwrap();
    }

    #[test]
    fn every_contradiction_is_refused() {
        assert!(refusal(|batch| *batch = Batch::default()).contains("no tokens"));
        assert!(refusal(|batch| batch.token_ids[1] = 10).contains("token id 10"));
        assert!(refusal(|batch| batch.positions.truncate(2)).contains("2 positions"));
        assert!(refusal(|batch| batch.slots.push(9)).contains("4 slots"));
        assert!(refusal(|batch| batch.starts.truncate(2)).contains("2 starts"));
        assert!(refusal(|batch| batch.block_tables.truncate(1)).contains("1 block tables"));
        assert!(refusal(|batch| batch.starts = vec![0, 0, 3]).contains("starts"));
        assert!(refusal(|batch| batch.starts = vec![1, 2, 3]).contains("starts"));
        assert!(refusal(|batch| batch.starts = vec![0, 4, 3]).contains("starts"));
        assert!(refusal(|batch| batch.starts = vec![0, 2, u32::MAX]).contains("starts"));
        assert!(refusal(|batch| batch.sample_rows = vec![2, 1]).contains("sample rows"));
        assert!(refusal(|batch| batch.sample_rows = vec![3]).contains("sample rows"));
        assert!(refusal(|batch| batch.context_lens[0] = 65).contains("context of 65"));
        assert!(refusal(|batch| batch.context_lens[0] = 1).contains("context of 1"));
        assert!(refusal(|batch| batch.block_tables[0] = vec![3]).contains("1 blocks"));
        assert!(refusal(|batch| batch.block_tables[0] = vec![3, 4]).contains("block 4"));
        assert!(refusal(|batch| batch.positions[1] = 38).contains("row 1"));
        assert!(refusal(|batch| batch.slots[0] = 5).contains("row 0"));
        assert!(refusal(|batch| batch.block_tables[0] = vec![1, 3]).contains("row 0"));
    }

    #[test]
    fn two_sequences_cannot_write_one_slot() {
        let message = refusal(|batch| {
            batch.block_tables[1] = vec![1];
            batch.context_lens[1] = 7;
            batch.positions[2] = 6;
            batch.slots[2] = 38;
        });
        assert!(message.contains("slot 38"), "{message}");
    }
}
