//! Where log records go: whatever text of strangers a record repeats, it stays one line and moves no cursor.
//!
//! Not the format (that is the subscriber's). The one thing to know: the subscriber writes one whole record at a time,
//! ended by a line break; every other line break in it came from a text.

use std::fmt::Write as _;
use std::io::{self, Write};

use tracing_subscriber::fmt::MakeWriter;

/// Writes every record as one line.
#[derive(Debug, Clone)]
pub struct OneLine<W>(pub W);

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for OneLine<W> {
    type Writer = OneLine<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        OneLine(self.0.make_writer())
    }
}

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(record);
        let (text, end) = text.strip_suffix('\n').map_or((&*text, ""), |text| (text, "\n"));
        if !text.contains(moves) {
            self.0.write_all(record)?;
            return Ok(record.len());
        }
        let mut line = String::with_capacity(text.len() + 16);
        for c in text.chars() {
            match moves(c) {
                // As JSON writes it, so that a record in JSON stays JSON. Writing to a text cannot fail.
                true => drop(write!(line, "\\u{:04x}", u32::from(c))),
                false => line.push(c),
            }
        }
        line.push_str(end);
        self.0.write_all(line.as_bytes())?;
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// What breaks a line, moves the cursor, or turns the direction of writing round.
fn moves(c: char) -> bool {
    let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() && c != '\t' || matches!(c, '\u{2028}' | '\u{2029}') || turns
}
