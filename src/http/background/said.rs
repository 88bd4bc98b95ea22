//! What a piece of work said, as far as it is kept.

use std::collections::VecDeque;
use std::sync::Arc;

/// It was said, and is not kept any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forgotten;

/// Texts in the order in which they were said, without the first of them once they were too many.
#[derive(Debug, Default)]
pub(super) struct Said {
    forgotten: usize,
    kept: VecDeque<Arc<str>>,
    bytes: usize,
}

impl Said {
    pub(super) fn extend(&mut self, texts: Vec<Arc<str>>) {
        self.bytes += texts.iter().map(|text| text.len()).sum::<usize>();
        self.kept.extend(texts);
    }

    /// How many of the first are not kept.
    pub(super) fn forgotten(&self) -> usize {
        self.forgotten
    }

    /// Of all that are kept.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets the first texts until they have so many bytes, or all; how many bytes they have.
    pub(super) fn forget(&mut self, bytes: usize) -> usize {
        let mut gone = 0;
        while gone < bytes
            && let Some(text) = self.kept.pop_front()
        {
            gone += text.len();
            self.forgotten += 1;
        }
        self.bytes -= gone;
        gone
    }

    /// A text by its number; none: it is yet to be said.
    pub(super) fn get(&self, number: usize) -> Result<Option<Arc<str>>, Forgotten> {
        let place = number.checked_sub(self.forgotten).ok_or(Forgotten)?;
        Ok(self.kept.get(place).cloned())
    }
}
