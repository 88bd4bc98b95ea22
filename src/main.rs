//! The `sconce` program: hands the command line over to [`sconce::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    sconce::cli::main()
}
