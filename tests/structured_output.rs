//! Answers held to schemas, with the real model: whatever comes to its end is what its schema admits, by the word of a
//! validator that is not ours; what cannot be honoured is refused before anything is generated.
//!
//! Runs `tests/structured/check.py` against the `sconce` binary, in a virtual environment of its own (made on first use).

mod clients;
mod real_models;

use std::process::Command;

use clients::{KEY, Server, run, workspace};

#[test]
fn every_answer_that_ends_is_what_its_schema_admits() {
    let requirements = workspace().join("tests/structured/requirements.txt");
    let python = clients::python("structured-environment", &requirements);
    let data = tempfile::tempdir().expect("a temporary folder");
    let server = Server::start(&[real_models::smollm2()], data.path());
    let said = run(Command::new(python)
        .arg("-B")
        .arg(workspace().join("tests/structured/check.py"))
        .env("SCONCE_URL", &server.url)
        .env("SCONCE_KEY", KEY)
        .env("SCONCE_CHAT_MODEL", "SmolLM2-135M-Instruct.Q4_1"));
    println!("structured output: {}", said.trim());
}
