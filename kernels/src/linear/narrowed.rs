//! Activations rounded to bf16, as tiles want them: of sixteen rows together, block after block.
//!
//! Done once per input and shared by all matrices over it. Each row is rounded on its own.

#[cfg(target_arch = "x86_64")]
use std::mem::MaybeUninit;
use std::ops::Range;

use half::bf16;

use super::format::BLOCK;
use crate::fresh::Fresh;
use crate::{Cpu, Level};

/// Rows that lie together.
pub(super) const TOGETHER: usize = 16;

/// A block of a row, in a cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Narrow(pub [u16; BLOCK]);

/// Rows of activations in bf16.
#[derive(Clone)]
pub(crate) struct Narrowed {
    /// Of each sixteen rows, or fewer at the end: `[blocks, rows]`.
    cells: Vec<Narrow>,
    rows: usize,
    blocks: usize,
}

impl Narrowed {
    /// Rounds `x [t, inner]`; `inner` is a multiple of 32.
    pub(super) fn round(cpu: Cpu, x: &[f32], inner: usize) -> Self {
        let rows = x.len() / inner;
        let builder = Builder::new(rows, inner);
        cpu.pool().for_each_chunk(rows, (16_384 / inner).max(1), &|range| {
            for row in range {
                // SAFETY: chunks of rows do not overlap.
                unsafe { builder.round(cpu, row, 0, &x[row * inner..(row + 1) * inner]) };
            }
        });
        // SAFETY: the chunks were all rows.
        unsafe { builder.finished() }
    }

    /// Blocks of a row.
    pub(super) fn blocks(&self) -> usize {
        self.blocks
    }

    /// How many rows lie together from `first` on, a multiple of sixteen; and they, block after block.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn together(&self, first: usize) -> (usize, &[Narrow]) {
        let rows = TOGETHER.min(self.rows - first);
        (rows, &self.cells[first * self.blocks..(first + rows) * self.blocks])
    }

    /// Element `at` of a row.
    pub(super) fn element(&self, row: usize, at: usize) -> f32 {
        let cell = &self.cells[place(self.rows, self.blocks, row, at / BLOCK)];
        bf16::from_bits(cell.0[at % BLOCK]).to_f32()
    }
}

/// Where a block of a row lies.
#[inline(always)]
fn place(rows: usize, blocks: usize, row: usize, block: usize) -> usize {
    let first = row / TOGETHER * TOGETHER;
    first * blocks + block * TOGETHER.min(rows - first) + row - first
}

/// Rows that are being rounded, by several tasks.
pub(crate) struct Builder {
    cells: Fresh<Narrow>,
    rows: usize,
    blocks: usize,
}

impl Builder {
    /// For `rows` rows of `inner`, a multiple of 32.
    pub(crate) fn new(rows: usize, inner: usize) -> Self {
        let blocks = inner / BLOCK;
        Self { cells: Fresh::new(rows * blocks), rows, blocks }
    }

    /// Rounds `values`, whole blocks of row `row` from block `first` on.
    ///
    /// # Safety
    /// No two threads may have a block at once.
    pub(crate) unsafe fn round(&self, cpu: Cpu, row: usize, first: usize, values: &[f32]) {
        for (nth, values) in values.as_chunks::<BLOCK>().0.iter().enumerate() {
            // SAFETY: as the caller promises.
            unsafe { self.round_block(cpu.level(), row, first + nth, values) };
        }
    }

    /// Rounds block `block` of each of some rows; their values are `apart`.
    ///
    /// # Safety
    /// As [`Builder::round`].
    pub(crate) unsafe fn round_column(
        &self,
        cpu: Cpu,
        rows: Range<usize>,
        block: usize,
        (values, apart): (&[f32], usize),
    ) {
        for row in rows.clone() {
            let (values, _) = values[(row - rows.start) * apart..].as_chunks::<BLOCK>();
            // SAFETY: as the caller promises.
            unsafe { self.round_block(cpu.level(), row, block, &values[0]) };
        }
    }

    /// # Safety
    /// As [`Builder::round`].
    #[inline(always)]
    unsafe fn round_block(&self, level: Level, row: usize, block: usize, values: &[f32; BLOCK]) {
        // SAFETY: as the caller promises.
        let cell = unsafe { &mut self.cells.range(place(self.rows, self.blocks, row, block), 1)[0] };
        match level {
            // SAFETY: a `Cpu` holds only a level that this machine supports.
            #[cfg(target_arch = "x86_64")]
            Level::Amx => unsafe {
                super::tiled::narrow_block(
                    values,
                    &mut *cell.as_mut_ptr().cast::<MaybeUninit<[u16; BLOCK]>>(),
                );
            },
            _ => {
                cell.write(Narrow(values.map(to_bf16)));
            }
        }
    }

    /// Where to write half a block of a row, sixteen elements.
    ///
    /// # Safety
    /// As [`Builder::round`].
    #[cfg(target_arch = "x86_64")]
    pub(super) unsafe fn half(&self, row: usize, block: usize, half: usize) -> *mut [u16; BLOCK / 2] {
        // SAFETY: as the caller promises.
        let cell = unsafe { &mut self.cells.range(place(self.rows, self.blocks, row, block), 1)[0] };
        // SAFETY: a block has two halves.
        unsafe { cell.as_mut_ptr().cast::<[u16; BLOCK / 2]>().add(half % 2) }
    }

    /// What was rounded.
    ///
    /// # Safety
    /// Every block must have been.
    pub(crate) unsafe fn finished(self) -> Narrowed {
        // SAFETY: as the caller promises.
        Narrowed { cells: unsafe { self.cells.written() }, rows: self.rows, blocks: self.blocks }
    }
}

/// Rounds numbers to bf16.
pub(crate) fn narrow(level: Level, from: &[f32], to: &mut [u16]) {
    assert_eq!(from.len(), to.len());
    let (blocks, rest) = from.as_chunks::<BLOCK>();
    let (to_blocks, to_rest) = to.as_chunks_mut::<BLOCK>();
    for (from, to) in blocks.iter().zip(to_blocks) {
        match level {
            // SAFETY: a `Cpu` holds only a level that this machine supports.
            #[cfg(target_arch = "x86_64")]
            Level::Amx => unsafe {
                super::tiled::narrow_block(
                    from,
                    &mut *std::ptr::from_mut(to).cast::<MaybeUninit<[u16; BLOCK]>>(),
                );
            },
            _ => *to = from.map(to_bf16),
        }
    }
    to_rest.iter_mut().zip(rest).for_each(|(to, from)| *to = to_bf16(*from));
}

/// The nearest bf16, ties to even, as the machine's own instruction has it: below the smallest normal number, zero.
pub(crate) fn to_bf16(value: f32) -> u16 {
    bf16::from_f32(flushed(value)).to_bits()
}

/// Zero below the smallest normal number.
#[inline(always)]
pub(crate) fn flushed(value: f32) -> f32 {
    if value.is_subnormal() { 0f32.copysign(value) } else { value }
}
