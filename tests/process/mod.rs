//! The real program as its operator has it: commands, and servers that can be killed, on a data folder and a database of
//! their own.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;

use sconce::config::Environment;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, SqliteConnection};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::database::{Backend, TestDatabase};

/// The chat model that every server here has: a llama with random weights.
pub const CHAT: &str = "tiny";

/// The first user, where a test gives it a password.
pub const OWNER: &str = "admin";
pub const OWNER_PASSWORD: &str = "tidal-mosaic-quarry-41";

/// Golden data of the models crate.
pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tests/golden").join(name)
}

/// A data folder and a database.
pub struct Machine {
    folder: TempDir,
    database: Arc<TestDatabase>,
}

impl Machine {
    /// On the kind of database that this run is about.
    pub async fn new() -> Self {
        Self::on(Backend::under_test()).await
    }

    pub async fn on(backend: Backend) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self { folder, database: Arc::new(TestDatabase::fresh(backend).await) }
    }

    /// Another machine with the same database.
    pub fn beside(&self) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self { folder, database: Arc::clone(&self.database) }
    }

    /// A path in the data folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn database_url(&self) -> &str {
        self.database.url()
    }

    /// The SQLite file.
    pub fn database_file(&self) -> PathBuf {
        PathBuf::from(self.database_url().strip_prefix("sqlite://").expect("this test is about SQLite"))
    }

    /// The program, which knows nothing of the environment of the tests.
    pub fn command(&self, words: &[&str]) -> Command {
        let path = Environment::of_process().get("PATH").unwrap_or_default().to_owned();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sconce"));
        command.args(words).env_clear().env("PATH", path).env("HOME", self.folder.path());
        command.env("SCONCE_DATA_DIR", self.folder.path()).env("SCONCE_DATABASE_URL", self.database_url());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Runs a command to its end.
    pub async fn run(&self, words: &[&str]) -> Said {
        Said::from(self.command(words).output().await.expect("the program can be started"))
    }

    /// Runs a command that reads `input`.
    pub async fn run_with(&self, words: &[&str], input: &str) -> Said {
        let mut child = self.command(words).stdin(Stdio::piped()).spawn().expect("it can be started");
        let mut stdin = child.stdin.take().expect("it is a pipe");
        stdin.write_all(input.as_bytes()).await.expect("it is read");
        drop(stdin);
        Said::from(child.wait_with_output().await.expect("it ends"))
    }

    /// A server with the owner's password set, once it is ready.
    pub async fn serve(&self) -> Server {
        self.start(&[("SCONCE_ADMIN_PASSWORD", OWNER_PASSWORD)]).await.expect("it starts")
    }

    /// A server with these variables; what it wrote last if it does not become ready.
    pub async fn start(&self, variables: &[(&str, &str)]) -> Result<Server, String> {
        Server::start(self.server(variables), true).await
    }

    /// The same, whose log has no reader.
    pub async fn start_unheard(&self, variables: &[(&str, &str)]) -> Result<Server, String> {
        Server::start(self.server(variables), false).await
    }

    fn server(&self, variables: &[(&str, &str)]) -> Command {
        let model = format!("{CHAT}={}", golden("llama").display());
        let mut command = self.command(&["serve", "--listen", "127.0.0.1:0", "--model", &model]);
        command.envs([
            ("SCONCE_DEVICE", "cpu"),
            ("SCONCE_MEMORY_BUDGET", "1GiB"),
            ("SCONCE_OFFLINE", "true"),
        ]);
        command.envs(variables.iter().copied());
        command
    }

    /// Does something to the database behind the program's back.
    pub async fn tamper(&self, sql: &str) {
        let statements = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        let done = match Open::to(self.database_url()).await {
            Open::Sqlite(mut connection) => statements.execute(&mut connection).await.map(drop),
            Open::Postgres(mut connection) => statements.execute(&mut connection).await.map(drop),
        };
        done.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// The first column, text, of what the database answers.
    pub async fn ask_database(&self, sql: &str) -> Vec<String> {
        ask(self.database_url(), sql).await
    }
}

/// A connection to either kind.
enum Open {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Open {
    async fn to(url: &str) -> Self {
        if !url.starts_with("sqlite:") {
            return Self::Postgres(PgConnection::connect(url).await.expect("it can be reached"));
        }
        let options: SqliteConnectOptions = url.parse().expect("an address");
        Self::Sqlite(options.connect().await.expect("it can be reached"))
    }
}

/// The first column, text, of what a database answers.
pub async fn ask(url: &str, sql: &str) -> Vec<String> {
    let text = AssertSqlSafe(sql.to_owned());
    let answer = match Open::to(url).await {
        Open::Sqlite(mut connection) => sqlx::query_scalar(text).fetch_all(&mut connection).await,
        Open::Postgres(mut connection) => sqlx::query_scalar(text).fetch_all(&mut connection).await,
    };
    answer.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("it is UTF-8");
        Self { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

impl Said {
    /// Its output, if it did what it was told.
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }

    /// Its error, if it failed as commands fail.
    pub fn refused(self) -> String {
        assert_eq!(self.code, Some(1), "{self:?}");
        assert!(self.err.starts_with("error: ") && !self.err.contains("panicked"), "{self:?}");
        self.err
    }
}

/// A client that goes straight to the server.
pub fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().expect("a client")
}

/// A server that is ready. Killed when dropped.
pub struct Server {
    pub url: String,
    /// All that it printed when it was ready.
    pub banner: String,
    child: Child,
    /// Held so that it can go on printing.
    _output: Lines<BufReader<ChildStdout>>,
}

impl Server {
    async fn start(mut command: Command, is_heard: bool) -> Result<Self, String> {
        let mut child = command.spawn().expect("the program can be started");
        let log = child.stderr.take().expect("it is a pipe");
        let mut output = BufReader::new(child.stdout.take().expect("it is a pipe")).lines();
        let log = tokio::spawn(async move {
            let mut text = String::new();
            if let Some(mut log) = is_heard.then_some(log) {
                let _ = log.read_to_string(&mut text).await;
            }
            text
        });
        let mut banner = String::new();
        while let Some(line) = output.next_line().await.expect("it can be read") {
            banner.push_str(&line);
            banner.push('\n');
            if line.trim_start().starts_with("Ctrl-C") {
                let url = banner.split_whitespace().find(|word| word.starts_with("http://"));
                let url = url.expect("the banner names the address").to_owned();
                return Ok(Self { url, banner, child, _output: output });
            }
        }
        let status = child.wait().await.expect("it ended");
        Err(format!("{status}\n{}", log.await.expect("it was read")))
    }

    /// Sends a request with a key or an access token; status and JSON.
    pub async fn send(&self, request: reqwest::RequestBuilder, token: &str) -> (u16, Value) {
        let answer = request.bearer_auth(token).send().await.expect("the server answers");
        let status = answer.status().as_u16();
        (status, answer.json().await.expect("it is JSON"))
    }

    pub async fn get(&self, path: &str, token: &str) -> (u16, Value) {
        self.send(client().get(format!("{}{path}", self.url)), token).await
    }

    pub async fn post(&self, path: &str, token: &str, body: &Value) -> (u16, Value) {
        self.send(client().post(format!("{}{path}", self.url)).json(body), token).await
    }

    pub async fn put(&self, path: &str, token: &str, body: &Value) -> (u16, Value) {
        self.send(client().put(format!("{}{path}", self.url)).json(body), token).await
    }

    /// All items of a list.
    pub async fn all(&self, path: &str, token: &str) -> Vec<Value> {
        let (mut items, mut cursor) = (Vec::new(), String::new());
        loop {
            let (status, mut body) = self.get(&format!("{path}?limit=100{cursor}"), token).await;
            assert_eq!(status, 200, "{body}");
            items.append(body["data"]["items"].as_array_mut().expect("a list"));
            match body["data"]["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return items,
            }
        }
    }

    /// Signs in; status and JSON.
    pub async fn sign_in(&self, username: &str, password: &str) -> (u16, Value) {
        let body = json!({"username": username, "password": password});
        self.post("/api/v1/auth/login", "", &body).await
    }

    /// The owner's access token, where the password is [`OWNER_PASSWORD`].
    pub async fn owner_token(&self) -> String {
        let (status, body) = self.sign_in(OWNER, OWNER_PASSWORD).await;
        assert_eq!(status, 200, "{body}");
        body["data"]["access_token"].as_str().expect("it is given").to_owned()
    }

    pub fn process(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Asks it to end, and waits until it has: its exit code.
    pub async fn end(mut self) -> Option<i32> {
        let process = self.process().to_string();
        let asked = Command::new("kill").arg(&process).status().await.expect("it can be run");
        assert!(asked.success());
        self.child.wait().await.expect("it ends").code()
    }

    /// Ends it as a power cut would: it gets no chance to say or write anything.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("it can be killed");
    }
}
