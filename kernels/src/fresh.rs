//! Memory for a result, not cleared before it is written. Tasks write it, each its own part.

use std::cell::UnsafeCell;
use std::mem::{ManuallyDrop, MaybeUninit};

/// Cells that nobody has written yet.
pub(crate) struct Fresh<T>(Vec<UnsafeCell<MaybeUninit<T>>>);

// SAFETY: cells are reached only through `range`, whose callers promise disjoint ranges.
unsafe impl<T: Send> Sync for Fresh<T> {}

impl<T: Copy> Fresh<T> {
    pub(crate) fn new(length: usize) -> Self {
        let mut cells = Vec::with_capacity(length);
        // SAFETY: cells that may be unwritten need no writing, and there is room for them.
        unsafe { cells.set_len(length) };
        Self(cells)
    }

    /// Cells `start..start + length`, to be written.
    ///
    /// # Safety
    /// No other live reference may cover any of these cells.
    #[allow(clippy::mut_from_ref)] // The very purpose: disjoint parts from a shared handle.
    pub(crate) unsafe fn range(&self, start: usize, length: usize) -> &mut [MaybeUninit<T>] {
        let cells = &self.0[start..start + length];
        // SAFETY: an `UnsafeCell` has the layout of what is in it; disjoint by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(UnsafeCell::raw_get(cells.as_ptr()), length) }
    }

    /// Writes one cell.
    ///
    /// # Safety
    /// As [`Fresh::range`].
    #[inline(always)]
    pub(crate) unsafe fn write(&self, at: usize, value: T) {
        // SAFETY: this thread alone has the cell, as the caller promises.
        unsafe { (*self.0[at].get()).write(value) };
    }

    /// The result.
    ///
    /// # Safety
    /// Every cell must have been written.
    pub(crate) unsafe fn written(self) -> Vec<T> {
        let mut cells = ManuallyDrop::new(self.0);
        // SAFETY: the same memory under the type that its cells have, now that the caller wrote them all.
        unsafe { Vec::from_raw_parts(cells.as_mut_ptr().cast::<T>(), cells.len(), cells.capacity()) }
    }
}
