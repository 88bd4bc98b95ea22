//! The grammars compiled last, so that a schema that comes with every request is compiled once.

use super::{Language, Matcher};

/// Most grammars that are kept. One is some ten kilobytes to a few megabytes.
const MOST: usize = 32;

/// Matchers at their beginning, the one used last at the end.
#[derive(Default)]
pub(super) struct Cache {
    entries: Vec<([u8; 32], Matcher)>,
}

/// The name of a language.
pub(super) fn key(language: &Language, after: Option<&str>) -> [u8; 32] {
    // `Debug` writes every text in quotes: no two languages are written alike.
    *blake3::hash(format!("{after:?} {language:?}").as_bytes()).as_bytes()
}

impl Cache {
    /// A matcher of its own, if the language was compiled.
    pub(super) fn find(&mut self, key: &[u8; 32]) -> Option<Matcher> {
        let index = self.entries.iter().position(|entry| entry.0 == *key)?;
        let entry = self.entries.remove(index);
        let matcher = entry.1.clone();
        self.entries.push(entry);
        Some(matcher)
    }

    /// Keeps a copy; the one that was not used for longest goes.
    pub(super) fn keep(&mut self, key: [u8; 32], matcher: &Matcher) {
        self.entries.retain(|entry| entry.0 != key);
        if self.entries.len() >= MOST {
            self.entries.remove(0);
        }
        self.entries.push((key, matcher.clone()));
    }
}
