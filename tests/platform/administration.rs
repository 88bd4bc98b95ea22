//! Users, keys and teams as administrators, and people for themselves, handle them.

use std::time::Duration;

use sconce::clock::{Clock, Timestamp};
use serde_json::{Value, json};

use crate::api::{Answer, Api, password_of};
use crate::app::{TestApp, chat};
use crate::rig::{execute, number};

/// Beside the owner's.
const PASSWORD: &str = "tidal-mosaic-quarry-42";

/// A moment to begin at, for clocks that are moved by hand.
fn clock() -> Clock {
    Clock::manual(Timestamp::from_millis(1_900_000_000_000))
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_else(|| panic!("no `{name}`: {value}")).to_owned()
}

async fn sign_in(app: &TestApp, username: &str, password: &str) -> Answer {
    let body = json!({"username": username, "password": password});
    Api::nobody(app).post("/auth/login", body).await
}

#[tokio::test]
async fn a_made_password_is_shown_once_and_must_be_changed() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    let made = owner.post("/admin/users", json!({"username": "ada"})).await.data();
    let (id, password) = (text(&made, "id"), text(&made, "password"));
    assert_eq!(made["must_change_password"], true);
    assert!(!owner.get(&format!("/admin/users/{id}")).await.text.contains(&password));
    let ada = Api::showing(&app, app.sign_in("ada", &password).await);
    assert_eq!(ada.get("/me").await.data()["must_change_password"], true);
    assert_eq!(ada.get("/me/keys").await.refusal(), (403, 40307));
    assert_eq!(ada.post("/v1/chat/completions", chat("x")).await.number(), (403, 40307));

    let reset = owner.put(&format!("/admin/users/{id}"), json!({"reset_password": true})).await.data();
    let second = text(&reset, "password");
    assert_ne!(second, password);
    assert_eq!(sign_in(&app, "ada", &password).await.refusal(), (401, 40102));
    assert_eq!(sign_in(&app, "ada", &second).await.status, 200);
    let both = json!({"reset_password": true, "password": PASSWORD});
    assert_eq!(owner.put(&format!("/admin/users/{id}"), both).await.refusal(), (400, 40003));
    let weak = json!({"password": "password"});
    assert_eq!(owner.put(&format!("/admin/users/{id}"), weak).await.refusal(), (400, 40016));
}

#[tokio::test]
async fn what_makes_earlier_sign_ins_wrong_ends_them() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    for (name, change) in [
        ("ada", json!({"role": "operator"})),
        ("bob", json!({"status": "disabled"})),
        ("cyd", json!({"password": PASSWORD})),
        ("dan", json!({"reset_password": true})),
    ] {
        let (id, user) = owner.colleague(name, "user").await;
        assert_eq!(user.get("/me").await.status, 200, "{name}");
        owner.put(&format!("/admin/users/{id}"), json!({"display_name": "Other"})).await.data();
        assert_eq!(user.get("/me").await.status, 200, "another name ends nothing");
        owner.put(&format!("/admin/users/{id}"), change.clone()).await.data();
        assert_eq!(user.get("/me").await.refusal(), (401, 40104), "{change}");
    }
    assert_eq!(sign_in(&app, "ada", &password_of("ada")).await.status, 200);
    assert_eq!(sign_in(&app, "bob", &password_of("bob")).await.refusal(), (403, 40305));
    assert_eq!(sign_in(&app, "cyd", PASSWORD).await.status, 200);
    assert_eq!(sign_in(&app, "cyd", &password_of("cyd")).await.refusal(), (401, 40102));
}

#[tokio::test]
async fn disabling_a_user_disables_their_keys_until_they_are_enabled() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    let (id, user) = owner.colleague("ada", "user").await;
    let (_, key) = user.own_key(json!({"name": "a"})).await;
    assert_eq!(key.get("/v1/models").await.status, 200);
    owner.put(&format!("/admin/users/{id}"), json!({"status": "disabled"})).await.data();
    assert_eq!(key.get("/v1/models").await.number(), (401, 40108));
    owner.put(&format!("/admin/users/{id}"), json!({"status": "active"})).await.data();
    assert_eq!(key.get("/v1/models").await.status, 200);
}

#[tokio::test]
async fn a_deleted_user_is_gone_and_the_name_is_free() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    let (id, user) = owner.colleague("ada", "user").await;
    let (key_id, key) = user.own_key(json!({"name": "a"})).await;
    let path = format!("/admin/users/{id}");
    assert_eq!(owner.delete(&path).await.text, r#"{"code":0,"message":"Success","data":null}"#);
    assert_eq!(owner.get(&path).await.refusal(), (404, 40401));
    assert_eq!(owner.delete(&path).await.refusal(), (404, 40401));
    assert_eq!(owner.get(&format!("/admin/keys/{key_id}")).await.refusal(), (404, 40401));
    assert_eq!(user.get("/me").await.refusal(), (401, 40104));
    assert_eq!(key.get("/v1/models").await.number(), (401, 40001));
    assert_eq!(sign_in(&app, "ada", &password_of("ada")).await.refusal(), (401, 40102));
    let again = owner.make_user("ada", "user").await;
    assert_ne!(again, id);
    let listed = owner.get("/admin/users?search=ada").await.data();
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_users_sessions_are_seen_and_ended() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    let (id, first) = owner.colleague("ada", "user").await;
    let second = Api::showing(&app, app.sign_in("ada", &password_of("ada")).await);
    let path = format!("/admin/users/{id}/sessions");
    let listed = owner.get(&format!("{path}?sort=created_at")).await.data();
    let sessions: Vec<_> =
        listed["items"].as_array().expect("items").iter().map(|item| text(item, "id")).collect();
    assert_eq!(sessions.len(), 2);
    owner.delete(&format!("{path}/{}", sessions[0])).await.data();
    assert_eq!(owner.delete(&format!("{path}/{}", sessions[0])).await.refusal(), (404, 40401));
    assert_eq!(first.get("/me").await.refusal(), (401, 40104));
    assert_eq!(second.get("/me").await.status, 200);
    // The session must be that user's.
    let other = owner.make_user("bob", "user").await;
    let wrong = format!("/admin/users/{other}/sessions/{}", sessions[1]);
    assert_eq!(owner.delete(&wrong).await.refusal(), (404, 40401));
    assert_eq!(owner.delete(&path).await.data(), json!({"ended": 1}));
    assert_eq!(second.get("/me").await.refusal(), (401, 40104));
    assert_eq!(owner.get(&path).await.data()["items"], json!([]));
    for missing in ["/admin/users/usr_none/sessions", "/admin/users/%00/sessions"] {
        assert_eq!(owner.get(missing).await.refusal(), (404, 40401));
        assert_eq!(owner.delete(missing).await.refusal(), (404, 40401));
    }
}

#[tokio::test]
async fn lists_are_paged_sorted_filtered_and_searched() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    for name in ["dan", "bob", "eve", "cyd"] {
        owner.make_user(name, if name == "eve" { "auditor" } else { "user" }).await;
    }
    let id = owner.make_user("ada", "user").await;
    owner.put(&format!("/admin/users/{id}"), json!({"display_name": "Élan_100%"})).await.data();
    let names = |page: &Value| -> Vec<String> {
        page["items"].as_array().expect("items").iter().map(|user| text(user, "username")).collect()
    };
    for (sort, expected) in [
        ("username", vec!["ada", "admin", "bob", "cyd", "dan", "eve"]),
        ("-username", vec!["eve", "dan", "cyd", "bob", "admin", "ada"]),
        ("created_at", vec!["admin", "dan", "bob", "eve", "cyd", "ada"]),
        ("-created_at", vec!["ada", "cyd", "eve", "bob", "dan", "admin"]),
    ] {
        let (mut found, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = owner.get(&format!("/admin/users?limit=2&sort={sort}{cursor}")).await.data();
            assert!(page["items"].as_array().is_some_and(|items| items.len() <= 2));
            found.extend(names(&page));
            let Some(next) = page["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(found, expected, "{sort}");
    }
    for (query, expected) in [
        ("role=auditor", vec!["eve"]),
        ("role=owner&status=active", vec!["admin"]),
        ("status=disabled", vec![]),
        ("search=DA", vec!["ada", "dan"]),
        ("search=%C3%89lan", vec!["ada"]),
        ("search=_100%25", vec!["ada"]),
        ("search=%25", vec!["ada"]),
        ("search=a_a", vec![]),
        ("search=%27%20OR%201=1--", vec![]),
    ] {
        let page = owner.get(&format!("/admin/users?sort=username&{query}")).await.data();
        assert_eq!(names(&page), expected, "{query}");
    }
}

#[tokio::test]
async fn users_are_checked_before_they_are_kept() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    let long = "x".repeat(65);
    for (wrong, code) in [
        (json!({}), 40015),
        (json!([]), 40003),
        (json!({"username": ""}), 40003),
        (json!({"username": long}), 40003),
        (json!({"username": "a b"}), 40003),
        (json!({"username": "a\u{0}"}), 40003),
        (json!({"username": 7}), 40003),
        (json!({"username": "ada", "email": "nowhere"}), 40003),
        (json!({"username": "ada", "display_name": "a\u{0}b"}), 40003),
        (json!({"username": "ada", "display_name": "a\nb"}), 40003),
        (json!({"username": "ada", "role": "root"}), 40003),
        (json!({"username": "ada", "password": "short"}), 40016),
        (json!({"username": "ada", "team_ids": ["team_none"]}), 40003),
        (json!({"username": "ada", "team_ids": ["\u{0}"]}), 40003),
        (json!({"username": "ada", "team_ids": vec!["x"; 101]}), 40003),
    ] {
        assert_eq!(owner.post("/admin/users", wrong.clone()).await.refusal(), (400, code), "{wrong}");
    }
    let found = owner.get("/admin/users").await.data();
    assert_eq!(found["items"].as_array().map(Vec::len), Some(1), "nothing of it was kept");
}

#[tokio::test]
async fn a_key_is_as_it_was_asked_for() {
    let app = TestApp::start_by(&[], clock()).await;
    let owner = Api::owner(&app).await;
    let until = app.auth.clock().now().after(Duration::from_secs(60));
    let asked = json!({
        "name": " laptop ", "scopes": ["account", "inference", "inference"], "models": ["tiny"],
        "cidrs": ["127.0.0.0/8", "10.1.2.3"], "expires_at": until, "status": "disabled",
    });
    let made = owner.post("/me/keys", asked).await.data();
    for (name, expected) in [
        ("name", json!("laptop")),
        ("scopes", json!(["inference", "account"])),
        ("models", json!(["tiny"])),
        ("cidrs", json!(["127.0.0.0/8", "10.1.2.3/32"])),
        ("expires_at", json!(until)),
        ("status", json!("disabled")),
    ] {
        assert_eq!(made[name], expected, "{name}");
    }
    let path = format!("/me/keys/{}", text(&made, "id"));
    let key = Api::showing(&app, text(&made, "key"));
    assert_eq!(key.get("/v1/models").await.number(), (401, 40108));
    owner.put(&path, json!({"status": "enabled"})).await.data();
    assert_eq!(key.get("/v1/models").await.status, 200);
    owner.put(&path, json!({"cidrs": ["192.0.2.0/24"]})).await.data();
    assert_eq!(key.get("/v1/models").await.number(), (403, 40304));
    let free = owner.put(&path, json!({"cidrs": null, "models": null, "name": "other"})).await.data();
    assert_eq!(
        (&free["cidrs"], &free["models"], &free["name"]),
        (&json!(null), &json!(null), &json!("other"))
    );
    assert_eq!(key.get("/v1/models").await.status, 200);
    app.auth.clock().advance(Duration::from_secs(61));
    assert_eq!(key.get("/v1/models").await.number(), (401, 40107));
}

#[tokio::test]
async fn keys_are_checked_before_they_are_kept() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    let (id, user) = owner.colleague("ada", "user").await;
    for (wrong, status, code) in [
        (json!({}), 400, 40015),
        (json!({"name": " "}), 400, 40003),
        (json!({"name": "a\u{0}"}), 400, 40003),
        (json!({"name": "a", "scopes": []}), 400, 40003),
        (json!({"name": "a", "scopes": ["everything"]}), 400, 40003),
        (json!({"name": "a", "scopes": ["users:read"]}), 403, 40301),
        (json!({"name": "a", "models": [""]}), 400, 40003),
        (json!({"name": "a", "models": vec!["x"; 101]}), 400, 40003),
        (json!({"name": "a", "cidrs": []}), 400, 40003),
        (json!({"name": "a", "cidrs": ["10.0.0.0/33"]}), 400, 40003),
        (json!({"name": "a", "cidrs": ["localhost"]}), 400, 40003),
        (json!({"name": "a", "expires_at": "2001-01-01T00:00:00Z"}), 400, 40003),
        (json!({"name": "a", "expires_at": "tomorrow"}), 400, 40003),
        (json!({"name": "a", "team_id": "team_none"}), 400, 40003),
        (json!({"name": "a", "team_id": "\u{0}"}), 400, 40003),
        (json!({"name": "a", "status": "on"}), 400, 40003),
        (json!({"name": "a", "key": "sk-sconce-mine"}), 400, 40004),
    ] {
        assert_eq!(user.post("/me/keys", wrong.clone()).await.refusal(), (status, code), "{wrong}");
        let mut for_user = wrong.clone();
        for_user["user_id"] = json!(id);
        assert_eq!(owner.post("/admin/keys", for_user).await.refusal(), (status, code), "{wrong}");
    }
    for nobody in ["usr_none", "", "\u{0}"] {
        let wrong = json!({"name": "a", "user_id": nobody});
        assert_eq!(owner.post("/admin/keys", wrong).await.refusal(), (400, 40003), "{nobody:?}");
    }
    assert_eq!(user.get("/me/keys").await.data()["items"], json!([]));
}

#[tokio::test]
async fn a_rotated_key_goes_on_for_as_long_as_was_said() {
    let app = TestApp::start_by(&[], clock()).await;
    let owner = Api::owner(&app).await;
    let (id, first) = owner.own_key(json!({"name": "a"})).await;
    let path = format!("/me/keys/{id}/rotate");
    let rotated = owner.post(&path, json!({"overlap_seconds": 60})).await.data();
    let second = Api::showing(&app, text(&rotated, "key"));
    assert_eq!(
        rotated["previous_key_expires_at"],
        json!(app.auth.clock().now().after(Duration::from_secs(60)))
    );
    assert_ne!(first.token, second.token);
    for key in [&first, &second] {
        assert_eq!(key.get("/v1/models").await.status, 200);
    }
    app.auth.clock().advance(Duration::from_secs(60));
    assert_eq!(first.get("/v1/models").await.number(), (401, 40001));
    assert_eq!(second.get("/v1/models").await.status, 200);
    let shown = owner.get(&format!("/admin/keys/{id}")).await.data();
    assert_eq!(shown["previous_key_expires_at"], json!(null), "it is over");

    let third = owner.post(&format!("/admin/keys/{id}/rotate"), json!({"overlap_seconds": 0})).await.data();
    assert_eq!(second.get("/v1/models").await.number(), (401, 40001), "without overlap it ends at once");
    assert_eq!(Api::showing(&app, text(&third, "key")).get("/v1/models").await.status, 200);
    let usual = owner.send("POST", &path, None).await.data();
    assert_eq!(
        usual["previous_key_expires_at"],
        json!(app.auth.clock().now().after(Duration::from_secs(3600)))
    );
    for wrong in
        [json!({"overlap_seconds": 604_801}), json!({"overlap_seconds": -1}), json!({"overlap_seconds": 1.5})]
    {
        assert_eq!(owner.post(&path, wrong.clone()).await.refusal(), (400, 40003), "{wrong}");
    }
}

#[tokio::test]
async fn when_a_key_was_last_used_is_written_in_the_end() {
    let app = TestApp::start_by(&[], clock()).await;
    let owner = Api::owner(&app).await;
    let (id, key) = owner.own_key(json!({"name": "a"})).await;
    let last_used = async || owner.get(&format!("/admin/keys/{id}")).await.data()["last_used_at"].clone();
    assert_eq!(last_used().await, json!(null));
    app.auth.clock().advance(Duration::from_secs(5));
    let at = app.auth.clock().now();
    assert_eq!(key.get("/v1/models").await.status, 200);
    app.auth.write_last_used().await.expect("it is written");
    assert_eq!(last_used().await, json!(at));
    // Not being used changes nothing.
    app.auth.clock().advance(Duration::from_secs(5));
    app.auth.write_last_used().await.expect("there is nothing to write");
    assert_eq!(last_used().await, json!(at));
}

#[tokio::test]
async fn when_a_key_was_last_used_is_written_when_the_server_ends() {
    let mut app = TestApp::start_by(&[], clock()).await;
    let owner = Api::owner(&app).await;
    let (id, key) = owner.own_key(json!({"name": "a"})).await;
    assert_eq!(key.get("/v1/models").await.status, 200);
    let at = app.auth.clock().now().millis();
    app.shutdown.end();
    app.ended().await.expect("it ends in order");
    assert_eq!(number(&app, &format!("SELECT last_used_at FROM api_keys WHERE id = '{id}'")).await, at);
}

#[tokio::test]
async fn a_user_has_no_more_than_a_thousand_keys() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    let (user_id, user) = owner.colleague("ada", "user").await;
    let (first, _) = user.own_key(json!({"name": "first"})).await;
    let kept = "user_id, team_id, name, prefix, previous_hash, previous_expires_at, scopes, models, cidrs, status, \
        expires_at, created_at, created_by, updated_at, last_used_at, deleted_at";
    let numbers = "(WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 999) \
        SELECT n FROM numbers) AS numbers";
    let copies = format!(
        "INSERT INTO api_keys (id, hash, {kept}) SELECT 'key_' || n, 'hash_' || n, {kept} FROM api_keys, {numbers} \
         WHERE user_id = '{user_id}'"
    );
    execute(&app, &copies).await;
    assert_eq!(user.post("/me/keys", json!({"name": "one more"})).await.refusal(), (409, 40902));
    let for_user = json!({"name": "one more", "user_id": user_id});
    assert_eq!(owner.post("/admin/keys", for_user).await.refusal(), (409, 40902));
    user.delete(&format!("/me/keys/{first}")).await.data();
    assert_eq!(user.post("/me/keys", json!({"name": "one more"})).await.status, 201);
}

#[tokio::test]
async fn a_team_goes_once_nothing_is_bound_to_it() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    let (user_id, user) = owner.colleague("ada", "user").await;
    let made = owner.post("/admin/teams", json!({"name": "Research"})).await;
    assert_eq!(made.status, 201);
    let expected = r#"{"code":0,"message":"Success","data":{"id":"<team>","name":"Research","description":"","created_at":"<time>","updated_at":"<time>"}}"#;
    assert_eq!(made.masked(), expected);
    let id = text(&made.data(), "id");
    let path = format!("/admin/teams/{id}");
    assert_eq!(owner.post("/admin/teams", json!({"name": "Research"})).await.refusal(), (409, 40901));
    let other = owner.post("/admin/teams", json!({"name": "Other"})).await.data();
    let taken = owner.put(&format!("/admin/teams/{}", text(&other, "id")), json!({"name": "Research"})).await;
    assert_eq!(taken.refusal(), (409, 40901));
    let changed = owner.put(&path, json!({"description": "those who look"})).await.data();
    assert_eq!((&changed["name"], &changed["description"]), (&json!("Research"), &json!("those who look")));

    // Only members bind keys to it.
    let bound = json!({"name": "a", "team_id": id});
    assert_eq!(user.post("/me/keys", bound.clone()).await.refusal(), (400, 40003));
    let member = format!("{path}/members/{user_id}");
    for _ in 0..2 {
        assert_eq!(owner.put(&member, json!({})).await.data(), json!({"team_id": id, "user_id": user_id}));
    }
    let members = owner.get(&format!("{path}/members")).await.data();
    assert_eq!(members["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(members["items"][0]["username"], "ada");
    assert_eq!(owner.get(&format!("/admin/users/{user_id}")).await.data()["team_ids"], json!([id]));
    assert_eq!(owner.get("/admin/users?search=ada").await.data()["items"][0]["team_ids"], json!([id]));
    let (key_id, key) = user.own_key(bound).await;
    assert_eq!(key.get("/v1/models").await.status, 200);
    assert_eq!(owner.delete(&path).await.refusal(), (409, 40902));

    // Who leaves the team works for it no more.
    owner.delete(&member).await.data();
    assert_eq!(owner.delete(&member).await.refusal(), (404, 40401));
    assert_eq!(key.get("/v1/models").await.number(), (401, 40108));
    owner.put(&member, json!({})).await.data();
    assert_eq!(key.get("/v1/models").await.status, 200);

    user.put(&format!("/me/keys/{key_id}"), json!({"team_id": null})).await.data();
    owner.delete(&path).await.data();
    assert_eq!(owner.get(&path).await.refusal(), (404, 40401));
    assert_eq!(owner.put(&member, json!({})).await.refusal(), (404, 40401));
    assert_eq!(owner.get(&format!("/admin/users/{user_id}")).await.data()["team_ids"], json!([]));
    assert_eq!(owner.post("/admin/teams", json!({"name": "Research"})).await.status, 201, "the name is free");
}

#[tokio::test]
async fn settings_are_shown_with_their_origin_and_without_secrets() {
    let app = TestApp::start().await;
    let answer = Api::owner(&app).await.get("/admin/settings").await;
    let data = answer.data();
    let kind = if app.database_url.starts_with("sqlite") { "sqlite" } else { "postgres" };
    assert_eq!((&data["version"], &data["database"]), (&json!(env!("CARGO_PKG_VERSION")), &json!(kind)));
    let shown = |name: &str| {
        let all = data["settings"].as_array().expect("a list");
        all.iter().find(|setting| setting["name"] == name).unwrap_or_else(|| panic!("no `{name}`")).clone()
    };
    assert_eq!(shown("offline"), json!({"name": "offline", "value": "true", "origin": "--offline"}));
    assert_eq!(shown("keep-alive"), json!({"name": "keep-alive", "value": "15s", "origin": "default"}));
    for secret in ["api-key", "admin-password"] {
        assert_eq!(shown(secret)["value"], "********", "{secret}");
    }
    for secret in [crate::app::KEY, crate::app::OWNER_PASSWORD] {
        assert!(!answer.text.contains(secret));
    }
}

#[tokio::test]
async fn a_crowd_of_writers_is_served_or_asked_to_come_back_and_loses_nothing() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    let crowd = (0..300).map(async |number| {
        let answer = owner.post("/admin/users", json!({"username": format!("user{number}")})).await;
        assert!(matches!(answer.status, 201 | 429), "{}", answer.text);
        answer.status == 201
    });
    let made = futures_util::future::join_all(crowd).await.into_iter().filter(|made| *made).count();
    let (mut listed, mut cursor) = (0, String::new());
    loop {
        let page = owner.get(&format!("/admin/users?limit=100&role=user{cursor}")).await;
        listed += page.json["data"]["items"].as_array().expect("items").len();
        let Some(next) = page.json["data"]["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(listed, made);
}
