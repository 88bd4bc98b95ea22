//! The paged key/value cache: storage only, no policy. Who owns which block is the engine's business.

use std::str::FromStr;

use candle_core::Tensor;
use sconce_kernels::{CacheFormat, Level, lazy_zeros};
use serde::Serialize;

use crate::{Arithmetic, Device, Error, ModelSpec};

/// How cached keys and values are stored. Softmax and sums are f32 whatever this says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheType {
    /// `bf16` where the processor multiplies that in tiles (AMX) and weights are quantised, else `f16`; the same memory. It is settled
    /// when a model is loaded ([`Loaded::cache_type`](crate::Loaded::cache_type)).
    #[default]
    Auto,
    /// Half precision.
    F16,
    /// The upper half of full precision, for processors with tiles: softmax apart, attention is in it, too. Heads that do not fill
    /// tiles are kept in `f16`. On the CPU only.
    Bf16,
    /// Full precision: for comparing with a reference.
    F32,
    /// 34 bytes for 32 numbers, a little over half of `f16`: for more tokens in the same memory. On the CPU only.
    #[serde(rename = "q8_0")]
    Q8_0,
}

impl CacheType {
    /// What is kept of a model: `Auto` is settled here. Who asks for integers wants the same bits on every processor, and weights that are
    /// not quantised are worth a cache as exact as they are.
    pub(crate) fn settled(
        self,
        arithmetic: Arithmetic,
        is_quantised: bool,
        device: &Device,
        head_dim: usize,
    ) -> Self {
        match self {
            Self::Auto if arithmetic == Arithmetic::Auto && is_quantised => Self::Bf16,
            Self::Auto => Self::F16,
            other => other,
        }
        .fitting(device, head_dim)
    }

    /// `f16` in place of `bf16` for heads that do not fill tiles, or where there are none.
    fn fitting(self, device: &Device, head_dim: usize) -> Self {
        let fills_tiles = device.is_cpu() && CacheFormat::fills_tiles(KvCache::BLOCK_SIZE, head_dim);
        if self == Self::Bf16 && !fills_tiles { Self::F16 } else { self }
    }

    fn format(self, device: &Device, head_dim: usize) -> CacheFormat {
        match self.fitting(device, head_dim) {
            Self::Bf16 => CacheFormat::Bf16,
            Self::Auto | Self::F16 => CacheFormat::F16,
            Self::F32 => CacheFormat::F32,
            Self::Q8_0 => CacheFormat::Q8_0,
        }
    }

    /// Checks that the device can keep a cache of this type.
    ///
    /// # Errors
    /// [`Error::Unsupported`] by name.
    pub(crate) fn check(self, device: &Device) -> Result<(), Error> {
        match (self, device.candle()) {
            (Self::Q8_0, candle_core::Device::Cuda(_) | candle_core::Device::Metal(_)) => {
                let value = format!("q8_0 on {}", device.name());
                Err(Error::Unsupported { what: "cache type", value })
            }
            (Self::Bf16, _) if !device.is_cpu() || !has_tiles() => {
                let value = format!("bf16 on {} without tiles for it (use auto or f16)", device.name());
                Err(Error::Unsupported { what: "cache type", value })
            }
            _ => Ok(()),
        }
    }
}

fn has_tiles() -> bool {
    Level::detect() == Level::Amx
}

impl FromStr for CacheType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "f16" => Ok(Self::F16),
            "bf16" => Ok(Self::Bf16),
            "f32" => Ok(Self::F32),
            "q8_0" => Ok(Self::Q8_0),
            other => Err(format!("cache type `{other}` is not known; use auto, f16, bf16, q8_0 or f32")),
        }
    }
}

/// K and V of one layer.
#[derive(Debug, Clone)]
pub(crate) struct LayerCache {
    /// As [`CacheFormat`] says.
    pub keys: Tensor,
    /// As [`CacheFormat`] says.
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
        let cpu = Device::cpu();
        let format = cache_type.format(&cpu, spec.head_dim);
        let shapes = format.shapes(cpu.candle(), 1, Self::BLOCK_SIZE, spec.kv_heads, spec.head_dim);
        let cells: usize = shapes.iter().flat_map(|shape| shape.iter().copied().reduce(|a, b| a * b)).sum();
        (spec.layers * cells * format.dtype().size_in_bytes()) as u64
    }

    /// Allocates `blocks` blocks on the device.
    ///
    /// # Errors
    /// [`Error::Compute`] if the memory is not there; [`Error::Unsupported`] if the device cannot keep such a cache, or its type is not
    /// settled.
    pub fn new(
        spec: &ModelSpec,
        blocks: usize,
        cache_type: CacheType,
        device: &Device,
    ) -> Result<Self, Error> {
        cache_type.check(device)?;
        if cache_type == CacheType::Auto {
            // It would be another one than the model's fingerprint names.
            let value = "auto, before a model was loaded".to_owned();
            return Err(Error::Unsupported { what: "cache type", value });
        }
        let format = cache_type.format(device, spec.head_dim);
        let [keys, values] =
            format.shapes(device.candle(), blocks, Self::BLOCK_SIZE, spec.kv_heads, spec.head_dim);
        let tensors = |shape: [usize; 4]| layers_of(spec.layers, shape, format, device);
        let layers = tensors(keys)?.into_iter().zip(tensors(values)?);
        let layers: Vec<LayerCache> = layers.map(|(keys, values)| LayerCache { keys, values }).collect();
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
                // By way of a copy of this block, and no more than that: source and destination share one storage, which
                // `slice_set` refuses.
                tensor.slice_set(&tensor.narrow(0, from, 1)?.force_contiguous()?, 0, to)?;
            }
        }
        Ok(())
    }

    /// Checks that this cache was made for a model of that shape.
    pub(crate) fn check(&self, layers: usize, kv_heads: usize, head_dim: usize) -> Result<(), Error> {
        let fits = |layer: &LayerCache| {
            CacheFormat::of(layer.keys.dtype()).is_some_and(|format| {
                let (device, blocks) = (layer.keys.device(), self.blocks);
                let [keys, _] = format.shapes(device, blocks, Self::BLOCK_SIZE, kv_heads, head_dim);
                layer.keys.dims() == keys
            })
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

/// A tensor of this shape for each layer. On the CPU they are parts of one piece: that is large enough to come from the
/// system untouched, where smaller ones are made of what was freed before, cleared, and resident from the start.
fn layers_of(
    layers: usize,
    shape: [usize; 4],
    format: CacheFormat,
    device: &Device,
) -> Result<Vec<Tensor>, Error> {
    let (device, dtype) = (device.candle(), format.dtype());
    if !device.is_cpu() {
        return (0..layers).map(|_| Ok(lazy_zeros(&shape, dtype, device)?)).collect();
    }
    let [blocks, rest @ ..] = shape;
    let all = lazy_zeros(&[&[layers * blocks], rest.as_slice()].concat(), dtype, device)?;
    (0..layers).map(|layer| Ok(all.narrow(0, layer * blocks, blocks)?)).collect()
}
