//! Where a few tokens stood, by their hash.

/// Fewest tokens that must agree before a place counts as a repetition.
pub(super) const SHORTEST: usize = 2;
/// Most tokens that are looked up at once. A place that agrees in more is recognised by comparing.
pub(super) const LONGEST: usize = 4;
/// Entries of the table per token of the text: one for each length that is looked up, and some air.
const PLACES_PER_TOKEN: usize = 4;
/// Most entries of a table: 512 KiB. In a longer text newer places push out older ones.
const MOST_PLACES: usize = 1 << 17;

/// By the hash of a few tokens, the positions after the last two places where they stood, the later one at the hash and the
/// other beside it (at `index ^ 1`); 0 is none. Whatever is found must be compared, so a clash of hashes loses a place and
/// no more.
#[derive(Debug, Clone)]
pub(super) struct Places(Vec<u32>);

impl Places {
    /// Of a text of at most this many tokens, none of them entered yet.
    pub(super) fn new(tokens_limit: usize) -> Self {
        let places = tokens_limit.saturating_mul(PLACES_PER_TOKEN).clamp(64, MOST_PLACES).next_power_of_two();
        Self(vec![0; places])
    }

    /// Remembers that the end of `tokens` stands there.
    pub(super) fn enter(&mut self, tokens: &[u32]) {
        for length in SHORTEST..=LONGEST.min(tokens.len()) {
            let index = self.index(&tokens[tokens.len() - length..]);
            self.0[index ^ 1] = self.0[index];
            self.0[index] = tokens.len() as u32;
        }
    }

    /// After which positions these tokens may have stood, the last first.
    pub(super) fn of(&self, few: &[u32]) -> [usize; 2] {
        let index = self.index(few);
        [self.0[index] as usize, self.0[index ^ 1] as usize]
    }

    fn index(&self, few: &[u32]) -> usize {
        let mix = |hash: u64, &token: &u32| (hash ^ u64::from(token)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let hash = few.iter().fold(few.len() as u64, |hash, token| mix(hash.rotate_left(29), token));
        // The table's length is a power of two, at least 64.
        (hash >> (u64::BITS - self.0.len().trailing_zeros())) as usize
    }
}
