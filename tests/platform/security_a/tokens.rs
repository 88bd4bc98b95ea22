//! What is shown in `Authorization`: A4–A7, A15, A16.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use sconce::auth::{ACCESS_LIFETIME, PlainKey};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::app::{KEY, OWNER, TestApp};
use crate::rig::{ME, Reply, add_key, add_user, get, number, post, refresh, request, send, sign_in, start};

const SECRET: &str = "Zq4v7Xw1Kp9Tn3Rb6Lm8Hc2Jd5Fg0Sy-of-the-tests";

#[tokio::test]
async fn a4_strange_authorization_headers_are_refused_and_never_looked_for() {
    let app = TestApp::start().await.without_key();
    let huge = format!("Bearer {}", "x".repeat(100 * 1024));
    let values: [&[u8]; 17] = [
        b"",
        b" ",
        b"Bearer",
        b"Bearer ",
        b"Bearer  x",
        b"Bearer x y",
        huge.as_bytes(),
        "Bearer ключ".as_bytes(),
        b"Bearer \xff\xfe",
        b"Bearer ' OR 1=1--",
        b"Bearer %",
        b"Bearer sk-sconce-' OR 1=1--",
        b"Bearer a.b.c",
        b"Bearer ..",
        b"Basic YWRtaW46YWRtaW4=",
        b"Digest username=\"admin\"",
        b"Bearer null",
    ];
    let before = app.auth.lookups();
    for value in values {
        let header = HeaderValue::from_bytes(value).expect("a header can hold it");
        let response = app.get(ME).header(AUTHORIZATION, header).send().await.expect("an answer");
        let status = response.status().as_u16();
        let shown = String::from_utf8_lossy(&value[..value.len().min(40)]).into_owned();
        assert!(status == 401 || (status == 431 && value.len() > 60_000), "{shown}: {status}");
        if status == 401 {
            let text = response.text().await.expect("text");
            let body: Value = serde_json::from_str(&text).expect("JSON");
            assert!(
                [40001, 40101, 40104].contains(&body["code"].as_u64().expect("a code")),
                "{shown}: {body}"
            );
            assert!(body["data"].is_null() && !text.to_lowercase().contains("sql"), "{shown}: {body}");
        }
    }
    let twice = app.get(ME).bearer_auth(KEY).header(AUTHORIZATION, "Bearer x");
    assert_eq!(send(twice).await.is(), (401, 40101));
    assert_eq!(app.auth.lookups(), before, "none of them is worth a look into the database");
    assert!(raw_header(&app, b"Bearer a\0b").await.starts_with("HTTP/1.1 4"), "NUL ends in the parser");
    assert_eq!(get(&app, ME, KEY).await.status, 200, "the server is well");
}

/// The answer to a header that no client library sends.
async fn raw_header(app: &TestApp, value: &[u8]) -> String {
    let mut stream = TcpStream::connect(app.address()).await.expect("it connects");
    let head = format!("GET {ME} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: ");
    let bytes = [head.as_bytes(), value, b"\r\n\r\n"].concat();
    stream.write_all(&bytes).await.expect("it takes them");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a5_tokens_that_begin_alike_are_two_identities() {
    let app = TestApp::start().await.without_key();
    add_user(&app, "mallory", "user", |_| {}).await;
    let (owner, mallory) = (sign_in(&app, OWNER).await.0, sign_in(&app, "mallory").await.0);
    assert_eq!(owner[..20], mallory[..20]);
    // Both asked for twice: the second answer comes from memory.
    for _ in 0..2 {
        assert_eq!(get(&app, ME, &owner).await.text("username"), OWNER);
        assert_eq!(get(&app, ME, &mallory).await.text("username"), "mallory");
    }
    let (one, other) = (
        add_key(&app, &get(&app, ME, &owner).await.text("id"), |_| {}).await,
        add_key(&app, &get(&app, ME, &mallory).await.text("id"), |_| {}).await,
    );
    assert_eq!(one.reveal()[..10], other.reveal()[..10]);
    for _ in 0..2 {
        assert_eq!(get(&app, ME, one.reveal()).await.text("username"), OWNER);
        assert_eq!(get(&app, ME, other.reveal()).await.text("username"), "mallory");
    }
}

/// A forger who knows everything about a good token.
struct Forger {
    header: Value,
    claims: Value,
}

impl Forger {
    fn of(token: &str) -> Self {
        let part = |index: usize| {
            let text = token.split('.').nth(index).expect("three parts");
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).expect("Base64")).expect("JSON")
        };
        Self { header: part(0), claims: part(1) }
    }

    /// Signed with a secret, whatever the header says.
    fn sign(header: &str, claims: &str, secret: &[u8], algorithm: Algorithm) -> String {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let key = EncodingKey::from_secret(secret);
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm).expect("it signs");
        format!("{message}.{signature}")
    }

    /// With another header, signed with a secret.
    fn with_header(&self, changes: &Value, secret: &[u8]) -> String {
        let header = changed(&self.header, changes);
        Self::sign(&header.to_string(), &self.claims.to_string(), secret, Algorithm::HS256)
    }

    /// With other claims, signed with the right secret.
    fn with_claims(&self, changes: &Value) -> String {
        let claims = changed(&self.claims, changes);
        Self::sign(&self.header.to_string(), &claims.to_string(), SECRET.as_bytes(), Algorithm::HS256)
    }
}

/// With some members put in, and those that are null taken out.
fn changed(object: &Value, changes: &Value) -> Value {
    let mut object = object.clone();
    let members = object.as_object_mut().expect("an object");
    for (name, value) in changes.as_object().expect("an object") {
        match value {
            Value::Null => drop(members.remove(name)),
            value => drop(members.insert(name.clone(), value.clone())),
        }
    }
    object
}

#[tokio::test]
async fn a6_forged_tokens_are_refused_each_by_what_is_wrong_with_it() {
    let app = TestApp::start_by(&[("jwt-secret", SECRET)], start()).await.without_key();
    add_user(&app, "mallory", "user", |_| {}).await;
    let (good, refresh_token) = sign_in(&app, OWNER).await;
    let victim = Forger::of(&good);
    let own = Forger::of(&sign_in(&app, "mallory").await.0);
    let secret = SECRET.as_bytes();
    let now = app.auth.clock().now().seconds();
    // The forger's tools work: nothing changed, it is a good one.
    assert_eq!(get(&app, ME, &victim.with_claims(&json!({}))).await.status, 200);
    assert_eq!(get(&app, ME, &victim.with_header(&json!({}), secret)).await.status, 200);

    let [head, body, signature] = [0, 1, 2].map(|index| good.split('.').nth(index).expect("three parts"));
    let without = |header: &Value| {
        format!("{}.{body}.", URL_SAFE_NO_PAD.encode(changed(&victim.header, header).to_string()))
    };
    let kid = victim.header["kid"].as_str().expect("a kid").to_owned();
    let header = victim.header.to_string();
    let twice = |name: &str| {
        let claims = victim.claims.to_string();
        let doubled = format!("{{\"{name}\":{},{}", own.claims[name], &claims[1..]);
        Forger::sign(&header, &doubled, secret, Algorithm::HS256)
    };
    let double_alg = format!("{{\"alg\":\"none\",{}", &header[1..]);
    let forged = [
        ("no algorithm", without(&json!({"alg": "none"}))),
        ("no algorithm, in capitals", without(&json!({"alg": "NONE"}))),
        ("no algorithm, and the old signature", format!("{}{signature}", without(&json!({"alg": "none"})))),
        ("the signature left out", format!("{head}.{body}.")),
        ("signed with what everybody can read", victim.with_header(&json!({}), kid.as_bytes())),
        ("signed with nothing", victim.with_header(&json!({}), b"")),
        ("signed with another key", victim.with_header(&json!({}), b"another secret of more than 32 bytes")),
        ("RS256, signed as HS256", victim.with_header(&json!({"alg": "RS256"}), secret)),
        ("HS512 said", victim.with_header(&json!({"alg": "HS512"}), secret)),
        (
            "HS512 said and done",
            Forger::sign(
                &changed(&victim.header, &json!({"alg": "HS512"})).to_string(),
                &victim.claims.to_string(),
                secret,
                Algorithm::HS512,
            ),
        ),
        (
            "a key brought along",
            victim.with_header(
                &json!({"alg": "RS256", "jwk": {"kty": "RSA", "n": "AQAB", "e": "AQAB"}}),
                b"its own secret, 32 bytes and more of it",
            ),
        ),
        (
            "a key brought along, for HS256",
            victim
                .with_header(&json!({"jwk": {"kty": "oct", "k": "aXRzIG93biBzZWNyZXQ"}}), b"its own secret"),
        ),
        (
            "keys to be fetched",
            victim.with_header(&json!({"jku": "https://evil.example/keys.json"}), b"its own secret"),
        ),
        ("a path for a key", victim.with_header(&json!({"kid": "../../../../dev/null"}), b"")),
        ("an SQL statement for a key", victim.with_header(&json!({"kid": "x' UNION SELECT ''--"}), b"")),
        ("an unknown key, and the right secret", victim.with_header(&json!({"kid": "../x"}), secret)),
        ("no name of a key", victim.with_header(&json!({"kid": null}), secret)),
        ("two algorithms", Forger::sign(&double_alg, &victim.claims.to_string(), secret, Algorithm::HS256)),
        ("good from tomorrow", victim.with_claims(&json!({"nbf": now + 86_400}))),
        ("made far in the future", victim.with_claims(&json!({"iat": now + 10 * 365 * 86_400}))),
        ("another issuer", victim.with_claims(&json!({"iss": "evil"}))),
        ("another audience", victim.with_claims(&json!({"aud": "another-api"}))),
        ("two audiences", victim.with_claims(&json!({"aud": ["sconce-api", "another-api"]}))),
        ("for another use", victim.with_claims(&json!({"use": "refresh"}))),
        ("no end", victim.with_claims(&json!({"exp": null}))),
        ("an end that is no number", victim.with_claims(&json!({"exp": "9999999999"}))),
        ("no user", victim.with_claims(&json!({"sub": null}))),
        ("no session", victim.with_claims(&json!({"sid": null}))),
        ("more than a token says", victim.with_claims(&json!({"role": "owner"}))),
        ("an earlier version of the user", victim.with_claims(&json!({"ver": -1}))),
        ("a session that is not there", victim.with_claims(&json!({"sid": "ses_0"}))),
        ("somebody else in one's own session", own.with_claims(&json!({"sub": victim.claims["sub"]}))),
        ("oneself in somebody else's session", own.with_claims(&json!({"sid": victim.claims["sid"]}))),
        ("the user twice", twice("sub")),
        ("the session twice", twice("sid")),
        ("claims that are no object", Forger::sign(&header, "[]", secret, Algorithm::HS256)),
        ("a byte more", format!("{good}A")),
        ("padding", format!("{good}=")),
        ("a part more", format!("{good}.{signature}")),
        ("an empty part more", format!("{good}.")),
        ("the refresh token", refresh_token),
    ];
    let mut accepted = Vec::new();
    for (what, token) in forged {
        let reply = get(&app, ME, &token).await;
        let has_three_parts = token.split('.').count() == 3 || token.starts_with("rt-");
        let expected = if has_three_parts { 40104 } else { 40001 };
        if reply.is() != (401, expected) {
            accepted.push(format!("{what}: {}", reply.body));
        }
    }
    assert!(accepted.is_empty(), "{accepted:#?}");
    let past = victim.with_claims(&json!({"exp": now - 60, "nbf": now - 960, "iat": now - 960}));
    assert_eq!(get(&app, ME, &past).await.is(), (401, 40103), "a good one whose time is over");
    assert_eq!(get(&app, ME, &good).await.status, 200, "and the good one is good");
}

#[tokio::test]
async fn a7_after_a_rotation_the_old_key_counts_for_as_long_as_a_token_lasts() {
    let clock = start();
    let app = TestApp::start_by(&[], clock.clone()).await.without_key();
    let (old, refresh_token) = sign_in(&app, OWNER).await;
    let rotated = post(&app, "/api/v1/admin/signing-keys/rotate", &old, &Value::Null).await;
    assert_eq!(rotated.status, 200, "{}", rotated.body);
    let kid = |token: &str| Forger::of(token).header["kid"].as_str().expect("a kid").to_owned();
    let (new, _) = sign_in(&app, OWNER).await;
    assert_eq!(kid(&new), rotated.text("id"));
    assert_ne!(kid(&old), kid(&new));
    assert_eq!(get(&app, ME, &old).await.status, 200, "within the overlap");
    clock.advance(ACCESS_LIFETIME - std::time::Duration::from_millis(1));
    assert_eq!(get(&app, ME, &old).await.status, 200, "to its end");
    clock.advance(std::time::Duration::from_millis(1));
    // By its own expiry it would be forgiven a few seconds: it is the key that is gone.
    assert_eq!(get(&app, ME, &new).await.status, 200, "the new one lasts as long, and is forgiven them");
    assert_eq!(get(&app, ME, &old).await.is(), (401, 40104), "and not after it");
    let renewed = refresh(&app, &refresh_token).await;
    assert_eq!(renewed.status, 200, "nobody was signed out");
    assert_eq!(kid(&renewed.text("access_token")), kid(&new));
}

#[tokio::test]
async fn a15_keys_are_found_by_hash_and_the_configured_one_is_compared_in_constant_time() {
    let app = TestApp::start().await.without_key();
    let owner = get(&app, ME, &sign_in(&app, OWNER).await.0).await.text("id");
    let key = add_key(&app, &owner, |_| {}).await;
    assert_eq!(get(&app, ME, key.reveal()).await.status, 200);
    // A key with all but the last characters of the secret right and a checksum of its own is one like any other.
    let near = near_miss(key.reveal());
    let far = PlainKey::generate();
    let (near, far) = (get(&app, ME, near.reveal()).await, get(&app, ME, far.reveal()).await);
    assert_eq!((near.is(), near.body), ((401, 40001), far.body));
    for length in 1..KEY.len() {
        assert_eq!(get(&app, ME, &KEY[..length]).await.is(), (401, 40001), "{length}");
    }
    // The secret is nowhere in the database, so no comparison can go by it: the hash is what is looked for.
    let stored =
        |text: &str| format!("SELECT COUNT(*) FROM api_keys WHERE prefix = '{text}' OR hash = '{text}'");
    assert_eq!(number(&app, &stored(key.reveal())).await, 0);
    assert_eq!(number(&app, &stored(&key.hash())).await, 1);
    let source = include_str!("../../../src/auth/mod.rs");
    let (_, comparison) = source.split_once("fn is_configured_key").expect("the comparison is there");
    let comparison = comparison.split("\n    }\n").next().expect("it ends");
    assert!(comparison.contains("ct_eq") && comparison.contains("blake3::hash(given"), "{comparison}");
    assert!(!comparison.contains("=="), "{comparison}");
}

/// A key of the same first characters, as far as a right checksum lets it.
fn near_miss(key: &str) -> PlainKey {
    let secret = &key["sk-sconce-".len()..key.len() - 6];
    let other = if secret.ends_with('a') { 'b' } else { 'a' };
    let secret = format!("{}{other}", &secret[..secret.len() - 1]);
    PlainKey::parse(&format!("sk-sconce-{secret}{}", checksum(&secret))).expect("its checksum is right")
}

/// As the format says: the CRC-32 of the secret, in base 62.
fn checksum(secret: &str) -> String {
    const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut sum = crc32fast::hash(secret.as_bytes());
    let mut text = [b'0'; 6];
    for place in text.iter_mut().rev() {
        *place = ALPHABET[(sum % 62) as usize];
        sum /= 62;
    }
    String::from_utf8(text.to_vec()).expect("ASCII")
}

#[tokio::test]
async fn a16_a_key_with_a_wrong_checksum_is_refused_without_asking_the_database() {
    let app = TestApp::start().await.without_key();
    let owner = get(&app, ME, &sign_in(&app, OWNER).await.0).await.text("id");
    let key = add_key(&app, &owner, |_| {}).await;
    let before = app.auth.lookups();
    for place in 10..key.reveal().len() {
        let mut wrong = key.reveal().to_owned().into_bytes();
        wrong[place] = if wrong[place] == b'a' { b'b' } else { b'a' };
        let wrong = String::from_utf8(wrong).expect("ASCII");
        assert_eq!(get(&app, ME, &wrong).await.is(), (401, 40001), "{place}");
    }
    assert_eq!(app.auth.lookups(), before);
    let unknown = PlainKey::generate();
    assert_eq!(get(&app, ME, unknown.reveal()).await.is(), (401, 40001));
    assert_eq!(app.auth.lookups(), before + 1, "one that is well formed is looked for");
    let request = request(&app, Method::GET, ME, key.reveal(), &Value::Null);
    assert_eq!(Reply::of(request.send().await.expect("an answer")).await.status, 200);
}
