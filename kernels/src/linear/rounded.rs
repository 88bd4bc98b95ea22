//! Rows of activations, rounded once for all quantised matrices over them.

use std::ops::Range;

use super::activations::{self, Activations};
use super::narrowed::{self, Narrowed};
use super::rounding::Rounding;
use crate::Cpu;

/// Rows in the form that a rounding wants.
pub(crate) enum Rounded {
    Bytes(Activations),
    Narrowed(Narrowed),
}

impl Rounded {
    /// Rounds `x [t, inner]`; `inner` is a multiple of 32.
    pub(super) fn of(rounding: Rounding, cpu: Cpu, x: &[f32], inner: usize) -> Self {
        match rounding {
            Rounding::Bytes => Self::Bytes(Activations::round(cpu, x, inner)),
            Rounding::Bfloat16 => Self::Narrowed(Narrowed::round(cpu, x, inner)),
        }
    }

    pub(super) fn rounding(&self) -> Rounding {
        match self {
            Self::Bytes(_) => Rounding::Bytes,
            Self::Narrowed(_) => Rounding::Bfloat16,
        }
    }
}

/// Rows that are being rounded, by several tasks.
pub(crate) enum Builder {
    Bytes(activations::Builder),
    Narrowed(narrowed::Builder),
}

impl Builder {
    /// For `rows` rows of `inner`, a multiple of 32.
    pub(crate) fn new(rounding: Rounding, rows: usize, inner: usize) -> Self {
        match rounding {
            Rounding::Bytes => Self::Bytes(activations::Builder::new(rows, inner)),
            Rounding::Bfloat16 => Self::Narrowed(narrowed::Builder::new(rows, inner)),
        }
    }

    /// Rounds `values`, whole blocks of row `row` from block `first` on.
    ///
    /// # Safety
    /// No two threads may have a block at once.
    pub(crate) unsafe fn round(&self, cpu: Cpu, row: usize, first: usize, values: &[f32]) {
        // SAFETY: as the caller promises.
        unsafe {
            match self {
                Self::Bytes(builder) => builder.round(cpu, row, first, values),
                Self::Narrowed(builder) => builder.round(cpu, row, first, values),
            }
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
        values: (&[f32], usize),
    ) {
        // SAFETY: as the caller promises.
        unsafe {
            match self {
                Self::Bytes(builder) => builder.round_column(cpu, rows, block, values),
                Self::Narrowed(builder) => builder.round_column(cpu, rows, block, values),
            }
        }
    }

    /// What was rounded.
    ///
    /// # Safety
    /// Every block must have been.
    pub(crate) unsafe fn finished(self) -> Rounded {
        // SAFETY: as the caller promises.
        unsafe {
            match self {
                Self::Bytes(builder) => Rounded::Bytes(builder.finished()),
                Self::Narrowed(builder) => Rounded::Narrowed(builder.finished()),
            }
        }
    }
}
