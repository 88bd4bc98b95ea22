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

/// One answer as bytes, what differs each time masked.
async fn bytes(request: reqwest::RequestBuilder) -> (u16, String) {
    let response = request.send().await.expect("an answer");
    assert_eq!(response.headers()["content-type"], "application/json");
    let (status, text) = (response.status().as_u16(), response.text().await.expect("text"));
    let answer: Value = serde_json::from_str(&text).expect("JSON");
    let names: Vec<_> = answer.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(names, ["code", "message", "data"], "the envelope, and nothing else");
    let secrets = ["/data/access_token", "/data/refresh_token", "/data/user/id"];
    let found = secrets.iter().filter_map(|path| answer.pointer(path)?.as_str());
    (status, found.fold(text.clone(), |text, secret| text.replace(secret, "…")))
}

/// The envelope of a success, byte for byte.
#[tokio::test]
async fn a_success_is_the_specifications_envelope() {
    let app = TestApp::start().await.without_key();
    let expected = "{\"code\":0,\"message\":\"Success\",\"data\":{\"access_token\":\"…\",\"token_type\":\"Bearer\",\
        \"expires_in\":900,\"refresh_token\":\"…\",\"refresh_expires_in\":2592000,\"user\":{\"id\":\"…\",\
        \"username\":\"admin\",\"display_name\":\"admin\",\"email\":null,\"role\":\"owner\",\
        \"must_change_password\":false}}}";
    for language in ["en", "zh-CN"] {
        let login =
            app.client.post(format!("{}{LOGIN}", app.url)).json(&owner()).header("accept-language", language);
        assert_eq!(bytes(login).await, (200, expected.to_owned()), "{language}");
    }
    let token = app.ask(LOGIN, &owner()).await;
    let body = json!({"refresh_token": text(&token, "refresh_token")});
    let refresh = app.client.post(format!("{}{REFRESH}", app.url)).json(&body);
    let (status, answer) = bytes(refresh).await;
    // To the second, what is left of thirty days depends on the moment.
    let left = |text: &str| text.replace("2591999", "2592000");
    assert_eq!((status, left(&answer)), (200, expected.to_owned()));
}

/// The envelope of a failure, byte for byte, in both languages.
#[tokio::test]
async fn a_failure_is_the_specifications_envelope() {
    let app = TestApp::start().await.without_key();
    let post = |path: &str, body: Value| app.client.post(format!("{}{path}", app.url)).json(&body);
    let me = |credential: Option<&str>| match credential {
        Some(credential) => app.get("/api/v1/me").bearer_auth(credential),
        None => app.get("/api/v1/me"),
    };
    let wrong = || post(LOGIN, json!({"username": OWNER, "password": "wrong"}));
    let unknown = || post(REFRESH, json!({"refresh_token": "rt-unknown"}));
    let cases: [(u16, reqwest::RequestBuilder, &str, reqwest::RequestBuilder, &str); 5] = [
        (
            401,
            me(Some("sk-wrong")),
            r#"{"code":40001,"message":"Invalid API Key","data":null}"#,
            me(Some("sk-wrong")),
            r#"{"code":40001,"message":"API 密钥无效","data":null}"#,
        ),
        (
            401,
            wrong(),
            r#"{"code":40102,"message":"Wrong user name or password","data":null}"#,
            wrong(),
            r#"{"code":40102,"message":"用户名或密码错误","data":null}"#,
        ),
        (
            401,
            unknown(),
            r#"{"code":40105,"message":"The refresh token is not valid or has expired: sign in again","data":null}"#,
            unknown(),
            r#"{"code":40105,"message":"刷新令牌无效或已过期，请重新登录","data":null}"#,
        ),
        (
            401,
            me(Some("a.b.c")),
            r#"{"code":40104,"message":"The access token is not valid: sign in again","data":null}"#,
            me(Some("a.b.c")),
            r#"{"code":40104,"message":"访问令牌无效，请重新登录","data":null}"#,
        ),
        (
            415,
            app.client.post(format!("{}{LOGIN}", app.url)).body("{}"),
            r#"{"code":41501,"message":"The body must be JSON: send `Content-Type: application/json`","data":null}"#,
            app.client.post(format!("{}{LOGIN}", app.url)).body("{}"),
            r#"{"code":41501,"message":"请求体必须是 JSON：请设置 Content-Type: application/json","data":null}"#,
        ),
    ];
    for (status, english, in_english, chinese, in_chinese) in cases {
        assert_eq!(bytes(english).await, (status, in_english.to_owned()));
        let chinese = chinese.header("accept-language", "zh-CN,zh;q=0.9,en;q=0.8");
        assert_eq!(bytes(chinese).await, (status, in_chinese.to_owned()));
    }
}

/// Every other way of getting it wrong is the envelope too, with its true status.
#[tokio::test]
async fn whatever_is_wrong_with_the_request_is_said_in_the_envelope() {
    let app = TestApp::start().await.without_key();
    let url = format!("{}{LOGIN}", app.url);
    let json =
        |text: &str| app.client.post(&url).header("content-type", "application/json").body(text.to_owned());
    let long = format!(r#"{{"username":"{}","password":""}}"#, "x".repeat(20_000));
    for (status, code, request) in [
        (400, 40002, json("{")),
        (400, 40002, json(r#"{"username":"a","username":"b","password":"c"}"#)),
        (400, 40003, json("[]")),
        (400, 40003, json(r#"{"username":1,"password":"x"}"#)),
        (400, 40003, json(r#"{"username":null,"password":"x"}"#)),
        (400, 40004, json(r#"{"username":"a","password":"x","role":"owner"}"#)),
        (400, 40015, json(r#"{"username":"a"}"#)),
        (400, 40015, json("{}")),
        (413, 41301, json(&long)),
        (413, 41302, json(&"[".repeat(200))),
        (405, 40501, app.client.get(&url)),
        (405, 40501, app.client.delete(&url)),
        (404, 40401, app.client.post(format!("{url}/x"))),
    ] {
        let (found, text) = bytes(request).await;
        let answer: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!((found, &answer["code"]), (status, &json!(code)), "{text}");
    }
}

/// What a user types in another case is the same name; what a program sends in another case is another token.
#[tokio::test]
async fn user_names_are_the_same_in_upper_and_lower_case_and_tokens_are_not() {
    let app = TestApp::start().await.without_key();
    let body = json!({"username": OWNER.to_uppercase(), "password": OWNER_PASSWORD});
    let (status, answer) = read(app.post(LOGIN, &body).await).await;
    assert_eq!((status, &answer["data"]["user"]["username"]), (200, &json!(OWNER)));
    let turned: String = text(&answer, "refresh_token")
        .chars()
        .map(|c| if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() })
        .collect();
    let (status, answer) = read(app.post(REFRESH, &json!({"refresh_token": turned})).await).await;
    assert_eq!((status, &answer["code"]), (401, &json!(40105)));
}
