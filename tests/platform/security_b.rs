//! Who may do what to whom and to what: each line of the list of attacks on authorisation as a test that bears its number.
//! The URLs are read from what the server says it serves, so that a new one is attacked too.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde_json::{Value, json};

use crate::api::{Answer, Api, password_of};
use crate::app::{CHAT, EMBED, TestApp, golden};
use crate::permissions::{filled, operations, served};
use crate::rig::execute;

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_else(|| panic!("no `{name}`: {value}")).to_owned()
}

/// The path with these ids.
fn with_ids(path: &str, ids: &BTreeMap<&str, &str>) -> String {
    let fill = |segment: &str| match segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        Some(name) => (*ids.get(name).unwrap_or_else(|| panic!("{path}: whose is `{name}`?"))).to_owned(),
        None => segment.to_owned(),
    };
    path.split('/').map(fill).collect::<Vec<_>>().join("/")
}

#[tokio::test]
async fn b1_what_is_somebody_elses_is_not_there() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    let (_, ada) = owner.colleague("ada", "user").await;
    let (_, bob) = owner.colleague("bob", "user").await;
    let (key_id, key) = ada.own_key(json!({"name": "a"})).await;
    let session_id = text(&ada.get("/me/sessions").await.data()["items"][0], "id");
    let ids = BTreeMap::from([("keyId", key_id.as_str()), ("sessionId", session_id.as_str())]);
    let before = ada.get("/me/keys").await.text;
    let mut attacked = 0;
    for (method, path) in served(&app).await {
        if !path.starts_with("/api/v1/me/") || !path.contains('{') {
            continue;
        }
        let body = json!({});
        let body = matches!(method.as_str(), "POST" | "PUT").then_some(&body);
        // Also an owner has only their own things there.
        for other in [&bob, &owner] {
            let hers = other.send(&method, &with_ids(&path, &ids), body).await;
            let nobodys = other.send(&method, &filled(&path), body).await;
            assert_eq!(hers.refusal(), (404, 40401), "{method} {path}");
            assert_eq!(hers.text, nobodys.text, "{method} {path}");
        }
        attacked += 1;
    }
    assert!(attacked >= 4, "{attacked}");
    assert_eq!(ada.get("/me/keys").await.text, before);
    assert_eq!(key.get("/v1/models").await.status, 200);
}

#[tokio::test]
async fn b2_lists_are_ones_own_and_take_no_nonsense() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    let (ada_id, ada) = owner.colleague("ada", "user").await;
    let (_, bob) = owner.colleague("bob", "user").await;
    ada.own_key(json!({"name": "hers"})).await;
    let (bobs_key, _) = bob.own_key(json!({"name": "his"})).await;
    let others = json!(["created_at", 1, "x"]).to_string();
    let mut lists = 0;
    for (method, path, operation) in operations(&app).await {
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        if method != "GET" || !parameters.iter().any(|parameter| parameter["name"] == "cursor") {
            continue;
        }
        let nonsense = [
            "offset=-1".to_owned(),
            "limit=1000000000".to_owned(),
            "limit=99999999999999999999".to_owned(),
            "limit=-1".to_owned(),
            "limit=0".to_owned(),
            "limit=1;DROP".to_owned(),
            "sort=password_hash".to_owned(),
            "sort=created_at,id".to_owned(),
            "sort=".to_owned(),
            "limit=1&limit=2".to_owned(),
            "search=%00".to_owned(),
            "is_admin=true".to_owned(),
        ];
        let own = path.starts_with("/api/v1/me/").then(|| format!("user_id={ada_id}"));
        for query in nonsense.into_iter().chain(own) {
            let answer = owner.get(&format!("{}?{query}", filled(&path))).await;
            assert_eq!(answer.refusal(), (400, 40003), "{path}?{query}");
        }
        lists += 1;
    }
    assert!(lists >= 9, "{lists}");
    for cursor in ["x", "W10", "bnVsbA", &base64_url(&others)] {
        let answer = owner.get(&format!("/admin/users?sort=username&cursor={cursor}")).await;
        assert_eq!(answer.refusal(), (400, 40003), "{cursor}");
    }
    let his = bob.get("/me/keys?limit=100").await.data();
    let ids: Vec<_> = his["items"].as_array().expect("items").iter().map(|key| text(key, "id")).collect();
    assert_eq!(ids, [bobs_key]);
}

fn base64_url(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
}

/// The request that the document shows.
fn example(operation: &Value) -> Value {
    let content = &operation["requestBody"]["content"]["application/json"];
    let first = content["examples"].as_object().and_then(|all| all.values().next());
    first.map_or_else(|| content["example"].clone(), |example| example["value"].clone())
}

#[tokio::test]
async fn b3_what_is_not_to_be_set_is_refused_by_name_and_changes_nothing() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    let mut attacked = 0;
    for (method, path, operation) in operations(&app).await {
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        // What asks a model keeps nothing.
        let asks = path.contains("completions") || path.contains("embeddings");
        if schema.is_null() || asks {
            continue;
        }
        for field in ["is_admin", "id", "created_at", "key_hash", "quota", "__proto__"] {
            let mut body = json!({field: "x"});
            // A model is registered under its id.
            if path == "/api/v1/admin/models" {
                body["id"] = json!("x");
                if field == "id" {
                    continue;
                }
            }
            if !path.starts_with("/api/v1/") {
                // What must be there is, so that nothing is wrong but the one member too many.
                body = example(&operation);
                body[field] = json!("x");
                let answer = owner.send(&method, &filled(&path), Some(&body)).await;
                let is_named = answer.status == 400 && answer.text.contains(&format!("`{field}`"));
                assert!(is_named, "{method} {path}: {field}: {} {}", answer.status, answer.text);
                continue;
            }
            let answer = owner.send(&method, &filled(&path), Some(&body)).await;
            assert_eq!(answer.number(), (400, 40004), "{method} {path}: {field}: {}", answer.text);
        }
        attacked += 1;
    }
    assert!(attacked >= 16, "{attacked}");

    let (user_id, user) = owner.colleague("ada", "user").await;
    let (key_id, _) = user.own_key(json!({"name": "a"})).await;
    let (user_path, key_path) = (format!("/admin/users/{user_id}"), format!("/admin/keys/{key_id}"));
    let own_key_path = format!("/me/keys/{key_id}");
    for (api, path, shown, fields) in [
        (
            &owner,
            user_path.as_str(),
            user_path.as_str(),
            &[
                "username",
                "password_hash",
                "token_version",
                "deleted_at",
                "team_ids",
                "last_login_at",
                "permissions",
            ][..],
        ),
        (
            &owner,
            &key_path,
            &key_path,
            &[
                "user_id",
                "hash",
                "prefix",
                "key",
                "created_by",
                "previous_hash",
                "last_used_at",
                "deleted_at",
            ],
        ),
        (&user, &own_key_path, &key_path, &["user_id", "role", "hash", "spent", "budget", "created_by"]),
    ] {
        let before = owner.get(shown).await.text;
        for field in fields {
            let answer = api.put(path, json!({"status": "disabled", *field: "x"})).await;
            assert_eq!(answer.refusal(), (400, 40004), "{path}: {field}");
            assert!(answer.text.contains(field), "{}", answer.text);
        }
        assert_eq!(owner.get(shown).await.text, before, "{path}");
    }
    let new = json!({"name": "a", "user_id": user_id});
    assert_eq!(user.post("/me/keys", new).await.refusal(), (400, 40004));
    let new = json!({"username": "eve", "token_version": 7});
    assert_eq!(owner.post("/admin/users", new).await.refusal(), (400, 40004));
}

/// The names of all members, however deep.
fn names(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                found.insert(name.clone());
                names(value, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| names(item, found)),
        _ => {}
    }
}

/// What each URL shows, in the alphabet's order. Nothing of it is a secret; `hash` and `previous_hash` are the audit's.
#[rustfmt::skip]
const SHOWN: &[(&str, &str)] = &[
    ("/api/v1/admin/audit", "action actor_id actor_kind actor_name address after at before cidrs code count created_at created_by description display_name email expires_at from hash id items last_login_at last_used_at models must_change_password name next_cursor outcome prefix previous_hash previous_key_expires_at request request_id role scopes seq status target_id target_kind team_id team_ids until updated_at user_id username"),
    ("/api/v1/admin/audit/verify", "checkpoint first_bad head_hash is_intact rows"),
    ("/api/v1/admin/keys", "cidrs created_at created_by expires_at id items last_used_at models name next_cursor prefix previous_key_expires_at scopes status team_id updated_at user_id"),
    ("/api/v1/admin/keys/{keyId}", "cidrs created_at created_by expires_at id last_used_at models name prefix previous_key_expires_at scopes status team_id updated_at user_id"),
    ("/api/v1/admin/models", "aliases bytes context_length created_at created_by defaults description enabled end_of_turn id is_on_disk items kind last_error limits max_context_length memory_bytes next_cursor origin pinned preload progress reason requests result self_test sha256 since sources state status team_ids template tools updated_at visibility"),
    ("/api/v1/admin/models/{modelId}", "aliases bytes context_length created_at created_by defaults description enabled end_of_turn id is_on_disk kind last_error limits max_context_length memory_bytes origin pinned preload progress reason requests result self_test sha256 since sources state status team_ids template tools updated_at visibility"),
    ("/api/v1/admin/settings", "database name origin settings value version"),
    ("/api/v1/admin/teams", "created_at description id items name next_cursor updated_at"),
    ("/api/v1/admin/teams/{teamId}", "created_at description id name updated_at"),
    ("/api/v1/admin/teams/{teamId}/members", "display_name items joined_at next_cursor user_id username"),
    ("/api/v1/admin/usage", "asked_for at cached_tokens completion_tokens duration_ms end_user endpoint id items key_id metadata model next_cursor outcome prompt_tokens request_id team_id user_id"),
    ("/api/v1/admin/usage/export", ""),
    ("/api/v1/admin/usage/totals", "cached_tokens completion_tokens group_by is_complete items prompt_tokens requests subject total_tokens"),
    ("/api/v1/admin/users", "created_at display_name email id items last_login_at must_change_password next_cursor role status team_ids updated_at username"),
    ("/api/v1/admin/users/{userId}", "created_at display_name email id last_login_at must_change_password role status team_ids updated_at username"),
    ("/api/v1/admin/users/{userId}/sessions", "address created_at current expires_at id items last_used_at next_cursor user_agent user_id"),
    ("/api/v1/me", "id must_change_password permissions role signed_in_by teams username"),
    ("/api/v1/me/keys", "cidrs created_at created_by expires_at id items last_used_at models name next_cursor prefix previous_key_expires_at scopes status team_id updated_at user_id"),
    ("/api/v1/me/sessions", "address created_at current expires_at id items last_used_at next_cursor user_agent user_id"),
    ("/api/v1/me/usage", "asked_for at cached_tokens completion_tokens duration_ms end_user endpoint id items key_id metadata model next_cursor outcome prompt_tokens request_id team_id user_id"),
    ("/api/v1/me/usage/totals", "cached_tokens completion_tokens group_by is_complete items prompt_tokens requests subject total_tokens"),
];

#[tokio::test]
async fn b4_no_answer_shows_more_than_it_must() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    let team = text(&owner.post("/admin/teams", json!({"name": "a"})).await.data(), "id");
    let (user_id, user) = owner.colleague("ada", "user").await;
    owner.put(&format!("/admin/teams/{team}/members/{user_id}"), json!({})).await.data();
    let (key_id, key) = user.own_key(json!({"name": "a", "scopes": ["inference", "account"]})).await;
    let rotated = user.post(&format!("/me/keys/{key_id}/rotate"), json!({})).await.data();
    owner.put(&format!("/admin/users/{user_id}"), json!({"display_name": "Ada"})).await.data();
    crate::usage::fill(&app, &user_id, "usr_other").await;
    // Rows of refusals stand in the audit as well: of one, and of several.
    for _ in 0..2 {
        assert_eq!(user.get("/admin/users").await.refusal(), (403, 40301));
    }
    app.auth.write_refusals().await.expect("the database is there");
    let ids = BTreeMap::from([
        ("userId", user_id.as_str()),
        ("keyId", key_id.as_str()),
        ("teamId", team.as_str()),
        ("modelId", crate::app::CHAT),
        ("id", crate::app::CHAT),
    ]);
    let mut readers = vec![("user".to_owned(), user.clone()), ("key".to_owned(), key.clone())];
    for role in ["admin", "operator", "auditor"] {
        readers.push((role.to_owned(), owner.colleague(&format!("some-{role}"), role).await.1));
    }
    let secrets = [
        key.token.clone(),
        text(&rotated, "key"),
        owner.token.clone(),
        user.token.clone(),
        password_of("ada"),
    ];
    let is_clean = |answer: &Answer, what: &str| {
        for secret in secrets.iter().map(String::as_str).chain(["$argon2", "sk-sconce-"]) {
            let without_prefixes = answer.text.replace(&secrets[0][..16], "").replace(&secrets[1][..16], "");
            let shown = without_prefixes.contains(secret) && !is_a_prefix(&without_prefixes, secret);
            assert!(!shown, "{what} shows {secret}");
        }
    };
    let mut found = Vec::new();
    for (method, path) in served(&app).await {
        if method != "GET" || !path.starts_with("/api/v1/") || path.ends_with("/chat/stream") {
            continue;
        }
        let asked = with_ids(&path, &ids);
        let answer = owner.get(&asked).await;
        is_clean(&answer, &path);
        let mut of_owner = BTreeSet::new();
        names(&answer.json["data"], &mut of_owner);
        for (who, reader) in &readers {
            let answer = reader.get(&asked).await;
            is_clean(&answer, &format!("{path} to {who}"));
            let mut of_reader = BTreeSet::new();
            names(&answer.json["data"], &mut of_reader);
            if path.starts_with("/api/v1/me") {
                of_owner.extend(of_reader);
                continue;
            }
            let more: Vec<_> = of_reader.difference(&of_owner).collect();
            assert!(more.is_empty() || answer.status >= 400, "{path} shows {who} {more:?}");
        }
        found.push((path, of_owner.into_iter().collect::<Vec<_>>().join(" ")));
    }
    let expected: Vec<_> =
        SHOWN.iter().map(|(path, names)| ((*path).to_owned(), (*names).to_owned())).collect();
    assert_eq!(found, expected, "{found:#?}");
}

/// Whether all that is shown of keys is the beginning by which people know them.
fn is_a_prefix(text: &str, secret: &str) -> bool {
    let parts = text.split('"').filter(|part| part.contains(secret));
    secret == "sk-sconce-" && parts.into_iter().all(|part| part.starts_with(secret) && part.len() <= 16)
}

#[tokio::test]
async fn b5_nobody_administers_an_equal_or_a_higher_one() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    let (admin_id, admin) = owner.colleague("some-admin", "admin").await;
    for (who, actor, beneath) in [
        ("owner", &owner, &["admin", "operator", "auditor", "user"][..]),
        ("admin", &admin, &["operator", "auditor", "user"]),
    ] {
        for role in ["owner", "admin", "operator", "auditor", "user"] {
            let (id, target) = owner.colleague(&format!("{who}s-{role}"), role).await;
            let (key_id, _) = target.own_key(json!({"name": "a", "scopes": ["account"]})).await;
            let session = text(&target.get("/me/sessions").await.data()["items"][0], "id");
            let (path, key_path) = (format!("/admin/users/{id}"), format!("/admin/keys/{key_id}"));
            let state = async || {
                let (shown, keys) = (owner.get(&path).await.text, owner.get(&key_path).await.text);
                (shown, keys, target.get("/me").await.status)
            };
            let (before, is_beneath) = (state().await, beneath.contains(&role));
            let new_key = json!({"user_id": id, "name": "b", "scopes": ["account"]});
            for (method, path, body) in [
                ("PUT", path.clone(), json!({"display_name": "Other"})),
                ("PUT", path.clone(), json!({"role": "user"})),
                ("PUT", path.clone(), json!({"status": "disabled"})),
                ("PUT", path.clone(), json!({"reset_password": true})),
                ("PUT", path.clone(), json!({"password": password_of("x")})),
                ("DELETE", format!("{path}/sessions/{session}"), Value::Null),
                ("DELETE", format!("{path}/sessions"), Value::Null),
                ("POST", "/admin/keys".to_owned(), new_key),
                ("PUT", key_path.clone(), json!({"status": "disabled"})),
                ("POST", format!("{key_path}/rotate"), json!({})),
                ("DELETE", key_path.clone(), Value::Null),
                ("DELETE", path.clone(), Value::Null),
            ] {
                if is_beneath {
                    continue;
                }
                let body = (!body.is_null()).then_some(&body);
                let answer = actor.send(method, &path, body).await;
                assert_eq!(answer.refusal(), (403, 40301), "{who}, {role}: {method} {path} {body:?}");
            }
            assert_eq!(state().await, before, "{who}, {role}");
            if is_beneath {
                actor.put(&path, json!({"display_name": "Other"})).await.data();
                actor.delete(&path).await.data();
            }
        }
    }
    // Oneself: the name, but neither role nor password.
    let own = format!("/admin/users/{admin_id}");
    assert_eq!(admin.put(&own, json!({"display_name": "Other"})).await.status, 200);
    for change in
        [json!({"role": "user"}), json!({"password": password_of("x")}), json!({"reset_password": true})]
    {
        assert_eq!(admin.put(&own, change.clone()).await.refusal(), (403, 40301), "{change}");
    }
}

#[tokio::test]
async fn b5_the_last_owner_stays() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    let id = text(&owner.get("/me").await.data(), "id");
    let path = format!("/admin/users/{id}");
    let only = async |owner: &Api<'_>| {
        assert_eq!(owner.delete(&path).await.refusal(), (409, 40902));
        assert_eq!(owner.put(&path, json!({"status": "disabled"})).await.refusal(), (409, 40902));
        assert_eq!(owner.get("/me").await.status, 200);
    };
    only(&owner).await;
    // Another who is disabled is none.
    let (second_id, second) = owner.colleague("second", "owner").await;
    second.put(&format!("/admin/users/{second_id}"), json!({"status": "disabled"})).await.data();
    only(&owner).await;
    let (_, third) = owner.colleague("third", "owner").await;
    assert_eq!(owner.delete(&path).await.status, 200);
    assert_eq!(owner.get("/me").await.refusal(), (401, 40104));
    assert_eq!(third.get("/admin/users").await.status, 200);
}

#[tokio::test]
async fn b6_nobody_grants_what_they_do_not_hold() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    let (_, admin) = owner.colleague("some-admin", "admin").await;
    let (user_id, user) = owner.colleague("ada", "user").await;
    let path = format!("/admin/users/{user_id}");
    let refused = async |api: &Api<'_>, method: &str, path: &str, body: Value, code: u64| {
        let answer = api.send(method, path, Some(&body)).await;
        assert_eq!(answer.refusal(), (403, code), "{method} {path} {body}");
    };
    refused(&admin, "POST", "/admin/users", json!({"username": "eve", "role": "owner"}), 40301).await;
    refused(&admin, "PUT", &path, json!({"role": "owner"}), 40301).await;
    admin.put(&path, json!({"role": "operator"})).await.data();
    admin.put(&path, json!({"role": "user"})).await.data();
    let key = |scopes: Value| json!({"user_id": user_id, "name": "a", "scopes": scopes});
    refused(&admin, "POST", "/admin/keys", key(json!(["owner"])), 40301).await;
    refused(&owner, "POST", "/admin/keys", key(json!(["users:read"])), 40301).await;
    assert_eq!(user.get("/me").await.refusal(), (401, 40104), "another role ended the session");
    let user = Api::showing(&app, app.sign_in("ada", &password_of("ada")).await);
    refused(&user, "POST", "/me/keys", json!({"name": "a", "scopes": ["inference", "users:manage"]}), 40301)
        .await;
    let (own, _) = user.own_key(json!({"name": "a"})).await;
    let own = format!("/me/keys/{own}");
    refused(&user, "PUT", &own, json!({"scopes": ["owner"]}), 40301).await;

    // A key grants no more than the key itself has, whoever's it is.
    let (_, manager) =
        owner.own_key(json!({"name": "a", "scopes": ["users:manage", "keys:manage", "account"]})).await;
    refused(&manager, "POST", "/admin/users", json!({"username": "eve"}), 40301).await;
    refused(&manager, "PUT", &path, json!({"role": "operator"}), 40301).await;
    refused(&manager, "POST", "/admin/keys", key(json!(["inference"])), 40301).await;
    refused(&manager, "POST", "/me/keys", json!({"name": "b", "scopes": ["owner"]}), 40301).await;
    assert_eq!(manager.post("/me/keys", json!({"name": "b", "scopes": ["account"]})).await.status, 201);
    let (_, makers) =
        owner.own_key(json!({"name": "a", "scopes": ["users:manage", "inference", "account"]})).await;
    let team = text(&owner.post("/admin/teams", json!({"name": "a"})).await.data(), "id");
    let with_team = json!({"username": "eve", "team_ids": [team]});
    refused(&makers, "POST", "/admin/users", with_team.clone(), 40302).await;
    assert_eq!(owner.post("/admin/users", with_team).await.status, 201);
}

#[tokio::test]
async fn b6_a_bound_key_makes_no_freer_one() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    let (free_id, _) = owner.own_key(json!({"name": "free"})).await;
    let team = text(&owner.post("/admin/teams", json!({"name": "a"})).await.data(), "id");
    let id = text(&owner.get("/me").await.data(), "id");
    owner.put(&format!("/admin/teams/{team}/members/{id}"), json!({})).await.data();
    let scopes = json!(["inference", "account", "keys:manage"]);
    let until = "2099-01-01T00:00:00Z";
    for (bound, fine) in [
        (json!({"models": ["tiny", "other"]}), json!({"models": ["tiny"]})),
        (json!({"cidrs": ["127.0.0.0/8"]}), json!({"cidrs": ["127.0.0.0/16", "127.1.2.3"]})),
        (json!({"team_id": team}), json!({"team_id": team})),
        (json!({"expires_at": until}), json!({"expires_at": "2098-01-01T00:00:00Z"})),
    ] {
        let mut new = json!({"name": "bound", "scopes": scopes});
        let (field, value) = bound.as_object().and_then(|members| members.iter().next()).expect("one member");
        new[field] = value.clone();
        let (bound_id, by_key) = owner.own_key(new).await;
        let freer = match field.as_str() {
            "models" => vec![Value::Null, json!(["tiny", "third"])],
            "cidrs" => vec![Value::Null, json!(["0.0.0.0/0"]), json!(["127.0.0.1", "10.0.0.0/8"])],
            "expires_at" => vec![Value::Null, json!("2099-01-01T00:00:01Z")],
            _ => vec![Value::Null],
        };
        for value in freer {
            let mut new = json!({"name": "freer"});
            new[field] = value.clone();
            assert_eq!(by_key.post("/me/keys", new).await.refusal(), (403, 40301), "{field}: {value}");
            let itself = by_key.put(&format!("/me/keys/{bound_id}"), json!({field: value})).await;
            assert_eq!(itself.refusal(), (403, 40301), "{field}: {value}");
        }
        for path in [format!("/me/keys/{free_id}"), format!("/admin/keys/{free_id}")] {
            let rotated = by_key.post(&format!("{path}/rotate"), json!({})).await;
            assert_eq!(rotated.refusal(), (403, 40301), "a freer key's secret is not for it: {field}");
            assert_eq!(
                by_key.put(&path, json!({"status": "enabled"})).await.refusal(),
                (403, 40301),
                "{field}"
            );
        }
        let mut new = json!({"name": "bound too"});
        let (field, value) = fine.as_object().and_then(|members| members.iter().next()).expect("one member");
        new[field] = value.clone();
        assert_eq!(by_key.post("/me/keys", new).await.status, 201, "{fine}");
    }
}

#[tokio::test]
async fn b6_a_bound_key_gives_nobody_a_password() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    let victim = owner.make_user("victim", "user").await;
    let path = format!("/admin/users/{victim}");
    let scopes = json!(["inference", "account", "users:manage"]);
    let free = owner.own_key(json!({"name": "free", "scopes": scopes})).await.1;
    for bound in [
        json!({"models": ["tiny"]}),
        json!({"cidrs": ["127.0.0.0/8"]}),
        json!({"expires_at": "2099-01-01T00:00:00Z"}),
    ] {
        let mut new = json!({"name": "bound", "scopes": scopes});
        let (field, value) = bound.as_object().and_then(|members| members.iter().next()).expect("one member");
        new[field] = value.clone();
        let (_, by_key) = owner.own_key(new).await;
        let eve = json!({"username": "eve", "password": password_of("eve")});
        for (method, path, body) in [
            ("POST", "/admin/users", eve),
            ("POST", "/admin/users", json!({"username": "eve"})),
            ("PUT", &path, json!({"password": password_of("eve")})),
            ("PUT", &path, json!({"reset_password": true})),
        ] {
            let answer = by_key.send(method, path, Some(&body)).await;
            assert_eq!(answer.refusal(), (403, 40301), "{bound}: {method} {path} {body}");
        }
        by_key.put(&path, json!({"display_name": "V"})).await.data();
    }
    let reset = free.put(&path, json!({"password": password_of("other")})).await.data();
    assert_eq!(reset["id"], victim.as_str(), "a key that nothing binds does");
}

#[tokio::test]
async fn b6_a_key_loses_what_its_owner_loses() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    let (id, admin) = owner.colleague("some-admin", "admin").await;
    let (_, key) = admin.own_key(json!({"name": "a", "scopes": ["users:read", "inference"]})).await;
    assert_eq!(key.get("/admin/users").await.status, 200);
    owner.put(&format!("/admin/users/{id}"), json!({"role": "user"})).await.data();
    assert_eq!(key.get("/admin/users").await.refusal(), (403, 40301));
    assert_eq!(key.get("/v1/models").await.status, 200);
}

/// Who is asked for, and by what name: a list and an answer agree, and what one may not see is not there.
#[tokio::test]
async fn b9_a_hidden_model_is_not_there_by_any_name_and_the_list_agrees() {
    let root = golden("");
    let app = TestApp::start_with(&[("model-root", root.to_str().expect("a plain path"))]).await;
    let owner = Api::owner(&app).await;
    let team = text(&owner.post("/admin/teams", json!({"name": "a"})).await.data(), "id");
    let source = golden("llama").to_string_lossy().into_owned();
    for (id, more) in [
        ("open", json!({"aliases": ["open-too"]})),
        ("hidden", json!({"aliases": ["gpt-4o"], "visibility": "teams", "team_ids": [team]})),
        ("off", json!({"aliases": ["off-too"], "enabled": false})),
    ] {
        let mut new = more;
        new["id"] = json!(id);
        new["sources"] = json!([source]);
        assert_eq!(owner.post("/admin/models", new).await.status, 201, "{id}");
    }
    let (member_id, member) = owner.colleague("member", "user").await;
    owner.put(&format!("/admin/teams/{team}/members/{member_id}"), json!({})).await.data();
    let (_, outsider) = owner.colleague("outsider", "user").await;
    let (_, only_open) = outsider.own_key(json!({"name": "a", "models": ["open"]})).await;
    let (_, only_hidden) = outsider.own_key(json!({"name": "a", "models": ["hidden"]})).await;
    let (_, of_team) = member.own_key(json!({"name": "a", "team_id": team, "models": ["hidden"]})).await;
    let strange = [
        "HIDDEN",
        "Hidden",
        "hidden ",
        " hidden",
        "ｈidden",
        "hid\u{200b}den",
        "./hidden",
        "GPT-4O",
        "hidden\u{0}",
        "",
    ];
    for (who, api, named, refused) in [
        ("a member", &member, &["open", "open-too", "hidden", "gpt-4o", CHAT][..], 40402),
        ("an outsider", &outsider, &["open", "open-too", CHAT], 40402),
        ("a key for one", &only_open, &["open", "open-too"], 40303),
        ("a key for what its owner does not see", &only_hidden, &[], 40303),
        ("a member's key for one", &of_team, &["hidden", "gpt-4o"], 40303),
    ] {
        let listed = api.get("/v1/models").await.json["data"].clone();
        let listed: BTreeSet<String> =
            listed.as_array().expect("a list").iter().map(|model| text(model, "id")).collect();
        let expected = named.iter().filter(|name| ["open", "hidden", CHAT].contains(*name));
        let mut expected: BTreeSet<_> = expected.map(|name| (*name).to_owned()).collect();
        if named.contains(&CHAT) {
            expected.insert(EMBED.to_owned());
        }
        assert_eq!(listed, expected, "{who}");
        for name in ["open", "open-too", "hidden", "gpt-4o", "off", "off-too", "nowhere", CHAT] {
            let is_named = named.contains(&name);
            for (path, answer) in asked(api, name).await {
                // A key that may use others is told so of those its owner sees; the rest is not there.
                let is_unseen = ["off", "off-too", "nowhere"].contains(&name)
                    || (["hidden", "gpt-4o"].contains(&name) && !who.contains("member"));
                let expected = match (is_named, is_unseen || refused == 40402) {
                    (true, _) => (200, 0),
                    (false, true) => (404, 40402),
                    (false, false) => (403, 40303),
                };
                assert_eq!(answer.number(), expected, "{who}, {path}, {name}: {}", answer.text);
            }
        }
        for name in strange {
            for (path, answer) in asked(api, name).await {
                assert!(matches!(answer.status, 400 | 404), "{who}, {path}, {name:?}: {}", answer.text);
            }
        }
    }
    // Nothing tells a hidden model from none.
    let mut answers = Vec::new();
    for name in ["hidden", "nowhere"] {
        let all = asked(&outsider, name).await;
        answers.push(all.iter().map(|(_, answer)| answer.text.replace(name, "NAME")).collect::<Vec<_>>());
    }
    assert_eq!(answers[0], answers[1]);
}

/// What one gets who asks for a model by a name, wherever one can.
async fn asked(api: &Api<'_>, name: &str) -> Vec<(&'static str, Answer)> {
    let body = json!({"model": name, "messages": [{"role": "user", "content": "x"}], "max_tokens": 1});
    let prompt = json!({"model": name, "prompt": "x", "max_tokens": 1});
    let mut answers = vec![
        ("/v1/chat/completions", api.post("/v1/chat/completions", body.clone()).await),
        ("/chat/completions", api.post("/chat/completions", body).await),
        ("/v1/completions", api.post("/v1/completions", prompt).await),
    ];
    if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') && !name.is_empty() {
        answers.push(("/v1/models/{id}", api.get(&format!("/v1/models/{name}")).await));
    }
    answers
}

/// A million users, and a search made of wildcards: they are ordinary characters, and what is looked at is bounded.
#[tokio::test]
async fn b10_a_search_of_wildcards_over_a_million_rows_is_quick() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    const COLUMNS: &str = "INSERT INTO users (id, username, display_name, email, role, status, password_hash, \
        must_change_password, token_version, created_at, updated_at)";
    let row = "'usr_' || n, 'u' || n, CASE n WHEN 999999 THEN 'a%%%%_b' ELSE 'Somebody %%% ' || n END, \
        'u' || n || '@example.com', 'user', 'active', '', FALSE, 0, 1700000000000 + n, 1700000000000 + n";
    if app.database_url.starts_with("sqlite") {
        let numbers =
            "WITH RECURSIVE numbers(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < 999999)";
        execute(&app, &format!("{numbers} {COLUMNS} SELECT {row} FROM numbers")).await;
        execute(&app, "ANALYZE").await;
    } else {
        execute(&app, &format!("{COLUMNS} SELECT {row} FROM generate_series(0, 999999) AS numbers(n)")).await;
        execute(&app, "ANALYZE users").await;
    }
    let found = |answer: &Answer| -> Vec<String> {
        let items = answer.data()["items"].clone();
        items.as_array().expect("items").iter().map(|user| text(user, "display_name")).collect()
    };
    // The newest row is the one that has these very characters, the first user of all aside.
    let search = "search=%25%25%25%25_";
    let answer = owner.get(&format!("/admin/users?{search}")).await;
    assert_eq!(found(&answer), ["a%%%%_b"]);
    assert!(answer.data()["next_cursor"].is_string(), "not all was looked at");
    for query in
        [search, "search=zzz%25_", "search=%27", "sort=username", "limit=100", "search=u999&sort=updated_at"]
    {
        let mut best = u128::MAX;
        for _ in 0..5 {
            let begun = Instant::now();
            assert_eq!(owner.get(&format!("/admin/users?{query}")).await.status, 200);
            best = best.min(begun.elapsed().as_millis());
        }
        assert!(best < 100, "{query}: {best} ms");
    }
    // It goes on from where it ended.
    let (mut cursor, mut pages, mut all) = (String::new(), 0, Vec::new());
    loop {
        let page = owner.get(&format!("/admin/users?search=u77777{cursor}&sort=created_at")).await;
        all.extend(found(&page));
        pages += 1;
        let Some(next) = page.data()["next_cursor"].as_str().map(str::to_owned) else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(all.len(), 11, "u77777 and u777770 to u777779");
    assert_eq!(pages, 51, "a million and one, twenty thousand at a time");
}
