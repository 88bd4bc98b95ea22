//! The gate of a SwiGLU block: `silu(gate) · up`, element by element.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub mod composed;

use std::mem::MaybeUninit;

use candle_core::Tensor;

use crate::fresh::Fresh;
use crate::maths::exp;
use crate::simd::multiversion;
use crate::view::{is_cpu, with_f32};
use crate::{Cpu, Error, Result};

/// `gate / (1 + e^-gate) · up`; both f32 and of one shape.
///
/// # Errors
/// [`Error::Shape`] if the shapes differ.
///
/// Source: Shazeer 2020, <https://arxiv.org/abs/2002.05202>.
pub fn silu_mul(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    check(gate, up)?;
    if is_cpu(gate) { silu_mul_on(Cpu::host(), gate, up) } else { composed::silu_mul(gate, up) }
}

/// [`silu_mul`] on a chosen processor; the tensors are on the CPU.
///
/// # Errors
/// As [`silu_mul`].
pub fn silu_mul_on(cpu: Cpu, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    check(gate, up)?;
    let out = with_f32("silu_mul", gate, |gate| {
        with_f32("silu_mul", up, |up| {
            let out = Fresh::new(gate.len());
            cpu.pool().for_each_chunk(gate.len(), 4096, &|range| {
                let (gate, up) = (&gate[range.clone()], &up[range.clone()]);
                // SAFETY: chunks do not overlap.
                let output = unsafe { out.range(range.start, range.len()) };
                multiversion!(cpu.level(), gate_values, gate: &[f32], up: &[f32], output: &mut [MaybeUninit<f32>]);
            });
            // SAFETY: the chunks were all of it.
            Ok(unsafe { out.written() })
        })
    })?;
    Ok(Tensor::from_vec(out, gate.shape(), gate.device())?)
}

fn check(gate: &Tensor, up: &Tensor) -> Result<()> {
    if gate.dims() != up.dims() {
        return Err(Error::shape("silu_mul", format!("gate {:?} against up {:?}", gate.dims(), up.dims())));
    }
    Ok(())
}

#[inline(always)]
pub(crate) fn gate_values(gate: &[f32], up: &[f32], output: &mut [MaybeUninit<f32>]) {
    for ((out, gate), up) in output.iter_mut().zip(gate).zip(up) {
        out.write(gate / (1.0 + exp(-gate)) * up);
    }
}
