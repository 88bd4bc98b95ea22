//! Memory for packed weights: cut from large pieces on huge pages, where the system gives them.
//!
//! The one thing to know: decoding reads every weight once per step, and with pages of 4 KiB a good part of
//! that time goes into finding them. A matrix of a small model is smaller than a huge page, hence the pieces.

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::huge_pages::{HUGE_PAGE, advise_huge_pages};
use crate::{Error, Result};

/// A cache line, so that panels start aligned.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line(pub [u8; 64]);

const LINE: usize = size_of::<Line>();
/// What is taken from the system at once, unless more is wanted.
const PIECE: usize = 32 << 20;

/// Some lines, zeros at first; they are given back with the last of their piece.
pub(super) struct Slab {
    start: NonNull<Line>,
    lines: usize,
    _piece: Arc<Piece>,
}

// SAFETY: a slab alone has its lines, as a box would.
unsafe impl Send for Slab {}
// SAFETY: as above.
unsafe impl Sync for Slab {}

impl Slab {
    /// # Errors
    /// [`Error::Memory`] if the system gives none.
    pub(super) fn new(lines: usize) -> Result<Self> {
        static CURRENT: Mutex<Option<(Weak<Piece>, usize)>> = Mutex::new(None);
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = current.take().and_then(|(piece, used)| Some((piece.upgrade()?, used)));
        let (piece, used) = match taken {
            Some((piece, used)) if lines <= piece.lines - used => (piece, used),
            _ => (Arc::new(Piece::new((lines * LINE).max(PIECE))?), 0),
        };
        *current = Some((Arc::downgrade(&piece), used + lines));
        // SAFETY: there are so many lines behind the used ones; nobody else gets them.
        let start = unsafe { piece.start.add(used) };
        Ok(Self { start, lines, _piece: piece })
    }
}

impl Deref for Slab {
    type Target = [Line];

    fn deref(&self) -> &[Line] {
        // SAFETY: the lines are this slab's, and any bytes make one.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.lines) }
    }
}

impl DerefMut for Slab {
    fn deref_mut(&mut self) -> &mut [Line] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.lines) }
    }
}

/// Memory from the system, zeros until it is written; what is not written takes none.
struct Piece {
    start: NonNull<Line>,
    lines: usize,
    /// What the system gave: its first byte, and how many.
    #[cfg(unix)]
    mapping: (*mut libc::c_void, usize),
    #[cfg(not(unix))]
    _memory: Vec<Line>,
}

// SAFETY: a piece is only ever lent out in disjoint slabs.
unsafe impl Send for Piece {}
// SAFETY: as above.
unsafe impl Sync for Piece {}

#[cfg(unix)]
impl Piece {
    fn new(bytes: usize) -> Result<Self> {
        let wanted = bytes.next_multiple_of(HUGE_PAGE);
        let length = wanted + HUGE_PAGE;
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: asks for fresh memory anywhere.
        let memory = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, -1, 0) };
        if memory == libc::MAP_FAILED {
            return Err(Error::Memory { bytes: length });
        }
        let ahead = memory.cast::<u8>().align_offset(HUGE_PAGE);
        // SAFETY: less than a huge page ahead, of which there is one too many.
        let start = unsafe { memory.cast::<u8>().add(ahead) };
        // SAFETY: within the mapping.
        unsafe { advise_huge_pages(start, wanted) };
        let start = NonNull::new(start.cast::<Line>()).ok_or(Error::Memory { bytes: length })?;
        Ok(Self { start, lines: wanted / LINE, mapping: (memory, length) })
    }
}

#[cfg(unix)]
impl Drop for Piece {
    fn drop(&mut self) {
        let (memory, length) = self.mapping;
        // SAFETY: it was mapped so, and its last slab is gone.
        unsafe { libc::munmap(memory, length) };
    }
}

#[cfg(not(unix))]
impl Piece {
    fn new(bytes: usize) -> Result<Self> {
        let mut memory = vec![Line([0; LINE]); bytes / LINE];
        let start = NonNull::new(memory.as_mut_ptr()).ok_or(Error::Memory { bytes })?;
        Ok(Self { start, lines: memory.len(), _memory: memory })
    }
}

#[cfg(test)]
mod tests {
    use super::{Line, Slab};

    #[test]
    fn slabs_are_zero_apart_and_outlive_each_other() {
        let mut first = Slab::new(3).unwrap();
        let mut second = Slab::new(5).unwrap();
        let large = Slab::new(1 << 20).unwrap();
        assert!(first.iter().chain(&*second).chain(&large[..9]).all(|line| line.0 == [0; 64]));
        first.fill(Line([1; 64]));
        second.fill(Line([2; 64]));
        assert!(first.iter().all(|line| line.0 == [1; 64]));
        drop(first);
        assert!(second.iter().all(|line| line.0 == [2; 64]) && second.len() == 5);
        assert!(second.as_ptr().is_aligned());
    }
}
