//! The commands as scripts see them: exit codes, and what is said where.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::fs::OpenOptions;
use std::process::{Command, Output, Stdio};

/// Runs a command that needs no model and no network, with `output` as its standard output.
fn run(command: &str, output: Stdio) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let mut command_line = Command::new(env!("CARGO_BIN_EXE_sconce"));
    command_line.arg(command).env_clear().env("SCONCE_DATA_DIR", folder.path()).env("HOME", folder.path());
    command_line
        .stdout(output)
        .stderr(Stdio::piped())
        .stdin(Stdio::null())
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap()
}

#[test]
fn a_reader_that_has_left_is_no_failure() {
    for command in ["models", "check-config"] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = run(command, writer.into());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{command}: {} {said}", output.status);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn what_cannot_be_written_is_an_error_and_no_panic() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = run("models", full.into());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.starts_with("error: ") && !said.contains("panicked"), "{said}");
}
