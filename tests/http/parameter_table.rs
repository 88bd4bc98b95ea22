//! Every field of OpenAI's public requests: honoured, with an effect that can be seen, or refused by its name; none is
//! ignored. The list is data (`tests/parameters/`); `docs/parameters.md` is made of it. That no field of the SDK is
//! missing from it is checked by `tests/sdk/test_parameters.py`.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::altered::{alter, coder, copied, named};
use crate::api::Api;
use crate::app::{Events, TestApp, golden, with};

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The tables, in the order of their names.
fn tables() -> Vec<Value> {
    let folder = workspace().join("tests/parameters");
    let files =
        std::fs::read_dir(folder).expect("it is there").map(|entry| entry.expect("it is read").path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|end| end == "json")).collect();
    files.sort();
    let table = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).expect("it is text");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    files.iter().map(table).collect()
}

fn rows(table: &Value) -> &Vec<Value> {
    table["fields"].as_array().expect("rows")
}

fn text<'a>(row: &'a Value, name: &str) -> &'a str {
    row[name].as_str().unwrap_or_else(|| panic!("no `{name}` in {row}"))
}

/// The server with the models that the tables name beside the usual ones.
async fn server() -> (TestApp, Vec<TempDir>) {
    let coder = coder();
    let cut = copied("bert");
    alter(&cut, "config.json", |config| config["matryoshka_dimensions"] = json!([16, 32]));
    let talker = copied("qwen2");
    alter(&talker, "tokenizer_config.json", |config| {
        let template = config["chat_template"].as_str().expect("a template").to_owned();
        config["chat_template"] =
            json!(format!("{{{{ 'say: ' + verbosity + '. ' if verbosity else '' }}}}{template}"));
    });
    let thinker = format!("thinker={}", golden("qwen3").display());
    let models = [named("coder", &coder), named("cut", &cut), named("talker", &talker), thinker];
    let settings: Vec<(&str, &str)> = models.iter().map(|model| ("model", model.as_str())).collect();
    (TestApp::start_with(&settings).await, vec![coder, cut, talker])
}

/// The request with these members in place of its own.
fn merged(request: &Value, members: &Value) -> Value {
    let members = members.as_object().cloned().unwrap_or_default();
    members.into_iter().fold(request.clone(), |body, (name, value)| with(body, &name, value))
}

/// What is answered; a stream as one object.
async fn answer(app: &TestApp, path: &str, body: &Value) -> Value {
    let response = app.post(path, body).await;
    let (status, text) = (response.status(), response.text().await.expect("it is text"));
    assert!(status.is_success(), "{body}\n{text}");
    serde_json::from_str(&text).unwrap_or_else(|_| {
        let events = Events::read(&text);
        json!({"events": events.data, "last": events.data.last(), "done": events.done})
    })
}

/// The answer with the field, the one without it, and a second one with it.
struct Seen {
    with: Value,
    without: Value,
    again: Value,
}

impl Seen {
    fn check(&self, observation: &Value) {
        let [place, how, value] = [&observation[0], &observation[1], &observation[2]];
        let (place, how) = (place.as_str().expect("a place"), how.as_str().expect("a word"));
        let at = |answer: &'_ Value| answer.pointer(place).cloned().unwrap_or_default();
        let (found, without) = (at(&self.with), at(&self.without));
        let is_so = match how {
            "is" => found == *value,
            "differs" => found != without,
            "same" => !found.is_null() && found == without,
            "repeats" => found == at(&self.again),
            "length" => {
                found.as_array().map(Vec::len).or(found.as_object().map(Map::len))
                    == value.as_u64().map(|n| n as usize)
            }
            "text" => found.is_string(),
            "some" => !found.is_null(),
            "absent" => found.is_null(),
            "begins" => found.as_str().is_some_and(|text| text.starts_with(value.as_str().unwrap_or("?"))),
            "most" => found.as_f64().zip(value.as_f64()).is_some_and(|(found, most)| found <= most),
            other => panic!("`{other}` is no observation"),
        };
        assert!(is_so, "{place} {how} {value}: {found}, without the field {without}\n{}", self.with);
    }
}

async fn is_honoured(app: &TestApp, path: &str, request: &Value, row: &Value) {
    let mut body = merged(request, &row["with"]);
    if let Some(before) = row.get("before") {
        // What the field names must be there first.
        let id = answer(app, path, &merged(request, before)).await["id"].clone();
        body[text(row, "field")] = id;
    }
    assert!(!row["with"][text(row, "field")].is_null(), "the field is not in {row}");
    let seen = Seen {
        with: answer(app, path, &body).await,
        without: answer(app, path, &merged(request, &row["without"])).await,
        again: answer(app, path, &body).await,
    };
    let observations = row["sees"].as_array().expect("observations");
    assert!(!observations.is_empty(), "{row}");
    observations.iter().for_each(|one| seen.check(one));
    let name = text(row, "field");
    let wrong = row.get("wrong").cloned().unwrap_or_else(|| json!([{"neither": "this"}, "nor that"]));
    if let Some(kept) = row.get("ledger") {
        is_recorded(app, path, text(row, "field"), kept).await;
    }
    // Of what has no effect whatever it is, nothing is wrong.
    if !wrong.is_null() {
        is_refused(app, path, &with(body, name, wrong), name).await;
    }
}

/// It is in the ledger, where a request of this path has it.
async fn is_recorded(app: &TestApp, path: &str, field: &str, kept: &Value) {
    app.usage.flushed().await;
    let list = Api::owner(app).await.get("/admin/usage?limit=100").await.data();
    let records = list["items"].as_array().expect("records");
    let (name, value) = (kept[0].as_str().expect("a name"), &kept[1]);
    let is_there = records.iter().any(|record| record["endpoint"] == path && record[name] == *value);
    assert!(is_there, "{field} is not in the ledger of {path}: {list}");
}

/// By its name or that of a member of it, and in no other way.
async fn is_refused(app: &TestApp, path: &str, body: &Value, name: &str) -> Value {
    let (status, error) = app.refused(path, body).await;
    let param = error["param"].as_str().unwrap_or_default();
    let is_named =
        param == name || param.starts_with(&format!("{name}.")) || param.starts_with(&format!("{name}["));
    assert!(status == 400 && is_named, "{name}: {status} {error}\n{body}");
    error
}

#[tokio::test]
async fn every_field_is_honoured_or_refused_by_name() {
    let (app, _folders) = server().await;
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    for table in tables() {
        let (path, request) = (text(&table, "path"), &table["request"]);
        for row in rows(&table) {
            match text(row, "verdict") {
                "honoured" | "recorded" | "no effect" => is_honoured(&app, path, request, row).await,
                "refused" => {
                    let name = text(row, "field");
                    let error = is_refused(&app, path, &merged(request, &row["with"]), name).await;
                    assert_eq!(error["code"], "unsupported_parameter", "{error}");
                }
                other => panic!("`{other}` is no verdict"),
            }
            *counts.entry(format!("{path} {}", text(row, "verdict"))).or_default() += 1;
        }
        let names: BTreeSet<&str> = rows(&table).iter().map(|row| text(row, "field")).collect();
        assert_eq!(names.len(), rows(&table).len(), "a field of {path} is there twice");
    }
    println!("{counts:#?}");
}

/// The table for people.
fn document() -> String {
    let mut page = String::from(
        "# Parameters\n\nEvery field of OpenAI's public requests, and what becomes of it here. A field that is refused is \
         answered with status 400 and its name; so is any that is not known. This page is made of `tests/parameters/`, \
         whose requests and observations a test goes through.\n",
    );
    for table in tables() {
        write!(page, "\n## `{}`\n\n| field | | |\n|---|---|---|\n", text(&table, "path"))
            .expect("it is a text");
        for row in rows(&table) {
            let (field, verdict, effect) = (text(row, "field"), text(row, "verdict"), text(row, "effect"));
            writeln!(page, "| `{field}` | {verdict} | {effect} |").expect("it is a text");
        }
    }
    page
}

#[test]
fn the_page_for_people_is_made_of_the_table() {
    let made = document();
    let kept = std::fs::read_to_string(workspace().join("docs/parameters.md")).unwrap_or_default();
    if made == kept {
        return;
    }
    let new = workspace().join("target/parameters.md");
    std::fs::write(&new, made).expect("there is room");
    panic!("docs/parameters.md is out of date; the new one is in {}", new.display());
}
