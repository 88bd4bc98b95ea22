//! Serves the document in both versions, and a page for people that shows it and needs no other host.
//!
//! Of Swagger UI only the script, its styles and the icon are served; the page round them is our own, since the policy of
//! ours allows no script and no style inside a page. The one thing to know: all links are relative to `/api/v1/`, so that
//! the page also works behind a proxy that puts a folder in front.

use std::borrow::Cow;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, LOCATION,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use serde_json::Value;
use utoipa_swagger_ui::Config;

use super::{complete, downgrade};

/// What the page may do: read its own files and ask its own server.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The finished documents, as they are sent.
#[derive(Debug, Clone)]
pub struct Documents {
    /// OpenAPI 3.0.3.
    pub for_most: Bytes,
    /// OpenAPI 3.1, which tells `null` from nothing.
    pub newer: Bytes,
}

impl Documents {
    /// Completes what was collected from the handlers, and says it in both versions.
    pub fn new(collected: &utoipa::openapi::OpenApi) -> Self {
        let mut document =
            serde_json::to_value(collected).expect("its names are text and its numbers finite");
        complete(&mut document);
        let newer = text(&document);
        Self { for_most: text(&downgrade(document)), newer }
    }
}

fn text(document: &Value) -> Bytes {
    Bytes::from(document.to_string())
}

/// The URLs of the description, all for GET: two documents, the page with its files, and the short way to it. None wants a
/// token.
pub fn routes<S: Clone + Send + Sync + 'static>(documents: Documents) -> Router<S> {
    table(documents).into_iter().fold(Router::new(), |routes, (path, served)| routes.route(&path, served))
}

/// The paths of [`routes`].
pub fn paths() -> Vec<String> {
    let empty = Documents { for_most: Bytes::new(), newer: Bytes::new() };
    table::<()>(empty).into_iter().map(|(path, _)| path).collect()
}

fn table<S: Clone + Send + Sync + 'static>(documents: Documents) -> Vec<(String, MethodRouter<S>)> {
    let page =
        Resource::new("text/html; charset=utf-8", Bytes::from_static(include_bytes!("page/index.html")));
    let documents = [("openapi.json", documents.for_most), ("openapi-3.1.json", documents.newer)];
    let documents = documents.map(|(name, text)| (name.to_owned(), Resource::new(JSON, text)));
    let files = FILES.map(|(name, kind)| (format!("docs/{name}"), Resource::new(kind, contents(name))));
    let mut table = vec![
        ("/docs".to_owned(), moved("/api/v1/docs")),
        ("/api/v1/docs/".to_owned(), moved("../docs")),
        ("/api/v1/docs".to_owned(), page.served()),
    ];
    let resources = documents.into_iter().chain(files);
    table.extend(resources.map(|(name, resource)| (format!("/api/v1/{name}"), resource.served())));
    table
}

fn moved<S: Clone + Send + Sync + 'static>(to: &'static str) -> MethodRouter<S> {
    get(move || async move { (StatusCode::PERMANENT_REDIRECT, [(LOCATION, to)]) })
}

const JSON: &str = "application/json";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// What the page is made of.
const FILES: [(&str, &str); 5] = [
    ("favicon-32x32.png", "image/png"),
    ("page.css", STYLE),
    ("page.js", SCRIPT),
    ("swagger-ui-bundle.js", SCRIPT),
    ("swagger-ui.css", STYLE),
];

fn contents(name: &str) -> Bytes {
    match name {
        "page.css" => return Bytes::from_static(include_bytes!("page/page.css")),
        "page.js" => return Bytes::from_static(include_bytes!("page/page.js")),
        _ => {}
    }
    let file = utoipa_swagger_ui::serve(name, Arc::new(Config::default()));
    match file.ok().flatten().expect("the build puts Swagger UI into the program").bytes {
        Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        Cow::Owned(bytes) => Bytes::from(bytes),
    }
}

/// Bytes that stay the same while the program runs.
#[derive(Clone)]
struct Resource {
    kind: &'static str,
    bytes: Bytes,
    tag: HeaderValue,
}

impl Resource {
    fn new(kind: &'static str, bytes: Bytes) -> Self {
        let tag = format!("\"{}\"", &blake3::hash(&bytes).to_hex()[..16]);
        Self { kind, bytes, tag: HeaderValue::from_str(&tag).expect("hexadecimal digits in quotes") }
    }

    fn served<S: Clone + Send + Sync + 'static>(self) -> MethodRouter<S> {
        get(move |headers: HeaderMap| async move { self.answer(&headers) })
    }

    fn answer(&self, asked: &HeaderMap) -> Response {
        let mut response = match self.is_known(asked) {
            true => StatusCode::NOT_MODIFIED.into_response(),
            false => ([(CONTENT_TYPE, self.kind)], self.bytes.clone()).into_response(),
        };
        let headers = response.headers_mut();
        headers.insert(ETAG, self.tag.clone());
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        response
    }

    /// Whether the client has these very bytes.
    fn is_known(&self, asked: &HeaderMap) -> bool {
        let tags = asked.get_all(IF_NONE_MATCH).iter().filter_map(|tags| tags.to_str().ok());
        let mut tags = tags.flat_map(|tags| tags.split(',')).map(|tag| tag.trim().trim_start_matches("W/"));
        tags.any(|tag| self.tag == tag || tag == "*")
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt;
    use utoipa::OpenApi;

    use super::*;

    #[derive(OpenApi)]
    #[openapi(info(title = "test", version = "1"))]
    struct Api;

    async fn ask(path: &str, header: Option<(&str, &str)>) -> (StatusCode, HeaderMap, String) {
        let mut request = Request::get(path);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let routes: Router = routes(Documents::new(&Api::openapi()));
        let response =
            routes.oneshot(request.body(Body::empty()).expect("it is right")).await.expect("it cannot fail");
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, 1 << 22).await.expect("it is all there");
        (parts.status, parts.headers, String::from_utf8_lossy(&body).into_owned())
    }

    #[tokio::test]
    async fn the_page_finds_all_it_names() {
        let (status, headers, page) = ask("/api/v1/docs", None).await;
        assert_eq!(
            (status, &headers["content-type"]),
            (StatusCode::OK, &HeaderValue::from_static("text/html; charset=utf-8"))
        );
        assert_eq!(headers["content-security-policy"], POLICY);
        assert!(!POLICY.contains("unsafe") && POLICY.contains("script-src 'self';"));
        let mut links: Vec<&str> = page
            .split(['"'])
            .filter(|word| word.starts_with("docs/") || word.starts_with("openapi"))
            .collect();
        links.sort_unstable();
        links.dedup();
        assert_eq!(links.len(), 7, "{links:?}");
        for link in links {
            let (status, headers, body) = ask(&format!("/api/v1/{link}"), None).await;
            assert_eq!(status, StatusCode::OK, "{link}");
            assert!(body.len() > 50 && headers.contains_key("content-type"), "{link}");
        }
    }

    #[tokio::test]
    async fn nothing_stands_in_the_page_that_its_policy_forbids() {
        let (_, _, page) = ask("/api/v1/docs", None).await;
        for forbidden in ["<style", "style=", "<script>", "onload", "http://", "https://"] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
    }

    #[tokio::test]
    async fn both_documents_say_their_version() {
        for (name, version) in [("openapi.json", "3.0.3"), ("openapi-3.1.json", "3.1.0")] {
            let (_, headers, body) = ask(&format!("/api/v1/{name}"), None).await;
            let document: Value = serde_json::from_str(&body).expect("it is JSON");
            assert_eq!(document["openapi"], version);
            assert!(document["components"]["schemas"]["ErrorEnvelope"].is_object());
            assert_eq!(headers["content-type"], JSON);
        }
    }

    #[tokio::test]
    async fn who_has_it_is_not_sent_it_again() {
        let (_, headers, _) = ask("/api/v1/openapi.json", None).await;
        let tag = headers["etag"].to_str().expect("it is text").to_owned();
        for known in [tag.clone(), format!("\"other\", W/{tag}"), "*".to_owned()] {
            let (status, headers, body) = ask("/api/v1/openapi.json", Some(("if-none-match", &known))).await;
            assert_eq!((status, body.len()), (StatusCode::NOT_MODIFIED, 0), "{known}");
            assert_eq!(headers["etag"], tag);
        }
        let (status, ..) = ask("/api/v1/openapi.json", Some(("if-none-match", "\"other\""))).await;
        assert_eq!(status, StatusCode::OK);
    }

    #[tokio::test]
    async fn the_short_ways_lead_to_the_page() {
        for (path, to) in [("/docs", "/api/v1/docs"), ("/api/v1/docs/", "../docs")] {
            let (status, headers, _) = ask(path, None).await;
            assert_eq!(status, StatusCode::PERMANENT_REDIRECT);
            assert_eq!(headers["location"], to);
        }
        assert_eq!(ask("/api/v1/docs/index.html", None).await.0, StatusCode::NOT_FOUND);
    }
}
