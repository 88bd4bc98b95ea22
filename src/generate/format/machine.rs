//! What all readers have in common: they take text from its beginning as far as it is certain what it is.

use crate::generate::format::parts::Parts;

/// Reads an answer. What it finds depends on the text and not on how that was cut: it takes nothing of which the next
/// byte could change the meaning.
pub(super) trait Machine: Send {
    /// Takes what it can from the beginning of `text`, and says how many bytes; none if it needs more of it. May take
    /// nothing where it only learns what comes next.
    fn step(&mut self, text: &str, parts: &mut Parts) -> Option<usize>;

    /// Nothing comes after `rest`, which it needed more of.
    fn end(&mut self, rest: &str, parts: &mut Parts);

    /// Whether the text that comes next is what the model thinks.
    fn is_thinking(&self) -> bool {
        false
    }
}

/// Reads everything as text.
pub(super) struct Plain;

impl Machine for Plain {
    fn step(&mut self, text: &str, parts: &mut Parts) -> Option<usize> {
        parts.text(text);
        (!text.is_empty()).then_some(text.len())
    }

    fn end(&mut self, rest: &str, parts: &mut Parts) {
        parts.text(rest);
    }
}

/// Where a mark stands in a text.
pub(super) enum Found {
    /// It begins there; this one of those looked for.
    At(usize, usize),
    /// Not yet: so many bytes surely come before it.
    NotBefore(usize),
}

/// Looks for the first of these marks; none may begin with another.
pub(super) fn find(text: &str, marks: &[&str]) -> Found {
    let found = marks.iter().enumerate().filter_map(|(which, mark)| Some((text.find(mark)?, which)));
    match found.min() {
        Some((at, which)) => Found::At(at, which),
        None => {
            let held = marks.iter().map(|mark| overlap(text.as_bytes(), mark.as_bytes())).max().unwrap_or(0);
            Found::NotBefore(text.len() - held)
        }
    }
}

/// Length of the longest proper beginning of `mark` that `text` ends with.
pub(super) fn overlap(text: &[u8], mark: &[u8]) -> usize {
    let longest = text.len().min(mark.len().saturating_sub(1));
    (1..=longest).rev().find(|&length| text.ends_with(&mark[..length])).unwrap_or(0)
}

/// How a text begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beginning {
    /// With the mark.
    Is,
    /// With something else.
    IsNot,
    /// It is too short to tell.
    MayBe,
}

/// Whether a text begins with a mark.
pub(super) fn begins(text: &str, mark: &str) -> Beginning {
    if text.starts_with(mark) {
        Beginning::Is
    } else if mark.starts_with(text) {
        Beginning::MayBe
    } else {
        Beginning::IsNot
    }
}

/// Bytes of white space that a text begins with.
pub(super) fn space(text: &str) -> usize {
    text.len() - text.trim_start().len()
}
