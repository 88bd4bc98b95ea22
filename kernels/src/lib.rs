//! The map of sconce's tensor operations: one folder per operation, one safe function each over candle
//! tensors.
//!
//! Not here: models, weight files, scheduling. The one thing to know: on the CPU **a row of the result
//! depends on that row alone, bit for bit**, whatever else is in the batch, however many threads run and
//! whichever [`Level`] of SIMD is used. Every kernel keeps to one order of floating-point operations per
//! output; tests compare bits. Only quantised weights have two such orders ([`Rounding`]); which one, is settled when they are
//! packed.
//!
//! On CUDA and Metal each operation is composed of candle's own operations until it has a kernel of its own
//! there; the `composed` modules run on any device, so the CPU tests cover them.
#![allow(unsafe_code)] // Vector instructions and the thread pool; each block says why it is sound.

pub mod attention;
mod cache_write;
mod cpu;
mod error;
mod freed_memory;
mod fresh;
mod huge_pages;
mod lanes;
mod layer_norm;
mod linear;
mod maths;
mod pool;
mod rms_norm;
mod rotary;
mod silu_mul;
mod simd;
#[cfg(target_arch = "x86_64")]
mod tiles;
mod view;

pub use attention::{
    AttentionOptions, CacheFormat, PagedBatch, PagedParts, packed_attention, paged_attention,
    paged_attention_for,
};
pub use cache_write::write_cache;
pub use cpu::Cpu;
pub use error::{Error, Result};
pub use huge_pages::lazy_zeros;
pub use layer_norm::layer_norm;
pub use linear::{Linear, LinearInput, Rounding, gated};
pub use pool::Pool;
pub use rms_norm::{rms_norm, rms_norm_for};
pub use rotary::rotary;
pub use silu_mul::silu_mul;
pub use simd::Level;

/// The operations with the processor spelled out, for tests and benches that compare levels and thread
/// counts.
pub mod on {
    pub use crate::attention::{packed_attention_on, paged_attention_for_on, paged_attention_on};
    pub use crate::layer_norm::layer_norm_on;
    pub use crate::linear::gated_on;
    pub use crate::rms_norm::{rms_norm_for_on, rms_norm_on};
    pub use crate::rotary::rotary_on;
    pub use crate::silu_mul::silu_mul_on;
}

/// The operations as compositions of candle's own, which run on any device.
pub mod composed {
    pub use crate::attention::composed::{packed_attention, paged_attention};
    pub use crate::cache_write::composed::write_cache;
    pub use crate::layer_norm::composed::layer_norm;
    pub use crate::linear::composed::ComposedLinear;
    pub use crate::rms_norm::composed::rms_norm;
    pub use crate::rotary::composed::rotary;
    pub use crate::silu_mul::composed::silu_mul;
}
