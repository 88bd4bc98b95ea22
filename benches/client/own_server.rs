//! Our own server as its operator would start it: the release program, every setting at its default, on a free port and a
//! data folder of its own. It asks for no key.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// What it calls its model.
pub const MODEL: &str = "bench";

/// What is started.
#[derive(Debug, Clone)]
pub struct Launch {
    pub program: PathBuf,
    pub model: PathBuf,
    /// Further arguments of `sconce serve`.
    pub arguments: Vec<String>,
    /// Where its log goes.
    pub log: PathBuf,
}

/// A server that is ready. Killed when dropped.
pub struct OwnServer {
    pub url: String,
    pub process: u32,
    /// From the start of the process until it was ready.
    pub start: Duration,
    _child: Child,
    /// Held so that it can go on printing.
    _output: Lines<BufReader<ChildStdout>>,
    _data: TempDir,
}

/// The program that this bench was built with.
pub fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_sconce"))
}

/// The model that `make test-models` fetches.
pub fn test_model() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"));
    workspace.join("target/test-models/SmolLM2-135M-Instruct.Q4_1.gguf")
}

/// Where results are written.
pub fn results() -> Result<PathBuf, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let folder = program.ancestors().nth(3).ok_or("this program lies in no build folder")?.join("bench");
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    Ok(folder)
}

impl OwnServer {
    pub async fn start(launch: &Launch) -> Result<Self, String> {
        let cannot = |error: std::io::Error| format!("{}: {error}", launch.program.display());
        if !launch.model.exists() {
            return Err(format!("{} is missing; run `make test-models`", launch.model.display()));
        }
        let data = tempfile::tempdir().map_err(cannot)?;
        let log = File::create(&launch.log).map_err(cannot)?;
        let model = format!("{MODEL}={}", launch.model.display());
        let mut command = Command::new(&launch.program);
        command.args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--auth",
            "off",
            "--offline",
            "true",
            "--model",
            &model,
        ]);
        command.args(&launch.arguments).arg("--data-dir").arg(data.path());
        command.env_clear().env("HOME", data.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
        let begun = Instant::now();
        let mut child = command.spawn().map_err(cannot)?;
        let (process, output) = (child.id(), child.stdout.take());
        let (Some(process), Some(output)) = (process, output) else {
            return Err(format!("{} ended at once", launch.program.display()));
        };
        let mut output = BufReader::new(output).lines();
        let url = ready(&mut output).await.map_err(cannot)?;
        let url = url.ok_or_else(|| format!("the server did not start; see {}", launch.log.display()))?;
        Ok(Self { url, process, start: begun.elapsed(), _child: child, _output: output, _data: data })
    }
}

/// Waits for the last line of what it prints when it is ready: the address that was named before. None if it ended.
async fn ready(output: &mut Lines<BufReader<ChildStdout>>) -> std::io::Result<Option<String>> {
    let mut url = None;
    while let Some(line) = output.next_line().await? {
        let named = line.split_whitespace().find(|word| word.starts_with("http://"));
        url = url.or(named.map(str::to_owned));
        if line.trim_start().starts_with("Ctrl-C") {
            return Ok(url);
        }
    }
    Ok(None)
}
