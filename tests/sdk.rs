//! Clients as their makers publish them, against the real server with the real models.
//!
//! Starts the `sconce` binary as a user would, waits until it is ready, and runs every `tests/sdk/test_*.py` and
//! `tests/sdk/node/test_*.mjs`, each client in an environment of its own (made on first use): their dependencies contradict
//! each other. A client that is added is a file that is added.

mod clients;
mod real_models;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clients::{KEY, Server, run, workspace};

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

fn all_clients() -> Vec<Client> {
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
        let environment = requirements.file_stem().and_then(OsStr::to_str).expect("it has a name");
        let environment = format!("sdk-environments/{environment}");
        let mut command = Command::new(clients::python(&environment, &requirements));
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

#[test]
fn every_client() {
    let clients = all_clients();
    assert!(!clients.is_empty());
    let data = tempfile::tempdir().expect("a temporary folder");
    let models = [real_models::smollm2(), real_models::folder().join("all-MiniLM-L6-v2")];
    let server = Server::start(&models, data.path());
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
