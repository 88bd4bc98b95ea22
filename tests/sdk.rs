//! Clients as their makers publish them, against the real server with the real models.
//!
//! Starts the `sconce` binary as a user would, waits until it is ready, and runs every `tests/sdk/test_*.py` and
//! `tests/sdk/node/test_*.mjs`, each client in an environment of its own (made on first use): their dependencies contradict
//! each other. A client that is added is a file that is added.

mod real_models;

use std::ffi::OsStr;
use std::fs;
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
fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}\n{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The Python of a virtual environment that has what `requirements` names.
fn python(requirements: &Path) -> PathBuf {
    let name = requirements.file_stem().and_then(OsStr::to_str).expect("it has a name");
    let environment = workspace().join("target/sdk-environments").join(name);
    let python = environment.join("bin/python");
    if !python.exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&environment));
    }
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "-r"]).arg(requirements));
    python
}

/// A folder with Node's clients installed, and the tests beside them: modules are looked for from where a file lies.
fn node(tests: &Path) -> PathBuf {
    let folder = workspace().join("target/sdk-environments/node");
    fs::create_dir_all(&folder).expect("the target folder can be written");
    for entry in files(tests) {
        fs::copy(&entry, folder.join(entry.file_name().expect("a file"))).expect("a file can be copied");
    }
    run(Command::new("npm").current_dir(&folder).args([
        "install",
        "--no-audit",
        "--no-fund",
        "--no-package-lock",
        "--silent",
    ]));
    folder
}

/// The files of a folder, by name.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the folder is there");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("it can be read").path()).collect();
    files.retain(|path| path.is_file());
    files.sort();
    files
}

/// The tests of one client, ready to be run.
struct Client {
    name: String,
    command: Command,
}

fn clients() -> Vec<Client> {
    let folder = workspace().join("tests/sdk");
    let mut clients = Vec::new();
    for path in files(&folder) {
        let stem = path.file_stem().and_then(OsStr::to_str).unwrap_or_default().to_owned();
        let Some(name) = stem.strip_prefix("test_").filter(|_| path.extension() == Some(OsStr::new("py")))
        else {
            continue;
        };
        let own = folder.join(format!("requirements-{name}.txt"));
        let requirements = if own.exists() { own } else { folder.join("requirements.txt") };
        let mut command = Command::new(python(&requirements));
        command.arg(&path);
        clients.push(Client { name: format!("{name} (Python)"), command });
    }
    let installed = node(&folder.join("node"));
    for path in files(&installed) {
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let Some(name) = name.strip_prefix("test_").and_then(|name| name.strip_suffix(".mjs")) else {
            continue;
        };
        let mut command = Command::new("node");
        command.current_dir(&installed).arg("--test-reporter=tap").arg(&path);
        clients.push(Client { name: format!("{name} (Node)"), command });
    }
    clients
}

/// How many tests a client's report counts.
fn count(report: &str) -> Option<usize> {
    let number = |rest: &str| rest.split_whitespace().next()?.parse().ok();
    report.lines().find_map(|line| {
        line.strip_prefix("Ran ").and_then(number).or_else(|| line.strip_prefix("# pass ").and_then(number))
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

#[test]
fn every_client() {
    let models = real_models::folder();
    let clients = clients();
    assert!(!clients.is_empty());
    let data = tempfile::tempdir().expect("a temporary folder");
    let server = start(models, data.path());
    let mut failures = Vec::new();
    for Client { name, mut command } in clients {
        let output = command
            .env("SCONCE_URL", &server.url)
            .env("SCONCE_KEY", KEY)
            .env("SCONCE_CHAT_MODEL", "SmolLM2-135M-Instruct.Q4_1")
            .env("SCONCE_EMBED_MODEL", "all-MiniLM-L6-v2")
            .output()
            .expect("the client's tests can be started");
        let report =
            [&output.stderr, &output.stdout].map(|text| String::from_utf8_lossy(text).into_owned()).concat();
        match count(&report).filter(|count| output.status.success() && *count > 0) {
            Some(count) => println!("{name}: {count} cases"),
            None => failures.push(format!("{name}:\n{report}")),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
