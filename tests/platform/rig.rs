//! What tests of the platform begin with: sign-ins, users of any role, a second replica, a look into the database.
#![allow(dead_code, reason = "each module uses its own part")]

use std::sync::atomic::{AtomicU64, Ordering};

use reqwest::{Method, RequestBuilder, Response};
use sconce::auth::{Auth, AuthError, Caller, PlainKey, new_id};
use sconce::clock::{Clock, Timestamp};
use sconce::config::{Config, Environment, RawConfig};
use sconce::store::api_keys::ApiKeyRow;
use sconce::store::users::UserRow;
use sconce::store::{JsonText, Store, api_keys, revisions, users};
use secrecy::SecretString;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};

use crate::app::{OWNER, OWNER_PASSWORD, TestApp};

pub const LOGIN: &str = "/api/v1/auth/login";
pub const REFRESH: &str = "/api/v1/auth/refresh";
pub const LOGOUT: &str = "/api/v1/auth/logout";
pub const ME: &str = "/api/v1/me";

/// A moment to begin at, for clocks that are moved by hand.
pub fn start() -> Clock {
    Clock::manual(Timestamp::from_millis(1_900_000_000_000))
}

/// An answer, read.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    /// The envelope's number; on `/v1` that of `x-error-code`.
    pub code: u64,
    pub body: Value,
    pub retry_after: Option<u64>,
}

impl Reply {
    pub async fn of(response: Response) -> Self {
        let status = response.status().as_u16();
        let number = |name: &str| response.headers().get(name)?.to_str().ok()?.parse::<u64>().ok();
        let (retry_after, code) = (number("retry-after"), number("x-error-code"));
        let text = response.text().await.expect("it is text");
        let body: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status}: no JSON: {text}"));
        assert!(status < 500, "{body}");
        let code = body["code"].as_u64().or(code).unwrap_or_default();
        Self { status, code, body, retry_after }
    }

    /// Status and number.
    pub fn is(&self) -> (u16, u64) {
        (self.status, self.code)
    }

    /// A text of the data.
    pub fn text(&self, name: &str) -> String {
        let text = self.body["data"][name].as_str();
        text.unwrap_or_else(|| panic!("no `{name}`: {}", self.body)).to_owned()
    }
}

/// Sends, and reads the answer.
pub async fn send(request: RequestBuilder) -> Reply {
    Reply::of(request.send().await.expect("the server answers")).await
}

/// A request with a credential and, unless it is null, a body.
pub fn request(app: &TestApp, method: Method, path: &str, token: &str, body: &Value) -> RequestBuilder {
    let request = app.client.request(method, format!("{}{path}", app.url)).bearer_auth(token);
    if body.is_null() { request } else { request.json(body) }
}

/// Gets, with a credential.
pub async fn get(app: &TestApp, path: &str, token: &str) -> Reply {
    send(request(app, Method::GET, path, token, &Value::Null)).await
}

/// Posts, with a credential.
pub async fn post(app: &TestApp, path: &str, token: &str, body: &Value) -> Reply {
    send(request(app, Method::POST, path, token, body)).await
}

/// Posts without a credential, from where a proxy says; none: from here.
pub async fn post_from(app: &TestApp, address: Option<&str>, path: &str, body: &Value) -> Reply {
    let request = app.client.post(format!("{}{path}", app.url)).json(body);
    send(match address {
        Some(address) => request.header("x-forwarded-for", address),
        None => request,
    })
    .await
}

/// Tries to sign in, from where a proxy says.
pub async fn sign_in_from(app: &TestApp, address: Option<&str>, username: &str, password: &str) -> Reply {
    post_from(app, address, LOGIN, &json!({"username": username, "password": password})).await
}

/// Signs in; gives access token and refresh token.
pub async fn sign_in(app: &TestApp, username: &str) -> (String, String) {
    let reply = sign_in_from(app, None, username, OWNER_PASSWORD).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    (reply.text("access_token"), reply.text("refresh_token"))
}

/// Exchanges a refresh token.
pub async fn refresh(app: &TestApp, token: &str) -> Reply {
    post_from(app, None, REFRESH, &json!({"refresh_token": token})).await
}

/// The same database, as another process sees it.
pub async fn store(app: &TestApp) -> Store {
    Store::open(&SecretString::from(app.database_url.clone())).await.expect("the database is there")
}

/// A second replica's doorkeeper. Learns of changes only if its `watch` is run.
pub async fn replica(app: &TestApp) -> Auth {
    let home = [("HOME".to_owned(), "/nonexistent".to_owned())];
    let config = Config::load_from(RawConfig::default(), &home.into_iter().collect::<Environment>());
    let config = config.expect("the defaults are right");
    Auth::open(store(app).await, app.auth.clock().clone(), config.auth).await.expect("it opens")
}

/// Adds a user with the owner's password, changed as said; gives the id.
pub async fn add_user(
    app: &TestApp,
    username: &str,
    role: &str,
    change: impl FnOnce(&mut UserRow),
) -> String {
    let mut tx = store(app).await.write().await.expect("it writes");
    let owner = users::find_by_username(&mut tx, OWNER).await.expect("it reads").expect("the owner is there");
    let mut user = UserRow {
        id: new_id("usr"),
        username: username.to_owned(),
        display_name: username.to_owned(),
        role: role.to_owned(),
        last_login_at: None,
        ..owner
    };
    change(&mut user);
    users::insert(&mut tx, &user).await.expect("the name is free");
    tx.commit().await.expect("it commits");
    user.id
}

/// Adds a key of a user's that may use models, changed as said; gives it.
pub async fn add_key(app: &TestApp, user_id: &str, change: impl FnOnce(&mut ApiKeyRow)) -> PlainKey {
    let (key, now) = (PlainKey::generate(), app.auth.clock().now());
    let mut row = ApiKeyRow {
        id: new_id("key"),
        user_id: user_id.to_owned(),
        team_id: None,
        name: "test".to_owned(),
        prefix: key.prefix(),
        hash: key.hash(),
        previous_hash: None,
        previous_expires_at: None,
        scopes: JsonText(vec!["inference".to_owned()]),
        models: None,
        cidrs: None,
        status: "enabled".to_owned(),
        expires_at: None,
        created_at: now,
        created_by: user_id.to_owned(),
        updated_at: now,
        last_used_at: None,
        deleted_at: None,
    };
    change(&mut row);
    let mut tx = store(app).await.write().await.expect("it writes");
    api_keys::insert(&mut tx, &row).await.expect("it is new");
    tx.commit().await.expect("it commits");
    key
}

/// Changes the database behind the server's back, as another replica would: with the counter that tells of it.
pub async fn change(app: &TestApp, statement: &str) {
    execute(app, statement).await;
    let mut tx = store(app).await.write().await.expect("it writes");
    revisions::bump(&mut tx, revisions::AUTHORITY).await.expect("it counts");
    tx.commit().await.expect("it commits");
}

/// Runs a statement behind the server's back.
pub async fn execute(app: &TestApp, statement: &str) {
    let statement = AssertSqlSafe(statement.to_owned());
    if app.database_url.starts_with("sqlite") {
        let mut connection = SqliteConnection::connect(&app.database_url).await.expect("it connects");
        sqlx::query(statement).execute(&mut connection).await.expect("it runs");
    } else {
        let mut connection = PgConnection::connect(&app.database_url).await.expect("it connects");
        sqlx::query(statement).execute(&mut connection).await.expect("it runs");
    }
}

/// One number out of the database.
pub async fn number(app: &TestApp, query: &str) -> i64 {
    let query = AssertSqlSafe(query.to_owned());
    if app.database_url.starts_with("sqlite") {
        let mut connection = SqliteConnection::connect(&app.database_url).await.expect("it connects");
        sqlx::query_scalar(query).fetch_one(&mut connection).await.expect("it runs")
    } else {
        let mut connection = PgConnection::connect(&app.database_url).await.expect("it connects");
        sqlx::query_scalar(query).fetch_one(&mut connection).await.expect("it runs")
    }
}

/// One text out of the database.
pub async fn text(app: &TestApp, query: &str) -> String {
    let query = AssertSqlSafe(query.to_owned());
    if app.database_url.starts_with("sqlite") {
        let mut connection = SqliteConnection::connect(&app.database_url).await.expect("it connects");
        sqlx::query_scalar(query).fetch_one(&mut connection).await.expect("it runs")
    } else {
        let mut connection = PgConnection::connect(&app.database_url).await.expect("it connects");
        sqlx::query_scalar(query).fetch_one(&mut connection).await.expect("it runs")
    }
}

/// How many rows of the audit are of an action.
pub async fn audited(app: &TestApp, action: &str) -> i64 {
    number(app, &format!("SELECT COUNT(*) FROM audit WHERE action = '{action}'")).await
}

/// Waits until a caller's credential is no longer good, as what runs for them does; gives the reason.
pub async fn ended(caller: &Caller) -> AuthError {
    let mut changes = caller.standing().changes();
    loop {
        if let Err(reason) = caller.standing().renewed(caller).await {
            return reason;
        }
        changes.next().await;
    }
}

/// Another number each time.
pub fn unique() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
