//! The shape of a packed batch over a paged cache, checked once for all layers of a pass.

use std::collections::HashSet;

use candle_core::Device;

use crate::{Error, Result};

const OPERATION: &str = "paged batch";

/// The lists that describe a packed batch; see [`PagedBatch::new`] for what must hold.
#[derive(Debug, Clone, Default)]
pub struct PagedParts {
    /// `[tokens]` position of each token within its own sequence, from 0.
    pub positions: Vec<u32>,
    /// `[sequences + 1]` where each sequence's tokens start.
    pub starts: Vec<u32>,
    /// `[sequences]` tokens in cache once this pass is done.
    pub context_lens: Vec<u32>,
    /// `[tokens]` cache slot = block × block size + offset.
    pub slots: Vec<u32>,
    /// `[sequences][blocks]` block ids in order.
    pub block_tables: Vec<Vec<u32>>,
    /// Positions per block.
    pub block_size: usize,
    /// Blocks of the cache.
    pub blocks: usize,
}

/// A packed batch that fits its cache: no index in it leads outside.
#[derive(Debug, Clone)]
pub struct PagedBatch {
    parts: PagedParts,
}

impl PagedBatch {
    /// Checks the lists against each other and against the cache's size. `device` is where the cache is.
    ///
    /// # Errors
    /// [`Error::Shape`] if lengths disagree, a position lies outside its context, a context is longer than
    /// its block table, or two tokens share a slot; [`Error::OutOfRange`] if a block or slot does not exist.
    pub fn new(parts: PagedParts, device: &Device) -> Result<Self> {
        let _ = device; // Index tensors are made where a device needs them.
        check_lengths(&parts)?;
        check_slots(&parts)?;
        for sequence in 0..parts.context_lens.len() {
            check_sequence(&parts, sequence)?;
        }
        Ok(Self { parts })
    }

    /// Tokens of the pass.
    pub fn tokens(&self) -> usize {
        self.parts.positions.len()
    }

    /// Sequences of the pass.
    pub fn sequences(&self) -> usize {
        self.parts.context_lens.len()
    }

    /// `[tokens]` position of each token.
    pub fn positions(&self) -> &[u32] {
        &self.parts.positions
    }

    /// `[tokens]` cache slot of each token.
    pub fn slots(&self) -> &[u32] {
        &self.parts.slots
    }

    /// Positions per block.
    pub fn block_size(&self) -> usize {
        self.parts.block_size
    }

    /// Blocks of the cache.
    pub fn blocks(&self) -> usize {
        self.parts.blocks
    }

    /// Tokens in cache of a sequence.
    pub(super) fn context_len(&self, sequence: usize) -> usize {
        self.parts.context_lens[sequence] as usize
    }

    /// Block ids of a sequence.
    pub(super) fn block_table(&self, sequence: usize) -> &[u32] {
        &self.parts.block_tables[sequence]
    }

    /// Tokens of a sequence within the batch.
    pub(super) fn rows(&self, sequence: usize) -> std::ops::Range<usize> {
        self.parts.starts[sequence] as usize..self.parts.starts[sequence + 1] as usize
    }
}

/// Checks that `starts` cuts `tokens` into consecutive sequences; returns their number.
pub(super) fn check_starts(operation: &'static str, starts: &[u32], tokens: usize) -> Result<usize> {
    let cut = starts.first() == Some(&0)
        && starts.last().is_some_and(|last| *last as usize == tokens)
        && starts.is_sorted();
    if !cut {
        return Err(Error::shape(operation, format!("starts {starts:?} do not cut {tokens} tokens")));
    }
    Ok(starts.len() - 1)
}

fn check_lengths(parts: &PagedParts) -> Result<()> {
    let sequences = check_starts(OPERATION, &parts.starts, parts.positions.len())?;
    if parts.slots.len() != parts.positions.len() {
        let reason = format!("{} slots for {} tokens", parts.slots.len(), parts.positions.len());
        return Err(Error::shape(OPERATION, reason));
    }
    if parts.context_lens.len() != sequences || parts.block_tables.len() != sequences {
        let (contexts, tables) = (parts.context_lens.len(), parts.block_tables.len());
        let reason = format!("{contexts} contexts and {tables} block tables for {sequences} sequences");
        return Err(Error::shape(OPERATION, reason));
    }
    if parts.block_size == 0 || parts.blocks.checked_mul(parts.block_size).is_none() {
        return Err(Error::shape(OPERATION, format!("{} blocks of {}", parts.blocks, parts.block_size)));
    }
    Ok(())
}

fn check_slots(parts: &PagedParts) -> Result<()> {
    let count = parts.blocks * parts.block_size;
    let mut seen = HashSet::with_capacity(parts.slots.len());
    for slot in &parts.slots {
        if *slot as usize >= count {
            return Err(Error::OutOfRange {
                operation: OPERATION,
                what: "slot",
                index: *slot as usize,
                count,
            });
        }
        if !seen.insert(*slot) {
            return Err(Error::shape(OPERATION, format!("slot {slot} is written twice")));
        }
    }
    Ok(())
}

fn check_sequence(parts: &PagedParts, sequence: usize) -> Result<()> {
    let context = parts.context_lens[sequence] as usize;
    let table = &parts.block_tables[sequence];
    if context > table.len().saturating_mul(parts.block_size) {
        let reason = format!("a context of {context} in {} blocks of {}", table.len(), parts.block_size);
        return Err(Error::shape(OPERATION, reason));
    }
    let used = &table[..context.div_ceil(parts.block_size)];
    if let Some(block) = used.iter().find(|block| **block as usize >= parts.blocks) {
        let (index, count) = (*block as usize, parts.blocks);
        return Err(Error::OutOfRange { operation: OPERATION, what: "block", index, count });
    }
    let rows = parts.starts[sequence] as usize..parts.starts[sequence + 1] as usize;
    if let Some(position) = parts.positions[rows].iter().find(|position| **position as usize >= context) {
        return Err(Error::shape(OPERATION, format!("position {position} in a context of {context}")));
    }
    Ok(())
}
