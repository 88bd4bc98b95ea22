//! A client of `/api/v1` that shows one credential, and its answers.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::sync::LazyLock;

use reqwest::header::HeaderMap;
use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::app::{OWNER, OWNER_PASSWORD, TestApp};

/// Keeps no connection: each test has a runtime of its own.
static CLIENT: LazyLock<Client> =
    LazyLock::new(|| Client::builder().no_proxy().pool_max_idle_per_host(0).build().expect("a client"));

/// Somebody at the API.
#[derive(Clone)]
pub struct Api<'a> {
    app: &'a TestApp,
    /// What is shown; nothing if it is empty.
    pub token: String,
}

/// What the server said.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
    pub json: Value,
}

impl<'a> Api<'a> {
    /// The first user, signed in.
    pub async fn owner(app: &'a TestApp) -> Self {
        Self { app, token: app.sign_in(OWNER, OWNER_PASSWORD).await }
    }

    /// Whoever shows this.
    pub fn showing(app: &'a TestApp, token: impl Into<String>) -> Self {
        Self { app, token: token.into() }
    }

    /// Nobody.
    pub fn nobody(app: &'a TestApp) -> Self {
        Self::showing(app, "")
    }

    /// Sends a request; the path is below `/api/v1` if it is one of the administrators' or one's own.
    pub async fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let is_short = path == "/me"
            || ["/admin/", "/me/", "/auth/", "/chat/"].iter().any(|begin| path.starts_with(begin));
        let whole = if is_short { format!("/api/v1{path}") } else { path.to_owned() };
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let mut request = CLIENT.request(method, format!("{}{whole}", self.app.url));
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.expect("the server answers");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.expect("it is text");
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Answer { status, headers, text, json }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send("POST", path, Some(&body)).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.send("PUT", path, Some(&body)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, None).await
    }

    /// Makes a user of a role, who has the password of [`password_of`]. Gives the id.
    pub async fn make_user(&self, username: &str, role: &str) -> String {
        let new = json!({"username": username, "role": role, "password": password_of(username)});
        self.post("/admin/users", new).await.data()["id"].as_str().expect("an id").to_owned()
    }

    /// Makes a user of a role, and signs them in.
    pub async fn colleague(&self, username: &str, role: &str) -> (String, Api<'a>) {
        let id = self.make_user(username, role).await;
        (id, Self::showing(self.app, self.app.sign_in(username, &password_of(username)).await))
    }

    /// Makes a key for oneself. Gives its id and who shows it.
    pub async fn own_key(&self, new: Value) -> (String, Api<'a>) {
        let made = self.post("/me/keys", new).await.data();
        let text = |name: &str| made[name].as_str().expect("a text").to_owned();
        (text("id"), Self::showing(self.app, text("key")))
    }
}

/// The password of a user that a test made.
pub fn password_of(username: &str) -> String {
    format!("cobalt-lantern-{username}-77")
}

impl Answer {
    /// The data of a success.
    pub fn data(&self) -> Value {
        assert!(
            (200..300).contains(&self.status) && self.json["code"] == 0,
            "{}: {}",
            self.status,
            self.text
        );
        self.json["data"].clone()
    }

    /// Status and code of a refusal, after checking its shape.
    pub fn refusal(&self) -> (u16, u64) {
        let code = self.json["code"].as_u64().unwrap_or_else(|| panic!("{}: {}", self.status, self.text));
        let names: Vec<_> = self.json.as_object().expect("an object").keys().cloned().collect();
        assert_eq!(names, ["code", "message", "data"], "{}", self.text);
        assert_ne!(code, 0, "{}", self.text);
        assert_eq!(self.headers["x-error-code"], code.to_string(), "{}", self.text);
        (self.status, code)
    }

    /// Status and code of a refusal in any shape; 0 for a success.
    pub fn number(&self) -> (u16, u64) {
        let code = self.headers.get("x-error-code").and_then(|code| code.to_str().ok());
        (self.status, code.map_or(0, |code| code.parse().expect("a number")))
    }

    /// The text with ids, keys and times made the same.
    pub fn masked(&self) -> String {
        let mask = |part: &str| {
            let id = part.split_once('_').filter(|(_, number)| {
                number.len() == 32 && number.bytes().all(|byte| byte.is_ascii_hexdigit())
            });
            match id {
                Some((kind, _)) => format!("<{kind}>"),
                None if part.starts_with("sk-sconce-") => format!("<key of {}>", part.len()),
                None if part.len() == 24 && part.ends_with('Z') && part.as_bytes()[10] == b'T' => {
                    "<time>".into()
                }
                None => part.to_owned(),
            }
        };
        self.text.split('"').map(mask).collect::<Vec<_>>().join("\"")
    }
}
