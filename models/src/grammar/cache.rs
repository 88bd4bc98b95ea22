//! The grammars compiled last, so that a schema that comes with every request is compiled once.

use std::sync::Arc;

use super::{Language, Matcher};

/// Most grammars that are kept. One is some ten kilobytes to a few megabytes.
const MOST: usize = 32;

/// Matchers at their beginning, the one used last at the end.
#[derive(Default)]
pub(super) struct Cache {
    entries: Vec<([u8; 32], Arc<Matcher>)>,
}

/// The name of a language.
pub(super) fn key(language: &Language, after: Option<&str>) -> [u8; 32] {
    // `Debug` writes every text in quotes: no two languages are written alike.
    *blake3::hash(format!("{after:?} {language:?}").as_bytes()).as_bytes()
}

impl Cache {
    /// The matcher, if the language was compiled. It is shared: copying one takes time, for which nobody is to wait here.
    pub(super) fn find(&mut self, key: &[u8; 32]) -> Option<Arc<Matcher>> {
        let index = self.entries.iter().position(|entry| entry.0 == *key)?;
        let entry = self.entries.remove(index);
        let matcher = Arc::clone(&entry.1);
        self.entries.push(entry);
        Some(matcher)
    }

    /// Keeps it; the one that was not used for longest goes.
    pub(super) fn keep(&mut self, key: [u8; 32], matcher: Arc<Matcher>) {
        self.entries.retain(|entry| entry.0 != key);
        if self.entries.len() >= MOST {
            self.entries.remove(0);
        }
        self.entries.push((key, matcher));
    }
}
