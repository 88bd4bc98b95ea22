//! The scores of the next token, one row per sampled position.

use crate::Error;

/// Rows of logits, `[rows, vocab]`, f32.
#[derive(Debug, Clone)]
pub struct Logits {
    vocab: usize,
    rows: Rows,
}

#[derive(Debug, Clone)]
enum Rows {
    Host(Vec<f32>),
    Device(candle_core::Tensor),
}

impl Logits {
    /// Logits already on the host, row after row. Panics in debug builds if `data` is not whole rows.
    pub fn from_host(vocab: usize, data: Vec<f32>) -> Self {
        debug_assert!(vocab > 0 && data.len().is_multiple_of(vocab));
        Self { vocab, rows: Rows::Host(data) }
    }

    /// Logits on another device, `[rows, vocab]`, f32.
    pub(crate) fn from_device(vocab: usize, tensor: candle_core::Tensor) -> Self {
        Self { vocab, rows: Rows::Device(tensor) }
    }

    /// Width of a row.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        match &self.rows {
            Rows::Host(data) => data.len() / self.vocab,
            Rows::Device(tensor) => tensor.dims()[0],
        }
    }

    /// Copies everything to the host, rows end to end: one transfer for the whole step.
    ///
    /// # Errors
    /// [`Error::Compute`] if the device fails.
    pub fn into_host(self) -> Result<Vec<f32>, Error> {
        match self.rows {
            Rows::Host(data) => Ok(data),
            Rows::Device(tensor) => Ok(tensor.flatten_all()?.to_vec1::<f32>()?),
        }
    }
}
