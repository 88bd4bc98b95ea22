//! Root-mean-square norm of each row. The residual addition before it is the caller's.

pub mod composed;

use std::cell::RefCell;
use std::mem::MaybeUninit;

use candle_core::Tensor;

use crate::fresh::Fresh;
use crate::linear::{Linear, LinearInput, builder_for};
use crate::maths::sum_of;
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
        let out = Fresh::new(data.len());
        cpu.pool().for_each_chunk(data.len() / width, 8192 / width, &|rows| {
            let input = &data[rows.start * width..rows.end * width];
            // SAFETY: chunks of rows do not overlap.
            let output = unsafe { out.range(rows.start * width, input.len()) };
            let weight = weight.as_slice();
            multiversion!(cpu.level(), norm_rows, input: &[f32], output: &mut [MaybeUninit<f32>], weight: &[f32], eps: f32);
        });
        // SAFETY: the chunks were all rows.
        Ok(unsafe { out.written() })
    })?;
    Ok(Tensor::from_vec(out, x.shape(), x.device())?)
}

/// [`rms_norm`] of `x [t, d]`, made for the linear layers that read it.
///
/// # Errors
/// As [`rms_norm`], and if `x` is not a matrix.
pub fn rms_norm_for(x: &Tensor, weight: &Tensor, eps: f32, readers: &[&Linear]) -> Result<LinearInput> {
    rms_norm_for_on(Cpu::host(), x, weight, eps, readers)
}

/// [`rms_norm_for`] with the processor spelled out, for CPU tensors.
///
/// # Errors
/// As [`rms_norm_for`].
pub fn rms_norm_for_on(
    cpu: Cpu,
    x: &Tensor,
    weight: &Tensor,
    eps: f32,
    readers: &[&Linear],
) -> Result<LinearInput> {
    let width = check(x, weight)?;
    let (tokens, _) = x.dims2()?;
    let Some(builder) = builder_for(x, readers, tokens, width) else {
        return Ok(rms_norm(x, weight, eps)?.into());
    };
    with_f32("rms_norm", weight, |weight| {
        with_f32("rms_norm", x, |data| {
            cpu.pool().for_each_chunk(tokens, 8192 / width, &|rows| {
                NORMED.with_borrow_mut(|normed| {
                    normed.resize(width, MaybeUninit::new(0.0));
                    for row in rows {
                        let (input, output) = (&data[row * width..(row + 1) * width], normed.as_mut_slice());
                        multiversion!(cpu.level(), norm_rows, input: &[f32], output: &mut [MaybeUninit<f32>], weight: &[f32], eps: f32);
                        // SAFETY: the row was just written.
                        let normed = unsafe { normed.assume_init_ref() };
                        // SAFETY: each row is one task's.
                        unsafe { builder.round(cpu, row, 0, normed) };
                    }
                });
            });
            Ok(())
        })
    })?;
    // SAFETY: the chunks were all rows.
    Ok(LinearInput::rounded(tokens, width, unsafe { builder.finished() }))
}

thread_local! {
    /// A row between its norm and its rounding.
    static NORMED: RefCell<Vec<MaybeUninit<f32>>> = const { RefCell::new(Vec::new()) };
}

fn check(x: &Tensor, weight: &Tensor) -> Result<usize> {
    let width = x.dims().last().copied().unwrap_or(0);
    if width == 0 || weight.dims() != [width] {
        return Err(Error::shape("rms_norm", format!("weight {:?} against x {:?}", weight.dims(), x.dims())));
    }
    Ok(width)
}

#[inline(always)]
fn norm_rows(input: &[f32], output: &mut [MaybeUninit<f32>], weight: &[f32], eps: f32) {
    let width = weight.len();
    for (row, out) in input.chunks_exact(width).zip(output.chunks_exact_mut(width)) {
        let mean_square = sum_of(row, |value| value * value) / width as f32;
        let scale = 1.0 / (mean_square + eps).sqrt();
        for ((out, value), weight) in out.iter_mut().zip(row).zip(weight) {
            out.write(value * scale * weight);
        }
    }
}
