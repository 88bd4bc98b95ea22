//! What commands say: text to standard output, whose reader may be gone before all is said.
//!
//! `println!` ends the program with a panic then; here it is an error like any other, and `main` takes a reader that
//! has left for the end of the work and not for a failure.

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

/// Whether a command ended because nobody reads what it says.
pub fn is_unread(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}
