//! Programs in other languages: where they find what they need, and the server as a user would start it for them.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The key that the server takes.
pub const KEY: &str = "sk-test-0123456789abcdef";

/// A running server; killed when dropped.
pub struct Server {
    process: Child,
    pub url: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    /// The `sconce` binary with these models, once it is ready.
    pub fn start(models: &[PathBuf], data: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sconce"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--device", "cpu", "--data-dir"]).arg(data);
        for model in models {
            command.arg("--model").arg(model);
        }
        command.env("SCONCE_API_KEY", KEY).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut process = command.spawn().expect("the server starts");
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
        Self { process, url: url.trim_end_matches('/').to_owned() }
    }
}

pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a command to its end and gives what it said; all of that is the message if it fails.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}\n{said}\n{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// The Python of a virtual environment, a folder of `target/` that is made on first use, which has what is required.
pub fn python(environment: &str, requirements: &Path) -> PathBuf {
    let environment = workspace().join("target").join(environment);
    let python = environment.join("bin/python");
    if !python.exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&environment));
    }
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "-r"]).arg(requirements));
    python
}
