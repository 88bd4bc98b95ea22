//! The rig under the database tests: a test gets a database of its own, of the right kind, and leaves nothing behind.

mod database;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use database::{Backend, TestDatabase, server};
use reqwest::Url;
use sconce::config::Environment;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection, SqliteConnection};
use tokio::time::timeout;

/// A connection to either.
enum Open {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Open {
    /// Nothing is made by it, except a SQLite file if `create`.
    async fn connect(url: &str, create: bool) -> sqlx::Result<Self> {
        if !url.starts_with("sqlite:") {
            return Ok(Self::Postgres(PgConnection::connect(url).await?));
        }
        let options: SqliteConnectOptions = url.parse()?;
        Ok(Self::Sqlite(options.create_if_missing(create).connect().await?))
    }

    /// Writes through one connection.
    async fn write(&mut self) -> sqlx::Result<()> {
        const TEXT: &str = "CREATE TABLE cup (tea TEXT NOT NULL); INSERT INTO cup VALUES ('茶')";
        match self {
            Self::Sqlite(connection) => sqlx::raw_sql(TEXT).execute(connection).await.map(drop),
            Self::Postgres(connection) => sqlx::raw_sql(TEXT).execute(connection).await.map(drop),
        }
    }

    async fn read(&mut self) -> sqlx::Result<String> {
        const TEXT: &str = "SELECT tea FROM cup";
        match self {
            Self::Sqlite(connection) => sqlx::query_scalar(TEXT).fetch_one(connection).await,
            Self::Postgres(connection) => sqlx::query_scalar(TEXT).fetch_one(connection).await,
        }
    }
}

#[tokio::test]
async fn what_is_written_can_be_read_and_is_gone_afterwards() {
    let database = TestDatabase::fresh(Backend::under_test()).await;
    let url = database.url().to_owned();
    let mut first = Open::connect(&url, true).await.expect("it can be reached");
    first.write().await.expect("it takes a table");
    let mut second = Open::connect(&url, false).await.expect("it can be reached again");
    assert_eq!(second.read().await.expect("the table is there"), "茶");

    // `first` and `second` are still connected.
    drop(database);
    let error = refusal(&url).await;
    if Backend::under_test() == Backend::Postgres {
        let code = error.as_database_error().and_then(|error| error.code().map(String::from));
        assert_eq!(code.as_deref(), Some("3D000"), "there is no such database: {error}");
        second.read().await.expect_err("its connections are cut");
    }
}

/// What is said to who connects to a database that is going: a slow server may still be busy with removing it.
async fn refusal(url: &str) -> sqlx::Error {
    let refused = async {
        loop {
            match Open::connect(url, false).await {
                Err(error) => return error,
                Ok(_) => tokio::task::yield_now().await,
            }
        }
    };
    timeout(Duration::from_secs(60), refused).await.unwrap_or_else(|_| panic!("{url} outlived its test"))
}

#[tokio::test]
async fn a_connection_that_is_being_opened_holds_nobody_up() {
    let database = TestDatabase::fresh(Backend::under_test()).await;
    let mut opening = (Backend::under_test() == Backend::Postgres).then(|| begin(database.url()));
    let since = Instant::now();
    drop(database);
    // PostgreSQL gives a connection up that does not authenticate itself for a minute.
    assert!(since.elapsed() < Duration::from_secs(30), "{:?}", since.elapsed());
    drop(opening.take());
}

/// A connection to PostgreSQL that has been asked who it is and does not answer.
fn begin(url: &str) -> TcpStream {
    let url = Url::parse(url).expect("a URL");
    let address = (url.host_str().expect("a host"), url.port().unwrap_or(5432));
    let mut connection = TcpStream::connect(address).expect("the server is there");
    // StartupMessage, version 3.0 of the protocol.
    let words = format!("user\0{}\0database\0{}\0\0", url.username(), url.path().trim_start_matches('/'));
    let length = u32::try_from(8 + words.len()).expect("a short message");
    let message = [&length.to_be_bytes()[..], &[0, 3, 0, 0], words.as_bytes()].concat();
    connection.write_all(&message).expect("it listens");
    let mut asked = [0];
    connection.read_exact(&mut asked).expect("it asks");
    assert_eq!(asked, *b"R", "an authentication request");
    connection
}

#[tokio::test]
async fn two_tests_do_not_see_each_other() {
    let databases =
        [TestDatabase::fresh(Backend::under_test()).await, TestDatabase::fresh(Backend::under_test()).await];
    Open::connect(databases[0].url(), true).await.expect("reached").write().await.expect("it takes a table");
    let mut other = Open::connect(databases[1].url(), true).await.expect("it can be reached");
    other.read().await.expect_err("its table is not there");
    other.write().await.expect("its table is not there");
}

#[tokio::test]
async fn the_database_is_of_the_kind_that_was_asked_for() {
    let said = Environment::of_process().get("SCONCE_TEST_DATABASE").unwrap_or("sqlite").to_owned();
    let database = TestDatabase::fresh(Backend::under_test()).await;
    assert!(database.url().starts_with(&said), "{said} was asked for, {} came", database.url());
}

#[test]
#[should_panic(expected = "say `sqlite` or `postgres`")]
fn a_database_that_nobody_knows_is_refused() {
    Backend::named(Some("postgresql"));
}

#[test]
#[should_panic(expected = "`make test-postgres`")]
fn without_a_server_the_tests_fail_and_say_how_to_get_one() {
    server(None);
}

#[test]
fn the_script_hands_on_what_its_command_says() {
    let run = |command: &[&str]| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/postgres.py");
        let mut python = Command::new("python3");
        python.arg(script).args(command).env("TEST_POSTGRES_URL", "postgres://given.example/");
        python.output().expect("Python is here")
    };
    let output = run(&["run", "--", "sh", "-c", "echo $TEST_POSTGRES_URL; exit 7"]);
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "postgres://given.example/\n");
    assert_eq!(run(&["run", "--", "no-such-command"]).status.code(), Some(1));
    assert_eq!(run(&["run"]).status.code(), Some(2));
}
