//! Changes: what is acknowledged stays, what is left out stays as it was, what cannot be is refused by its whole name.

use serde_json::{Value, json};

use crate::api::{Answer, Api};
use crate::app::{CHAT, TestApp, golden};

async fn start() -> TestApp {
    let root = golden("");
    TestApp::start_with(&[("model-root", root.to_str().expect("a plain path"))]).await
}

/// A model that is registered and never loaded.
fn model(id: &str) -> Value {
    json!({"id": id, "sources": [golden("llama").to_string_lossy()]})
}

/// Number and field of a refusal.
fn named(answer: &Answer) -> (u16, u64, String) {
    let (status, code) = answer.refusal();
    (status, code, answer.json["data"]["errors"][0]["field"].as_str().unwrap_or_default().to_owned())
}

fn wrong(field: &str) -> (u16, u64, String) {
    (400, 40003, field.to_owned())
}

#[tokio::test]
async fn two_changes_at_once_are_both_kept() {
    let app = start().await;
    let owner = Api::owner(&app).await;
    owner.post("/admin/models", model("m")).await.data();
    let (user, _) = owner.colleague("ada", "user").await;
    let text = |value: &Value| value["id"].as_str().expect("an id").to_owned();
    let team = text(&owner.post("/admin/teams", json!({"name": "t"})).await.data());
    let key = text(&owner.post("/admin/keys", json!({"user_id": user, "name": "k"})).await.data());
    for round in 0..30 {
        for (path, one, other) in [
            ("/admin/models/m".to_owned(), "description", "context_length"),
            (format!("/admin/users/{user}"), "display_name", "email"),
            (format!("/admin/teams/{team}"), "name", "description"),
            (format!("/admin/keys/{key}"), "name", "models"),
        ] {
            let value = |field: &str| match field {
                "context_length" => json!(round + 1),
                "email" => json!(format!("{round}@example.com")),
                "models" => json!([format!("m{round}")]),
                _ => json!(format!("{field} {round}")),
            };
            let (first, second) = (json!({one: value(one)}), json!({other: value(other)}));
            let (first, second) = tokio::join!(owner.put(&path, first), owner.put(&path, second));
            assert_eq!((first.status, second.status), (200, 200), "{first:?} {second:?}");
            let after = owner.get(&path).await.data();
            assert_eq!((&after[one], &after[other]), (&value(one), &value(other)), "{path}: round {round}");
        }
    }
}

#[tokio::test]
async fn a_change_brings_no_deleted_model_back() {
    let app = start().await;
    let owner = Api::owner(&app).await;
    for round in 0..20 {
        owner.post("/admin/models", model("gone")).await.data();
        let put = |field: &str, value: Value| owner.put("/admin/models/gone", json!({field: value}));
        let (first, second, third, deleted) = tokio::join!(
            async { put("description", json!("x")).await },
            async { put("pinned", json!(true)).await },
            async { put("aliases", json!(["y"])).await },
            owner.delete("/admin/models/gone"),
        );
        assert_eq!(deleted.status, 200, "{deleted:?}");
        for change in [first, second, third] {
            assert!(change.status == 200 || change.refusal() == (404, 40402), "{change:?}");
        }
        assert_eq!(owner.get("/admin/models/gone").await.refusal(), (404, 40402), "round {round}");
        assert_eq!(owner.put("/admin/models/gone", json!({"pinned": true})).await.refusal(), (404, 40402));
        assert_eq!(owner.delete("/admin/models/gone").await.refusal(), (404, 40401));
    }
}

#[tokio::test]
async fn null_clears_what_can_be_empty_and_nothing_else() {
    let app = start().await;
    let owner = Api::owner(&app).await;
    let mut full = model("m");
    for (name, value) in [
        ("context_length", json!(7)),
        ("defaults", json!({"temperature": 0.5})),
        ("limits", json!({"max_tokens": 9})),
        ("description", json!("text")),
        ("pinned", json!(true)),
    ] {
        full[name] = value;
    }
    owner.post("/admin/models", full).await.data();
    let cleared = json!({"context_length": null, "sha256": null, "defaults": null, "limits": null});
    let after = owner.put("/admin/models/m", cleared).await.data();
    for (name, value) in [
        ("context_length", Value::Null),
        ("sha256", Value::Null),
        ("defaults", json!({})),
        ("limits", json!({})),
        ("description", json!("text")),
        ("pinned", json!(true)),
    ] {
        assert_eq!(after[name], value, "{name}");
    }
    let (user, _) = owner.colleague("ada", "user").await;
    let text = |value: &Value| value["id"].as_str().expect("an id").to_owned();
    let team = text(&owner.post("/admin/teams", json!({"name": "t"})).await.data());
    let key = text(&owner.post("/admin/keys", json!({"user_id": user, "name": "k"})).await.data());
    for (path, fields) in [
        (
            "/admin/models/m".to_owned(),
            &["sources", "aliases", "description", "visibility", "team_ids", "pinned", "enabled", "preload"]
                [..],
        ),
        (
            format!("/admin/users/{user}"),
            &["display_name", "role", "status", "must_change_password", "password", "reset_password"],
        ),
        (format!("/admin/teams/{team}"), &["name", "description"]),
        (format!("/admin/keys/{key}"), &["status", "name", "scopes"]),
    ] {
        let before = owner.get(&path).await.data();
        for field in fields {
            let answer = owner.put(&path, json!({*field: null})).await;
            assert_eq!(named(&answer), wrong(field), "{path} {}", answer.text);
        }
        assert_eq!(owner.get(&path).await.data(), before, "{path}");
    }
    for (path, field) in [
        (format!("/admin/users/{user}"), "email"),
        (format!("/admin/keys/{key}"), "models"),
        (format!("/admin/keys/{key}"), "cidrs"),
        (format!("/admin/keys/{key}"), "team_id"),
        (format!("/admin/keys/{key}"), "expires_at"),
    ] {
        assert_eq!(owner.put(&path, json!({field: null})).await.data()[field], Value::Null, "{field}");
    }
}

#[tokio::test]
async fn numbers_out_of_range_are_refused_by_their_whole_name() {
    let app = start().await;
    let owner = Api::owner(&app).await;
    owner.post("/admin/models", model("m")).await.data();
    let before = owner.get("/admin/models/m").await.data();
    for (group, field, values) in [
        ("defaults", "temperature", &["1e308", "-1e308", "2.5", "-0.1"][..]),
        ("defaults", "top_p", &["1e308", "1.5", "-0.1"]),
        ("defaults", "repetition_penalty", &["1e308", "0", "10.5", "-1"]),
        ("limits", "max_tokens", &["0"]),
        ("limits", "n", &["0"]),
        ("limits", "temperature", &["1e308", "2.1", "-1"]),
    ] {
        for value in values {
            let number: Value = serde_json::from_str(value).expect("a number");
            let answer = owner.put("/admin/models/m", json!({group: {field: number}})).await;
            assert_eq!(named(&answer), (400, 40005, format!("{group}.{field}")), "{value}: {}", answer.text);
        }
    }
    for (group, field, value) in [
        ("defaults", "top_k", json!(-1)),
        ("defaults", "temperature", json!("0.5")),
        ("limits", "max_tokens", json!(1.5)),
        ("limits", "max_tokens", json!(4_294_967_296_u64)),
    ] {
        let answer = owner.put("/admin/models/m", json!({group: {field: value}})).await;
        assert_eq!(named(&answer), wrong(&format!("{group}.{field}")), "{value}: {}", answer.text);
    }
    assert_eq!(owner.get("/admin/models/m").await.data(), before, "nothing of it was kept");
    // What a request may say, a default may, and it is shown as it was said.
    for fine in [
        json!({"temperature": 2.0, "top_p": 0.0, "top_k": 0, "repetition_penalty": 0.01}),
        json!({"temperature": 0.7, "top_p": 0.95, "repetition_penalty": 1.1}),
    ] {
        let after = owner.put("/admin/models/m", json!({"defaults": fine})).await.data();
        assert_eq!(after["defaults"], fine);
    }
}

#[tokio::test]
async fn an_alias_is_another_name_and_said_once() {
    let app = start().await;
    let owner = Api::owner(&app).await;
    owner.post("/admin/models", model("m")).await.data();
    for aliases in [json!(["x", "x"]), json!(["m"]), json!(["a", "b", "m"])] {
        let mut new = model("other");
        new["aliases"] = aliases.clone();
        if aliases.as_array().is_some_and(|all| !all.contains(&json!("m"))) {
            assert_eq!(named(&owner.post("/admin/models", new).await), wrong("aliases"), "{aliases}");
        }
        let change = json!({"aliases": aliases});
        assert_eq!(named(&owner.put("/admin/models/m", change).await), wrong("aliases"), "{aliases}");
    }
    let mut own = model("own");
    own["aliases"] = json!(["own"]);
    assert_eq!(named(&owner.post("/admin/models", own).await), wrong("aliases"));
}

#[tokio::test]
async fn a_list_is_filtered_by_what_there_is_only() {
    let app = start().await;
    let owner = Api::owner(&app).await;
    for (path, field, known) in [
        ("/admin/models", "state", &["absent", "downloading", "loading", "ready", "draining", "failed"][..]),
        ("/admin/audit", "outcome", &["done", "refused"]),
        ("/admin/users", "role", &["owner", "admin", "user"]),
        ("/admin/users", "status", &["active", "disabled"]),
        ("/admin/keys", "status", &["enabled", "disabled"]),
    ] {
        for value in known {
            owner.get(&format!("{path}?{field}={value}")).await.data();
        }
        let bogus = owner.get(&format!("{path}?{field}=bogus")).await;
        assert_eq!(named(&bogus), wrong(field), "{path} {}", bogus.text);
        let message = bogus.json["message"].as_str().expect("a text");
        assert!(known.iter().all(|value| message.contains(value)), "{message}");
    }
    let ready = owner.get("/admin/models?state=ready").await.data();
    assert!(ready["items"].as_array().expect("a list").iter().any(|model| model["id"] == CHAT), "{ready}");
}

#[tokio::test]
async fn a_name_is_of_one_script_and_hides_nothing() {
    let app = start().await;
    let owner = Api::owner(&app).await;
    for name in [
        "\u{430}dmin",  // Cyrillic а
        "\u{ff41}dmin", // full width
        "adm\u{3b9}n",  // Greek iota
        "\u{217e}x",    // the Roman numeral for 500
        "\u{fb01}x",    // a ligature
        "a\u{202e}b",
        "a\u{200b}b",
    ] {
        let answer = owner.post("/admin/users", json!({"username": name})).await;
        assert_eq!(named(&answer), wrong("username"), "{name:?}");
    }
    for name in ["\u{43e}\u{43b}\u{44c}\u{433}\u{430}", "zoë", "张伟", "bob-2", "λάμπρος"] {
        let made = owner.post("/admin/users", json!({"username": name})).await.data();
        assert_eq!(made["username"], name);
    }
    let (user, _) = owner.colleague("ada", "user").await;
    for hidden in ["\u{202e}nimda", "a\u{2066}b", "a\u{200b}b", "\u{feff}a", "a\u{ad}b", "a\u{e0041}b"] {
        for (method, path, field, body) in [
            ("POST", "/admin/users".to_owned(), "display_name", json!({"username": "u1"})),
            ("PUT", format!("/admin/users/{user}"), "display_name", json!({})),
            ("POST", "/admin/teams".to_owned(), "name", json!({})),
            ("POST", "/admin/keys".to_owned(), "name", json!({"user_id": user})),
            ("POST", "/admin/models".to_owned(), "description", model("hidden")),
        ] {
            let mut body = body;
            body[field] = json!(hidden);
            let answer = owner.send(method, &path, Some(&body)).await;
            assert_eq!(named(&answer), wrong(field), "{path} {hidden:?} {}", answer.text);
        }
    }
    // Joiners are letters' business in several scripts, and make emoji of emoji.
    let family = "\u{1f469}\u{200d}\u{1f680} \u{645}\u{6cc}\u{200c}\u{62e}";
    let change = json!({"display_name": family});
    assert_eq!(owner.put(&format!("/admin/users/{user}"), change).await.data()["display_name"], family);
}
