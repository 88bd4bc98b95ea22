//! What commands say: text to standard output, whose reader may be gone before all is said, and remarks beside it.
//!
//! `println!` and `eprintln!` end the program with a panic then. Here an unread text is an error like any other, and
//! `main` takes a reader that has left for the end of the work and not for a failure; an unread remark is nothing.

use std::error::Error;
use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

/// Writes a line.
///
/// # Errors
/// When it cannot be written, as to a full disk or a pipe that nobody reads.
pub fn line(text: impl Display) -> io::Result<()> {
    show(format_args!("{text}\n"))
}

/// Writes text as it is, at once.
///
/// # Errors
/// As [`line`].
pub fn show(text: impl Display) -> io::Result<()> {
    let mut output = io::stdout().lock();
    write!(output, "{text}")?;
    output.flush()
}

/// Says something to standard error that no script needs.
pub fn remark(text: impl Display) {
    // Nobody reads it: then it is said to nobody.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Whether a command ended because nobody reads what it says.
pub fn is_unread(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}
