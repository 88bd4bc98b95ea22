//! The first start, and what it refuses: A19, A20.

use sconce::app::App;
use sconce::auth::{Auth, AuthError, Origin};
use sconce::clock::Clock;
use sconce::config::{Config, Environment, RawConfig};
use sconce::store::{Store, users};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use crate::app::{OWNER, TestApp};
use crate::database::{Backend, TestDatabase};
use crate::rig::{LOGIN, Reply, number, post, post_from, sign_in};

fn environment(variables: &[(&str, &str)]) -> Environment {
    let home = [("HOME", "/nonexistent")];
    let all = home.iter().chain(variables);
    all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn origin() -> Origin {
    Origin {
        address: [203, 0, 113, 5].into(),
        request: String::new(),
        request_id: String::new(),
        user_agent: String::new(),
    }
}

/// A database that nothing has been done with but bringing its schema up to date, and its doorkeeper.
async fn fresh(database: &TestDatabase) -> (Store, Auth) {
    let store = Store::open(&SecretString::from(database.url().to_owned())).await.expect("it opens");
    store.migrate().await.expect("it migrates");
    let config = Config::load_from(RawConfig::default(), &environment(&[])).expect("the defaults are right");
    let auth = Auth::open(store.clone(), Clock::System, config.auth).await.expect("it opens");
    (store, auth)
}

#[tokio::test]
async fn a19_there_is_nothing_for_a_stranger_to_claim() {
    let app = TestApp::start().await.without_key();
    let owner = json!({"username": "mallory", "password": "velvet-anchor-sundial-7", "role": "owner"});
    for path in [
        "/api/v1/setup",
        "/api/v1/setup/status",
        "/api/v1/install",
        "/api/v1/init",
        "/api/v1/register",
        "/api/v1/signup",
        "/api/v1/auth/setup",
        "/api/v1/auth/register",
        "/api/v1/auth/signup",
        "/api/v1/auth/invite",
        "/api/v1/auth/reset",
        "/api/v1/auth/forgot-password",
        "/api/v1/users",
        "/api/v1/first-run",
    ] {
        let reply = post_from(&app, None, path, &owner).await;
        assert_eq!(reply.is(), (404, 40401), "{path}");
        let response = app.get(path).send().await.expect("an answer");
        assert_eq!(Reply::of(response).await.is(), (404, 40401), "{path}");
    }
    assert_eq!(number(&app, "SELECT COUNT(*) FROM users").await, 1);
}

#[tokio::test]
async fn a19_the_first_start_makes_one_owner_whose_password_is_told_once() {
    let database = TestDatabase::fresh(Backend::under_test()).await;
    let (store, auth) = fresh(&database).await;
    let (_, other) = fresh(&database).await;
    // Two replicas start at the same moment.
    let (one, two) = tokio::join!(auth.first_run(), other.first_run());
    let made: Vec<_> = [one, two].into_iter().filter_map(|run| run.expect("it runs")).collect();
    let [first] = &made[..] else { panic!("one of them is the first: {}", made.len()) };
    assert!(auth.first_run().await.expect("it runs").is_none(), "there is one first time");
    let mut tx = store.read().await.expect("it reads");
    assert_eq!(users::count_ever(&mut tx).await.expect("it counts"), 1);

    let password = first.password.clone().expect("none was configured");
    assert!(password.expose_secret().len() >= 20);
    let signed_in = auth.sign_in(&first.username, password, &origin()).await.expect("it is the password");
    assert!(signed_in.user.must_change_password, "what was printed is not to be kept");
}

#[tokio::test]
async fn a20_there_is_no_default_account() {
    let database = TestDatabase::fresh(Backend::under_test()).await;
    let (store, auth) = fresh(&database).await;
    let mut tx = store.read().await.expect("it reads");
    assert_eq!(users::count_ever(&mut tx).await.expect("it counts"), 0);
    drop(tx);
    auth.first_run().await.expect("it runs");
    let names = [
        ("admin", ""),
        ("admin", "admin"),
        ("admin", "password"),
        ("root", "123456"),
        ("sconce", "sconce"),
        ("admin", "changeme"),
    ];
    for (number, (name, password)) in names.into_iter().enumerate() {
        let from = Origin { address: [203, 0, 113, number as u8].into(), ..origin() };
        let tried = auth.sign_in(name, SecretString::from(password), &from).await;
        let refused = matches!(tried, Err(AuthError::WrongPassword | AuthError::Throttled { .. }));
        assert!(refused, "{name} / {password}");
    }
}

#[test]
fn a20_a_signing_secret_that_is_empty_short_or_a_sample_refuses_to_start() {
    let load = |secret: &str| {
        Config::load_from(RawConfig::default(), &environment(&[("SCONCE_JWT_SECRET", secret)]))
    };
    for secret in [
        "",
        "   ",
        "short",
        "0123456789abcdef0123456789abcde",
        "changeme",
        "your-secret-key-here-your-secret-key-here",
        "your-256-bit-secret-your-256-bit-secret",
        "please-change-me-please-change-me-please",
        "an-example-of-a-long-enough-jwt-key-1234",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    ] {
        let message = load(secret).map(|_| ()).expect_err(secret).to_string();
        assert!(message.contains("jwt-secret") && message.contains("32 bytes"), "{message}");
        assert!(secret.trim().len() < 6 || !message.contains(secret), "{message}");
    }
    assert!(load("Zq4v7Xw1Kp9Tn3Rb6Lm8Hc2Jd5Fg0Sy-of-the-tests").is_ok());
    assert!(Config::load_from(RawConfig::default(), &environment(&[])).is_ok(), "without one, one is made");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("sconce.toml");
    std::fs::write(&file, "jwt-secret = ''").expect("it writes");
    let raw = RawConfig::default().with("config", file.to_string_lossy());
    assert!(Config::load_from(raw, &environment(&[])).is_err(), "empty in the file");
}

#[tokio::test]
async fn a20_a_weak_password_for_the_first_user_refuses_to_start_and_says_why() {
    for (weak, says) in
        [("admin", "at least 8"), ("password1", "too easy"), ("sconce123", "too easy"), (" ", "at least 8")]
    {
        let database = TestDatabase::fresh(Backend::under_test()).await;
        let data = tempfile::tempdir().expect("a folder");
        let raw = RawConfig::default()
            .with("database-url", database.url())
            .with("data-dir", data.path().to_string_lossy())
            .with("admin-password", weak)
            .with("offline", "true");
        let config = Config::load_from(raw, &environment(&[])).expect("it is well formed");
        let Err(error) = App::open(config).await else { panic!("it starts with `{weak}`") };
        let message = error.to_string();
        assert!(message.contains("`admin-password`") && message.contains(says), "{message}");
        let store = Store::open(&SecretString::from(database.url().to_owned())).await.expect("it opens");
        let mut tx = store.read().await.expect("it reads");
        assert_eq!(users::count_ever(&mut tx).await.expect("it counts"), 0, "no half of a first start");
    }
}

#[tokio::test]
async fn a20_who_must_change_the_password_can_do_nothing_else() {
    let app = TestApp::start().await.without_key();
    crate::rig::add_user(&app, "new", "owner", |user| user.must_change_password = true).await;
    let (access, refresh_token) = sign_in(&app, "new").await;
    let chat = json!({"model": "tiny", "messages": [{"role": "user", "content": "x"}]});
    let closed: [(&str, Option<&Value>); 16] = [
        ("/v1/models", None),
        ("/v1/models/tiny", None),
        ("/v1/chat/completions", Some(&chat)),
        ("/v1/completions", Some(&chat)),
        ("/v1/embeddings", Some(&chat)),
        ("/api/v1/chat/completions", Some(&chat)),
        ("/api/v1/auth/ticket", Some(&Value::Null)),
        ("/api/v1/me/sessions", None),
        ("/api/v1/me/keys", None),
        ("/api/v1/admin/users", None),
        ("/api/v1/admin/users", Some(&chat)),
        ("/api/v1/admin/keys", None),
        ("/api/v1/admin/audit", None),
        ("/api/v1/admin/models", None),
        ("/api/v1/admin/models", Some(&chat)),
        ("/api/v1/admin/signing-keys/rotate", Some(&Value::Null)),
    ];
    for (path, body) in closed {
        let reply = match body {
            Some(body) => post(&app, path, &access, body).await,
            None => crate::rig::get(&app, path, &access).await,
        };
        assert_eq!(reply.is(), (403, 40307), "{path}: {}", reply.body);
    }
    let me = crate::rig::get(&app, crate::rig::ME, &access).await;
    assert_eq!((me.status, &me.body["data"]["must_change_password"]), (200, &json!(true)));
    let refreshed = crate::rig::refresh(&app, &refresh_token).await;
    assert_eq!(refreshed.body["data"]["user"]["must_change_password"], true);

    let body =
        json!({"current_password": crate::app::OWNER_PASSWORD, "new_password": "velvet-anchor-sundial-7"});
    let changed = post(&app, "/api/v1/me/password", &access, &body).await;
    assert_eq!((changed.status, &changed.body["data"]["user"]["must_change_password"]), (200, &json!(false)));
    let open = crate::rig::get(&app, "/api/v1/admin/models", &changed.text("access_token")).await;
    assert_eq!(open.status, 200, "{}", open.body);

    crate::rig::add_user(&app, "newer", "owner", |user| user.must_change_password = true).await;
    let (access, _) = sign_in(&app, "newer").await;
    assert_eq!(post(&app, "/api/v1/auth/logout", &access, &Value::Null).await.status, 200);
    assert_eq!(post_from(&app, None, LOGIN, &json!({"username": OWNER, "password": "x"})).await.status, 401);
}
