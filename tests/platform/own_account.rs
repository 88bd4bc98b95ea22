//! One's own password and one's own sessions.

use reqwest::Method;
use sconce::store::JsonText;
use serde_json::{Value, json};

use crate::app::{KEY, OWNER, OWNER_PASSWORD, TestApp};
use crate::rig::{
    ME, add_key, add_user, audited, get, number, post, refresh, request, send, sign_in, sign_in_from, start,
};

const PASSWORD: &str = "/api/v1/me/password";
const SESSIONS: &str = "/api/v1/me/sessions";
const NEW: &str = "velvet-anchor-sundial-7";

fn to(current: &str, new: &str) -> Value {
    json!({"current_password": current, "new_password": new})
}

#[tokio::test]
async fn a_new_password_counts_at_once_and_the_old_one_no_more() {
    let app = TestApp::start().await.without_key();
    let (token, _) = sign_in(&app, OWNER).await;
    let reply = post(&app, PASSWORD, &token, &to(OWNER_PASSWORD, NEW)).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert_eq!(sign_in_from(&app, None, OWNER, OWNER_PASSWORD).await.is(), (401, 40102));
    assert_eq!(sign_in_from(&app, None, OWNER, NEW).await.status, 200);
    assert_eq!(audited(&app, "user.password_change").await, 1);
    for secret in [OWNER_PASSWORD, NEW, "argon2"] {
        let shown =
            format!("SELECT COUNT(*) FROM audit WHERE after LIKE '%{secret}%' OR before LIKE '%{secret}%'");
        assert_eq!(number(&app, &shown).await, 0, "{secret}");
    }
}

#[tokio::test]
async fn the_present_password_is_asked_for_and_cannot_be_guessed_with_a_stolen_token() {
    let app = TestApp::start_by(&[], start()).await.without_key();
    let (token, _) = sign_in(&app, OWNER).await;
    let mut answers = Vec::new();
    for _ in 0..8 {
        answers.push(post(&app, PASSWORD, &token, &to("not-the-password", NEW)).await.is());
    }
    assert_eq!(answers[..5], [(401, 40102); 5]);
    assert_eq!(answers[5..], [(429, 42904); 3]);
    assert_eq!(post(&app, PASSWORD, &token, &to(OWNER_PASSWORD, NEW)).await.is(), (429, 42904));
    let refused = "SELECT COUNT(*) FROM audit WHERE action = 'user.password_change' AND outcome = 'refused'";
    assert_eq!(number(&app, refused).await, 5);
    assert_eq!(get(&app, ME, &token).await.status, 200, "nothing happened to the session");
}

#[tokio::test]
async fn the_same_password_is_not_a_new_one_and_unknown_fields_are_refused() {
    let app = TestApp::start().await.without_key();
    let (token, _) = sign_in(&app, OWNER).await;
    assert_eq!(post(&app, PASSWORD, &token, &to(OWNER_PASSWORD, OWNER_PASSWORD)).await.is(), (400, 40016));
    let mut body = to(OWNER_PASSWORD, NEW);
    body["role"] = json!("owner");
    assert_eq!(post(&app, PASSWORD, &token, &body).await.is(), (400, 40004));
    assert_eq!(post(&app, PASSWORD, &token, &json!({"new_password": NEW})).await.is(), (400, 40015));
    assert_eq!(sign_in_from(&app, None, OWNER, OWNER_PASSWORD).await.status, 200, "nothing changed");
}

#[tokio::test]
async fn a_key_may_change_the_password_if_its_scope_says_so_and_gets_no_session() {
    let app = TestApp::start().await.without_key();
    let ada = add_user(&app, "ada", "user", |_| {}).await;
    let (access, refresh_token) = sign_in(&app, "ada").await;
    let inference = add_key(&app, &ada, |_| {}).await;
    assert_eq!(post(&app, PASSWORD, inference.reveal(), &to(OWNER_PASSWORD, NEW)).await.is(), (403, 40302));
    assert_eq!(post(&app, PASSWORD, KEY, &to(OWNER_PASSWORD, NEW)).await.is(), (403, 40301));
    let account = add_key(&app, &ada, |row| row.scopes = JsonText(vec!["account".into()])).await;
    let reply = post(&app, PASSWORD, account.reveal(), &to(OWNER_PASSWORD, NEW)).await;
    assert_eq!((reply.status, &reply.body["data"]), (200, &Value::Null), "{}", reply.body);
    assert_eq!(get(&app, ME, &access).await.is(), (401, 40104), "all sessions end");
    assert_eq!(refresh(&app, &refresh_token).await.is(), (401, 40105));
    assert_eq!(get(&app, ME, account.reveal()).await.status, 200, "keys go on");
}

#[tokio::test]
async fn one_sees_ones_own_sessions_and_ends_them() {
    let app = TestApp::start().await.without_key();
    add_user(&app, "ada", "user", |_| {}).await;
    let (owner, _) = sign_in(&app, OWNER).await;
    let (first, first_refresh) = sign_in(&app, "ada").await;
    let (second, _) = sign_in(&app, "ada").await;
    let list = get(&app, SESSIONS, &second).await;
    let items = list.body["data"]["items"].as_array().expect("a list").clone();
    assert_eq!((items.len(), &list.body["data"]["next_cursor"]), (2, &Value::Null), "{}", list.body);
    let current: Vec<_> = items.iter().map(|item| item["current"].as_bool().expect("a fact")).collect();
    assert_eq!(current, [true, false], "the newest first");
    assert_eq!(items[1]["address"], "127.0.0.1");
    let names: Vec<_> = items[0].as_object().expect("an object").keys().map(String::as_str).collect();
    let expected =
        ["id", "user_id", "address", "user_agent", "created_at", "last_used_at", "expires_at", "current"];
    assert_eq!(names, expected);

    let id = items[1]["id"].as_str().expect("an id");
    let end = |token: &str, id: &str| {
        send(request(&app, Method::DELETE, &format!("{SESSIONS}/{id}"), token, &Value::Null))
    };
    let (theirs, unknown) = (end(&owner, id).await, end(&owner, "ses_0").await);
    assert_eq!((theirs.is(), &theirs.body), ((404, 40401), &unknown.body), "not yours is not there");
    let ended = end(&second, id).await;
    assert_eq!((ended.status, &ended.body), (200, &json!({"code": 0, "message": "Success", "data": null})));
    assert_eq!(get(&app, ME, &first).await.is(), (401, 40104));
    assert_eq!(refresh(&app, &first_refresh).await.is(), (401, 40105));
    assert_eq!(end(&second, id).await.is(), (404, 40401), "once");
    assert_eq!(audited(&app, "session.revoke").await, 1);
    let own = items[0]["id"].as_str().expect("an id");
    assert_eq!(end(&second, own).await.status, 200, "also the one that asks");
    assert_eq!(get(&app, ME, &second).await.is(), (401, 40104));
}

#[tokio::test]
async fn the_list_of_sessions_pages_and_takes_nothing_it_does_not_know() {
    let app = TestApp::start().await.without_key();
    let mut token = String::new();
    for _ in 0..5 {
        token = sign_in(&app, OWNER).await.0;
    }
    let mut seen = Vec::new();
    let mut path = format!("{SESSIONS}?limit=2&sort=created_at");
    loop {
        let page = get(&app, &path, &token).await;
        let items = page.body["data"]["items"].as_array().expect("a list").clone();
        seen.extend(items.iter().map(|item| item["id"].as_str().expect("an id").to_owned()));
        let Some(next) = page.body["data"]["next_cursor"].as_str() else { break };
        path = format!("{SESSIONS}?limit=2&sort=created_at&cursor={next}");
    }
    let mut sorted = seen.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!((seen.len(), &sorted), (5, &seen), "each once, the oldest first");
    for wrong in ["limit=0", "limit=101", "sort=address", "cursor=x", "user_id=usr_1", "limit=-1"] {
        assert_eq!(get(&app, &format!("{SESSIONS}?{wrong}"), &token).await.is(), (400, 40003), "{wrong}");
    }
    let auditors = add_user(&app, "eve", "auditor", |_| {}).await;
    let key = add_key(&app, &auditors, |_| {}).await;
    assert_eq!(get(&app, SESSIONS, key.reveal()).await.is(), (403, 40302));
}
