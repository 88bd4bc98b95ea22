//! Layer norm of each row: mean and variance taken out, weight and bias put on.

pub mod composed;

use candle_core::Tensor;

use crate::maths::sum_of;
use crate::pool::SharedSlice;
use crate::simd::multiversion;
use crate::view::{is_cpu, to_f32_vec, with_f32};
use crate::{Cpu, Error, Result};

/// `(x - mean) / √(variance + eps) · weight + bias` over the last dimension. `x [.., d]` f32, `weight` and
/// `bias` `[d]`.
///
/// # Errors
/// [`Error::Shape`] if `weight` or `bias` is not `[d]`.
///
/// Source: Ba, Kiros and Hinton 2016, <https://arxiv.org/abs/1607.06450>.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Tensor> {
    check(x, weight, bias)?;
    if is_cpu(x) {
        layer_norm_on(Cpu::host(), x, weight, bias, eps)
    } else {
        composed::layer_norm(x, weight, bias, eps)
    }
}

/// [`layer_norm`] on a chosen processor; `x` is on the CPU.
///
/// # Errors
/// As [`layer_norm`].
pub fn layer_norm_on(cpu: Cpu, x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Tensor> {
    let width = check(x, weight, bias)?;
    let (weight, bias) = (to_f32_vec(weight)?, to_f32_vec(bias)?);
    let out = with_f32("layer_norm", x, |data| {
        let mut out = vec![0f32; data.len()];
        let shared = SharedSlice::new(&mut out);
        cpu.pool().for_each_chunk(data.len() / width, 8192 / width, &|rows| {
            let input = &data[rows.start * width..rows.end * width];
            // SAFETY: chunks of rows do not overlap.
            let output = unsafe { shared.range(rows.start * width, input.len()) };
            let (weight, bias) = (weight.as_slice(), bias.as_slice());
            multiversion!(cpu.level(), norm_rows, input: &[f32], output: &mut [f32], weight: &[f32], bias: &[f32], eps: f32);
        });
        Ok(out)
    })?;
    Ok(Tensor::from_vec(out, x.shape(), x.device())?)
}

fn check(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<usize> {
    let width = x.dims().last().copied().unwrap_or(0);
    if width == 0 || weight.dims() != [width] || bias.dims() != [width] {
        let reason =
            format!("weight {:?} and bias {:?} against x {:?}", weight.dims(), bias.dims(), x.dims());
        return Err(Error::shape("layer_norm", reason));
    }
    Ok(width)
}

#[inline(always)]
fn norm_rows(input: &[f32], output: &mut [f32], weight: &[f32], bias: &[f32], eps: f32) {
    let width = weight.len();
    for (row, out) in input.chunks_exact(width).zip(output.chunks_exact_mut(width)) {
        let mean = sum_of(row, |value| value) / width as f32;
        let variance = sum_of(row, |value| (value - mean) * (value - mean)) / width as f32;
        let scale = 1.0 / (variance + eps).sqrt();
        for (((out, value), weight), bias) in out.iter_mut().zip(row).zip(weight).zip(bias) {
            *out = (value - mean) * scale * weight + bias;
        }
    }
}
