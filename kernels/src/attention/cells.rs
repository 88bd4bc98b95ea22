//! What keys and values are made of, and a tile's keys or values.

use half::f16;

use crate::lanes::Lanes;

/// What keys and values are made of.
pub(super) trait Cells: Copy {
    /// Whether they lie where the cache is, from which the next tile is to be asked for ahead.
    const CACHED: bool;

    /// The first sixteen, widened.
    fn load<L: Lanes>(cells: &[Self]) -> L;
    fn widened(self) -> f32;
}

impl Cells for f32 {
    const CACHED: bool = false;

    #[inline(always)]
    fn load<L: Lanes>(cells: &[Self]) -> L {
        L::load(cells)
    }

    #[inline(always)]
    fn widened(self) -> f32 {
        self
    }
}

impl Cells for f16 {
    const CACHED: bool = true;

    #[inline(always)]
    fn load<L: Lanes>(cells: &[Self]) -> L {
        L::load_f16(cells)
    }

    #[inline(always)]
    fn widened(self) -> f32 {
        self.to_f32()
    }
}

impl Cells for i8 {
    const CACHED: bool = true;

    #[inline(always)]
    fn load<L: Lanes>(cells: &[Self]) -> L {
        L::load_i8(cells)
    }

    #[inline(always)]
    fn widened(self) -> f32 {
        f32::from(self)
    }
}

/// Keys or values of a tile of one kv head.
#[derive(Clone, Copy)]
pub(super) struct Side<'a, T> {
    /// Keys `[d, padded tile]`, or values `[tile, padded d]`.
    pub cells: &'a [T],
    /// What is wanted after it, or the same again.
    pub next: &'a [T],
    /// `[groups, padded tile]` what cells are to be multiplied by; empty unless they are codes.
    pub scales: &'a [f32],
}

/// Asks for the line of a cell that is wanted soon.
#[inline(always)]
pub(super) fn prefetch<T: Cells>(cells: &[T], at: usize) {
    if T::CACHED {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a hint; it may name any address.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(cells.as_ptr().wrapping_add(at).cast::<i8>());
        }
        let _ = (cells, at);
    }
}
