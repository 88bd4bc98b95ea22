//! Root-mean-square norm of each row. The residual addition before it is the caller's.

pub mod composed;

use candle_core::Tensor;

use crate::maths::sum_of;
use crate::pool::SharedSlice;
use crate::simd::multiversion;
use crate::view::{is_cpu, to_f32_vec, with_f32};
use crate::{Cpu, Error, Result};

/// `x / √(mean(x²) + eps) · weight` over the last dimension. `x [.., d]` f32, `weight [d]`.
///
/// # Errors
/// [`Error::Shape`] if `weight` is not `[d]`.
///
/// Source: Zhang and Sennrich 2019, <https://arxiv.org/abs/1910.07467>.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    check(x, weight)?;
    if is_cpu(x) { rms_norm_on(Cpu::host(), x, weight, eps) } else { composed::rms_norm(x, weight, eps) }
}

/// [`rms_norm`] on a chosen processor; `x` is on the CPU.
///
/// # Errors
/// As [`rms_norm`].
pub fn rms_norm_on(cpu: Cpu, x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    let width = check(x, weight)?;
    let weight = to_f32_vec(weight)?;
    let out = with_f32("rms_norm", x, |data| {
        let mut out = vec![0f32; data.len()];
        let shared = SharedSlice::new(&mut out);
        cpu.pool().for_each_chunk(data.len() / width, 8192 / width, &|rows| {
            let input = &data[rows.start * width..rows.end * width];
            // SAFETY: chunks of rows do not overlap.
            let output = unsafe { shared.range(rows.start * width, input.len()) };
            let weight = weight.as_slice();
            multiversion!(cpu.level(), norm_rows, input: &[f32], output: &mut [f32], weight: &[f32], eps: f32);
        });
        Ok(out)
    })?;
    Ok(Tensor::from_vec(out, x.shape(), x.device())?)
}

fn check(x: &Tensor, weight: &Tensor) -> Result<usize> {
    let width = x.dims().last().copied().unwrap_or(0);
    if width == 0 || weight.dims() != [width] {
        return Err(Error::shape("rms_norm", format!("weight {:?} against x {:?}", weight.dims(), x.dims())));
    }
    Ok(width)
}

#[inline(always)]
fn norm_rows(input: &[f32], output: &mut [f32], weight: &[f32], eps: f32) {
    let width = weight.len();
    for (row, out) in input.chunks_exact(width).zip(output.chunks_exact_mut(width)) {
        let mean_square = sum_of(row, |value| value * value) / width as f32;
        let scale = 1.0 / (mean_square + eps).sqrt();
        for ((out, value), weight) in out.iter_mut().zip(row).zip(weight) {
            *out = value * scale * weight;
        }
    }
}
