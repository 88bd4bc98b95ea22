//! Every URL × everybody who may come: exactly which status and which code. The URLs are those that the server itself says
//! it serves, so that a new one fails here until somebody has said who may use it.
//!
//! Who may not do a thing is told so before the body is looked at: all bodies here are empty objects, all ids unknown.

use std::collections::BTreeSet;
use std::time::Duration;

use sconce::auth::PlainKey;
use sconce::clock::{Clock, Timestamp};
use sconce::http::openapi;
use serde_json::{Value, json};

use crate::api::Api;
use crate::app::{KEY, TestApp};

/// What it takes.
#[derive(Debug, Clone, Copy)]
enum Need {
    /// Nothing.
    Nothing,
    /// A good credential.
    Anybody,
    /// The same, though the password must be changed first.
    Permission(&'static str),
    /// This permission, and it is open to those who must change their password.
    OwnPassword,
    /// A session to end.
    Session,
}

use Need::{Anybody, Nothing, OwnPassword, Permission, Session};

/// Method, path, what it takes, and what those get who have it.
type Row = (&'static str, &'static str, Need, (u16, u64));

/// Nothing to complain of.
const FINE: (u16, u64) = (200, 0);
/// There is no such thing.
const UNKNOWN: (u16, u64) = (404, 40401);
const UNKNOWN_MODEL: (u16, u64) = (404, 40402);
/// The body lacks a field.
const LACKING: (u16, u64) = (400, 40015);

/// A file comes in a form.
const NO_FORM: (u16, u64) = (415, 41501);

/// What came is no opening of a WebSocket.
const NO_HANDSHAKE: (u16, u64) = (400, 40003);

/// The one URL that takes a credential elsewhere than in the header.
const STREAM: &str = "/api/v1/chat/stream";

#[rustfmt::skip]
const ROUTES: &[Row] = &[
    ("GET", "/health", Nothing, FINE),
    ("GET", "/healthz", Nothing, FINE),
    ("GET", "/health/ready", Nothing, FINE),
    ("GET", "/readyz", Nothing, FINE),
    ("GET", "/metrics", Nothing, FINE),
    ("GET", "/version", Nothing, FINE),
    ("POST", "/api/v1/auth/login", Nothing, LACKING),
    ("POST", "/api/v1/auth/refresh", Nothing, LACKING),

    ("POST", "/v1/chat/completions", Permission("inference"), LACKING),
    ("GET", "/v1/chat/completions", Permission("inference"), FINE),
    ("GET", "/v1/chat/completions/{completionId}", Permission("inference"), UNKNOWN),
    ("POST", "/v1/chat/completions/{completionId}", Permission("inference"), LACKING),
    ("DELETE", "/v1/chat/completions/{completionId}", Permission("inference"), UNKNOWN),
    ("GET", "/v1/chat/completions/{completionId}/messages", Permission("inference"), UNKNOWN),
    ("POST", "/v1/completions", Permission("inference"), LACKING),
    ("POST", "/v1/embeddings", Permission("inference"), LACKING),
    ("POST", "/v1/files", Permission("inference"), NO_FORM),
    ("GET", "/v1/files", Permission("inference"), FINE),
    ("GET", "/v1/files/{file_id}", Permission("inference"), UNKNOWN),
    ("DELETE", "/v1/files/{file_id}", Permission("inference"), UNKNOWN),
    ("GET", "/v1/files/{file_id}/content", Permission("inference"), UNKNOWN),
    ("POST", "/v1/batches", Permission("inference"), LACKING),
    ("GET", "/v1/batches", Permission("inference"), FINE),
    ("GET", "/v1/batches/{batch_id}", Permission("inference"), UNKNOWN),
    ("POST", "/v1/batches/{batch_id}/cancel", Permission("inference"), UNKNOWN),
    ("POST", "/v1/responses", Permission("inference"), LACKING),
    ("POST", "/v1/responses/input_tokens", Permission("inference"), LACKING),
    ("GET", "/v1/responses/{responseId}", Permission("inference"), UNKNOWN),
    ("DELETE", "/v1/responses/{responseId}", Permission("inference"), UNKNOWN),
    ("POST", "/v1/responses/{responseId}/cancel", Permission("inference"), UNKNOWN),
    ("GET", "/v1/responses/{responseId}/input_items", Permission("inference"), UNKNOWN),
    ("POST", "/v1/messages", Permission("inference"), LACKING),
    ("POST", "/v1/messages/count_tokens", Permission("inference"), LACKING),
    ("POST", "/api/chat", Permission("inference"), LACKING),
    ("POST", "/api/generate", Permission("inference"), LACKING),
    ("POST", "/api/embed", Permission("inference"), LACKING),
    ("POST", "/api/embeddings", Permission("inference"), LACKING),
    ("POST", "/api/show", Permission("inference"), LACKING),
    ("GET", "/api/tags", Permission("inference"), FINE),
    ("GET", "/api/ps", Permission("inference"), FINE),
    ("GET", "/api/version", Permission("inference"), FINE),
    ("GET", "/", Nothing, FINE),
    ("POST", "/v1/rerank", Permission("inference"), LACKING),
    ("POST", "/v2/rerank", Permission("inference"), LACKING),
    ("POST", "/v1/score", Permission("inference"), LACKING),
    ("POST", "/v1/tokenize", Permission("inference"), LACKING),
    ("POST", "/v1/detokenize", Permission("inference"), LACKING),
    ("POST", "/v1/chat/completions/render", Permission("inference"), LACKING),
    ("GET", "/v1/models", Permission("inference"), FINE),
    ("GET", "/v1/models/{id}", Permission("inference"), UNKNOWN_MODEL),
    ("POST", "/api/v1/chat/completions", Permission("inference"), LACKING),
    ("POST", "/api/v1/auth/ticket", Permission("inference"), FINE),
    ("GET", STREAM, Permission("inference"), NO_HANDSHAKE),

    ("GET", "/api/v1/me", Anybody, FINE),
    ("POST", "/api/v1/me/password", OwnPassword, LACKING),
    ("GET", "/api/v1/me/keys", Permission("account"), FINE),
    ("POST", "/api/v1/me/keys", Permission("account"), LACKING),
    ("PUT", "/api/v1/me/keys/{keyId}", Permission("account"), UNKNOWN),
    ("DELETE", "/api/v1/me/keys/{keyId}", Permission("account"), UNKNOWN),
    ("POST", "/api/v1/me/keys/{keyId}/rotate", Permission("account"), UNKNOWN),
    ("GET", "/api/v1/me/sessions", Permission("account"), FINE),
    ("DELETE", "/api/v1/me/sessions/{sessionId}", Permission("account"), UNKNOWN),
    ("GET", "/api/v1/me/usage", Permission("account"), FINE),
    ("GET", "/api/v1/me/usage/totals", Permission("account"), FINE),

    ("GET", "/api/v1/admin/users", Permission("users:read"), FINE),
    ("POST", "/api/v1/admin/users", Permission("users:manage"), LACKING),
    ("GET", "/api/v1/admin/users/{userId}", Permission("users:read"), UNKNOWN),
    ("PUT", "/api/v1/admin/users/{userId}", Permission("users:manage"), UNKNOWN),
    ("DELETE", "/api/v1/admin/users/{userId}", Permission("users:manage"), UNKNOWN),
    ("GET", "/api/v1/admin/users/{userId}/sessions", Permission("users:read"), UNKNOWN),
    ("DELETE", "/api/v1/admin/users/{userId}/sessions", Permission("users:manage"), UNKNOWN),
    ("DELETE", "/api/v1/admin/users/{userId}/sessions/{sessionId}", Permission("users:manage"), UNKNOWN),

    ("GET", "/api/v1/admin/keys", Permission("keys:read"), FINE),
    ("POST", "/api/v1/admin/keys", Permission("keys:manage"), LACKING),
    ("GET", "/api/v1/admin/keys/{keyId}", Permission("keys:read"), UNKNOWN),
    ("PUT", "/api/v1/admin/keys/{keyId}", Permission("keys:manage"), UNKNOWN),
    ("DELETE", "/api/v1/admin/keys/{keyId}", Permission("keys:manage"), UNKNOWN),
    ("POST", "/api/v1/admin/keys/{keyId}/rotate", Permission("keys:manage"), UNKNOWN),

    ("GET", "/api/v1/admin/teams", Permission("teams:read"), FINE),
    ("POST", "/api/v1/admin/teams", Permission("teams:manage"), LACKING),
    ("GET", "/api/v1/admin/teams/{teamId}", Permission("teams:read"), UNKNOWN),
    ("PUT", "/api/v1/admin/teams/{teamId}", Permission("teams:manage"), UNKNOWN),
    ("DELETE", "/api/v1/admin/teams/{teamId}", Permission("teams:manage"), UNKNOWN),
    ("GET", "/api/v1/admin/teams/{teamId}/members", Permission("teams:read"), UNKNOWN),
    ("PUT", "/api/v1/admin/teams/{teamId}/members/{userId}", Permission("teams:manage"), UNKNOWN),
    ("DELETE", "/api/v1/admin/teams/{teamId}/members/{userId}", Permission("teams:manage"), UNKNOWN),

    ("GET", "/api/v1/admin/models", Permission("models:read"), FINE),
    ("POST", "/api/v1/admin/models", Permission("models:manage"), LACKING),
    ("GET", "/api/v1/admin/models/{modelId}", Permission("models:read"), UNKNOWN_MODEL),
    ("PUT", "/api/v1/admin/models/{modelId}", Permission("models:manage"), UNKNOWN_MODEL),
    ("DELETE", "/api/v1/admin/models/{modelId}", Permission("models:manage"), UNKNOWN),
    ("POST", "/api/v1/admin/models/{modelId}/load", Permission("models:manage"), UNKNOWN_MODEL),
    ("POST", "/api/v1/admin/models/{modelId}/unload", Permission("models:manage"), UNKNOWN_MODEL),
    ("POST", "/api/v1/admin/models/{modelId}/pull", Permission("models:manage"), UNKNOWN_MODEL),

    ("GET", "/api/v1/admin/usage", Permission("usage:read"), FINE),
    ("GET", "/api/v1/admin/usage/totals", Permission("usage:read"), FINE),
    ("GET", "/api/v1/admin/usage/export", Permission("usage:read"), FINE),
    ("GET", "/api/v1/admin/audit", Permission("audit:read"), FINE),
    ("GET", "/api/v1/admin/audit/verify", Permission("audit:read"), FINE),
    ("GET", "/api/v1/admin/settings", Permission("settings:read"), FINE),
    ("POST", "/api/v1/admin/signing-keys/rotate", Permission("owner"), FINE),

    // The last, since it ends the session.
    ("POST", "/api/v1/auth/logout", Session, FINE),
];

/// What needs no credential, beside the description: said a second time, so that nobody makes a URL public by a slip in
/// the table above.
const PUBLIC: [&str; 9] = [
    "/",
    "/health",
    "/healthz",
    "/health/ready",
    "/readyz",
    "/metrics",
    "/version",
    "/api/v1/auth/login",
    "/api/v1/auth/refresh",
];

const DESCRIPTION: [&str; 10] = [
    "/api/v1/docs",
    "/api/v1/docs/",
    "/api/v1/docs/favicon-32x32.png",
    "/api/v1/docs/page.css",
    "/api/v1/docs/page.js",
    "/api/v1/docs/swagger-ui-bundle.js",
    "/api/v1/docs/swagger-ui.css",
    "/api/v1/openapi-3.1.json",
    "/api/v1/openapi.json",
    "/docs",
];

/// What each role may do.
const ROLES: [(&str, &[&str]); 5] = [
    ("owner", &SCOPES),
    (
        "admin",
        &[
            "inference",
            "account",
            "models:read",
            "models:manage",
            "users:read",
            "users:manage",
            "keys:read",
            "keys:manage",
            "teams:read",
            "teams:manage",
            "usage:read",
            "audit:read",
            "settings:read",
        ],
    ),
    ("operator", &["inference", "account", "models:read", "models:manage", "usage:read", "settings:read"]),
    (
        "auditor",
        &[
            "account",
            "models:read",
            "users:read",
            "keys:read",
            "teams:read",
            "usage:read",
            "audit:read",
            "settings:read",
        ],
    ),
    ("user", &["inference", "account"]),
];

const SCOPES: [&str; 14] = [
    "inference",
    "account",
    "models:read",
    "models:manage",
    "users:read",
    "users:manage",
    "keys:read",
    "keys:manage",
    "teams:read",
    "teams:manage",
    "usage:read",
    "audit:read",
    "settings:read",
    "owner",
];

/// What somebody's credential is worth.
#[derive(Debug, Clone)]
enum Worth {
    /// Nothing: 401 with this code.
    Refused(u64),
    /// A session of a user who may do this.
    Session(Vec<&'static str>),
    /// A key of an owner with this scope.
    Key(&'static str),
    /// The key from the configuration.
    Configured,
    /// A session of an owner who must change the password first.
    MustChange,
}

struct Actor<'a> {
    name: String,
    api: Api<'a>,
    worth: Worth,
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_else(|| panic!("no `{name}`: {value}")).to_owned()
}

/// Everybody who may come. The clock is moved by hand.
async fn actors(app: &TestApp) -> Vec<Actor<'_>> {
    let owner = Api::owner(app).await;
    let mut all: Vec<Actor<'_>> = Vec::new();
    let mut add = |name: &str, api: Api<'_>, worth| {
        let api = Api::showing(app, api.token);
        all.push(Actor { name: name.to_owned(), api, worth });
    };
    add("nobody", Api::nobody(app), Worth::Refused(40101));
    add("nonsense", Api::showing(app, "nonsense"), Worth::Refused(40001));
    add("a key that nobody made", Api::showing(app, PlainKey::generate().reveal()), Worth::Refused(40001));
    add("the configured key", Api::showing(app, KEY), Worth::Configured);

    let moment = app.auth.clock().now().after(Duration::from_secs(60));
    let (id, disabled) = owner.own_key(json!({"name": "disabled", "scopes": SCOPES})).await;
    owner.put(&format!("/me/keys/{id}"), json!({"status": "disabled"})).await.data();
    let expiring = json!({"name": "expired", "scopes": SCOPES, "expires_at": moment});
    let (_, expired) = owner.own_key(expiring).await;
    let (id, deleted) = owner.own_key(json!({"name": "deleted", "scopes": SCOPES})).await;
    owner.delete(&format!("/me/keys/{id}")).await.data();
    app.auth.clock().advance(Duration::from_secs(61));
    add("a disabled key", disabled, Worth::Refused(40108));
    add("an expired key", expired, Worth::Refused(40107));
    add("a deleted key", deleted, Worth::Refused(40001));

    let (id, disabled) = owner.colleague("disabled", "admin").await;
    let (_, key_of_disabled) = disabled.own_key(json!({"name": "a"})).await;
    owner.put(&format!("/admin/users/{id}"), json!({"status": "disabled"})).await.data();
    add("a disabled user", disabled, Worth::Refused(40104));
    add("a disabled user's key", key_of_disabled, Worth::Refused(40108));
    let (id, deleted) = owner.colleague("deleted", "admin").await;
    let (_, key_of_deleted) = deleted.own_key(json!({"name": "a"})).await;
    owner.delete(&format!("/admin/users/{id}")).await.data();
    add("a deleted user", deleted, Worth::Refused(40104));
    add("a deleted user's key", key_of_deleted, Worth::Refused(40001));
    let (_, signed_out) = owner.colleague("away", "owner").await;
    signed_out.post("/auth/logout", json!({})).await.data();
    add("a user who signed out", signed_out, Worth::Refused(40104));

    let made = owner.post("/admin/users", json!({"username": "new", "role": "owner"})).await.data();
    let new = Api::showing(app, app.sign_in("new", &text(&made, "password")).await);
    add("an owner with a made password", new, Worth::MustChange);
    for scope in SCOPES {
        let (_, key) = owner.own_key(json!({"name": scope, "scopes": [scope]})).await;
        add(&format!("an owner's key for {scope}"), key, Worth::Key(scope));
    }
    for (role, permissions) in ROLES {
        let (_, user) = owner.colleague(&format!("some-{role}"), role).await;
        add(role, user, Worth::Session(permissions.to_vec()));
    }
    all
}

/// What somebody must get.
fn expected(route: &Row, worth: &Worth) -> (u16, u64) {
    let (_, _, need, allowed) = *route;
    let (has, missing): (&dyn Fn(&str) -> bool, u64) = match worth {
        _ if matches!(need, Nothing) => return allowed,
        Worth::Refused(code) => return (401, *code),
        Worth::MustChange => {
            let open = matches!(need, Anybody | OwnPassword | Session);
            return if open { allowed } else { (403, 40307) };
        }
        Worth::Session(permissions) => (&|permission| permissions.contains(&permission), 40301),
        Worth::Key(scope) => (&|permission| permission == *scope, 40302),
        Worth::Configured => (&|permission| permission == "inference", 40301),
    };
    match need {
        Permission(permission) if !has(permission) => (403, missing),
        OwnPassword if !has("account") => (403, missing),
        Session if !matches!(worth, Worth::Session(_)) => (409, 40902),
        _ => allowed,
    }
}

/// The path with ids that nothing has.
pub fn filled(path: &str) -> String {
    let fill = |segment: &str| match segment.starts_with('{') {
        true => "none".to_owned(),
        false => segment.to_owned(),
    };
    path.split('/').map(fill).collect::<Vec<_>>().join("/")
}

async fn ask(api: &Api<'_>, method: &str, path: &str) -> crate::api::Answer {
    let body = json!({});
    api.send(method, &filled(path), matches!(method, "POST" | "PUT").then_some(&body)).await
}

/// Method and path of every operation that the server says it serves.
pub async fn served(app: &TestApp) -> BTreeSet<(String, String)> {
    operations(app).await.into_iter().map(|(method, path, _)| (method, path)).collect()
}

/// The same, with what is said of each.
pub async fn operations(app: &TestApp) -> Vec<(String, String, Value)> {
    const METHODS: [&str; 8] = ["get", "put", "post", "delete", "patch", "head", "options", "trace"];
    let document = Api::nobody(app).get("/api/v1/openapi.json").await.json;
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().expect("it has paths") {
        for (method, operation) in item.as_object().expect("methods") {
            if METHODS.contains(&method.as_str()) {
                all.push((method.to_uppercase(), path.clone(), operation.clone()));
            }
        }
    }
    all
}

#[tokio::test]
async fn every_url_that_is_served_is_in_the_table_and_no_other() {
    let app = TestApp::start().await;
    let served = served(&app).await;
    let listed: BTreeSet<_> =
        ROUTES.iter().map(|(method, path, ..)| ((*method).to_owned(), (*path).to_owned())).collect();
    let missing: Vec<_> = served.difference(&listed).collect();
    assert!(missing.is_empty(), "say in ROUTES who may: {missing:?}");
    let gone: Vec<_> = listed.difference(&served).collect();
    assert!(gone.is_empty(), "not served: {gone:?}");
    let mut description = openapi::paths();
    description.sort();
    assert_eq!(description, DESCRIPTION);
}

#[tokio::test]
async fn a1_without_credentials_only_what_is_public_is_open() {
    let app = TestApp::start().await;
    let nobody = Api::nobody(&app);
    for (method, path) in served(&app).await {
        let answer = ask(&nobody, &method, &path).await;
        if PUBLIC.contains(&path.as_str()) {
            assert_ne!(answer.status, 401, "{method} {path} is public");
        } else {
            assert_eq!(answer.number(), (401, 40101), "{method} {path}");
        }
    }
    for path in openapi::paths() {
        assert_eq!(ask(&nobody, "GET", &path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn a2_each_url_answers_each_caller_with_exactly_this() {
    let clock = Clock::manual(Timestamp::from_millis(1_900_000_000_000));
    let app = TestApp::start_by(&[], clock).await;
    let actors = actors(&app).await;
    let mut wrong = Vec::new();
    for route in ROUTES {
        let (method, path, ..) = *route;
        for actor in &actors {
            let answer = ask(&actor.api, method, path).await;
            let expected = expected(route, &actor.worth);
            if answer.number() != expected {
                wrong.push(format!(
                    "{method} {path} for {}: {:?}, not {expected:?}",
                    actor.name,
                    answer.number()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The URLs of Anthropic's protocol take `x-api-key`, too.
const ANTHROPIC: &str = "/v1/messages";

/// A key is shown in the one header, or not at all.
#[tokio::test]
async fn a3_no_other_carrier_of_a_key_is_looked_at() {
    let app = TestApp::start().await.without_key();
    let (_, key) = Api::owner(&app).await.own_key(json!({"name": "all", "scopes": SCOPES})).await;
    let key = key.token;
    for (method, path, need, _) in ROUTES {
        if matches!(need, Nothing) {
            continue;
        }
        let url = format!("{}{}", app.url, filled(path));
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        let request = || app.client.request(method.clone(), &url).json(&json!({}));
        let carriers = [
            ("x-api-key", request().header("x-api-key", &key)),
            ("api-key", request().header("api-key", &key)),
            (
                "cookie",
                request().header("cookie", format!("Authorization={key}; api_key={key}; token={key}")),
            ),
            ("basic", request().basic_auth("", Some(&key))),
            ("no scheme", request().header("authorization", &key)),
            ("query", request().query(&[("api_key", &key)])),
            ("another query", request().query(&[("access_token", &key), ("token", &key), ("key", &key)])),
            ("subprotocol", request().header("sec-websocket-protocol", format!("sconce, {key}"))),
        ];
        for (carrier, request) in carriers {
            let is_known = match carrier {
                "x-api-key" => path.starts_with(ANTHROPIC),
                other => *path == STREAM && other.contains("query"),
            };
            if is_known {
                continue;
            }
            let answer = request.send().await.expect("an answer");
            let code = answer.headers()["x-error-code"].to_str().expect("text").to_owned();
            assert_eq!((answer.status().as_u16(), code.as_str()), (401, "40101"), "{carrier}: {path}");
        }
    }
}

/// Makes a request that is about to be sent.
type Ask<'a> = &'a dyn Fn() -> reqwest::RequestBuilder;

/// Where Anthropic's protocol is spoken its own header counts too, and means the same as the usual one.
#[tokio::test]
async fn a3_both_headers_of_anthropics_protocol_lead_to_the_same_decision() {
    let app = TestApp::start().await.without_key();
    let owner = Api::owner(&app).await;
    let (_, good) = owner.own_key(json!({"name": "good"})).await;
    let (_, scopeless) = owner.own_key(json!({"name": "scopeless", "scopes": ["account"]})).await;
    let (id, disabled) = owner.own_key(json!({"name": "disabled"})).await;
    owner.put(&format!("/me/keys/{id}"), json!({"status": "disabled"})).await.data();
    let (id, deleted) = owner.own_key(json!({"name": "deleted"})).await;
    owner.delete(&format!("/me/keys/{id}")).await.data();
    let number = async |request: reqwest::RequestBuilder| {
        let answer = request.send().await.expect("an answer");
        let code = answer.headers().get("x-error-code").map(|code| code.to_str().expect("text").to_owned());
        (answer.status().as_u16(), code.map_or(0, |code| code.parse::<u64>().expect("a number")))
    };
    let message = || app.client.post(format!("{}/v1/messages", app.url)).json(&json!({}));
    let count = || app.client.post(format!("{}/v1/messages/count_tokens", app.url)).json(&json!({}));
    let models =
        || app.client.get(format!("{}/v1/models", app.url)).header("anthropic-version", "2023-06-01");
    for (credential, expected) in [
        (good.token.as_str(), LACKING),
        (owner.token.as_str(), LACKING),
        (KEY, LACKING),
        (scopeless.token.as_str(), (403, 40302)),
        (disabled.token.as_str(), (401, 40108)),
        (deleted.token.as_str(), (401, 40001)),
        (PlainKey::generate().reveal(), (401, 40001)),
        ("nonsense", (401, 40001)),
        ("", (401, 40101)),
    ] {
        let listed = if expected == LACKING { FINE } else { expected };
        let requests: [(Ask<'_>, (u16, u64)); 3] =
            [(&message, expected), (&count, expected), (&models, listed)];
        for (request, expected) in requests {
            assert_eq!(number(request().header("x-api-key", credential)).await, expected, "{credential}");
            let usual = request().header("authorization", format!("Bearer {credential}"));
            assert_eq!(number(usual).await, expected, "{credential}");
            let both = request().header("x-api-key", credential).bearer_auth(credential);
            assert_eq!(number(both).await, expected, "the same twice: {credential}");
        }
        // Of two that differ nobody may choose, whichever of them is good.
        for (one, other) in [(credential, "nonsense2"), ("nonsense2", credential)] {
            let two = message().header("x-api-key", one).bearer_auth(other);
            assert_eq!(number(two).await, (401, 40101), "{credential}");
        }
        let twice = message().header("x-api-key", credential).header("x-api-key", credential);
        assert_eq!(number(twice).await, (401, 40101), "{credential}");
    }
}

/// Where a WebSocket is opened the query counts too, and means the same as the header.
#[tokio::test]
async fn a3_all_carriers_of_the_websocket_lead_to_the_same_decision() {
    let app = TestApp::start().await.without_key();
    let owner = Api::owner(&app).await;
    let (_, good) = owner.own_key(json!({"name": "good"})).await;
    let (_, scopeless) = owner.own_key(json!({"name": "scopeless", "scopes": ["account"]})).await;
    let (id, disabled) = owner.own_key(json!({"name": "disabled"})).await;
    owner.put(&format!("/me/keys/{id}"), json!({"status": "disabled"})).await.data();
    let url = format!("{}{STREAM}", app.url);
    for (credential, expected) in [
        (&good.token, NO_HANDSHAKE),
        (&owner.token, NO_HANDSHAKE),
        (&scopeless.token, (403, 40302)),
        (&disabled.token, (401, 40108)),
        (&PlainKey::generate().reveal().to_owned(), (401, 40001)),
        (&"nonsense".to_owned(), (401, 40001)),
    ] {
        let mut requests = vec![("header", app.client.get(&url).bearer_auth(credential))];
        for name in ["token", "api_key", "access_token"] {
            requests.push((name, app.client.get(&url).query(&[(name, credential)])));
        }
        for (carrier, request) in requests {
            let answer = request.send().await.expect("an answer");
            let code = answer.headers()["x-error-code"].to_str().expect("text").to_owned();
            assert_eq!((answer.status().as_u16(), code), (expected.0, expected.1.to_string()), "{carrier}");
        }
        let both = app.client.get(&url).bearer_auth(credential).query(&[("api_key", credential)]);
        assert_eq!(both.send().await.expect("an answer").status().as_u16(), 401, "which of them counts?");
    }
}
