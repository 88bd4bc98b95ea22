//! How a product is cut into tasks: panels of sixteen output rows of all matrices, times tiles of activation
//! rows.
//!
//! Neither cut changes the order of additions within an output element.

use std::ops::Range;

use candle_core::{CpuStorage, Storage, StorageRef, Tensor};

use super::activations::Activations;
use super::format::{Kind, with_kind};
use super::panels::{Panels, ROWS};
use super::{Linear, Weights, dense, scalar};
#[cfg(target_arch = "x86_64")]
use super::{amx, avx2, avx512};
use crate::pool::SharedSlice;
use crate::{Cpu, Error, Level, Result};

/// The weights of one matrix, readable for the length of a product.
enum Lent<'a> {
    Packed(&'a Panels),
    Dense(&'a Tensor, StorageRef<'a>),
}

/// One matrix of a product and where its results go.
struct Job<'a> {
    lent: Lent<'a>,
    out: usize,
    bias: Option<&'a [f32]>,
    /// `[t, out]`
    results: SharedSlice<'a, f32>,
    /// Results are added to what is there.
    adds: bool,
    /// First unit (sixteen rows) of this matrix among the units of all.
    first_unit: usize,
}

/// What all matrices read.
struct Input<'a> {
    x: &'a [f32],
    inner: usize,
    rounded: Activations,
}

/// Each matrix times `x [tokens, inner]`.
pub(super) fn multiply_all(
    cpu: Cpu,
    linears: &[&Linear],
    x: &[f32],
    tokens: usize,
    inner: usize,
) -> Result<Vec<Vec<f32>>> {
    let mut results: Vec<Vec<f32>> = linears.iter().map(|linear| vec![0f32; tokens * linear.0.out]).collect();
    multiply_into(cpu, linears, (x, inner), &mut results, false)?;
    Ok(results)
}

/// A matrix times `x [tokens, inner]`, added to `onto [tokens, out]`.
pub(super) fn multiply_onto(
    cpu: Cpu,
    linear: &Linear,
    x: &[f32],
    inner: usize,
    onto: &[f32],
) -> Result<Vec<f32>> {
    let mut results = [onto.to_vec()];
    multiply_into(cpu, &[linear], (x, inner), &mut results, true)?;
    let [results] = results;
    Ok(results)
}

fn multiply_into(
    cpu: Cpu,
    linears: &[&Linear],
    (x, inner): (&[f32], usize),
    results: &mut [Vec<f32>],
    adds: bool,
) -> Result<()> {
    let tokens = x.len() / inner;
    let mut units = 0;
    let mut jobs = Vec::with_capacity(linears.len());
    for (linear, results) in linears.iter().zip(results) {
        let lent = match &linear.0.weights {
            Weights::Packed(panels) => Lent::Packed(panels),
            Weights::Dense(weight) => Lent::Dense(weight, weight.storage_and_layout().0),
            Weights::Composed(_) => {
                return Err(Error::shape("linear", "weights on different devices"));
            }
        };
        let out = linear.0.out;
        let bias = linear.0.bias.as_deref();
        jobs.push(Job { lent, out, bias, results: SharedSlice::new(results), adds, first_unit: units });
        units += out.div_ceil(ROWS);
    }
    let rounds = jobs.iter().any(|job| matches!(job.lent, Lent::Packed(_)));
    let rounded = if rounds { Activations::round(cpu, x, inner) } else { Activations::default() };
    let input = Input { x, inner, rounded };
    // A tile of activations stays in the second-level cache while the weights stream past it.
    let tile = ((256 << 10) / inner.max(1)).clamp(8, 512).next_multiple_of(8);
    let tiles = tokens.div_ceil(tile);
    let chunk = units.div_ceil(cpu.pool().threads() * 4).max(1);
    let chunks = units.div_ceil(chunk);
    cpu.pool().run(tiles * chunks, &|task| {
        let (tile_index, chunk_index) = (task / chunks, task % chunks);
        let rows = tile_index * tile..((tile_index + 1) * tile).min(tokens);
        for unit in chunk_index * chunk..((chunk_index + 1) * chunk).min(units) {
            let job = &jobs[jobs.partition_point(|job| job.first_unit <= unit) - 1];
            multiply_unit(cpu, job, &input, unit - job.first_unit, rows.clone());
        }
    });
    Ok(())
}

/// Sixteen rows of a matrix times a tile of activation rows.
fn multiply_unit(cpu: Cpu, job: &Job<'_>, input: &Input<'_>, unit: usize, tokens: Range<usize>) {
    let first = unit * ROWS;
    let rows = ROWS.min(job.out - first);
    let mut store = |token: usize, totals: &[f32; ROWS]| {
        // SAFETY: this unit and this token belong to one task.
        let out = unsafe { job.results.range(token * job.out + first, rows) };
        match job.bias {
            None if job.adds => out.iter_mut().zip(totals).for_each(|(out, total)| *out += total),
            None => out.copy_from_slice(&totals[..rows]),
            Some(bias) => {
                for ((out, total), bias) in out.iter_mut().zip(totals).zip(&bias[first..]) {
                    *out = if job.adds { *out + (total + bias) } else { total + bias };
                }
            }
        }
    };
    match &job.lent {
        Lent::Packed(panels) => {
            let panel = panels.panel(unit);
            with_kind!(
                panels.dtype(),
                K => multiply_panel::<K>(cpu.level(), panel, &input.rounded, tokens, &mut store),
                ()
            );
        }
        Lent::Dense(weight, storage) => {
            let Some(weights) = dense_rows(weight, storage) else {
                return;
            };
            let span = first..first + rows;
            let dense = dense::Span { rows: weights, span, x: input.x, inner: input.inner };
            dense.multiply(cpu.level(), tokens, &mut store);
        }
    }
}

/// One panel times a range of activation rows, at the given level.
fn multiply_panel<K: Kind>(
    level: Level,
    panel: &[u8],
    rounded: &Activations,
    tokens: Range<usize>,
    store: &mut dyn FnMut(usize, &[f32; ROWS]),
) {
    match level {
        // SAFETY: a `Cpu` holds only a level that this machine supports.
        #[cfg(target_arch = "x86_64")]
        Level::Amx => unsafe { amx::panel::<K>(panel, rounded, tokens, store) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { avx512::panel::<K>(panel, rounded, tokens, store) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { avx2::panel::<K>(panel, rounded, tokens, store) },
        _ => tokens.for_each(|token| store(token, &scalar::panel::<K>(panel, rounded, token))),
    }
}

fn dense_rows<'a>(weight: &Tensor, storage: &'a Storage) -> Option<dense::Rows<'a>> {
    let start = weight.layout().start_offset();
    let range = start..start + weight.elem_count();
    match storage {
        Storage::Cpu(CpuStorage::F32(values)) => Some(dense::Rows::F32(&values[range])),
        Storage::Cpu(CpuStorage::F16(values)) => Some(dense::Rows::F16(&values[range])),
        Storage::Cpu(CpuStorage::BF16(values)) => Some(dense::Rows::Bf16(&values[range])),
        _ => None,
    }
}
