//! A database of its own for each test, of the kind that this run is about. Not the store: nothing is in it yet.
//!
//! The same tests run on both databases. `SCONCE_TEST_DATABASE` says on which, `sqlite` where it is not set; for
//! `postgres`, `TEST_POSTGRES_URL` is a server on which databases may be created. `make test` sees to both.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use reqwest::Url;
use sconce::config::Environment;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tempfile::TempDir;
use uuid::Uuid;

/// The two kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Sqlite,
    Postgres,
}

impl Backend {
    /// What this run is about.
    pub fn under_test() -> Self {
        Self::named(Environment::of_process().get("SCONCE_TEST_DATABASE"))
    }

    /// As `SCONCE_TEST_DATABASE` names it. A wrong name fails: nobody should believe to have tested what was not tested.
    pub fn named(name: Option<&str>) -> Self {
        match name {
            None | Some("sqlite") => Self::Sqlite,
            Some("postgres") => Self::Postgres,
            Some(other) => panic!("SCONCE_TEST_DATABASE is `{other}`: say `sqlite` or `postgres`"),
        }
    }
}

/// An empty database. Gone when dropped, whoever is still connected to it.
pub struct TestDatabase {
    url: String,
    home: Home,
}

/// Where it lies.
enum Home {
    Folder { _folder: TempDir },
    Server { url: Url, name: String },
}

impl TestDatabase {
    /// A new one. The file of a SQLite database is not made: that is left to whoever opens it.
    pub async fn fresh(backend: Backend) -> Self {
        match backend {
            Backend::Sqlite => Self::in_folder(),
            Backend::Postgres => {
                let environment = Environment::of_process();
                Self::on_server(server(environment.get("TEST_POSTGRES_URL"))).await
            }
        }
    }

    fn in_folder() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let url = format!("sqlite://{}", folder.path().join("test.db").display());
        Self { url, home: Home::Folder { _folder: folder } }
    }

    async fn on_server(server: Url) -> Self {
        let name = format!("sconce_test_{}", Uuid::new_v4().simple());
        order(&server, format!("CREATE DATABASE {name}")).await.expect("the server makes a database");
        let mut url = server.clone();
        url.set_path(&name);
        Self { url: url.into(), home: Home::Server { url: server, name } }
    }

    /// As the setting `database-url` takes it.
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// How long a test waits for its database to be gone. Not to the end: the server drops a database only when every
/// connection that is being opened has got through its authentication, and one that the test's own runtime was opening does
/// not while that runtime stands still in this drop. (PostgreSQL gives such a connection up after a minute.)
const PATIENCE: Duration = Duration::from_millis(300);

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let Home::Server { url, name } = &self.home else { return };
        let (url, name) = (url.clone(), name.clone());
        let (gone, wait) = mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let dropped = order(&url, format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"));
            if let Err(error) = runtime.expect("a small runtime").block_on(dropped) {
                eprintln!("the database {name} is left behind: {error}");
            }
            let _nobody_may_wait = gone.send(());
        });
        let _late_is_well = wait.recv_timeout(PATIENCE);
    }
}

/// The PostgreSQL server to test on.
pub fn server(url: Option<&str>) -> Url {
    let Some(url) = url else {
        panic!(
            "SCONCE_TEST_DATABASE is `postgres`, and TEST_POSTGRES_URL is not set. `make test-postgres` runs these tests \
             with a server of their own; `scripts/postgres.py run -- COMMAND` gives one to any command"
        )
    };
    Url::parse(url).unwrap_or_else(|error| panic!("TEST_POSTGRES_URL is not a URL: {error}"))
}

/// Tells the server something, over a connection of its own.
async fn order(server: &Url, command: String) -> sqlx::Result<()> {
    let mut connection = PgConnection::connect(server.as_str()).await?;
    sqlx::raw_sql(AssertSqlSafe(command)).execute(&mut connection).await?;
    connection.close().await
}
