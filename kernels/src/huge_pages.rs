//! Pages of 2 MiB for what is read as a whole again and again: weights, cached keys and values.

use candle_core::{DType, Device, Tensor};
use half::vec::HalfBitsVecExt;
use half::{bf16, f16};

use crate::Result;

/// Bytes of a huge page.
pub(crate) const HUGE_PAGE: usize = 2 << 20;

/// Zeros that take no memory before they are written, on the CPU on huge pages where the system has them.
///
/// # Errors
/// If the device has not so much memory.
pub fn lazy_zeros(shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
    let count = shape.iter().product();
    match (device, dtype) {
        // As integers they come from the system as zeros; candle would write f16's.
        (Device::Cpu, DType::F16) => {
            let cells = vec![0u16; count].reinterpret_into::<f16>();
            prefer_huge_pages(&cells);
            Ok(Tensor::from_vec(cells, shape, device)?)
        }
        (Device::Cpu, DType::BF16) => {
            let cells = vec![0u16; count].reinterpret_into::<bf16>();
            prefer_huge_pages(&cells);
            Ok(Tensor::from_vec(cells, shape, device)?)
        }
        (Device::Cpu, DType::F32) => {
            let cells = vec![0f32; count];
            prefer_huge_pages(&cells);
            Ok(Tensor::from_vec(cells, shape, device)?)
        }
        (Device::Cpu, DType::I16) => {
            let cells = vec![0i16; count];
            prefer_huge_pages(&cells);
            Ok(Tensor::from_vec(cells, shape, device)?)
        }
        _ => Ok(Tensor::zeros(shape, dtype, device)?),
    }
}

/// Asks the system to keep cells that nobody has touched yet on huge pages. A hint: it changes speed only.
fn prefer_huge_pages<T>(cells: &[T]) {
    let (start, bytes) = (cells.as_ptr().cast::<u8>(), size_of_val(cells));
    let ahead = start.align_offset(HUGE_PAGE);
    let whole = bytes.saturating_sub(ahead) / HUGE_PAGE * HUGE_PAGE;
    if whole > 0 {
        // SAFETY: whole pages within the cells' memory.
        unsafe { advise_huge_pages(start.wrapping_add(ahead).cast_mut(), whole) };
    }
}

/// Tells the system to use huge pages for some memory, which may refuse.
///
/// # Safety
/// The memory must be mapped.
#[cfg(target_os = "linux")]
pub(crate) unsafe fn advise_huge_pages(start: *mut u8, bytes: usize) {
    // SAFETY: mapped, as the caller promises; the advice changes no content.
    unsafe { libc::madvise(start.cast(), bytes, libc::MADV_HUGEPAGE) };
}

/// There is no such advice here.
///
/// # Safety
/// None is needed.
#[cfg(not(target_os = "linux"))]
pub(crate) unsafe fn advise_huge_pages(_start: *mut u8, _bytes: usize) {}
