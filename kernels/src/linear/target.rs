//! Where products go: rows of a result, sixteen columns at a time, written or added to what is there.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

use super::panels::ROWS;

/// Columns of a result `[t, out]`.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    start: *mut f32,
    length: usize,
    /// The row that lies at `start`.
    first_row: usize,
    /// The panel whose columns come first.
    first_unit: usize,
    /// Cells from a row to the next.
    stride: usize,
    columns: usize,
    bias: Option<&'a [f32]>,
    adds: bool,
    owner: PhantomData<&'a mut [f32]>,
}

// SAFETY: cells are written only through targets of disjoint columns, as the callers of `columns` promise.
unsafe impl Sync for Target<'_> {}
// SAFETY: as above.
unsafe impl Send for Target<'_> {}

impl<'a> Target<'a> {
    /// Rows of `out`, which are written.
    pub(super) fn fresh(cells: &'a mut [MaybeUninit<f32>], out: usize) -> Self {
        Self::over(cells.as_mut_ptr().cast::<f32>(), cells.len(), out)
    }

    /// Rows of `out`, to which products are added.
    pub(super) fn adding(cells: &'a mut [f32], out: usize) -> Self {
        Self { adds: true, ..Self::over(cells.as_mut_ptr(), cells.len(), out) }
    }

    /// Rows of `out`, from `first_row` on, which are written; the columns begin with those of panel `first_unit`.
    pub(super) fn scratch(cells: &'a mut [f32], out: usize, first_row: usize, first_unit: usize) -> Self {
        Self { first_row, first_unit, ..Self::over(cells.as_mut_ptr(), cells.len(), out) }
    }

    fn over(start: *mut f32, length: usize, out: usize) -> Self {
        let (stride, columns) = (out, out);
        Self {
            start,
            length,
            first_row: 0,
            first_unit: 0,
            stride,
            columns,
            bias: None,
            adds: false,
            owner: PhantomData,
        }
    }

    /// The same, with a number for each column that is added, too.
    pub(super) fn with_bias(self, bias: Option<&'a [f32]>) -> Self {
        Self { bias, ..self }
    }

    /// Some of the columns, at most sixteen.
    ///
    /// # Safety
    /// No two threads may store to one cell at once.
    pub(super) unsafe fn columns(&self, columns: Range<usize>) -> Self {
        assert!(columns.end <= self.columns && columns.len() <= ROWS && columns.start <= self.length);
        Self {
            // SAFETY: within the result, by the check above.
            start: unsafe { self.start.add(columns.start) },
            length: self.length - columns.start,
            columns: columns.len(),
            bias: self.bias.map(|bias| &bias[columns]),
            ..*self
        }
    }

    /// The columns of the sixteen rows, or fewer, of a matrix that are panel `unit`.
    ///
    /// # Safety
    /// As [`Target::columns`].
    pub(super) unsafe fn columns_of(&self, unit: usize) -> Self {
        let first = (unit - self.first_unit) * ROWS;
        // SAFETY: as the caller promises.
        unsafe { self.columns(first..self.columns.min(first + ROWS)) }
    }

    /// Stores the columns of row `row`.
    #[inline(always)]
    pub(super) fn store(&self, row: usize, totals: &[f32; ROWS]) {
        let at = (row - self.first_row) * self.stride;
        assert!(
            at <= self.length && self.columns <= self.length - at && self.columns <= ROWS,
            "a row of the result"
        );
        // SAFETY: within the result, by the check above.
        let to = unsafe { self.start.add(at) };
        if self.columns == ROWS && self.bias.is_none() {
            let to = to.cast::<[f32; ROWS]>();
            let mut totals = *totals;
            if self.adds {
                // SAFETY: sixteen cells, which are this task's; what is added to was written before.
                let there = unsafe { to.read_unaligned() };
                totals.iter_mut().zip(there).for_each(|(total, there)| *total += there);
            }
            // SAFETY: sixteen cells, which are this task's.
            unsafe { to.write_unaligned(totals) };
            return;
        }
        for (column, total) in totals.iter().take(self.columns).enumerate() {
            let total = match self.bias {
                Some(bias) => total + bias[column],
                None => *total,
            };
            // SAFETY: one of the row's cells, which are this task's; what is added to was written before.
            unsafe {
                let to = to.add(column);
                to.write(if self.adds { *to + total } else { total });
            }
        }
    }
}
