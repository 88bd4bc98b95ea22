//! The README's first hour of an administrator, run as it is written there: its own lines, by bash, with the real program.
//! What it says where a model comes from is set to one of the test models, and the address to a free one.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod database;
mod process;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use process::{CHAT, Machine, Said, golden};
use sconce::config::Environment;
use serde_json::Value;
use tokio::process::Command;

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The first block of shell lines below a heading.
fn lines_below(heading: &str, file: &str) -> String {
    let text = std::fs::read_to_string(workspace().join(file)).unwrap();
    let (_, section) = text.split_once(heading).unwrap_or_else(|| panic!("{file} has no `{heading}`"));
    let (_, rest) = section.split_once("```sh\n").expect("shell lines");
    rest.split_once("\n```").expect("their end").0.to_owned()
}

/// What readers of English run.
fn english() -> String {
    lines_below("## The first hour of an administrator", "README.md")
}

/// A folder with the client library that the lines install; fetched on first use.
async fn wheels() -> PathBuf {
    let folder = workspace().join("target/first-hour-wheels");
    if !folder.exists() {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "download", "--quiet", "--dest"]).arg(&folder).arg("websockets");
        let output = pip.output().await.expect("Python is here");
        assert!(output.status.success(), "{pip:?}\n{output:?}");
    }
    folder
}

/// Runs the lines in a folder of their own; each must succeed.
async fn run_lines(machine: &Machine, lines: &str) -> Said {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let folder = machine.path("work");
    std::fs::create_dir(&folder).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_sconce")).parent().unwrap();
    let mut bash = Command::new("bash");
    // The server goes with the shell, however that ends.
    let script = format!("set -euo pipefail\ntrap 'kill $(jobs -p) 2> /dev/null || true' EXIT\n{lines}");
    bash.args(["-c", &script]).current_dir(&folder).stdin(Stdio::null()).kill_on_drop(true);
    let path = Environment::of_process().get("PATH").unwrap_or_default().to_owned();
    bash.env("PATH", format!("{}:{path}", program.display())).env("URL", format!("http://127.0.0.1:{port}"));
    bash.env("PIP_NO_INDEX", "1").env("PIP_FIND_LINKS", wheels().await);
    bash.env("NO_PROXY", "127.0.0.1")
        .env("SOURCE", golden("qwen2"))
        .env_remove("LC_ALL")
        .env("LANG", "C.UTF-8");
    for (name, value) in [
        ("LISTEN", format!("127.0.0.1:{port}")),
        ("DATA_DIR", machine.path("").display().to_string()),
        ("DATABASE_URL", machine.database_url().to_owned()),
        ("MODEL", format!("{CHAT}={}", golden("llama").display())),
        ("MODEL_ROOT", golden("").display().to_string()),
        ("DEVICE", "cpu".to_owned()),
        ("MEMORY_BUDGET", "1GiB".to_owned()),
        ("OFFLINE", "true".to_owned()),
    ] {
        bash.env(format!("SCONCE_{name}"), value);
    }
    Said::from(bash.output().await.expect("bash is here"))
}

/// The lines of an output that are JSON objects.
fn objects<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<Value> {
    lines.filter_map(|line| serde_json::from_str(line).ok()).filter(Value::is_object).collect()
}

#[tokio::test]
async fn the_readme_takes_an_administrator_through_the_first_hour() {
    let machine = Machine::new().await;
    let said = run_lines(&machine, &english()).await;
    assert_eq!(said.code, Some(0), "{}\n{}", said.out, said.err);
    let out = &said.out;

    let events: Vec<&str> = out.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    let loads: Vec<Value> =
        objects(events.iter().copied()).into_iter().filter(|event| event["id"] == "assistant").collect();
    assert_eq!(loads.last().expect("it is watched")["status"]["state"], "ready", "{out}");

    let answers = objects(out.lines());
    let made = answers.iter().find(|answer| answer["data"]["username"] == "ada").expect("she is shown");
    assert!(made["data"]["password"].is_string(), "{made}");

    // A whole answer: pieces, the one that says why it ended, and the end of the stream.
    let is_piece = |event: &Value| event["object"] == "chat.completion.chunk" && event["model"] == "gpt-4o";
    let pieces: Vec<Value> =
        objects(events.iter().copied()).into_iter().filter(|event| is_piece(event)).collect();
    assert!(pieces.len() > 1 && events.contains(&"[DONE]"), "{out}");
    let ended = |pieces: &[Value]| {
        pieces.iter().filter(|piece| piece["choices"][0]["finish_reason"].is_string()).count()
    };
    assert_eq!(ended(&pieces), 1, "{out}");
    let messages: Vec<Value> = answers.iter().filter(|answer| is_piece(answer)).cloned().collect();
    assert_eq!(ended(&messages), 2, "two turns on one connection: {out}");

    let refused = answers.iter().find(|answer| answer["code"] == 40108);
    assert!(refused.is_some_and(|answer| answer["data"].is_null()), "the key is refused: {out}");

    let audit =
        answers.iter().find(|answer| answer["data"]["items"][0]["action"].is_string()).expect("it is read");
    let actions: Vec<&str> = audit["data"]["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["action"].as_str().unwrap())
        .collect();
    assert_eq!(
        actions,
        [
            "access.refused",
            "key.update",
            "key.create",
            "user.create",
            "model.load",
            "model.create",
            "user.sign_in",
            "key.create",
        ],
        "the newest first"
    );
    assert!(out.contains("sound: 9 rows") && out.contains("sconce: ended"), "{out}");
}

#[test]
fn both_languages_show_the_same_lines() {
    let commands = |lines: String| {
        lines.lines().map(without_remark).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
    };
    let chinese = lines_below("## 管理员的第一个小时", "README.zh.md");
    assert!(chinese.contains("# 启动"));
    assert_eq!(commands(chinese), commands(english()));
}

/// A line without what it says to its reader.
fn without_remark(line: &str) -> String {
    let remark = if line.starts_with('#') { Some(0) } else { line.find("   # ") };
    line[..remark.unwrap_or(line.len())].trim_end_matches('"').to_owned()
}

#[tokio::test]
async fn a_shell_that_a_person_types_into_takes_the_lines_too() {
    // There `!` calls up an earlier command, but for between single quotes.
    let lines = english();
    let settings: Vec<&str> = lines.lines().take_while(|line| !line.starts_with("field()")).collect();
    let mut bash = Command::new("bash");
    bash.args(["--norc", "--noprofile", "-i"]).env("HISTFILE", "/dev/null").env_remove("SOURCE");
    let mut bash = bash.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let typed = format!("set -H\n{}\necho \"source=$SOURCE\"\nexit\n", settings.join("\n"));
    tokio::io::AsyncWriteExt::write_all(&mut bash.stdin.take().unwrap(), typed.as_bytes()).await.unwrap();
    let said = Said::from(bash.wait_with_output().await.unwrap());
    let source = said.out.lines().find_map(|line| line.strip_prefix("source="));
    assert!(source.is_some_and(|source| source.starts_with("pip:") && source.contains('!')), "{said:?}");
}
