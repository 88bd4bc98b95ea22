//! What was found out last about languages, so that a schema that comes with every request is compiled once, or refused at
//! once.

use super::Language;

/// The name of a language.
pub(super) type Key = [u8; 32];

/// The name of a language.
pub(super) fn key(language: &Language, after: Option<&str>) -> Key {
    // `Debug` writes every text in quotes: no two languages are written alike.
    *blake3::hash(format!("{after:?} {language:?}").as_bytes()).as_bytes()
}

/// So many findings, the one used last at the end.
pub(super) struct Cache<T> {
    most: usize,
    entries: Vec<(Key, T)>,
}

impl<T: Clone> Cache<T> {
    /// With room for so many.
    pub(super) fn new(most: usize) -> Self {
        Self { most, entries: Vec::new() }
    }

    /// What was found out, if it was. Copying it must take no time: others wait.
    pub(super) fn find(&mut self, key: &Key) -> Option<T> {
        let index = self.entries.iter().position(|entry| entry.0 == *key)?;
        let entry = self.entries.remove(index);
        let found = entry.1.clone();
        self.entries.push(entry);
        Some(found)
    }

    /// Keeps it; the one that was not used for longest goes.
    pub(super) fn keep(&mut self, key: Key, found: T) {
        self.entries.retain(|entry| entry.0 != key);
        if self.entries.len() >= self.most {
            self.entries.remove(0);
        }
        self.entries.push((key, found));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_longest_goes() {
        let keys = ["a", "b", "c"].map(|text| key(&Language::Regex(text.to_owned()), None));
        let mut cache = Cache::new(2);
        cache.keep(keys[0], 0);
        cache.keep(keys[1], 1);
        assert_eq!(cache.find(&keys[0]), Some(0));
        cache.keep(keys[2], 2);
        assert_eq!(keys.map(|key| cache.find(&key)), [Some(0), None, Some(2)]);
        cache.keep(keys[0], 7);
        assert_eq!(keys.map(|key| cache.find(&key)), [Some(7), None, Some(2)], "one finding a language");
    }
}
