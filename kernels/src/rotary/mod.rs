//! Rotary position embedding, half-split ("NeoX") form. The tables of cosines and sines are the caller's.

pub mod composed;

use candle_core::Tensor;

use crate::fresh::Fresh;
use crate::simd::multiversion;
use crate::view::{is_cpu, with_f32};
use crate::{Cpu, Error, Result};

/// Turns dimensions `i` and `i + r` of each head by the row's angle `i`; dimensions from `2r` on pass
/// unchanged.
///
/// `x [t, h, d]` f32; `cos` and `sin` `[t, r]` f32 with `2r ≤ d`, one row per token.
///
/// # Errors
/// [`Error::Shape`] if the tables do not fit `x`.
///
/// Source: Su et al. 2021, <https://arxiv.org/abs/2104.09864>.
pub fn rotary(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    check(x, cos, sin)?;
    if is_cpu(x) { rotary_on(Cpu::host(), x, cos, sin) } else { composed::rotary(x, cos, sin) }
}

/// [`rotary`] on a chosen processor; the tensors are on the CPU.
///
/// # Errors
/// As [`rotary`].
pub fn rotary_on(cpu: Cpu, x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let sizes = check(x, cos, sin)?;
    let out = with_f32("rotary", x, |data| {
        with_f32("rotary", cos, |cos| with_f32("rotary", sin, |sin| Ok(rotate(cpu, sizes, data, cos, sin))))
    })?;
    Ok(Tensor::from_vec(out, x.shape(), x.device())?)
}

#[derive(Clone, Copy)]
struct Sizes {
    tokens: usize,
    heads: usize,
    width: usize,
    turned: usize,
}

fn check(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Sizes> {
    let (&[tokens, heads, width], &[rows, turned]) = (x.dims(), cos.dims()) else {
        return Err(Error::shape(
            "rotary",
            format!("x {:?} and cos {:?} are not [t, h, d] and [t, r]", x.dims(), cos.dims()),
        ));
    };
    if rows != tokens || sin.dims() != cos.dims() || 2 * turned > width {
        let reason = format!("x {:?}, cos {:?}, sin {:?} do not fit", x.dims(), cos.dims(), sin.dims());
        return Err(Error::shape("rotary", reason));
    }
    Ok(Sizes { tokens, heads, width, turned })
}

fn rotate(cpu: Cpu, sizes: Sizes, data: &[f32], cos: &[f32], sin: &[f32]) -> Vec<f32> {
    let row = sizes.heads * sizes.width;
    let out = Fresh::new(data.len());
    cpu.pool().for_each_chunk(sizes.tokens, 8192 / row.max(1), &|tokens| {
        let input = &data[tokens.start * row..tokens.end * row];
        // SAFETY: chunks of tokens do not overlap.
        let output = unsafe { out.range(tokens.start * row, input.len()) };
        let output: &mut [f32] = output.write_copy_of_slice(input);
        let angles = tokens.start * sizes.turned..tokens.end * sizes.turned;
        let (cos, sin) = (&cos[angles.clone()], &sin[angles]);
        multiversion!(cpu.level(), rotate_rows, sizes: Sizes, output: &mut [f32], cos: &[f32], sin: &[f32]);
    });
    // SAFETY: the chunks were all tokens.
    unsafe { out.written() }
}

#[inline(always)]
fn rotate_rows(sizes: Sizes, output: &mut [f32], cos: &[f32], sin: &[f32]) {
    let Sizes { heads, width, turned, .. } = sizes;
    if turned == 0 || heads == 0 {
        return;
    }
    let angles = cos.chunks_exact(turned).zip(sin.chunks_exact(turned));
    for (token, (cos, sin)) in output.chunks_exact_mut(heads * width).zip(angles) {
        for head in token.chunks_exact_mut(width) {
            let (first, rest) = head.split_at_mut(turned);
            let pairs = first.iter_mut().zip(&mut rest[..turned]);
            for ((a, b), (cos, sin)) in pairs.zip(cos.iter().zip(sin)) {
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        }
    }
}
