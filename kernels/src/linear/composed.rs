//! A linear layer out of candle's operations, for any device: its matrix product, or its own quantised one.

use candle_core::quantized::{GgmlDType, QMatMul, QStorage, QTensor};
use candle_core::{DType, Device, Module, Tensor};
use std::borrow::Cow;
use std::sync::Arc;

use crate::{Error, Result};

/// A matrix on any device, multiplied by candle.
#[derive(Debug, Clone)]
pub enum ComposedLinear {
    /// `[out, in]` in its own type.
    Dense(Tensor),
    /// Raw GGUF blocks on the device.
    Quantised(Arc<QTensor>, QMatMul),
}

impl ComposedLinear {
    /// Over a dense matrix `[out, in]`.
    ///
    /// # Errors
    /// None today.
    pub fn dense(weight: &Tensor) -> Result<Self> {
        Ok(Self::Dense(weight.clone()))
    }

    /// Over raw GGUF blocks of `[out, inner]`, whose length the caller has checked.
    ///
    /// # Errors
    /// Those of candle.
    pub fn quantised(
        dtype: GgmlDType,
        blocks: &[u8],
        out: usize,
        inner: usize,
        device: &Device,
    ) -> Result<Self> {
        let row_bytes = (inner / dtype.block_size()).checked_mul(dtype.type_size());
        let fits = row_bytes.and_then(|bytes| bytes.checked_mul(out)) == Some(blocks.len());
        if !fits || !inner.is_multiple_of(dtype.block_size()) {
            return Err(Error::shape(
                "linear",
                format!("{} bytes are not [{out}, {inner}] of {dtype:?}", blocks.len()),
            ));
        }
        let storage = QStorage::from_data(Cow::Owned(blocks.to_vec()), device, dtype)?;
        let tensor = Arc::new(QTensor::new(storage, (out, inner))?);
        let product = QMatMul::from_arc(Arc::clone(&tensor))?;
        Ok(Self::Quantised(tensor, product))
    }

    /// `x [t, in]` f32 → `[t, out]` f32.
    ///
    /// # Errors
    /// Those of candle.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Dense(weight) => {
                let product = x.to_dtype(weight.dtype())?.matmul(&weight.t()?)?;
                Ok(product.to_dtype(DType::F32)?)
            }
            Self::Quantised(_, product) => Ok(product.forward(x)?),
        }
    }

    /// Rows of the matrix as f32 `[ids, in]`.
    ///
    /// # Errors
    /// Those of candle.
    pub fn embed(&self, ids: &Tensor) -> Result<Tensor> {
        match self {
            Self::Dense(weight) => Ok(weight.index_select(ids, 0)?.to_dtype(DType::F32)?),
            Self::Quantised(tensor, _) => Ok(tensor.embedding(ids)?.to_dtype(DType::F32)?),
        }
    }

    /// Where the matrix is.
    pub fn device(&self) -> Device {
        match self {
            Self::Dense(weight) => weight.device().clone(),
            Self::Quantised(tensor, _) => tensor.device(),
        }
    }

    /// Bytes the matrix takes on its device.
    pub fn memory_bytes(&self) -> usize {
        match self {
            Self::Dense(weight) => weight.elem_count() * weight.dtype().size_in_bytes(),
            Self::Quantised(tensor, _) => tensor.storage_size_in_bytes(),
        }
    }
}
