//! Reading a CPU tensor's memory as a slice, and checks on shapes. No arithmetic.

use candle_core::{CpuStorage, DType, Device, Storage, Tensor};

use crate::{Error, Result};

/// Calls `body` with the elements of a CPU tensor as `f32`, in row-major order. Copies only if they are not
/// so already.
pub(crate) fn with_f32<R>(
    operation: &'static str,
    tensor: &Tensor,
    body: impl FnOnce(&[f32]) -> Result<R>,
) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(CpuStorage::F32(data)) = &*storage else {
        return Err(Error::element_type(operation, tensor.dtype()));
    };
    let start = layout.start_offset();
    body(&data[start..start + layout.shape().elem_count()])
}

/// A small tensor (norm weights, biases) as `f32` values.
pub(crate) fn to_f32_vec(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor.flatten_all()?.to_dtype(DType::F32)?.to_vec1()?)
}

/// Whether the kernels of this crate run here; elsewhere candle's operations are composed.
pub(crate) fn is_cpu(tensor: &Tensor) -> bool {
    matches!(tensor.device(), Device::Cpu)
}
