//! Which cache block belongs to whom: reference counts, the free list, and kept prefixes. Integers only.
//!
//! It never touches keys and values (that is [`sconce_models::KvCache`]) and decides no policy but one: among blocks
//! that nobody holds, those without a name are taken first, then the named one that has been idle longest. A block
//! may be written only while it has exactly one holder.

use std::collections::{BTreeMap, HashMap};

use crate::engine::prefix::PrefixHash;

/// A block of the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct BlockId(pub(super) u32);

impl BlockId {
    fn index(self) -> usize {
        self.0 as usize
    }
}

#[derive(Debug, Clone, Default)]
struct Block {
    /// Sequences whose tables name this block.
    references: u32,
    /// Its name, if it can be found by its content.
    name: Option<PrefixHash>,
    /// Its key in `idle` while it is there.
    idle_since: u64,
}

/// Owner of all block ids of one cache.
pub(super) struct BlockManager {
    blocks: Vec<Block>,
    /// Neither held nor named.
    free: Vec<BlockId>,
    /// Named but not held, longest idle first.
    idle: BTreeMap<u64, BlockId>,
    named: HashMap<PrefixHash, BlockId>,
    /// Names that running sequences will give soon, and by how many of them.
    expected: HashMap<PrefixHash, u32>,
    /// Counts releases; orders `idle`.
    clock: u64,
}

impl BlockManager {
    /// All of `total` blocks, free.
    pub(super) fn new(total: usize) -> Self {
        let total = u32::try_from(total).unwrap_or(u32::MAX);
        Self {
            blocks: vec![Block::default(); total as usize],
            free: (0..total).rev().map(BlockId).collect(),
            idle: BTreeMap::new(),
            named: HashMap::new(),
            expected: HashMap::new(),
            clock: 0,
        }
    }

    /// All blocks.
    pub(super) fn total(&self) -> usize {
        self.blocks.len()
    }

    /// Blocks that can be had at once: free and idle ones.
    pub(super) fn available(&self) -> usize {
        self.free.len() + self.idle.len()
    }

    /// Holders of a block.
    pub(super) fn references(&self, id: BlockId) -> u32 {
        self.blocks[id.index()].references
    }

    /// An empty block with one holder; takes the longest idle prefix if it must. None if all are held.
    pub(super) fn allocate(&mut self) -> Option<BlockId> {
        let id = match self.free.pop() {
            Some(id) => id,
            None => {
                let (_, id) = self.idle.pop_first()?;
                self.unname(id);
                id
            }
        };
        self.blocks[id.index()].references = 1;
        Some(id)
    }

    /// One more holder.
    pub(super) fn retain(&mut self, id: BlockId) {
        let block = &mut self.blocks[id.index()];
        if block.references == 0 {
            self.idle.remove(&block.idle_since);
        }
        block.references += 1;
    }

    /// One holder less. The last one leaves a named block idle and any other free.
    pub(super) fn release(&mut self, id: BlockId) {
        let block = &mut self.blocks[id.index()];
        debug_assert!(block.references > 0, "block {id:?} is released more often than held");
        block.references -= 1;
        if block.references > 0 {
            return;
        }
        if block.name.is_some() {
            self.clock += 1;
            block.idle_since = self.clock;
            self.idle.insert(self.clock, id);
        } else {
            self.free.push(id);
        }
    }

    /// The block of that name, held or idle. Does not hold it.
    pub(super) fn find(&self, name: PrefixHash) -> Option<BlockId> {
        self.named.get(&name).copied()
    }

    /// Whether nobody holds the block.
    pub(super) fn is_idle(&self, id: BlockId) -> bool {
        self.blocks[id.index()].references == 0
    }

    /// Names a held, full block. If another block has that name already, this one stays nameless.
    pub(super) fn name(&mut self, id: BlockId, name: PrefixHash) {
        let block = &mut self.blocks[id.index()];
        if block.name.is_none() && !self.named.contains_key(&name) {
            block.name = Some(name);
            self.named.insert(name, id);
        }
    }

    /// Takes a held block's name away: its content is not to be trusted.
    pub(super) fn unname(&mut self, id: BlockId) {
        if let Some(name) = self.blocks[id.index()].name.take() {
            self.named.remove(&name);
        }
    }

    /// A running sequence will fill a block of that name.
    pub(super) fn expect(&mut self, name: PrefixHash) {
        *self.expected.entry(name).or_insert(0) += 1;
    }

    /// It has filled it, or will not.
    pub(super) fn unexpect(&mut self, name: PrefixHash) {
        if let Some(count) = self.expected.get_mut(&name) {
            *count -= 1;
            if *count == 0 {
                self.expected.remove(&name);
            }
        }
    }

    /// Whether a running sequence will fill a block of that name.
    pub(super) fn is_expected(&self, name: PrefixHash) -> bool {
        self.expected.contains_key(&name)
    }
}

#[cfg(test)]
impl BlockManager {
    /// Panics unless each block is in exactly one place and held as often as `tables` say.
    pub(super) fn check<'a>(&self, tables: impl Iterator<Item = &'a [BlockId]>, expected: usize) {
        let mut counts = vec![0; self.total()];
        for id in tables.flatten() {
            counts[id.index()] += 1;
        }
        for (index, block) in self.blocks.iter().enumerate() {
            let id = BlockId(index as u32);
            assert_eq!(block.references, counts[index], "holders of block {index}");
            let free = self.free.iter().filter(|&&other| other == id).count();
            let idle = self.idle.values().filter(|&&other| other == id).count();
            let places = free + idle + usize::from(block.references > 0);
            assert_eq!(places, 1, "block {index} is in {places} places");
            assert_eq!(free == 1, block.references == 0 && block.name.is_none(), "free block {index}");
            if let Some(name) = block.name {
                assert_eq!(self.named.get(&name), Some(&id));
            }
        }
        assert_eq!(self.named.len(), self.blocks.iter().filter(|block| block.name.is_some()).count());
        assert_eq!(self.expected.values().sum::<u32>() as usize, expected, "expected names");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::prefix::PrefixHasher;

    fn names(count: usize) -> Vec<PrefixHash> {
        let hasher = PrefixHasher::random();
        let mut names = Vec::new();
        hasher.extend(hasher.root(None), &mut names, &vec![3; 32 * count]);
        names
    }

    #[test]
    fn a_named_block_outlives_its_holder_until_it_is_the_longest_idle() {
        let names = names(3);
        let mut blocks = BlockManager::new(3);
        let held: Vec<BlockId> = (0..3).map(|_| blocks.allocate().unwrap()).collect();
        assert!(blocks.allocate().is_none());
        for (&id, &name) in held.iter().zip(&names) {
            blocks.name(id, name);
        }
        for &id in [&held[1], &held[0], &held[2]] {
            blocks.release(id);
        }
        assert_eq!(blocks.available(), 3);
        blocks.retain(blocks.find(names[1]).unwrap());
        assert_eq!(blocks.available(), 2);
        assert_eq!(blocks.allocate(), Some(held[0]), "the longest idle one that nobody holds");
        assert_eq!(blocks.find(names[0]), None);
        assert_eq!(blocks.find(names[2]), Some(held[2]));
    }

    #[test]
    fn the_first_block_of_a_name_keeps_it() {
        let names = names(1);
        let mut blocks = BlockManager::new(2);
        let (a, b) = (blocks.allocate().unwrap(), blocks.allocate().unwrap());
        blocks.name(a, names[0]);
        blocks.name(b, names[0]);
        assert_eq!(blocks.find(names[0]), Some(a));
        blocks.release(b);
        blocks.release(a);
        assert_eq!(blocks.allocate(), Some(b), "the nameless one is free");
        blocks.unname(a);
        assert_eq!(blocks.find(names[0]), None);
    }
}
