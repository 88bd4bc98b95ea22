//! A hub on this machine's loopback that can misbehave: it serves what a test puts there, in the way the test asks for,
//! and remembers what it was asked. It speaks just enough HTTP/1.1 for one request per connection.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A file and how it is served.
#[derive(Clone)]
pub struct Served {
    pub content: Vec<u8>,
    /// Sent as `ETag`, quoted; a hub's is the SHA-256 of large files.
    pub etag: String,
    /// Sent as `X-Repo-Commit`.
    pub commit: Option<String>,
    /// What happens to the first requests, one each; later ones are answered properly.
    pub faults: Vec<Fault>,
}

/// A way to misbehave.
#[derive(Clone)]
pub enum Fault {
    /// The connection is closed after so many bytes of the body.
    CutAfter(usize),
    /// Nothing more comes after so many bytes of the body.
    StallAfter(usize),
    /// This status and nothing else.
    Status(u16),
    /// `Content-Length` says this; as much as there is comes, then the connection is closed.
    SayLength(u64),
    /// `Content-Length` says this; the connection is closed after so many bytes of the body.
    SayLengthAndCut(u64, usize),
    /// No `Content-Length`, and zeros without end.
    Endless,
    /// One byte after the other, with a pause after each, without end.
    Drip(std::time::Duration),
    /// Says it is compressed.
    Compressed,
    /// From this request on the content is another, under another ETag.
    Change(Vec<u8>, String),
    /// Ranges are answered without a look at `If-Range`, from the changed content.
    ChangeButIgnoreIfRange(Vec<u8>, String),
    /// A redirect.
    Redirect(String),
}

/// What was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Path and query.
    pub target: String,
    /// By lower-case name.
    pub headers: HashMap<String, String>,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

#[derive(Default)]
struct State {
    files: HashMap<String, Served>,
    documents: HashMap<String, String>,
    asked: Vec<Asked>,
    /// Connections that stall are kept open until the server goes.
    stalled: Vec<TcpStream>,
}

/// The server. Ends when it is dropped.
pub struct MockHub {
    pub url: String,
    pub host: String,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

impl Drop for MockHub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Content that differs at every place, so that a wrongly joined file is seen.
pub fn content(bytes: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..bytes).map(next).collect()
}

impl Served {
    /// A large file as a hub serves it.
    pub fn large(content: Vec<u8>) -> Self {
        let etag = sha256(&content);
        Self { content, etag, commit: Some(COMMIT.into()), faults: Vec::new() }
    }

    pub fn with(mut self, faults: impl IntoIterator<Item = Fault>) -> Self {
        self.faults.extend(faults);
        self
    }
}

/// The commit of everything here.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

impl MockHub {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let state = Arc::new(Mutex::new(State::default()));
        let task = tokio::spawn({
            let state = Arc::clone(&state);
            async move {
                loop {
                    let Ok((stream, _)) = listener.accept().await else { return };
                    tokio::spawn(answer(stream, Arc::clone(&state)));
                }
            }
        });
        Self { url: format!("http://{host}"), host, state, task }
    }

    /// Serves a file at this path (and query).
    pub fn put(&self, target: &str, file: Served) {
        self.state.lock().unwrap().files.insert(target.into(), file);
    }

    /// Serves a large file of a repository, at a branch and at its commit.
    pub fn put_in(&self, repository: &str, name: &str, file: Served) {
        for revision in ["main", COMMIT] {
            self.put(&format!("/{repository}/resolve/{revision}/{name}"), file.clone());
        }
    }

    /// Serves a JSON document.
    pub fn put_json(&self, target: &str, document: &str) {
        self.state.lock().unwrap().documents.insert(target.into(), document.into());
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.state.lock().unwrap().asked.clone()
    }
}

async fn answer(mut stream: TcpStream, state: Arc<Mutex<State>>) {
    let Some(asked) = read_request(&mut stream).await else { return };
    let (file, document) = {
        let mut state = state.lock().unwrap();
        state.asked.push(asked.clone());
        let document = state.documents.get(&asked.target).cloned();
        let file = state.files.get_mut(&asked.target).map(|file| {
            let fault = if file.faults.is_empty() { None } else { Some(file.faults.remove(0)) };
            if let Some(Fault::Change(content, etag) | Fault::ChangeButIgnoreIfRange(content, etag)) = &fault
            {
                file.content.clone_from(content);
                file.etag.clone_from(etag);
            }
            (file.clone(), fault)
        });
        (file, document)
    };
    if let Some(document) = document {
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", document.len());
        let _ = stream.write_all(format!("{head}{document}").as_bytes()).await;
        return;
    }
    match file {
        Some((file, fault)) => serve(stream, &asked, &file, fault, &state).await,
        None => {
            let _ = stream
                .write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                .await;
        }
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<Asked> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(stream.read_u8().await.ok()?);
    }
    let text = String::from_utf8(bytes).ok()?;
    let mut lines = text.lines();
    let target = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    Some(Asked { target, headers })
}

async fn serve(
    mut stream: TcpStream,
    asked: &Asked,
    file: &Served,
    fault: Option<Fault>,
    state: &Mutex<State>,
) {
    match &fault {
        Some(Fault::Status(status)) => {
            let head = format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            let _ = stream.write_all(head.as_bytes()).await;
            return;
        }
        Some(Fault::Redirect(target)) => {
            let commit = file
                .commit
                .as_ref()
                .map_or_else(String::new, |commit| format!("X-Repo-Commit: {commit}\r\n"));
            let head = format!(
                "HTTP/1.1 302 Found\r\nLocation: {target}\r\nX-Linked-ETag: \"{}\"\r\n{commit}Content-Length: 0\r\n\
                 Connection: close\r\n\r\n",
                file.etag
            );
            let _ = stream.write_all(head.as_bytes()).await;
            return;
        }
        _ => {}
    }
    let etag = format!("\"{}\"", file.etag);
    let ignores = matches!(fault, Some(Fault::ChangeButIgnoreIfRange(..)));
    let is_same = ignores || asked.header("if-range").is_none_or(|known| known == etag);
    let range = asked.header("range").filter(|_| is_same);
    let start: usize =
        range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()).unwrap_or(0);
    let total = file.content.len();
    if start >= total && start > 0 {
        let _ = stream.write_all(b"HTTP/1.1 416 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
        return;
    }
    let body = &file.content[start..];
    let mut head = if start > 0 {
        format!("HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {start}-{}/{total}\r\n", total - 1)
    } else {
        "HTTP/1.1 200 OK\r\n".to_owned()
    };
    head.push_str(&format!("ETag: {etag}\r\nConnection: close\r\n"));
    if let Some(commit) = &file.commit {
        head.push_str(&format!("X-Repo-Commit: {commit}\r\n"));
    }
    match &fault {
        Some(Fault::Endless) => {}
        Some(Fault::SayLength(length) | Fault::SayLengthAndCut(length, _)) => {
            head.push_str(&format!("Content-Length: {length}\r\n"))
        }
        Some(Fault::Compressed) => {
            head.push_str(&format!("Content-Length: {}\r\nContent-Encoding: gzip\r\n", body.len()));
        }
        _ => head.push_str(&format!("Content-Length: {}\r\n", body.len())),
    }
    head.push_str("\r\n");
    // The client may hang up at any time: that is its right, and often the point.
    let _ = stream.write_all(head.as_bytes()).await;
    match fault {
        Some(Fault::CutAfter(bytes) | Fault::SayLengthAndCut(_, bytes)) => {
            let _ = stream.write_all(&body[..bytes.min(body.len())]).await;
            let _ = stream.flush().await;
        }
        Some(Fault::StallAfter(bytes)) => {
            let _ = stream.write_all(&body[..bytes.min(body.len())]).await;
            state.lock().unwrap().stalled.push(stream);
        }
        Some(Fault::Endless) => while stream.write_all(&[0; 4096]).await.is_ok() {},
        Some(Fault::Drip(pause)) => {
            for byte in body {
                if stream.write_all(&[*byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(pause).await;
            }
        }
        _ => {
            let _ = stream.write_all(body).await;
        }
    }
}
