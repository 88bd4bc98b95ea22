//! Fetches one file: resumes what is there, bounds what may come, verifies what came.
//!
//! The half file is `NAME.partial` in a folder no loader looks at, with `NAME.etag` beside it: the server's word for
//! which content it is the beginning of. A resumed transfer asks for the rest of that content only (`If-Range`,
//! RFC 9110 §13.1.5); if it has changed, it begins anew. A file is handed on only with the right size and SHA-256.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use reqwest::header::{
    CONTENT_ENCODING, CONTENT_RANGE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_RANGE, RANGE,
};
use reqwest::{Response, StatusCode, Url};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

use crate::config::Size;
use crate::manager::digest::sha256_of;
use crate::manager::shelf::check_disk;
use crate::manager::sources::client::{Relation, cause};
use crate::manager::sources::{Means, RemoteFile, SourceError};
use crate::manager::tally::Tally;

/// Tries in a row that bring next to nothing.
const FRUITLESS_TRIES: u32 = 4;
/// Tries in all, however much each brings.
const TRIES: u32 = 1000;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// A transfer that is slower than this over a whole stall time is as good as stalled, and a try that brings less than
/// this is as good as none.
const LEAST_BYTES: u64 = 16 << 10;

/// Fetches the files of one model from one server.
pub(crate) struct Downloader<'a> {
    pub means: &'a Means<'a>,
    pub relation: &'a Relation,
    /// Whether the server's word for a content is its SHA-256: so it is with hubs, and with nobody else.
    pub etag_is_sha256: bool,
}

/// A file that is complete and verified.
#[derive(Debug)]
pub(crate) struct Downloaded {
    /// Where it is.
    pub path: PathBuf,
    /// Of its content.
    pub sha256: String,
    /// Headers of the first answer, before redirects.
    pub headers: HeaderMap,
}

/// How one try ended.
enum Try {
    Complete(HeaderMap),
    /// Cut off or stalled; what came is kept.
    Cut(String),
    /// What is there is not the beginning of what the server has.
    StartOver,
}

impl Downloader<'_> {
    /// Fetches `file` into `folder`.
    ///
    /// # Errors
    /// [`SourceError::Unreachable`] if the server is gone for good, [`SourceError::Wrong`] if what it sent is not what
    /// was asked for (the file is put in quarantine), [`SourceError::NoRoom`] and [`SourceError::Disk`] for the disk.
    pub(crate) async fn fetch(
        &self,
        file: &RemoteFile,
        folder: &Path,
        tally: &mut Tally,
    ) -> Result<Downloaded, SourceError> {
        let half = HalfFile::of(&file.name.to_string(), folder)?;
        let mut resumed = half.length() > 0;
        loop {
            let headers = self.transfer(file, &half, tally).await?;
            let sha256 =
                sha256_of(&half.path).await.map_err(SourceError::disk(half.path.display().to_string()))?;
            let expected =
                file.sha256.clone().or_else(|| sha256_in(&headers).filter(|_| self.etag_is_sha256));
            match expected {
                Some(expected) if expected != sha256 && resumed => {
                    // The beginning may have been of another file: once more, from nothing.
                    tally.notice(&format!("{}: the resumed file is not right, fetching it anew", file.name));
                    half.discard()?;
                    resumed = false;
                }
                Some(expected) if expected != sha256 => {
                    self.means.shelf.quarantine(&half.path).map_err(SourceError::disk("quarantine"))?;
                    half.discard()?;
                    let reason = format!("{}: its SHA-256 is {sha256}, not {expected}", file.name);
                    return Err(SourceError::Wrong(reason));
                }
                _ => return Ok(Downloaded { path: half.path, sha256, headers }),
            }
        }
    }

    /// Tries until all bytes are there.
    async fn transfer(
        &self,
        file: &RemoteFile,
        half: &HalfFile,
        tally: &mut Tally,
    ) -> Result<HeaderMap, SourceError> {
        let mut fruitless = 0;
        for _ in 0..TRIES {
            let before = half.length();
            match self.try_once(file, half, tally).await {
                Ok(Try::Complete(headers)) => return Ok(headers),
                Ok(Try::StartOver) => {
                    half.discard()?;
                    fruitless += 1;
                }
                Ok(Try::Cut(reason)) => {
                    let after = half.length();
                    // A server that gives a few bytes at a time would hold this up for days.
                    fruitless = if after >= before.saturating_add(LEAST_BYTES) { 0 } else { fruitless + 1 };
                    tally.notice(&format!("{}: {reason} at {}; going on from there", file.name, Size(after)));
                }
                // Gone before it ever answered: the next source is nearer than a server that may come back.
                Err(SourceError::Unreachable(reason)) if before == 0 => {
                    return Err(SourceError::Unreachable(reason));
                }
                Err(SourceError::Unreachable(reason)) => {
                    fruitless += 1;
                    tally.notice(&format!("{}: {reason}", file.name));
                }
                Err(error) => return Err(error),
            }
            if fruitless >= FRUITLESS_TRIES {
                break;
            }
            if fruitless > 0 {
                tokio::time::sleep(FIRST_PAUSE * 2_u32.pow(fruitless)).await;
            }
        }
        Err(SourceError::Unreachable(
            "the transfer was cut too often; what came is kept for the next time".into(),
        ))
    }

    async fn try_once(
        &self,
        file: &RemoteFile,
        half: &HalfFile,
        tally: &mut Tally,
    ) -> Result<Try, SourceError> {
        // Of a file that is all there but was never verified, the last byte is asked for again.
        let have = file.bytes.map_or(half.length(), |bytes| half.length().min(bytes.saturating_sub(1)));
        // Without a word from the server on what the beginning was of, only a known SHA-256 makes resuming safe.
        let etag = half.etag();
        if have > 0 && etag.is_none() && file.sha256.is_none() {
            return Ok(Try::StartOver);
        }
        let mut headers = HeaderMap::new();
        if have > 0 {
            headers.insert(RANGE, header(&format!("bytes={have}-"))?);
            if let Some(etag) = &etag {
                headers.insert(IF_RANGE, header(etag)?);
            }
        }
        let answer = self.means.client.get(&file.url, &headers, self.relation).await?;
        let response = answer.response;
        refuse_encoding(&response)?;
        let start = match begin(&response, have, etag.as_deref()) {
            Begin::At(start) => start,
            Begin::StartOver => return Ok(Try::StartOver),
        };
        let total = response.content_length().map(|rest| rest.saturating_add(start));
        self.check_total(file, total)?;
        if let Some(total) = total {
            tally.learn_total(total);
            check_disk(half.folder(), total - start).map_err(SourceError::NoRoom)?;
        }
        half.note_etag(response.headers())?;
        let limit = file.bytes.or(total).unwrap_or(self.means.max_bytes).min(self.means.max_bytes);
        let outcome = self.receive(response, half, start, limit, tally).await?;
        if let Some(reason) = outcome {
            return Ok(Try::Cut(reason));
        }
        let length = half.length();
        if let Some(bytes) = file.bytes.or(total).filter(|bytes| *bytes != length) {
            return Ok(Try::Cut(format!("the transfer ended before its {}", Size(bytes))));
        }
        Ok(Try::Complete(answer.first))
    }

    /// Whether the server means to send as much as it should.
    fn check_total(&self, file: &RemoteFile, total: Option<u64>) -> Result<(), SourceError> {
        match (total, file.bytes) {
            (Some(total), Some(bytes)) if total != bytes => {
                Err(SourceError::Wrong(format!("{}: it has {total} bytes, not {bytes}", file.name)))
            }
            (Some(total), _) if total > self.means.max_bytes => {
                let (total, most) = (Size(total), Size(self.means.max_bytes));
                Err(SourceError::Refused(format!(
                    "{}: {total} are more than `max-download` ({most})",
                    file.name
                )))
            }
            _ => Ok(()),
        }
    }

    /// Appends what comes from `start` on; says why it ended early, if it did.
    async fn receive(
        &self,
        mut response: Response,
        half: &HalfFile,
        start: u64,
        limit: u64,
        tally: &mut Tally,
    ) -> Result<Option<String>, SourceError> {
        let mut file = half.open_at(start).await?;
        let mut length = start;
        let mut window = (Instant::now(), start);
        let ended = loop {
            tally.at(length);
            let chunk = match response.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break None,
                Err(error) => break Some(format!("the transfer was cut ({})", cause(&error))),
            };
            length = length.saturating_add(chunk.len() as u64);
            if length > limit {
                drop(file);
                half.discard()?;
                return Err(SourceError::Wrong(format!("it sent more than the {limit} bytes it should")));
            }
            // Flushed, so that what is counted is in the file, even if this task is ended here.
            let written = async {
                file.write_all(&chunk).await?;
                file.flush().await
            };
            if let Err(error) = written.await {
                return Err(half.failed(error));
            }
            if window.0.elapsed() >= self.means.stall_timeout {
                if length - window.1 < LEAST_BYTES {
                    break Some("the transfer has all but stalled".into());
                }
                window = (Instant::now(), length);
            }
        };
        match file.sync_all().await {
            Ok(()) => Ok(ended),
            Err(error) => Err(half.failed(error)),
        }
    }
}

/// Where an answer begins.
enum Begin {
    At(u64),
    StartOver,
}

fn begin(response: &Response, have: u64, etag: Option<&str>) -> Begin {
    if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
        return Begin::StartOver;
    }
    if response.status() != StatusCode::PARTIAL_CONTENT {
        return Begin::At(0);
    }
    let text = |name: HeaderName| response.headers().get(name).and_then(|value| value.to_str().ok());
    let changed = matches!((etag, text(ETAG)), (Some(old), Some(new)) if old != new);
    let start =
        text(CONTENT_RANGE).and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse().ok());
    if changed || start != Some(have) { Begin::StartOver } else { Begin::At(have) }
}

fn refuse_encoding(response: &Response) -> Result<(), SourceError> {
    match response.headers().get(CONTENT_ENCODING) {
        Some(encoding) if encoding != "identity" => {
            Err(SourceError::Refused("it sends compressed content, which was not asked for".into()))
        }
        _ => Ok(()),
    }
}

fn header(text: &str) -> Result<HeaderValue, SourceError> {
    HeaderValue::from_str(text).map_err(|_| SourceError::Refused(format!("`{text}` cannot be sent")))
}

/// The SHA-256 that a hub names in the headers of its own answer (not in those of where it redirects to).
pub(crate) fn sha256_in(headers: &HeaderMap) -> Option<String> {
    let etag = linked_etag(headers)?;
    crate::manager::source::is_sha256(&etag).then_some(etag)
}

/// The hub's name for the content: SHA-256 of large files, git's name for small ones.
pub(crate) fn linked_etag(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("x-linked-etag").or_else(|| headers.get(ETAG))?;
    let text = value.to_str().ok()?.trim_start_matches("W/").trim_matches('"');
    let is_plain = !text.is_empty() && text.len() <= 128 && text.bytes().all(|b| b.is_ascii_alphanumeric());
    is_plain.then(|| text.to_owned())
}

/// A file on its way.
struct HalfFile {
    path: PathBuf,
    etag: PathBuf,
}

impl HalfFile {
    fn of(name: &str, folder: &Path) -> Result<Self, SourceError> {
        std::fs::create_dir_all(folder).map_err(SourceError::disk(folder.display().to_string()))?;
        let flat = name.replace('/', "--");
        Ok(Self { path: folder.join(format!("{flat}.partial")), etag: folder.join(format!("{flat}.etag")) })
    }

    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    fn length(&self) -> u64 {
        std::fs::symlink_metadata(&self.path)
            .map_or(0, |metadata| if metadata.is_file() { metadata.len() } else { 0 })
    }

    fn etag(&self) -> Option<String> {
        std::fs::read_to_string(&self.etag).ok().filter(|text| !text.is_empty())
    }

    /// Notes which content this is the beginning of; a weak word for it is no word.
    fn note_etag(&self, headers: &HeaderMap) -> Result<(), SourceError> {
        let etag = headers.get(ETAG).and_then(|value| value.to_str().ok());
        match etag.filter(|etag| !etag.starts_with("W/")) {
            Some(etag) => {
                std::fs::write(&self.etag, etag).map_err(SourceError::disk(self.etag.display().to_string()))
            }
            None => self.forget_etag(),
        }
    }

    fn forget_etag(&self) -> Result<(), SourceError> {
        remove(&self.etag)
    }

    /// Opens the file with `start` bytes left in it.
    async fn open_at(&self, start: u64) -> Result<File, SourceError> {
        let open = async {
            if std::fs::symlink_metadata(&self.path).is_ok_and(|metadata| !metadata.is_file()) {
                std::fs::remove_file(&self.path)?;
            }
            let mut file = File::options().create(true).truncate(false).write(true).open(&self.path).await?;
            file.set_len(start).await?;
            tokio::io::AsyncSeekExt::seek(&mut file, std::io::SeekFrom::Start(start)).await?;
            Ok(file)
        };
        open.await.map_err(SourceError::disk(self.path.display().to_string()))
    }

    fn discard(&self) -> Result<(), SourceError> {
        remove(&self.path)?;
        remove(&self.etag)
    }

    /// The disk is full: what came is of no use and takes others' room.
    fn failed(&self, error: std::io::Error) -> SourceError {
        if error.kind() == std::io::ErrorKind::StorageFull {
            // It is being reported already that the disk is full.
            let _ = self.discard();
            return SourceError::NoRoom("the disk is full".into());
        }
        SourceError::Disk { what: self.path.display().to_string(), source: error }
    }
}

fn remove(path: &Path) -> Result<(), SourceError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(SourceError::Disk { what: path.display().to_string(), source: error })
        }
        _ => Ok(()),
    }
}

/// Joins path segments to a base address.
pub(crate) fn address(base: &str, path: &str) -> Result<Url, SourceError> {
    format!("{base}/{path}")
        .parse()
        .map_err(|error| SourceError::Refused(format!("`{base}` is no address: {error}")))
}
