//! The paged key/value cache: storage only, no policy. Who owns which block is the engine's business.

use std::str::FromStr;

use candle_core::{DType, Tensor};
use sconce_kernels::{cache_shapes, lazy_zeros};
use serde::Serialize;

use crate::{Device, Error, ModelSpec};

/// How cached keys and values are stored. Softmax and sums are f32 whatever this says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheType {
    /// Half precision, the default.
    #[default]
    F16,
    /// Full precision: for comparing with a reference.
    F32,
}

impl CacheType {
    fn dtype(self) -> DType {
        match self {
            Self::F16 => DType::F16,
            Self::F32 => DType::F32,
        }
    }
}

impl FromStr for CacheType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "f16" => Ok(Self::F16),
            "f32" => Ok(Self::F32),
            other => Err(format!("cache type `{other}` is not known; use f16 or f32")),
        }
    }
}

/// K and V of one layer.
#[derive(Debug, Clone)]
pub(crate) struct LayerCache {
    /// As [`cache_shapes`] says.
    pub keys: Tensor,
    /// As [`cache_shapes`] says.
    pub values: Tensor,
}

/// Blocks of keys and values for every layer, allocated once.
#[derive(Debug)]
pub struct KvCache {
    blocks: usize,
    layers: Vec<LayerCache>,
    /// `[blocks × block_size]`, only for a model without layers: what its stand-in wrote at each slot.
    marks: Vec<u32>,
}

impl KvCache {
    /// Positions per block.
    pub const BLOCK_SIZE: usize = 32;

    /// Bytes that one block takes over all layers.
    pub fn bytes_per_block(spec: &ModelSpec, cache_type: CacheType) -> u64 {
        let per_layer =
            2 * Self::BLOCK_SIZE * spec.kv_heads * spec.head_dim * cache_type.dtype().size_in_bytes();
        (spec.layers * per_layer) as u64
    }

    /// Allocates `blocks` blocks on the device.
    ///
    /// # Errors
    /// [`Error::Compute`] if the memory is not there.
    pub fn new(
        spec: &ModelSpec,
        blocks: usize,
        cache_type: CacheType,
        device: &Device,
    ) -> Result<Self, Error> {
        let [keys, values] =
            cache_shapes(device.candle(), blocks, Self::BLOCK_SIZE, spec.kv_heads, spec.head_dim);
        let tensor = |shape: &[usize; 4]| lazy_zeros(shape, cache_type.dtype(), device.candle());
        let layer = |_| Ok(LayerCache { keys: tensor(&keys)?, values: tensor(&values)? });
        let layers: Vec<LayerCache> = (0..spec.layers).map(layer).collect::<Result<_, Error>>()?;
        let marks = if layers.is_empty() { vec![0; blocks * Self::BLOCK_SIZE] } else { Vec::new() };
        Ok(Self { blocks, layers, marks })
    }

    /// A cache for models that keep no keys and values (tests' stand-ins): it has only the marks.
    pub fn without_storage(blocks: usize) -> Self {
        Self { blocks, layers: Vec::new(), marks: vec![0; blocks * Self::BLOCK_SIZE] }
    }

    /// What was last marked at a slot, in a cache without layers: a model's stand-in keeps one number per position
    /// here in place of keys and values, and so sees whether blocks are shared and copied as they should be.
    pub fn mark(&self, slot: u32) -> Option<u32> {
        self.marks.get(slot as usize).copied()
    }

    /// Marks a slot; see [`KvCache::mark`]. Does nothing in a cache with layers.
    pub fn set_mark(&mut self, slot: u32, mark: u32) {
        if let Some(place) = self.marks.get_mut(slot as usize) {
            *place = mark;
        }
    }

    /// Number of blocks.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// Copies one block's keys and values, in every layer: a shared block is copied before it is written to.
    ///
    /// # Errors
    /// [`Error::Batch`] if a block does not exist.
    pub fn copy_block(&mut self, from: u32, to: u32) -> Result<(), Error> {
        let (from, to) = (from as usize, to as usize);
        if from >= self.blocks || to >= self.blocks {
            return Err(Error::Batch(format!("block {} of {} does not exist", from.max(to), self.blocks)));
        }
        if !self.marks.is_empty() {
            let start = from * Self::BLOCK_SIZE;
            self.marks.copy_within(start..start + Self::BLOCK_SIZE, to * Self::BLOCK_SIZE);
        }
        for layer in &self.layers {
            for tensor in [&layer.keys, &layer.values] {
                // `copy` first: source and destination share one storage, which `slice_set` refuses.
                tensor.slice_set(&tensor.narrow(0, from, 1)?.copy()?, 0, to)?;
            }
        }
        Ok(())
    }

    /// Checks that this cache was made for a model of that shape.
    pub(crate) fn check(&self, layers: usize, kv_heads: usize, head_dim: usize) -> Result<(), Error> {
        let fits = |layer: &LayerCache| {
            let [keys, _] =
                cache_shapes(layer.keys.device(), self.blocks, Self::BLOCK_SIZE, kv_heads, head_dim);
            layer.keys.dims() == keys
        };
        if self.layers.len() != layers || !self.layers.iter().all(fits) {
            return Err(Error::Batch("the cache was made for another model".into()));
        }
        Ok(())
    }

    /// K and V of one layer, which [`KvCache::check`] has found to exist.
    pub(crate) fn layer(&self, index: usize) -> &LayerCache {
        &self.layers[index]
    }
}
