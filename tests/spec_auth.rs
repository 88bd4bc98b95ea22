//! The specification's chapter on authentication, sentence by sentence, and its uniform envelope as bytes.

#[path = "common/app.rs"]
mod app;
#[path = "database/mod.rs"]
mod database;

use app::{OWNER, OWNER_PASSWORD, TestApp, bearer};
use reqwest::Response;
use serde_json::{Value, json};

const LOGIN: &str = "/api/v1/auth/login";
const REFRESH: &str = "/api/v1/auth/refresh";

fn owner() -> Value {
    json!({"username": OWNER, "password": OWNER_PASSWORD})
}

async fn read(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    (status, response.json().await.expect("every answer is JSON"))
}

fn text<'a>(answer: &'a Value, name: &str) -> &'a str {
    answer["data"][name].as_str().unwrap_or_else(|| panic!("no `{name}`: {answer}"))
}

/// The parts of a JSON Web Token: header and claims.
fn parts(token: &str) -> [Value; 2] {
    use base64::Engine;
    let parts: Vec<_> = token.split('.').collect();
    assert_eq!(parts.len(), 3, "a JSON Web Token has three parts");
    [0, 1].map(|part| {
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(parts[part]).expect("Base64");
        serde_json::from_slice(&bytes).expect("JSON")
    })
}

/// `POST /api/v1/auth/login`: user name and password; if they are right, a JWT.
#[tokio::test]
async fn login_by_name_and_password_gives_a_jwt() {
    let app = TestApp::start().await.without_key();
    let (status, answer) = read(app.post(LOGIN, &owner()).await).await;
    assert_eq!((status, &answer["code"], &answer["message"]), (200, &json!(0), &json!("Success")));
    let [header, claims] = parts(text(&answer, "access_token"));
    assert_eq!(header["alg"], "HS256");
    assert_eq!(claims["sub"], answer["data"]["user"]["id"]);
    assert_eq!(answer["data"]["token_type"], "Bearer");
    assert_eq!(answer["data"]["expires_in"], 900);
    assert_eq!(answer["data"]["user"]["username"], OWNER);
    assert_eq!(answer["data"]["user"]["role"], "owner");
    let me = app.get("/api/v1/me").headers(bearer(text(&answer, "access_token")));
    let (status, me) = read(me.send().await.expect("an answer")).await;
    assert_eq!((status, &me["data"]["signed_in_by"]), (200, &json!("session")));
}

/// `POST /api/v1/auth/refresh`: a refresh token gives a new JWT.
#[tokio::test]
async fn refresh_by_refresh_token_gives_a_new_jwt() {
    let app = TestApp::start().await.without_key();
    let (_, first) = read(app.post(LOGIN, &owner()).await).await;
    let body = json!({"refresh_token": text(&first, "refresh_token")});
    let (status, second) = read(app.post(REFRESH, &body).await).await;
    assert_eq!((status, &second["code"]), (200, &json!(0)), "{second}");
    for name in ["access_token", "refresh_token"] {
        assert_ne!(text(&first, name), text(&second, name), "{name}");
    }
    let [_, before] = parts(text(&first, "access_token"));
    let [_, after] = parts(text(&second, "access_token"));
    assert_eq!((&before["sub"], &before["sid"]), (&after["sub"], &after["sid"]));
    let me = app.get("/api/v1/me").headers(bearer(text(&second, "access_token")));
    assert_eq!(me.send().await.expect("an answer").status().as_u16(), 200);
}
