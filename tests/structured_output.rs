//! Answers held to schemas, with the real model: whatever comes to its end is what its schema admits, by the word of a
//! validator that is not ours; what cannot be honoured is refused before anything is generated.
//!
//! Runs `tests/structured/check.py` against the `sconce` binary, in a virtual environment of its own (made on first use).

mod real_models;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const KEY: &str = "sk-test-0123456789abcdef";

/// A running server; killed when dropped.
struct Server {
    process: Child,
    url: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a command to its end; its output is the message if it fails.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}\n{said}\n{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// The Python of a virtual environment that has the validator.
fn python() -> PathBuf {
    let environment = workspace().join("target/structured-environment");
    let python = environment.join("bin/python");
    if !python.exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&environment));
    }
    let requirements = workspace().join("tests/structured/requirements.txt");
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "-r"]).arg(requirements));
    python
}

fn start(data: &Path) -> Server {
    let mut process = Command::new(env!("CARGO_BIN_EXE_sconce"))
        .args(["serve", "--listen", "127.0.0.1:0", "--device", "cpu", "--data-dir"])
        .arg(data)
        .arg("--model")
        .arg(real_models::smollm2())
        .env("SCONCE_API_KEY", KEY)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("the server starts");
    let lines = BufReader::new(process.stdout.take().expect("stdout is piped")).lines();
    // The banner names the address once the server is ready; the rest of the output is read to the end by a thread.
    let mut lines = lines.map_while(Result::ok);
    let url = lines
        .by_ref()
        .find_map(|line| {
            line.split_whitespace().find(|word| word.starts_with("http://127.0.0.1:")).map(str::to_owned)
        })
        .expect("the server prints its address");
    std::thread::spawn(move || lines.for_each(drop));
    Server { process, url: url.trim_end_matches('/').to_owned() }
}

#[test]
fn every_answer_that_ends_is_what_its_schema_admits() {
    let python = python();
    let data = tempfile::tempdir().expect("a temporary folder");
    let server = start(data.path());
    let said = run(Command::new(python)
        .arg("-B")
        .arg(workspace().join("tests/structured/check.py"))
        .env("SCONCE_URL", &server.url)
        .env("SCONCE_KEY", KEY)
        .env("SCONCE_CHAT_MODEL", "SmolLM2-135M-Instruct.Q4_1"));
    println!("structured output: {}", said.trim());
}
