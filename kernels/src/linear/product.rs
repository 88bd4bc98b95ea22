//! How a product is cut into tasks: panels of sixteen output rows of all matrices, times tiles of activation
//! rows.
//!
//! Neither cut changes the order of additions within an output element.

use std::ops::Range;

use candle_core::{CpuStorage, Storage, StorageRef, Tensor};

use super::format::{Kind, with_kind};
use super::input::Rows;
use super::panels::{Panels, ROWS};
use super::rounding::Rounding;
use super::target::Target;
use super::{Linear, Weights, bfloat, dense, scalar, turned};
#[cfg(target_arch = "x86_64")]
use super::{amx, avx2, avx512, tiled};
use crate::fresh::Fresh;
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
    /// `[t, out]`
    target: Target<'a>,
    /// First unit (sixteen rows) of this matrix among the units of all.
    first_unit: usize,
}

/// Each matrix times `x [tokens, inner]`.
pub(super) fn multiply_all(cpu: Cpu, linears: &[&Linear], x: &Rows<'_>) -> Result<Vec<Vec<f32>>> {
    let results: Vec<Fresh<f32>> = linears.iter().map(|linear| Fresh::new(x.tokens * linear.0.out)).collect();
    let targets = linears.iter().zip(&results).map(|(linear, results)| {
        // SAFETY: nobody else has the cells; they are only written.
        Target::fresh(unsafe { results.range(0, x.tokens * linear.0.out) }, linear.0.out)
    });
    multiply_into(cpu, linears, x, targets)?;
    // SAFETY: tasks covered all units of all matrices, and all tokens.
    Ok(results.into_iter().map(|results| unsafe { results.written() }).collect())
}

/// A matrix times `x [tokens, inner]`, added to `onto [tokens, out]`.
pub(super) fn multiply_onto(cpu: Cpu, linear: &Linear, x: &Rows<'_>, onto: &mut [f32]) -> Result<()> {
    multiply_into(cpu, &[linear], x, [Target::adding(onto, linear.0.out)].into_iter())
}

fn multiply_into<'a>(
    cpu: Cpu,
    linears: &[&'a Linear],
    x: &Rows<'_>,
    targets: impl Iterator<Item = Target<'a>>,
) -> Result<()> {
    let mut units = 0;
    let mut jobs = Vec::with_capacity(linears.len());
    for (linear, target) in linears.iter().zip(targets) {
        let lent = match &linear.0.weights {
            Weights::Packed(panels) => Lent::Packed(panels),
            Weights::Dense(weight) => Lent::Dense(weight, weight.storage_and_layout().0),
            Weights::Composed(_) => {
                return Err(Error::shape("linear", "weights on different devices"));
            }
        };
        let out = linear.0.out;
        jobs.push(Job { lent, out, target: target.with_bias(linear.0.bias.as_deref()), first_unit: units });
        units += out.div_ceil(ROWS);
    }
    let tile = rows_of_a_tile(x);
    let tiles = x.tokens.div_ceil(tile.max(1));
    let chunk = units_of_a_task(cpu, units);
    let chunk = if x.turned().is_some() { chunk.next_multiple_of(turned::PANELS) } else { chunk };
    let chunks = units.div_ceil(chunk);
    cpu.pool().run(tiles * chunks, &|task| {
        let (tile_index, chunk_index) = (task / chunks, task % chunks);
        let tokens = tile_index * tile..((tile_index + 1) * tile).min(x.tokens);
        let mut unit = chunk_index * chunk;
        let end = (unit + chunk).min(units);
        while unit < end {
            let job = &jobs[jobs.partition_point(|job| job.first_unit <= unit) - 1];
            let first = unit - job.first_unit;
            let span = first..job.out.div_ceil(ROWS).min(first + end - unit);
            unit += span.len();
            multiply_units(cpu, job, x, span, tokens.clone());
        }
    });
    Ok(())
}

/// Rows of activations that stay in the second-level cache while the weights stream past them.
pub(super) fn rows_of_a_tile(x: &Rows<'_>) -> usize {
    let most_cells = if x.turned().is_some() || x.is_narrowed() { 512 << 10 } else { 256 << 10 };
    let most_rows = (most_cells / x.inner.max(1)).clamp(16, 512).next_multiple_of(16);
    x.tokens.div_ceil(x.tokens.div_ceil(most_rows).max(1)).next_multiple_of(16).max(16)
}

/// Panels of a task. An even number: through tiles they go by twos, and what two panels give is one block for the next layer.
pub(super) fn units_of_a_task(cpu: Cpu, units: usize) -> usize {
    /// They fit into the second-level cache.
    const MOST: usize = 16;
    units.div_ceil(cpu.pool().threads() * 4).clamp(1, MOST).next_multiple_of(2)
}

/// Sixteen rows of a matrix, several times, times a tile of activation rows.
fn multiply_units(cpu: Cpu, job: &Job<'_>, x: &Rows<'_>, units: Range<usize>, tokens: Range<usize>) {
    match &job.lent {
        Lent::Packed(panels) => multiply_panels(cpu.level(), panels, units, x, tokens, &job.target),
        Lent::Dense(weight, storage) => {
            let Some(weights) = dense_rows(weight, storage) else {
                return;
            };
            if let Some(turned) = x.turned() {
                let span = turned::Span { rows: weights, units, x: turned, inner: x.inner };
                // SAFETY: these units and tokens belong to one task.
                unsafe { span.multiply(cpu.level(), tokens, &job.target) };
                return;
            }
            for unit in units {
                let span = unit * ROWS..job.out.min((unit + 1) * ROWS);
                // SAFETY: this unit and these tokens belong to one task.
                let target = unsafe { job.target.columns(span.clone()) };
                let dense = dense::Span { rows: weights, span, x: x.plain(), inner: x.inner };
                dense.multiply(cpu.level(), tokens.clone(), &target);
            }
        }
    }
}

/// Panels of a matrix times a range of activation rows; `target` has a column for each row of the matrix.
pub(super) fn multiply_panels(
    level: Level,
    panels: &Panels,
    units: Range<usize>,
    x: &Rows<'_>,
    tokens: Range<usize>,
    target: &Target<'_>,
) {
    #[cfg(target_arch = "x86_64")]
    if level == Level::Amx && (panels.rounding() == Rounding::Bfloat16 || tokens.len() >= amx::FEWEST) {
        with_kind!(panels.dtype(), K => multiply_by_tiles::<K>(panels, units, x, tokens, target), ());
        return;
    }
    for unit in units {
        // SAFETY: units and tokens belong to one task.
        let target = unsafe { target.columns_of(unit) };
        let panel = (panels.rounding(), panels.panel(unit));
        with_kind!(
            panels.dtype(),
            K => multiply_panel::<K>(level, panel, x, tokens.clone(), &target),
            ()
        );
    }
}

/// [`multiply_panels`] on a level that has tiles.
#[cfg(target_arch = "x86_64")]
fn multiply_by_tiles<K: Kind>(
    panels: &Panels,
    units: Range<usize>,
    x: &Rows<'_>,
    tokens: Range<usize>,
    target: &Target<'_>,
) {
    // SAFETY: a `Cpu` holds only a level that this machine supports; units and tokens belong to one task.
    unsafe {
        match panels.rounding() {
            Rounding::Bytes => amx::panels::<K>(panels, units, x.bytes(), tokens, target),
            Rounding::Bfloat16 => tiled::panels::<K>(panels, units, x.narrowed(), tokens, target),
        }
    }
}

/// One panel times a range of activation rows, at the given level.
fn multiply_panel<K: Kind>(
    level: Level,
    (rounding, panel): (Rounding, &[u8]),
    x: &Rows<'_>,
    tokens: Range<usize>,
    target: &Target<'_>,
) {
    match (rounding, level) {
        (Rounding::Bfloat16, _) => {
            tokens.for_each(|token| target.store(token, &bfloat::panel::<K>(panel, x.narrowed(), token)));
        }
        // SAFETY: a `Cpu` holds only a level that this machine supports.
        #[cfg(target_arch = "x86_64")]
        (_, Level::Avx512 | Level::Amx) => unsafe { avx512::panel::<K>(panel, x.bytes(), tokens, target) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        (_, Level::Avx2) => unsafe { avx2::panel::<K>(panel, x.bytes(), tokens, target) },
        _ => tokens.for_each(|token| target.store(token, &scalar::panel::<K>(panel, x.bytes(), token))),
    }
}

/// The elements of a matrix that is on the CPU.
pub(super) fn dense_rows<'a>(weight: &Tensor, storage: &'a Storage) -> Option<dense::Rows<'a>> {
    let start = weight.layout().start_offset();
    let range = start..start + weight.elem_count();
    match storage {
        Storage::Cpu(CpuStorage::F32(values)) => Some(dense::Rows::F32(&values[range])),
        Storage::Cpu(CpuStorage::F16(values)) => Some(dense::Rows::F16(&values[range])),
        Storage::Cpu(CpuStorage::BF16(values)) => Some(dense::Rows::Bf16(&values[range])),
        _ => None,
    }
}
