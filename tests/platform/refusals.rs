//! Refusals in the audit: each is counted, none can be used to keep the database busy.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::api::Api;
use crate::app::{CHAT, TestApp, chat, with};
use crate::rig::{number, store};

/// All rows of refusals, oldest first.
async fn refused(owner: &Api<'_>) -> Vec<Value> {
    let page = owner.get("/admin/audit?limit=100&action=access.refused").await.data();
    let mut rows = page["items"].as_array().expect("rows").clone();
    rows.reverse();
    rows
}

#[tokio::test]
async fn the_first_refusal_is_a_row_and_those_that_follow_are_one_more() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    let (_, user) = owner.colleague("ada", "user").await;
    let (key_id, by_key) = user.own_key(json!({"name": "laptop"})).await;
    for answer in join_all((0..40).map(|_| by_key.get("/admin/users"))).await {
        assert_eq!(answer.refusal(), (403, 40301));
    }
    let rows = refused(&owner).await;
    assert_eq!(rows.len(), 1, "{rows:#?}");
    let first = &rows[0];
    assert_eq!((&first["actor_id"], &first["outcome"]), (&json!(key_id), &json!("refused")));
    assert_eq!((&first["target_kind"], &first["target_id"]), (&json!("permission"), &json!("users:read")));
    assert_eq!(first["after"], json!({"code": 40301, "request": "GET /api/v1/admin/users"}));

    // Another deed, and somebody else's, are others.
    assert_eq!(by_key.get("/admin/teams").await.refusal(), (403, 40301));
    assert_eq!(user.get("/admin/users").await.refusal(), (403, 40301));
    assert_eq!(refused(&owner).await.len(), 3);

    app.auth.write_refusals().await.expect("the database is there");
    let rows = refused(&owner).await;
    assert_eq!(rows.len(), 4, "{rows:#?}");
    let folded = &rows[3];
    assert_eq!((&folded["actor_id"], &folded["after"]["count"]), (&json!(key_id), &json!(39)));
    assert_eq!(folded["after"]["request"], "GET /api/v1/admin/users");
    assert_eq!(by_key.get("/admin/users").await.refusal(), (403, 40301));
    assert_eq!(refused(&owner).await.len(), 5, "it is the first again");
    assert!(owner.get("/admin/audit/verify").await.status < 500);
}

#[tokio::test]
async fn a_refusal_is_one_though_nobody_can_write_and_is_not_lost() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    let (_, user) = owner.colleague("ada", "user").await;
    let other = store(&app).await;
    let turn = other.write().await.expect("the turn is free");
    for answer in join_all((0..30).map(|_| user.get("/admin/users"))).await {
        assert_eq!(answer.refusal(), (403, 40301));
    }
    drop(turn);
    app.auth.write_refusals().await.expect("the database is there");
    let rows = refused(&owner).await;
    let count: u64 = rows.iter().map(|row| row["after"]["count"].as_u64().unwrap_or(1)).sum();
    assert_eq!(count, 30, "{rows:#?}");
}

#[tokio::test]
async fn what_was_counted_is_written_at_the_end() {
    let mut app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    let (_, user) = owner.colleague("ada", "user").await;
    for _ in 0..3 {
        assert_eq!(user.get("/admin/users").await.refusal(), (403, 40301));
    }
    assert_eq!(Api::showing(&app, "sk-sconce-wrong").get("/me").await.refusal(), (401, 40001));
    drop((owner, user));
    app.shutdown.drain();
    app.ended().await.expect("a good end");
    let rows = number(&app, "SELECT COUNT(*) FROM audit WHERE action = 'access.refused'").await;
    assert_eq!(rows, 3);
}

#[tokio::test]
async fn whatever_somebody_known_is_refused_is_written_with_what_they_tried() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    let (_, admin) = owner.colleague("some-admin", "admin").await;
    let (id, user) = owner.colleague("ada", "user").await;
    let key = async |more: Value| {
        let mut new = more;
        new["name"] = json!("a");
        owner.own_key(new).await
    };
    let (disabled_id, disabled) = key(json!({"status": "disabled"})).await;
    let (_, elsewhere) = key(json!({"cidrs": ["203.0.113.0/24"]})).await;
    let (_, narrow) = key(json!({"models": ["another"]})).await;
    let own = owner.get("/me").await.data()["id"].as_str().expect("an id").to_owned();
    owner.put(&format!("/admin/users/{id}"), json!({"must_change_password": true})).await.data();

    assert_eq!(disabled.get("/me").await.refusal(), (401, 40108));
    assert_eq!(elsewhere.post("/chat/completions", chat("x")).await.refusal(), (403, 40304));
    assert_eq!(narrow.post("/chat/completions", chat("x")).await.refusal(), (403, 40303));
    assert_eq!(user.get("/me/keys").await.refusal(), (403, 40307));
    let last = owner.delete(&format!("/admin/users/{own}")).await;
    assert_eq!(last.refusal(), (409, 40902));
    let edit = admin.put(&format!("/admin/users/{own}"), json!({"display_name": "x"})).await;
    assert_eq!(edit.refusal(), (403, 40301));
    assert_eq!(admin.delete(&format!("/admin/users/{own}")).await.refusal(), (403, 40301));

    let rows = refused(&owner).await;
    let said: Vec<_> = rows
        .iter()
        .map(|row| (row["target_kind"].clone(), row["target_id"].clone(), row["after"].clone()))
        .collect();
    let row = |kind: &str, id: &str, code: u32, request: &str| {
        (json!(kind), json!(id), json!({"code": code, "request": request}))
    };
    assert_eq!(said[0], row("credential", &disabled_id, 40108, "GET /api/v1/me"));
    assert_eq!((&said[1].0, &said[1].2["code"]), (&json!("credential"), &json!(40304)));
    assert_eq!(said[2], row("model", CHAT, 40303, "POST /api/v1/chat/completions"));
    assert_eq!(said[3], row("permission", "account", 40307, "GET /api/v1/me/keys"));
    assert_eq!(said[4], row("user", &own, 40902, "DELETE /api/v1/admin/users/{userId}"));
    assert_eq!(said[5], row("user", &own, 40301, "PUT /api/v1/admin/users/{userId}"));
    assert_eq!(said[6], row("user", &own, 40301, "DELETE /api/v1/admin/users/{userId}"));
    assert_eq!(said.len(), 7);
    assert!(rows.iter().all(|row| row["actor_id"].is_string() && row["outcome"] == "refused"), "{rows:#?}");
}

#[tokio::test]
async fn strangers_are_counted_by_address_and_code() {
    let proxied = [("trusted-proxy", "127.0.0.0/8")];
    let app = TestApp::start_with(&proxied).await.without_key();
    let owner = Api::owner(&app).await;
    let knock = async |address: &str, token: &str| {
        let request = app.client.get(format!("{}/api/v1/me", app.url)).bearer_auth(token);
        let response = request.header("x-forwarded-for", address).send().await.expect("an answer");
        response.status().as_u16()
    };
    for number in 0..20 {
        assert_eq!(knock("203.0.113.5", &format!("sk-sconce-{number}")).await, 401);
        assert_eq!(knock(&format!("2001:db8::{number}"), "sk-sconce-a").await, 401);
    }
    assert_eq!(knock("203.0.113.6", "sk-sconce-a").await, 401);
    assert_eq!(knock("203.0.113.5", "a.b.c").await, 401);
    let bad = with(json!({}), "refresh_token", "rt-wrong");
    assert_eq!(Api::nobody(&app).post("/auth/refresh", bad).await.refusal(), (401, 40105));
    assert!(refused(&owner).await.is_empty(), "nobody fills the audit by guessing");
    app.auth.write_refusals().await.expect("the database is there");
    let mut said: Vec<_> = refused(&owner)
        .await
        .iter()
        .map(|row| {
            assert_eq!(
                (&row["actor_kind"], &row["target_kind"]),
                (&json!("anonymous"), &json!("credential"))
            );
            let address = row["address"].as_str().expect("a text").to_owned();
            (address, row["after"]["code"].as_u64(), row["after"]["count"].as_u64())
        })
        .collect();
    said.sort();
    let row = |address: &str, code, count| (address.to_owned(), Some(code), Some(count));
    assert_eq!(
        said,
        [
            row("127.0.0.1", 40105, 1),
            row("2001:db8::", 40001, 20),
            row("203.0.113.5", 40001, 20),
            row("203.0.113.5", 40104, 1),
            row("203.0.113.6", 40001, 1),
        ]
    );
}
