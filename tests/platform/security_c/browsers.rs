//! What a page on another site can do with a visitor's browser: C1–C4.

use std::collections::BTreeSet;

use reqwest::header::HeaderMap;
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::json;

use super::operations;
use crate::app::{KEY, OWNER, OWNER_PASSWORD, TestApp, chat, with};
use crate::rig::{LOGIN, ME, sign_in};

const GOOD: &str = "https://console.example";

fn preflight(app: &TestApp, path: &str, origin: &str) -> RequestBuilder {
    let request = app.client.request(Method::OPTIONS, format!("{}{path}", app.url)).header("origin", origin);
    request
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,content-type")
}

async fn answer(request: RequestBuilder) -> Response {
    request.send().await.expect("the server answers")
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).map_or("", |value| value.to_str().expect("text"))
}

/// The items of a list in a header, in small letters.
fn items(headers: &HeaderMap, name: &str) -> BTreeSet<String> {
    let values = headers.get_all(name).iter().map(|value| value.to_str().expect("text").to_lowercase());
    values.flat_map(|value| value.split(',').map(|item| item.trim().to_owned()).collect::<Vec<_>>()).collect()
}

#[tokio::test]
async fn c1_only_pages_of_the_configured_origins_are_let_in_and_never_with_credentials() {
    let other = "http://localhost:5173";
    let app = TestApp::start_with(&[("allowed-origin", GOOD), ("allowed-origin", other)]).await;
    for path in ["/v1/chat/completions", "/api/v1/chat/completions", LOGIN, "/api/v1/nowhere"] {
        for origin in [GOOD, other] {
            let asked = answer(preflight(&app, path, origin)).await;
            let headers = asked.headers();
            assert!(asked.status().is_success(), "{path}: {}", asked.status());
            assert_eq!(text(headers, "access-control-allow-origin"), origin, "{path}");
            assert!(items(headers, "vary").contains("origin"), "{path}: {headers:?}");
            let methods = items(headers, "access-control-allow-methods");
            assert!(
                ["get", "post", "put", "delete"].iter().all(|method| methods.contains(*method)),
                "{methods:?}"
            );
            let allowed = items(headers, "access-control-allow-headers");
            for name in ["authorization", "content-type", "x-request-id", "accept-language"] {
                assert!(allowed.contains(name), "{allowed:?}");
            }
            assert!(!allowed.contains("*") && !methods.contains("*"), "{headers:?}");
            assert!(!headers.contains_key("access-control-allow-credentials"), "{headers:?}");
        }
        for origin in [
            "https://evil.example",
            "null",
            "https://console.example.evil.example",
            "http://console.example",
            "https://console.example:8443",
            "HTTPS://CONSOLE.EXAMPLE",
            "https://console.example/",
            "*",
        ] {
            for request in [preflight(&app, path, origin), app.get(path).header("origin", origin)] {
                let headers = answer(request).await.headers().clone();
                assert!(!headers.contains_key("access-control-allow-origin"), "{path} {origin}: {headers:?}");
                assert!(!headers.contains_key("access-control-allow-credentials"), "{path} {origin}");
                assert!(
                    items(&headers, "vary").contains("origin"),
                    "a cache must not mix them up: {headers:?}"
                );
            }
        }
    }
    let list = answer(app.get("/v1/models").header("origin", GOOD)).await;
    assert_eq!((list.status().as_u16(), text(list.headers(), "access-control-allow-origin")), (200, GOOD));
    assert!(items(list.headers(), "access-control-expose-headers").contains("x-error-code"));
    let refused = answer(app.get("/v1/models").header("origin", GOOD).bearer_auth("wrong")).await;
    assert_eq!(
        (refused.status().as_u16(), text(refused.headers(), "access-control-allow-origin")),
        (401, GOOD)
    );
}

#[tokio::test]
async fn c1_without_configured_origins_no_page_is_told_anything() {
    let app = TestApp::start().await;
    for origin in [GOOD, "null", app.url.as_str()] {
        for path in ["/v1/models", "/api/v1/chat/completions"] {
            let asked = answer(preflight(&app, path, origin)).await;
            assert_eq!(asked.status().as_u16(), 405, "{path}");
            let read = answer(app.get(path).header("origin", origin)).await;
            for headers in [asked.headers(), read.headers()] {
                let told = headers.keys().any(|name| name.as_str().starts_with("access-control-"));
                assert!(!told, "{path}: {headers:?}");
            }
        }
    }
}

#[tokio::test]
async fn c2_a_foreign_host_name_reaches_nothing_on_a_loopback_address() {
    let app = TestApp::start_with(&[("allowed-origin", GOOD)]).await;
    let names = ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "10.0.0.1", "[::2]"];
    for path in ["/v1/models", "/api/v1/me", "/api/v1/docs", "/docs", "/health", "/metrics", "/nowhere"] {
        for name in names {
            let asked = answer(app.get(path).header("host", name)).await;
            assert_eq!(asked.status().as_u16(), 421, "{path} {name}");
            assert_eq!(text(asked.headers(), "x-error-code"), "42101", "{path} {name}");
        }
        for name in ["localhost", "localhost:1", "127.0.0.1", "[::1]:9"] {
            assert_ne!(
                answer(app.get(path).header("host", name)).await.status().as_u16(),
                421,
                "{path} {name}"
            );
        }
    }
    // Nor is an allowed origin any help.
    let asked = answer(preflight(&app, "/v1/models", GOOD).header("host", "evil.example")).await;
    assert_eq!(asked.status().as_u16(), 421);
    assert!(!asked.headers().contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn c3_a_cookie_is_no_credential_and_none_is_ever_set() {
    let app = TestApp::start().await.without_key();
    let body = json!({"username": OWNER, "password": OWNER_PASSWORD});
    let signed_in = answer(app.client.post(format!("{}{LOGIN}", app.url)).json(&body)).await;
    assert!(signed_in.status().is_success() && !signed_in.headers().contains_key("set-cookie"));
    let (access, refresh) = sign_in(&app, OWNER).await;
    let cookies = ["session", "token", "access_token", "__Host-session", "Authorization"].map(|name| {
        format!("{name}={access}; {name}2=Bearer {access}; refresh_token={refresh}; api_key={KEY}")
    });
    for cookie in cookies {
        for path in [ME, "/api/v1/admin/users", "/v1/models"] {
            assert_eq!(
                answer(app.get(path).header("cookie", &cookie)).await.status().as_u16(),
                401,
                "{path}"
            );
        }
        let refreshed = app.client.post(format!("{}/api/v1/auth/refresh", app.url)).header("cookie", &cookie);
        assert_eq!(answer(refreshed.json(&json!({}))).await.status().as_u16(), 400);
    }
}

#[tokio::test]
async fn c3_no_form_and_no_plain_text_is_read_by_any_operation() {
    let app = TestApp::start().await.without_key();
    let (access, _) = sign_in(&app, OWNER).await;
    let with_body = operations(&app).await.into_iter().filter(|operation| operation.has_body);
    let mut seen = 0;
    for operation in with_body {
        seen += 1;
        let method = Method::from_bytes(operation.method.as_bytes()).expect("a method");
        for kind in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "",
            "text/json",
        ] {
            let request = app.client.request(method.clone(), format!("{}{}", app.url, operation.path));
            let request =
                request.bearer_auth(&access).header("content-type", kind).body("{\"model\":\"tiny\"}");
            // Ollama's clients send JSON under any name: there it is the page's origin that is looked at, which a browser
            // says with every form.
            let is_ollamas = operation.path.starts_with("/api/") && !operation.path.starts_with("/api/v1/");
            if is_ollamas {
                for (name, value) in
                    [("origin", "https://evil.example"), ("origin", "null"), ("sec-fetch-site", "cross-site")]
                {
                    let request = request.try_clone().expect("its body is a text").header(name, value);
                    let status = answer(request).await.status().as_u16();
                    assert_eq!(status, 403, "{} {kind} {name}", operation.path);
                }
                continue;
            }
            let status = answer(request).await.status().as_u16();
            // A file comes as a form, with a credential that no browser sends by itself.
            let is_taken = operation.path == "/v1/files" && kind.starts_with("multipart/");
            let expected = if is_taken { 400 } else { 415 };
            assert_eq!(status, expected, "{} {} {kind}", operation.method, operation.path);
        }
    }
    assert!(seen > 12, "{seen}");
}

#[tokio::test]
async fn c3_what_changes_something_cannot_be_got() {
    let app = TestApp::start().await.without_key();
    let (access, _) = sign_in(&app, OWNER).await;
    let all = operations(&app).await;
    let readable: BTreeSet<_> =
        all.iter().filter(|operation| operation.method == "GET").map(|operation| &operation.path).collect();
    // The socket is opened by GET, and changes nothing.
    let only_changing: BTreeSet<_> =
        all.iter().map(|operation| &operation.path).filter(|path| !readable.contains(path)).collect();
    assert!(only_changing.len() > 12, "{only_changing:?}");
    for path in only_changing {
        for method in [Method::GET, Method::HEAD] {
            let request = app.client.request(method, format!("{}{path}", app.url)).bearer_auth(&access);
            assert_eq!(answer(request).await.status().as_u16(), 405, "{path}");
        }
        // What a form could say instead changes nothing either.
        let request = app.get(path).bearer_auth(&access).header("x-http-method-override", "POST");
        assert_eq!(answer(request).await.status().as_u16(), 405, "{path}");
    }
}

fn has_all_headers(asked: &Response, what: &str) {
    let headers = asked.headers();
    let policy = text(headers, "content-security-policy");
    assert!(policy.starts_with("default-src 'none'"), "{what}: {policy}");
    assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{what}: {policy}");
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        assert_eq!(text(headers, name), value, "{what}");
    }
    assert!(headers.contains_key("x-request-id"), "{what}");
    let is_page = what.contains("/docs") || what.contains("/openapi");
    let cached = text(headers, "cache-control");
    assert!(cached == "no-store" || (is_page && cached == "no-cache"), "{what}: {cached}");
    for name in ["server", "x-powered-by", "set-cookie"] {
        assert!(!headers.contains_key(name), "{what}: {name}");
    }
}

#[tokio::test]
async fn c4_every_answer_has_the_headers_of_safety() {
    let app = TestApp::start_with(&[("allowed-origin", GOOD), ("max-body-size", "64KiB")]).await;
    for path in [
        "/v1/models",
        "/health",
        "/metrics",
        "/version",
        "/docs",
        "/api/v1/docs",
        "/api/v1/docs/",
        "/api/v1/docs/swagger-ui-bundle.js",
        "/api/v1/openapi.json",
        "/api/v1/me",
        "/api/v1/nowhere",
        "/nowhere",
        "/v1/chat/completions",
    ] {
        let asked = answer(app.get(path)).await;
        has_all_headers(&asked, path);
        assert!(!asked.headers().contains_key("strict-transport-security"), "{path}");
        has_all_headers(&answer(app.get(path).bearer_auth("wrong")).await, &format!("{path} by a stranger"));
        has_all_headers(
            &answer(app.get(path).header("host", "evil.example")).await,
            &format!("{path} elsewhere"),
        );
        has_all_headers(&answer(preflight(&app, path, GOOD)).await, &format!("{path} before the flight"));
    }
    let question = chat("hello");
    let spoken = [
        (200, question.clone()),
        (200, with(question.clone(), "stream", true)),
        (404, with(question.clone(), "model", "unknown")),
        (400, json!({"model": "tiny"})),
        (413, with(question, "user", "u".repeat(70_000))),
    ];
    for (status, body) in spoken {
        for path in ["/v1/chat/completions", "/api/v1/chat/completions"] {
            let asked = app.post(path, &body).await;
            // The native surface knows no `user` of that length either; what counts is the refusal.
            assert_eq!(asked.status().as_u16(), status, "{path}: {}", asked.text().await.expect("text"));
        }
        has_all_headers(&app.post("/v1/chat/completions", &body).await, &format!("an answer of {status}"));
        has_all_headers(
            &app.post("/api/v1/chat/completions", &body).await,
            &format!("an answer of {status}"),
        );
    }
}

#[tokio::test]
async fn c4_browsers_are_told_to_stay_on_tls_by_a_trusted_proxy_alone() {
    let plain = TestApp::start().await;
    let proxied = TestApp::start_with(&[("trusted-proxy", "127.0.0.1/32")]).await;
    let other = TestApp::start_with(&[("trusted-proxy", "192.0.2.0/24")]).await;
    let said = async |app: &TestApp, scheme: &str| {
        let client = Client::builder().no_proxy().build().expect("a client");
        let request = client.get(format!("{}/v1/models", app.url)).header("x-forwarded-proto", scheme);
        text(answer(request).await.headers(), "strict-transport-security").to_owned()
    };
    for (scheme, expected) in [
        ("https", "max-age=31536000"),
        ("HTTPS", "max-age=31536000"),
        ("http, https", "max-age=31536000"),
        ("http", ""),
        ("https, http", ""),
        ("", ""),
        ("httpss", ""),
    ] {
        assert_eq!(said(&proxied, scheme).await, expected, "{scheme}");
        assert_eq!(said(&plain, scheme).await, "", "{scheme}");
        assert_eq!(said(&other, scheme).await, "", "{scheme}");
    }
}
