//! The gate of a SwiGLU block with the products before it: `silu(gate(x)) · up(x)`, as the layer after it wants
//! it. What lies between is never in memory as a whole.

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ops::Range;

use candle_core::{Device, Tensor};

use super::format::BLOCK;
#[cfg(target_arch = "x86_64")]
use super::format::{Kind, with_kind};
use super::input::{LinearInput, Rows};
#[cfg(target_arch = "x86_64")]
use super::narrowed;
use super::panels::{Panels, ROWS};
#[cfg(target_arch = "x86_64")]
use super::product::units_of_a_task;
use super::product::{dense_rows, multiply_panels, rows_of_a_tile};
use super::rounded::Builder;
use super::rounding::Rounding;
use super::target::Target;
#[cfg(target_arch = "x86_64")]
use super::tiled;
use super::{Linear, Weights, dense, turned};
use crate::fresh::Fresh;
use crate::silu_mul::{gate_values, silu_mul};
use crate::simd::multiversion;
use crate::{Cpu, Result};

/// Activation rows that a task takes: its products stay in the second-level cache.
const TOKENS: usize = 256;

/// Rows of `silu(gate(x)) · up(x)`, made for `reader`; the same numbers as [`silu_mul`] of the two products.
///
/// # Errors
/// As [`Linear::forward_input`], and if the two matrices are not of one size.
///
/// Source: Shazeer 2020, <https://arxiv.org/abs/2002.05202>.
pub fn gated(gate: &Linear, up: &Linear, x: &LinearInput, reader: &Linear) -> Result<LinearInput> {
    gated_on(Cpu::host(), gate, up, x, reader)
}

/// [`gated`] with the processor spelled out, for CPU tensors.
///
/// # Errors
/// As [`gated`].
pub fn gated_on(
    cpu: Cpu,
    gate: &Linear,
    up: &Linear,
    x: &LinearInput,
    reader: &Linear,
) -> Result<LinearInput> {
    if let (Weights::Packed(gates), Weights::Packed(ups)) = (&gate.0.weights, &up.0.weights)
        && gate.0.out == up.0.out
        && let Some(rounding) = reader.rounding()
        && gate.0.out.is_multiple_of(BLOCK)
    {
        let pair = Pair { gate: (gates, gate.0.bias.as_deref()), up: (ups, up.0.bias.as_deref()) };
        return x.lend(cpu, &[gate, up], |rows| Ok(pair.multiply(cpu, rows, (gate.0.out, rounding))));
    }
    if let (Weights::Dense(gates), Weights::Dense(ups)) = (&gate.0.weights, &up.0.weights)
        && gate.0.out == up.0.out
        && x.dims()?.0 >= turned::FEWEST
    {
        let (gates, ups) = ((gates, gates.storage_and_layout().0), (ups, ups.storage_and_layout().0));
        if let (Some(gates), Some(ups)) = (dense_rows(gates.0, &gates.1), dense_rows(ups.0, &ups.1)) {
            let pair = TurnedPair {
                gate: (gates, gate.0.bias.as_deref()),
                up: (ups, up.0.bias.as_deref()),
                out: gate.0.out,
            };
            let product = x.lend(cpu, &[gate, up], |rows| Ok(pair.multiply(cpu, rows)))?;
            return Ok(Tensor::from_vec(product, (x.dims()?.0, gate.0.out), &Device::Cpu)?.into());
        }
    }
    let both = Linear::forward_input_on(cpu, &[gate, up], x)?;
    Ok(silu_mul(&both[0], &both[1])?.into())
}

thread_local! {
    /// Products of a task, between the matrices and their gate.
    static SPARE: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// A packed matrix and its bias.
type Side<'a> = (&'a Panels, Option<&'a [f32]>);

struct Pair<'a> {
    gate: Side<'a>,
    up: Side<'a>,
}

impl Pair<'_> {
    fn multiply(&self, cpu: Cpu, rows: &Rows<'_>, (out, rounding): (usize, Rounding)) -> LinearInput {
        let builder = Builder::new(rounding, rows.tokens, out);
        match &builder {
            #[cfg(target_arch = "x86_64")]
            Builder::Narrowed(builder) if self.goes_through_tiles(cpu.level()) => {
                self.multiply_by_tiles(cpu, rows, out / ROWS, builder);
            }
            _ => self.multiply_by_blocks(cpu, rows, out / BLOCK, &builder),
        }
        // SAFETY: tasks covered all blocks of all rows.
        LinearInput::rounded(rows.tokens, out, unsafe { builder.finished() })
    }

    fn multiply_by_blocks(&self, cpu: Cpu, rows: &Rows<'_>, blocks: usize, builder: &Builder) {
        let tiles = rows.tokens.div_ceil(TOKENS);
        // Few tokens: a task takes several blocks, so that tasks are not too small.
        let chunk = if tiles > 1 { 1 } else { blocks.div_ceil(cpu.pool().threads() * 4).max(1) };
        let chunks = blocks.div_ceil(chunk);
        cpu.pool().run(tiles * chunks, &|task| {
            let (tile, nth) = (task / chunks, task % chunks);
            let tokens = tile * TOKENS..((tile + 1) * TOKENS).min(rows.tokens);
            for block in nth * chunk..((nth + 1) * chunk).min(blocks) {
                self.block(cpu, rows, tokens.clone(), block, builder);
            }
        });
    }

    /// Whether a panel of each goes through tiles together.
    #[cfg(target_arch = "x86_64")]
    fn goes_through_tiles(&self, level: crate::Level) -> bool {
        let (gates, ups) = (self.gate.0, self.up.0);
        level == crate::Level::Amx
            && gates.dtype() == ups.dtype()
            && gates.rounding() == Rounding::Bfloat16
            && ups.rounding() == Rounding::Bfloat16
    }

    #[cfg(target_arch = "x86_64")]
    fn multiply_by_tiles(&self, cpu: Cpu, rows: &Rows<'_>, units: usize, builder: &narrowed::Builder) {
        let tile = rows_of_a_tile(rows);
        let chunk = units_of_a_task(cpu, units);
        let chunks = units.div_ceil(chunk);
        cpu.pool().run(rows.tokens.div_ceil(tile) * chunks, &|task| {
            let (first, unit) = (task / chunks * tile, task % chunks * chunk);
            let tokens = first..(first + tile).min(rows.tokens);
            let units = unit..(unit + chunk).min(units);
            with_kind!(self.gate.0.dtype(), K => self.by_tiles::<K>(units, rows, tokens, builder), ());
        });
    }

    /// Some panels of both, and their gate, for some rows.
    #[cfg(target_arch = "x86_64")]
    fn by_tiles<K: Kind>(
        &self,
        units: Range<usize>,
        rows: &Rows<'_>,
        tokens: Range<usize>,
        builder: &narrowed::Builder,
    ) {
        // SAFETY: the level has tiles, as was asked before; units and tokens belong to one task.
        unsafe { tiled::gated::<K>([self.gate, self.up], units, rows.narrowed(), tokens, builder) };
    }

    /// Columns `32 · block..` of the gate, for some rows.
    fn block(&self, cpu: Cpu, rows: &Rows<'_>, tokens: Range<usize>, block: usize, builder: &Builder) {
        let cells = tokens.len() * BLOCK;
        let mut spare = SPARE.take();
        spare.resize(2 * cells, 0.0);
        let (gates, ups) = spare.split_at_mut(cells);
        for ((panels, bias), cells) in [(self.gate, &mut *gates), (self.up, &mut *ups)] {
            let bias = bias.map(|bias| &bias[block * BLOCK..(block + 1) * BLOCK]);
            let units = block * (BLOCK / ROWS)..(block + 1) * (BLOCK / ROWS);
            let target = Target::scratch(cells, BLOCK, tokens.start, units.start).with_bias(bias);
            multiply_panels(cpu.level(), panels, units, rows, tokens.clone(), &target);
        }
        let (gates, ups): (&mut [f32], &[f32]) = (gates, ups);
        multiversion!(cpu.level(), gate_in_place, gates: &mut [f32], ups: &[f32]);
        // SAFETY: each block of each row is one task's.
        unsafe { builder.round_column(cpu, tokens, block, (gates, BLOCK)) };
        SPARE.set(spare);
    }
}

/// Unquantised matrices and their biases, for rows that were turned.
struct TurnedPair<'a> {
    gate: (dense::Rows<'a>, Option<&'a [f32]>),
    up: (dense::Rows<'a>, Option<&'a [f32]>),
    /// Rows of each matrix.
    out: usize,
}

impl TurnedPair<'_> {
    /// `[tokens, out]`.
    fn multiply(&self, cpu: Cpu, rows: &Rows<'_>) -> Vec<f32> {
        let result = Fresh::new(rows.tokens * self.out);
        let (tile, units) = (rows_of_a_tile(rows), self.out.div_ceil(ROWS));
        let chunks = units.div_ceil(turned::PANELS);
        cpu.pool().run(rows.tokens.div_ceil(tile) * chunks, &|task| {
            let (first, unit) = (task / chunks * tile, task % chunks * turned::PANELS);
            let tokens = first..(first + tile).min(rows.tokens);
            self.block(cpu, rows, tokens, unit..(unit + turned::PANELS).min(units), &result);
        });
        // SAFETY: tasks covered all units of all rows.
        unsafe { result.written() }
    }

    /// Some panels' columns of the gate, for some rows.
    fn block(
        &self,
        cpu: Cpu,
        rows: &Rows<'_>,
        tokens: Range<usize>,
        units: Range<usize>,
        result: &Fresh<f32>,
    ) {
        let Some(x) = rows.turned() else { return };
        let columns = units.start * ROWS..self.out.min(units.end * ROWS);
        let cells = tokens.len() * columns.len();
        let mut spare = SPARE.take();
        spare.resize(2 * cells, 0.0);
        let (gates, ups) = spare.split_at_mut(cells);
        for ((weights, bias), cells) in [(self.gate, &mut *gates), (self.up, &mut *ups)] {
            let bias = bias.map(|bias| &bias[columns.clone()]);
            let target = Target::scratch(cells, columns.len(), tokens.start, units.start).with_bias(bias);
            let span = turned::Span { rows: weights, units: units.clone(), x, inner: rows.inner };
            // SAFETY: the scratch is this task's alone.
            unsafe { span.multiply(cpu.level(), tokens.clone(), &target) };
        }
        let (gates, ups): (&mut [f32], &[f32]) = (gates, ups);
        multiversion!(cpu.level(), gate_in_place, gates: &mut [f32], ups: &[f32]);
        for (token, gates) in tokens.zip(gates.chunks_exact(columns.len())) {
            // SAFETY: these columns of these rows are this task's.
            let to = unsafe { result.range(token * self.out + columns.start, columns.len()) };
            to.write_copy_of_slice(gates);
        }
        SPARE.set(spare);
    }
}

#[inline(always)]
fn gate_in_place(gates: &mut [f32], ups: &[f32]) {
    for (gates, ups) in gates.chunks_mut(BLOCK).zip(ups.chunks(BLOCK)) {
        let mut values = [MaybeUninit::new(0f32); BLOCK];
        gate_values(gates, ups, &mut values);
        for (gate, value) in gates.iter_mut().zip(values) {
            // SAFETY: they were all made with a value.
            *gate = unsafe { value.assume_init() };
        }
    }
}
