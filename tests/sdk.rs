//! The official OpenAI SDK for Python against the real server with the real models.
//!
//! Starts the `sconce` binary as a user would, waits until it is ready, and runs the files of `tests/sdk/` in a virtual
//! environment of their own (made on first use).

mod real_models;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

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
fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}\n{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The Python of a virtual environment that has the SDK.
fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let environment = workspace().join("target/sdk-environment");
        let python = environment.join("bin/python");
        if !python.exists() {
            run(Command::new("python3").args(["-m", "venv"]).arg(&environment));
        }
        run(Command::new(&python)
            .args(["-m", "pip", "install", "--quiet", "-r"])
            .arg(workspace().join("tests/sdk/requirements.txt")));
        python
    })
}

fn start(models: &Path, data: &Path) -> Server {
    let chat = models.join("SmolLM2-135M-Instruct.Q4_1.gguf");
    let embed = models.join("all-MiniLM-L6-v2");
    let mut process = Command::new(env!("CARGO_BIN_EXE_sconce"))
        .args(["serve", "--listen", "127.0.0.1:0", "--device", "cpu", "--data-dir"])
        .arg(data)
        .arg("--model")
        .arg(chat)
        .arg("--model")
        .arg(embed)
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

/// Runs a file of cases against a server of its own; how many there were.
fn cases(file: &str) -> String {
    let models = real_models::folder();
    let python = python();
    let data = tempfile::tempdir().expect("a temporary folder");
    let server = start(models, data.path());
    let output = Command::new(python)
        .arg(workspace().join("tests/sdk").join(file))
        .env("SCONCE_URL", &server.url)
        .env("SCONCE_KEY", KEY)
        .env("SCONCE_CHAT_MODEL", "SmolLM2-135M-Instruct.Q4_1")
        .env("SCONCE_EMBED_MODEL", "all-MiniLM-L6-v2")
        .output()
        .expect("python runs");
    let report = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{report}\n{}", String::from_utf8_lossy(&output.stdout));
    let summary = report.lines().find(|line| line.starts_with("Ran ")).expect("unittest counts its tests");
    summary.to_owned()
}

#[test]
fn openai_sdk() {
    println!("openai SDK (Python): {}", cases("test_openai.py"));
}

#[test]
fn openai_sdk_responses() {
    println!("openai SDK (Python), responses: {}", cases("test_responses.py"));
}
