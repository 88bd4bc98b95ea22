//! What architectures are made of. No layer knows a weight format or a device: it asks a [`source::Source`] for its
//! weights and hands tensors to the kernels.
//!
//! Tensor letters in comments: `t` tokens of the packed batch, `s` sequences, `h` heads, `d` numbers per head.

pub mod attention;
pub mod classifier;
pub mod decoder;
pub mod embedder;
pub mod encoder;
pub mod mlp;
pub mod norm;
pub mod pooling;
pub mod rotary;
pub mod source;
