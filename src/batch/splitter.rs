//! A file as it comes, cut into its lines: with their numbers and places, and never more than one of the longest kept.

/// What some editors put before the first line.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A line with something in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RawLine {
    /// From 1; empty lines count.
    pub(super) number: i64,
    /// Where it begins, in bytes.
    pub(super) place: i64,
    /// Without what ends it.
    pub(super) bytes: Vec<u8>,
}

/// A line is longer than it may be: its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLong(pub(super) i64);

/// Cuts.
pub(super) struct Splitter {
    longest: usize,
    begun: Vec<u8>,
    number: i64,
    /// Where the line that is begun begins.
    place: i64,
}

impl Splitter {
    pub(super) fn new(longest: usize) -> Self {
        Self { longest, begun: Vec::new(), number: 1, place: 0 }
    }

    /// The lines that end in what comes next.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<RawLine>, TooLong> {
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let is_whole = piece.ends_with(b"\n");
            let content = if is_whole { &piece[..piece.len() - 1] } else { piece };
            if self.begun.len() + content.len() > self.longest {
                return Err(TooLong(self.number));
            }
            self.begun.extend_from_slice(content);
            if is_whole {
                lines.extend(self.end());
            }
        }
        Ok(lines)
    }

    /// The last line, where nothing ends it.
    pub(super) fn finish(mut self) -> Option<RawLine> {
        self.end()
    }

    fn end(&mut self) -> Option<RawLine> {
        let bytes = std::mem::take(&mut self.begun);
        let (number, place) = (self.number, self.place);
        self.number += 1;
        self.place += bytes.len() as i64 + 1;
        let mark = if place == 0 && bytes.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
        let line = RawLine { number, place: place + mark as i64, bytes: bytes[mark..].to_vec() };
        (!line.bytes.trim_ascii().is_empty()).then_some(line)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::*;

    fn cut(text: &[u8], piece: usize) -> Result<Vec<RawLine>, TooLong> {
        let mut splitter = Splitter::new(20);
        let mut lines = Vec::new();
        for bytes in text.chunks(piece.max(1)) {
            lines.extend(splitter.push(bytes)?);
        }
        lines.extend(splitter.finish());
        Ok(lines)
    }

    #[test]
    fn empty_lines_count_and_are_not_there() {
        let line = |number, place, text: &str| RawLine { number, place, bytes: text.as_bytes().to_vec() };
        let expected = vec![line(1, 3, "one"), line(3, 8, "two\r"), line(5, 15, "three")];
        assert_eq!(cut(b"\xef\xbb\xbfone\n\ntwo\r\n \n  three", 4).map(|lines| lines.len()), Ok(3));
        assert_eq!(cut(b"\xef\xbb\xbfone\n\ntwo\r\n \nthree", 4), Ok(expected));
        assert_eq!(cut(b"", 1), Ok(vec![]));
    }

    #[test]
    fn a_line_that_is_too_long_is_not_waited_for() {
        let mut splitter = Splitter::new(20);
        assert!(splitter.push(b"short\n").is_ok());
        assert_eq!((0..9).find_map(|_| splitter.push(b"12345").err()), Some(TooLong(2)));
        assert!(splitter.begun.len() <= 20);
    }

    proptest! {
        #[test]
        fn however_it_comes_the_lines_are_where_they_say(text in proptest::collection::vec(any::<u8>(), 0..80), piece in 1_usize..9) {
            let whole = cut(&text, 100);
            prop_assert_eq!(&cut(&text, piece), &whole);
            for line in whole.unwrap_or_default() {
                let place = usize::try_from(line.place).expect("it is inside");
                prop_assert_eq!(&text[place..place + line.bytes.len()], &line.bytes[..]);
            }
        }
    }
}
