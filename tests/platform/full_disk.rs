//! A database without room: what cannot be kept is refused by one error of the catalogue, what needs no room goes on,
//! nothing is seen that is half written, and once there is room all is as before.

use std::time::{Duration, Instant};

use reqwest::Response;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, SqliteConnection};

use crate::app::{CHAT, OWNER, OWNER_PASSWORD, TestApp, chat, with};
use crate::form::{is_over, line, read_lines, with_form};

/// The largest that the database may become.
const PAGES: u32 = 1024;
const PAGE_BYTES: u32 = 4096;
/// What is taken bit by bit: less than the batch needs.
const LEFT_PAGES: u32 = 4;

/// Longer than the batch takes on any machine.
const PATIENCE: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_millis(20);

const CHATS: &str = "/v1/chat/completions";
const LINES: usize = 60;

/// Somebody else who fills the database.
struct Ballast(SqliteConnection);

impl Ballast {
    async fn of(file: &std::path::Path) -> Self {
        let options = SqliteConnectOptions::new().filename(file);
        let mut ballast = Self(options.connect().await.expect("it connects"));
        ballast.run(&format!("PRAGMA max_page_count = {PAGES}")).await.expect("it is bounded");
        ballast.run("CREATE TABLE ballast (content BLOB)").await.expect("there is room");
        ballast
    }

    async fn run(&mut self, statement: &str) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut self.0).await.map(drop)
    }

    async fn pages(&mut self, which: &'static str) -> u32 {
        sqlx::query_scalar(which).fetch_one(&mut self.0).await.expect("it is a number")
    }

    /// Takes all the room there is, the last of it page by page. Nobody else writes until next to nothing is left: what
    /// runs meanwhile cannot come to its end, however slow this is.
    async fn take_all(&mut self) {
        self.run("BEGIN IMMEDIATE").await.expect("it has its turn");
        let used = self.pages("PRAGMA page_count").await - self.pages("PRAGMA freelist_count").await;
        let most = (PAGES - used - LEFT_PAGES) * PAGE_BYTES;
        self.run(&format!("INSERT INTO ballast VALUES (zeroblob({most}))")).await.expect("there is room");
        self.run("COMMIT").await.expect("there is room");
        for bytes in [1 << 12, 1 << 8] {
            let more = format!("INSERT INTO ballast VALUES (zeroblob({bytes}))");
            loop {
                let Err(error) = self.run(&more).await else { continue };
                let code = error.as_database_error().and_then(|refused| refused.code().map(String::from));
                assert_eq!(code.as_deref(), Some("13"), "{error}");
                break;
            }
        }
    }

    async fn throw_away(&mut self) {
        self.run("DELETE FROM ballast").await.expect("it takes no room");
    }
}

async fn upload(app: &TestApp, content: &[u8], language: &str) -> Response {
    let request = app.client.post(format!("{}/v1/files", app.url)).header("accept-language", language);
    let request = with_form(request, &[("purpose", "batch")], Some(("requests.jsonl", content)));
    request.send().await.expect("it answers")
}

async fn get(app: &TestApp, path: &str) -> Value {
    app.get(path).send().await.expect("it answers").json().await.expect("it is JSON")
}

async fn files(app: &TestApp) -> Vec<Value> {
    let listed = get(app, "/v1/files?order=asc").await;
    listed["data"].as_array().expect("files").iter().map(|file| file["id"].clone()).collect()
}

/// Checks that it is the error of the catalogue; gives what it says.
async fn is_full(response: Response) -> String {
    assert_eq!(
        (response.status().as_u16(), &response.headers()["x-error-code"]),
        (507, &"50701".parse().expect("text"))
    );
    assert!(response.headers().contains_key("retry-after"));
    let body: Value = response.json().await.expect("it is JSON");
    assert_eq!(body["error"]["code"], "disk_full", "{body}");
    body["error"]["message"].as_str().expect("a text").to_owned()
}

/// Checks that it was done, or that it is the error of the catalogue, whichever family of URLs it is of.
async fn is_done_or_full(response: Response) {
    let (status, code) = (response.status(), response.headers().get("x-error-code").cloned());
    let text = response.text().await.expect("it is text");
    let is_full = status == 507 && code.is_some_and(|code| code == "50701");
    assert!(status.is_success() || is_full, "{status}: {text}");
}

/// An answer that takes several pages.
fn large() -> Value {
    let notes: serde_json::Map<_, _> =
        (0..16).map(|name| (name.to_string(), json!("é".repeat(512)))).collect();
    json!({"model": CHAT, "input": "one", "temperature": 0, "max_output_tokens": 4, "metadata": notes})
}

#[tokio::test]
async fn a_full_disk_is_said_and_survived() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("full.db");
    let (url, most) = (format!("sqlite://{}", file.display()), (PAGES * PAGE_BYTES).to_string());
    let settings = [("database-url", url.as_str()), ("database-max-size", &most), ("batch-running", "1")];
    let app = TestApp::start_with(&settings).await;
    let body = with(with(chat("hi"), "max_tokens", 200), "ignore_eos", true);
    let content: String = (0..LINES).map(|number| line(&number.to_string(), CHATS, &body) + "\n").collect();
    let input: Value = upload(&app, content.as_bytes(), "en").await.json().await.expect("it is JSON");
    let spare: Value = upload(&app, b"{}", "en").await.json().await.expect("it is JSON");
    let earlier = app.ask("/v1/responses", &large()).await;
    let earlier_path = format!("/v1/responses/{}", earlier["id"].as_str().expect("an id"));
    let new = json!({"input_file_id": input["id"], "endpoint": CHATS, "completion_window": "24h"});
    let batch = app.ask("/v1/batches", &new).await;
    let path = format!("/v1/batches/{}", batch["id"].as_str().expect("an id"));
    let until = async |what: &str, such: &dyn Fn(&Value) -> bool| {
        let begun = Instant::now();
        loop {
            let now = get(&app, &path).await;
            if such(&now) {
                break now;
            }
            assert!(begun.elapsed() < PATIENCE, "after {PATIENCE:?} the batch is not {what}: {now}");
            tokio::time::sleep(PAUSE).await;
        }
    };
    let mut ballast = Ballast::of(&file).await;
    until("in progress", &|now| now["status"] == "in_progress").await;
    ballast.take_all().await;
    for bytes in [100 << 10, 600 << 10] {
        is_full(upload(&app, &vec![b'x'; bytes], "en").await).await;
        let said = is_full(upload(&app, &vec![b'x'; bytes], "zh").await).await;
        assert!(said.contains("磁盘"), "{said}");
    }
    let there = [input["id"].clone(), spare["id"].clone()];
    assert_eq!(files(&app).await, there, "nothing is seen that is half there");
    is_full(app.post("/v1/responses", &with(large(), "background", true)).await).await;
    // What was made is given, and says that it was not kept.
    let given = app.ask("/v1/responses", &large()).await;
    assert_eq!((&given["status"], &given["store"]), (&json!("incomplete"), &json!(false)), "{given}");
    let gone = format!("/v1/responses/{}", given["id"].as_str().expect("an id"));
    assert_eq!(app.get(&gone).send().await.expect("it answers").status(), 404);
    // A chat has no member to say so. Both are counted.
    let notes = large()["metadata"].clone();
    let given = app.ask(CHATS, &with(with(chat("one"), "store", true), "metadata", notes)).await;
    let gone = format!("{CHATS}/{}", given["id"].as_str().expect("an id"));
    assert_eq!(app.get(&gone).send().await.expect("it answers").status(), 404);
    let page = app.get("/metrics").send().await.expect("it answers").text().await.expect("it is text");
    for kind in ["chat", "response"] {
        assert!(page.contains(&format!("sconce_answers_not_kept_total{{kind=\"{kind}\"}}")), "{page}");
    }
    // Who comes to make room, and what makes it: done, or refused by the same error.
    let credentials = json!({"username": OWNER, "password": OWNER_PASSWORD});
    is_done_or_full(app.post("/api/v1/auth/login", &credentials).await).await;
    let file = format!("/v1/files/{}", spare["id"].as_str().expect("an id"));
    for path in [earlier_path.as_str(), &file] {
        let answer = app.client.delete(format!("{}{path}", app.url)).send().await.expect("it answers");
        is_done_or_full(answer).await;
    }
    // What needs no room goes on.
    app.ask(CHATS, &chat("one")).await;
    let read = app.get(&format!("/v1/files/{}/content", input["id"].as_str().expect("an id"))).send().await;
    assert_eq!(read.expect("it answers").text().await.expect("it is text"), content);
    let waiting = get(&app, &path).await;
    assert!(!is_over(&waiting), "{waiting}");

    ballast.throw_away().await;
    assert_eq!(upload(&app, &vec![b'x'; 100 << 10], "en").await.status(), 200);
    let kept = app.ask("/v1/responses", &large()).await;
    let kept_path = format!("/v1/responses/{}", kept["id"].as_str().expect("an id"));
    assert_eq!(get(&app, &kept_path).await["output"], kept["output"]);
    // Each line of the batch was answered once, and is counted once.
    let done = until("over", &is_over).await;
    assert_eq!(
        (&done["status"], &done["request_counts"]["completed"]),
        (&json!("completed"), &json!(LINES)),
        "{done}"
    );
    let output = format!("/v1/files/{}/content", done["output_file_id"].as_str().expect("a file"));
    let output = app.get(&output).send().await.expect("it answers").text().await.expect("it is text");
    let names: std::collections::BTreeSet<_> =
        read_lines(&output).iter().map(|line| line["custom_id"].to_string()).collect();
    assert_eq!((names.len(), output.lines().count()), (LINES, LINES));
    assert_eq!(done["usage"]["output_tokens"], LINES * 200, "{done}");
}
