//! The audit: everything that changes something, and every refusal, writes one row in the same transaction; and a row that
//! is touched afterwards is found.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::api::{Answer, Api, password_of};
use crate::app::{OWNER, OWNER_PASSWORD, TestApp, golden};
use crate::permissions::served;
use crate::rig::{execute, number};

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_else(|| panic!("no `{name}`: {value}")).to_owned()
}

async fn start() -> TestApp {
    let root = golden("");
    TestApp::start_with(&[("model-root", root.to_str().expect("a plain path"))]).await
}

/// The rows after a number, in order.
async fn rows_after(owner: &Api<'_>, seq: i64) -> Vec<Value> {
    let newest = owner.get("/admin/audit?limit=100").await.data();
    let mut rows = newest["items"].as_array().expect("items").clone();
    rows.retain(|row| row["seq"].as_i64().is_some_and(|found| found > seq));
    rows.reverse();
    rows
}

async fn last(app: &TestApp) -> i64 {
    number(app, "SELECT seq FROM audit_head WHERE id = 1").await
}

/// Somebody who does things, and the record of which URLs were tried.
struct Trial<'a> {
    app: &'a TestApp,
    owner: Api<'a>,
    done: BTreeSet<(String, String)>,
}

/// What a row must say: action, kind of target, whether it has a before and an after.
type Row = (&'static str, &'static str, bool, bool);

impl Trial<'_> {
    /// Does a thing as the owner, of which `template` is the URL, and checks the rows it writes.
    async fn does(&mut self, template: &str, ids: &[&str], body: Value, rows: &[Row]) -> Answer {
        let owner = self.owner.clone();
        self.done_by(&owner, template, ids, body, rows).await
    }

    async fn done_by(
        &mut self,
        api: &Api<'_>,
        template: &str,
        ids: &[&str],
        body: Value,
        rows: &[Row],
    ) -> Answer {
        let (method, path) = template.split_once(' ').expect("method and path");
        self.done.insert((method.to_owned(), format!("/api/v1{path}")));
        let mut ids = ids.iter();
        let fill = |segment: &str| match segment.starts_with('{') {
            true => (*ids.next().expect("an id for each")).to_owned(),
            false => segment.to_owned(),
        };
        let path: Vec<String> = path.split('/').map(fill).collect();
        let before = last(self.app).await;
        let answer = api.send(method, &path.join("/"), (!body.is_null()).then_some(&body)).await;
        let written = rows_after(&self.owner, before).await;
        let said: Vec<_> = written
            .iter()
            .map(|row| {
                (
                    text(row, "action"),
                    text(row, "target_kind"),
                    !row["before"].is_null(),
                    !row["after"].is_null(),
                )
            })
            .collect();
        let expected: Vec<_> =
            rows.iter().map(|row| (row.0.to_owned(), row.1.to_owned(), row.2, row.3)).collect();
        assert_eq!(said, expected, "{template}: {written:#?}");
        for row in &written {
            assert_eq!(
                row["request_id"].as_str(),
                answer.headers["x-request-id"].to_str().ok(),
                "{template}"
            );
            assert_eq!(row["address"], "127.0.0.1", "{template}");
        }
        answer
    }
}

/// Rows read, whether the chain is intact, the first bad row, and what is wrong with it.
type Finding = (i64, bool, i64, &'static str);

#[tokio::test]
async fn g1_whatever_changes_something_writes_one_row() {
    let app = start().await;
    let owner = Api::owner(&app).await;
    let mut trial = Trial { app: &app, owner, done: BTreeSet::new() };
    let nobody = Api::nobody(&app);

    let new = json!({"username": "ada", "password": password_of("ada")});
    let ada = trial.does("POST /admin/users", &[], new, &[("user.create", "user", false, true)]).await.data();
    let ada = text(&ada, "id");
    let change = json!({"display_name": "Ada", "role": "operator"});
    trial
        .does("PUT /admin/users/{userId}", &[&ada], change, &[("user.update", "user", true, true)])
        .await
        .data();
    let reset = json!({"password": password_of("ada")});
    let row = ("user.password_reset", "user", true, true);
    trial.does("PUT /admin/users/{userId}", &[&ada], reset, &[row]).await.data();
    let both = json!({"password": password_of("ada"), "email": "ada@example.com"});
    let rows = [("user.update", "user", true, true), row];
    trial.does("PUT /admin/users/{userId}", &[&ada], both, &rows).await.data();

    let sign_in = json!({"username": "ada", "password": password_of("ada")});
    let row = ("user.sign_in", "session", false, false);
    let tokens = trial.done_by(&nobody, "POST /auth/login", &[], sign_in.clone(), &[row]).await.data();
    let as_ada = Api::showing(&app, text(&tokens, "access_token"));
    let refresh = json!({"refresh_token": text(&tokens, "refresh_token")});
    trial.done_by(&nobody, "POST /auth/refresh", &[], refresh, &[]).await.data();
    let wrong = json!({"username": "ada", "password": "wrong"});
    let row = ("user.sign_in_failed", "user", false, true);
    trial.done_by(&nobody, "POST /auth/login", &[], wrong, &[row]).await.refusal();
    let session = text(&as_ada.get("/me/sessions").await.data()["items"][0], "id");
    let row = [("session.revoke", "session", true, false)];
    trial.done_by(&as_ada, "DELETE /me/sessions/{sessionId}", &[&session], Value::Null, &row).await.data();
    let as_ada = Api::showing(&app, app.sign_in("ada", &password_of("ada")).await);
    let session = text(&as_ada.get("/me/sessions").await.data()["items"][0], "id");
    let ids = [ada.as_str(), session.as_str()];
    trial.does("DELETE /admin/users/{userId}/sessions/{sessionId}", &ids, Value::Null, &row).await.data();
    let row = [("session.revoke", "user", false, true)];
    trial.does("DELETE /admin/users/{userId}/sessions", &[&ada], Value::Null, &row).await.data();
    let as_ada = Api::showing(&app, app.sign_in("ada", &password_of("ada")).await);
    let row = [("user.sign_out", "session", false, true)];
    trial.done_by(&as_ada, "POST /auth/logout", &[], json!({}), &row).await.data();
    let as_ada = Api::showing(&app, app.sign_in("ada", &password_of("ada")).await);

    let team = json!({"name": "Research"});
    let team =
        trial.does("POST /admin/teams", &[], team, &[("team.create", "team", false, true)]).await.data();
    let team = text(&team, "id");
    let row = [("team.update", "team", true, true)];
    trial.does("PUT /admin/teams/{teamId}", &[&team], json!({"name": "R"}), &row).await.data();
    let member = [team.as_str(), ada.as_str()];
    let row = [("team.member_add", "team", false, true)];
    trial.does("PUT /admin/teams/{teamId}/members/{userId}", &member, json!({}), &row).await.data();
    trial.does("PUT /admin/teams/{teamId}/members/{userId}", &member, json!({}), &[]).await.data();
    let row = [("team.member_remove", "team", true, false)];
    trial.does("DELETE /admin/teams/{teamId}/members/{userId}", &member, Value::Null, &row).await.data();
    let row = [("team.delete", "team", true, false)];
    trial.does("DELETE /admin/teams/{teamId}", &[&team], Value::Null, &row).await.data();

    for (keys, api) in [("/admin/keys", trial.owner.clone()), ("/me/keys", as_ada.clone())] {
        let new = match keys {
            "/me/keys" => json!({"name": "a"}),
            _ => json!({"name": "a", "user_id": ada}),
        };
        let row = [("key.create", "key", false, true)];
        let key = trial.done_by(&api, &format!("POST {keys}"), &[], new, &row).await.data();
        let id = text(&key, "id");
        let one = format!("{keys}/{{keyId}}");
        let row = [("key.update", "key", true, true)];
        trial.done_by(&api, &format!("PUT {one}"), &[&id], json!({"status": "disabled"}), &row).await.data();
        let row = [("key.rotate", "key", true, true)];
        trial.done_by(&api, &format!("POST {one}/rotate"), &[&id], json!({}), &row).await.data();
        let row = [("key.delete", "key", true, false)];
        trial.done_by(&api, &format!("DELETE {one}"), &[&id], Value::Null, &row).await.data();
    }

    let model = json!({"id": "mine", "sources": [golden("llama").to_string_lossy()]});
    trial.does("POST /admin/models", &[], model, &[("model.create", "model", false, true)]).await.data();
    let row = [("model.update", "model", true, true)];
    trial.does("PUT /admin/models/{modelId}", &["mine"], json!({"description": "a"}), &row).await.data();
    for (act, action) in [("pull", "model.pull"), ("load", "model.load"), ("unload", "model.unload")] {
        let row = [(action, "model", false, false)];
        trial
            .does(&format!("POST /admin/models/{{modelId}}/{act}"), &["mine"], Value::Null, &row)
            .await
            .data();
    }
    let row = [("model.delete", "model", true, false)];
    trial.does("DELETE /admin/models/{modelId}", &["mine"], Value::Null, &row).await.data();

    let row = [("signing_key.rotate", "signing_key", true, true)];
    trial.does("POST /admin/signing-keys/rotate", &[], json!({}), &row).await.data();
    let change = json!({"current_password": password_of("ada"), "new_password": "amber-harbour-thistle-19"});
    let row = [("user.password_change", "user", false, true)];
    trial.done_by(&as_ada, "POST /me/password", &[], change, &row).await.data();
    let row = [("access.refused", "credential", false, true)];
    trial.done_by(&as_ada, "POST /auth/ticket", &[], json!({}), &row).await.refusal();
    let as_ada = Api::showing(&app, app.sign_in("ada", "amber-harbour-thistle-19").await);
    trial.done_by(&as_ada, "POST /auth/ticket", &[], json!({}), &[]).await.data();
    let row = [("access.refused", "permission", false, true)];
    trial.done_by(&as_ada, "POST /admin/users", &[], json!({}), &row).await.refusal();
    let own = text(&trial.owner.get("/me").await.data(), "id");
    let row = [("access.refused", "user", false, true)];
    trial.does("PUT /admin/users/{userId}", &[&own], json!({"role": "user"}), &row).await.refusal();
    let row = [("user.delete", "user", true, false)];
    trial.does("DELETE /admin/users/{userId}", &[&ada], Value::Null, &row).await.data();

    // What only computes is written down as usage.
    let computes = [
        "/api/chat",
        "/api/generate",
        "/api/embed",
        "/api/embeddings",
        "/api/show",
        "/v1/messages",
        "/v1/messages/count_tokens",
        // Answers are their owner's own content, and no change to the server.
        "/v1/responses",
        "/v1/responses/input_tokens",
        "/v1/chat/completions/{completionId}",
        "/v1/responses/{responseId}",
        "/v1/responses/{responseId}/cancel",
        // What these write is looked at in `batches.rs`.
        "/v1/files",
        "/v1/files/{file_id}",
        "/v1/batches",
        "/v1/batches/{batch_id}/cancel",
        "/api/v1/chat/completions",
        "/v1/chat/completions",
        "/v1/chat/completions/render",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/rerank",
        "/v2/rerank",
        "/v1/score",
        "/v1/tokenize",
        "/v1/detokenize",
    ];
    let mut missing = served(&app).await;
    missing.retain(|(method, path)| method != "GET" && !computes.contains(&path.as_str()));
    let missing: Vec<_> = missing.difference(&trial.done).collect();
    assert!(missing.is_empty(), "nobody has looked what these write: {missing:?}");
    assert_eq!(trial.owner.get("/admin/audit/verify").await.data()["is_intact"], true);
}

#[tokio::test]
async fn g1_a_row_says_who_did_what_from_where() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    let own_id = text(&owner.get("/me").await.data(), "id");
    let made = owner.post("/admin/users", json!({"username": "ada", "password": password_of("ada")})).await;
    let id = text(&made.data(), "id");
    let listed = owner.get(&format!("/admin/audit?action=user.create&target_id={id}")).await;
    let expected = format!(
        r#"{{"code":0,"message":"Success","data":{{"items":[{{"seq":SEQ,"at":"<time>","actor_kind":"user","actor_id":"<usr>","actor_name":"admin","action":"user.create","target_kind":"user","target_id":"<usr>","outcome":"done","before":null,"after":{},"address":"127.0.0.1","request_id":"<req>","previous_hash":"<hash>","hash":"<hash>"}}],"next_cursor":null}}}}"#,
        r#"{"id":"<usr>","username":"ada","display_name":"ada","email":null,"role":"user","status":"active","must_change_password":false,"team_ids":[],"created_at":"<time>","updated_at":"<time>","last_login_at":null}"#
    );
    let seq = listed.data()["items"][0]["seq"].to_string();
    let masked: Vec<_> = listed
        .masked()
        .split('"')
        .map(|part| if part.len() == 64 { "<hash>".to_owned() } else { part.to_owned() })
        .collect();
    assert_eq!(masked.join("\""), expected.replace("SEQ", &seq));
    assert_eq!(listed.data()["items"][0]["actor_id"], json!(own_id));

    // By a key, it is the key that acted, in its owner's name; a refusal says so.
    let (key_id, key) = owner.own_key(json!({"name": "a", "scopes": ["users:read"]})).await;
    assert_eq!(key.post("/admin/users", json!({})).await.refusal(), (403, 40302));
    let refused = owner.get(&format!("/admin/audit?actor_id={key_id}")).await.data()["items"][0].clone();
    for (name, expected) in [
        ("actor_kind", json!("api_key")),
        ("actor_name", json!(OWNER)),
        ("action", json!("access.refused")),
        ("outcome", json!("refused")),
        ("target_kind", json!("permission")),
        ("target_id", json!("users:manage")),
    ] {
        assert_eq!(refused[name], expected, "{name}");
    }
    let only = owner.get("/admin/audit?outcome=refused").await.data();
    assert_eq!(only["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(owner.get("/admin/audit?since=2099-01-01T00:00:00Z").await.data()["items"], json!([]));
    let first = owner.get("/admin/audit?sort=seq&limit=1").await.data();
    assert_eq!(first["items"][0]["seq"], 1);
    assert!(first["next_cursor"].is_string());
}

#[tokio::test]
async fn g1_no_row_holds_a_secret() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    let made = owner.post("/admin/users", json!({"username": "ada"})).await.data();
    let (id, first) = (text(&made, "id"), text(&made, "password"));
    let second = text(
        &owner.put(&format!("/admin/users/{id}"), json!({"reset_password": true})).await.data(),
        "password",
    );
    owner.put(&format!("/admin/users/{id}"), json!({"password": password_of("ada")})).await.data();
    let (key_id, key) = owner.own_key(json!({"name": "a"})).await;
    let rotated = text(&owner.post(&format!("/me/keys/{key_id}/rotate"), json!({})).await.data(), "key");
    let everything = owner.get("/admin/audit?limit=100").await.text;
    for secret in [&first, &second, &password_of("ada"), &key.token, &rotated, &owner.token, OWNER_PASSWORD] {
        assert!(!everything.contains(secret), "{secret}");
    }
    assert!(!everything.contains("$argon2") && !everything.contains("_hash\":\"$"));
}

/// Makes every insert into the audit fail, or stops doing so.
async fn sabotage(app: &TestApp, on: bool) {
    let sqlite = app.database_url.starts_with("sqlite");
    for statement in match (sqlite, on) {
        (true, true) => {
            &["CREATE TRIGGER no_audit BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no'); END"][..]
        }
        (true, false) => &["DROP TRIGGER no_audit"],
        (false, true) => &[
            "CREATE FUNCTION no_audit() RETURNS trigger AS $$ BEGIN RAISE 'no'; END $$ LANGUAGE plpgsql",
            "CREATE TRIGGER no_audit BEFORE INSERT ON audit FOR EACH ROW EXECUTE FUNCTION no_audit()",
        ],
        (false, false) => &["DROP TRIGGER no_audit ON audit", "DROP FUNCTION no_audit"],
    } {
        execute(app, statement).await;
    }
}

#[tokio::test]
async fn g1_what_cannot_be_written_down_does_not_happen() {
    let app = start().await;
    let owner = Api::owner(&app).await;
    let (ada, as_ada) = owner.colleague("ada", "user").await;
    let (key, _) = as_ada.own_key(json!({"name": "a"})).await;
    let team = text(&owner.post("/admin/teams", json!({"name": "a"})).await.data(), "id");
    let session = text(&as_ada.get("/me/sessions").await.data()["items"][0], "id");
    let state = async || {
        let mut all = Vec::new();
        for path in ["/admin/users", "/admin/keys", "/admin/teams", "/admin/models", "/admin/audit"] {
            all.push(owner.get(&format!("{path}?limit=100")).await.text);
        }
        all.push(owner.get(&format!("/admin/users/{ada}/sessions")).await.text);
        all.push(owner.get(&format!("/admin/teams/{team}/members")).await.text);
        all
    };
    let before = state().await;
    sabotage(&app, true).await;
    let model = json!({"id": "mine", "sources": [golden("llama").to_string_lossy()]});
    for (method, path, body) in [
        ("POST", "/admin/users".to_owned(), json!({"username": "eve"})),
        ("PUT", format!("/admin/users/{ada}"), json!({"role": "operator", "status": "disabled"})),
        ("PUT", format!("/admin/users/{ada}"), json!({"reset_password": true})),
        ("DELETE", format!("/admin/users/{ada}"), Value::Null),
        ("DELETE", format!("/admin/users/{ada}/sessions"), Value::Null),
        ("DELETE", format!("/admin/users/{ada}/sessions/{session}"), Value::Null),
        ("POST", "/admin/keys".to_owned(), json!({"user_id": ada, "name": "b"})),
        ("PUT", format!("/admin/keys/{key}"), json!({"status": "disabled"})),
        ("POST", format!("/admin/keys/{key}/rotate"), json!({})),
        ("DELETE", format!("/admin/keys/{key}"), Value::Null),
        ("POST", "/admin/teams".to_owned(), json!({"name": "b"})),
        ("PUT", format!("/admin/teams/{team}"), json!({"name": "b"})),
        ("DELETE", format!("/admin/teams/{team}"), Value::Null),
        ("PUT", format!("/admin/teams/{team}/members/{ada}"), json!({})),
        ("POST", "/admin/models".to_owned(), model),
        ("POST", "/admin/signing-keys/rotate".to_owned(), json!({})),
    ] {
        let body = (!body.is_null()).then_some(&body);
        let answer = owner.send(method, &path, body).await;
        assert_eq!(answer.refusal(), (500, 50001), "{method} {path}: {}", answer.text);
        assert!(!answer.text.contains("no_audit") && !answer.text.contains("trigger"), "{}", answer.text);
    }
    let sign_in = json!({"username": "ada", "password": password_of("ada")});
    assert_eq!(Api::nobody(&app).post("/auth/login", sign_in.clone()).await.status, 500);
    // To be refused is nothing that happens: it is written down later.
    assert_eq!(as_ada.get("/admin/users").await.refusal(), (403, 40301));
    sabotage(&app, false).await;
    assert_eq!(state().await, before);
    app.auth.write_refusals().await.expect("the database is there");
    let refused = owner.get("/admin/audit?action=access.refused").await.data();
    assert_eq!(refused["items"][0]["after"]["count"], 1, "{refused}");
    assert_eq!(as_ada.get("/me").await.status, 200, "nothing of it happened");
    assert_eq!(Api::nobody(&app).post("/auth/login", sign_in).await.status, 200);
    assert_eq!(owner.get("/admin/audit/verify").await.data()["is_intact"], true);
}

/// `(rows, is_intact, first bad, its flaw)`
async fn verdict(owner: &Api<'_>) -> (i64, bool, i64, String) {
    let verdict = owner.get("/admin/audit/verify").await.data();
    let bad = &verdict["first_bad"];
    (
        verdict["rows"].as_i64().expect("a number"),
        verdict["is_intact"].as_bool().expect("true or false"),
        bad["seq"].as_i64().unwrap_or_default(),
        bad["flaw"].as_str().unwrap_or_default().to_owned(),
    )
}

#[tokio::test]
async fn g2_each_kind_of_tampering_is_found_and_the_first_bad_row_named() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    for name in ["ada", "bob", "cyd", "dan", "eve"] {
        owner.make_user(name, "user").await;
    }
    let rows = last(&app).await;
    assert!(rows >= 8, "{rows}");
    let intact = owner.get("/admin/audit/verify").await.data();
    assert_eq!(verdict(&owner).await, (rows, true, 0, String::new()));
    assert_eq!(intact["head_hash"].as_str().map(str::len), Some(64));

    let keep = |number: i64| format!("CREATE TABLE kept_{number} AS SELECT * FROM audit");
    let restore = |number: i64| format!("INSERT INTO audit SELECT * FROM kept_{number}");
    execute(&app, &keep(1)).await;
    let columns = [
        ("at", "at + 1"),
        ("actor_kind", "'system'"),
        ("actor_id", "NULL"),
        ("actor_name", "'somebody else'"),
        ("action", "'user.delete'"),
        ("target_kind", "'key'"),
        ("target_id", "'usr_other'"),
        ("outcome", "'refused'"),
        ("before", "'{}'"),
        ("after", "NULL"),
        ("address", "'192.0.2.1'"),
        ("request_id", "'req_other'"),
        ("previous_hash", "hash"),
        ("hash", "previous_hash"),
    ];
    let mut tampering: Vec<(String, Finding)> = columns
        .iter()
        .map(|(column, value)| {
            (format!("UPDATE audit SET {column} = {value} WHERE seq = 5"), (4, false, 5, "changed"))
        })
        .collect();
    let last = rows;
    tampering.extend([
        ("DELETE FROM audit WHERE seq = 5".to_owned(), (4, false, 5, "missing")),
        ("DELETE FROM audit WHERE seq = 1".to_owned(), (0, false, 1, "missing")),
        (format!("DELETE FROM audit WHERE seq = {last}"), (last - 1, false, last, "cut_off")),
        ("DELETE FROM audit WHERE seq > 3".to_owned(), (3, false, 4, "cut_off")),
        ("DELETE FROM audit".to_owned(), (0, false, 1, "cut_off")),
        (
            format!("INSERT INTO audit SELECT {}, at, actor_kind, actor_id, actor_name, action, target_kind, target_id, outcome, before, after, address, request_id, previous_hash, hash FROM audit WHERE seq = {last}", last + 1),
            (last, false, last + 1, "changed"),
        ),
        (
            "INSERT INTO audit SELECT 0, at, actor_kind, actor_id, actor_name, action, target_kind, target_id, outcome, before, after, address, request_id, previous_hash, hash FROM audit WHERE seq = 1".to_owned(),
            (0, false, 0, "inserted"),
        ),
    ]);
    for (statement, expected) in tampering {
        execute(&app, &statement).await;
        let expected = (expected.0, expected.1, expected.2, expected.3.to_owned());
        assert_eq!(verdict(&owner).await, expected, "{statement}");
        execute(&app, "DELETE FROM audit").await;
        execute(&app, &restore(1)).await;
        assert!(verdict(&owner).await.1, "{statement} was undone");
    }
    // Exchanged: each carries the other's place.
    for statement in [
        "UPDATE audit SET seq = -5 WHERE seq = 5",
        "UPDATE audit SET seq = 5 WHERE seq = 6",
        "UPDATE audit SET seq = 6 WHERE seq = -5",
    ] {
        execute(&app, statement).await;
    }
    assert_eq!(verdict(&owner).await, (4, false, 5, "changed".to_owned()));
    execute(&app, "DELETE FROM audit").await;
    execute(&app, &restore(1)).await;
    // The end that is kept apart.
    execute(&app, "UPDATE audit_head SET seq = seq + 1").await;
    assert_eq!(verdict(&owner).await, (rows, false, rows + 1, "cut_off".to_owned()));
    execute(&app, "UPDATE audit_head SET seq = seq - 2").await;
    assert_eq!(verdict(&owner).await, (rows, false, rows, "inserted".to_owned()));
}

#[tokio::test]
async fn g2_a_checkpoint_shows_an_end_that_was_cut_off_and_a_chain_that_was_made_anew() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    owner.make_user("ada", "user").await;
    let noted = text(&owner.get("/admin/audit/verify").await.data(), "checkpoint");
    let with = format!("/admin/audit/verify?checkpoint={noted}");
    assert_eq!(owner.get(&with).await.data()["is_intact"], true);
    let (seq, hash) = noted.split_once(':').expect("SEQ:HASH");
    let seq: i64 = seq.parse().expect("a number");

    let other = format!("/admin/audit/verify?checkpoint={seq}:{}", hash.chars().rev().collect::<String>());
    let found = owner.get(&other).await.data();
    assert_eq!((&found["first_bad"]["seq"], &found["first_bad"]["flaw"]), (&json!(seq), &json!("rewritten")));
    for wrong in ["1", "1:", "x:y", "0:00", &format!("-1:{hash}"), &format!("{seq}:{hash}0")] {
        let answer = owner.get(&format!("/admin/audit/verify?checkpoint={wrong}")).await;
        assert_eq!(answer.refusal(), (400, 40003), "{wrong}");
        assert!(answer.text.contains("`checkpoint`") && answer.text.contains("SEQ:HASH"), "{}", answer.text);
    }
    assert_eq!(owner.get("/admin/audit/verify?check=1").await.refusal().0, 400);

    // The end, and what is kept of it.
    execute(&app, &format!("DELETE FROM audit WHERE seq = {seq}")).await;
    let end =
        format!("UPDATE audit_head SET seq = {0}, hash = (SELECT hash FROM audit WHERE seq = {0})", seq - 1);
    execute(&app, &end).await;
    assert_eq!(verdict(&owner).await, (seq - 1, true, 0, String::new()), "by itself it cannot be seen");
    let found = owner.get(&with).await.data();
    assert_eq!((&found["first_bad"]["seq"], &found["first_bad"]["flaw"]), (&json!(seq), &json!("cut_off")));
    assert_eq!(found["is_intact"], false);
}

#[tokio::test]
async fn g3_no_url_changes_the_audit() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    for (method, path) in served(&app).await {
        assert!(!path.contains("/audit") || method == "GET", "{method} {path}");
    }
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        assert_eq!(owner.send(method, "/admin/audit", None).await.refusal(), (405, 40501), "{method}");
        assert_eq!(owner.send(method, "/admin/audit/1", None).await.refusal(), (404, 40401), "{method}");
    }
}
